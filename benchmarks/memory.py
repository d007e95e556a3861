"""Measures what a pretraining step keeps in memory, and says which batch fits an accelerator of 24, 40 or 80 GiB.

What tensors hold is counted, not what an allocator takes for them: leave a tenth free. The forward and the backward
pass run on the CPU, on as few pairs as are asked for, since what they keep grows with the number of pairs.
"""

from dataclasses import dataclass

import torch
from measuring import DTYPES, count_flops, parser, positive, show
from pretraining_step import model_config, random_batch
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import set_seed

from transformers_cbvila import CBViLAForPreTraining

GIB = 2**30
ACCELERATORS = (24, 40, 80)  # GiB
BYTES_PER_WEIGHT = 16  # AdamW in fp32: the weight, its gradient and two moments
FREE = 0.1  # what is left to the allocator


@dataclass(frozen=True)
class Need:
    """What training needs, in bytes.

    Args:
        state: Weights, gradients and moments.
        pair: What the passes keep for each pair at their peak.
    """

    state: int
    pair: float

    def pairs_in(self, gib: int) -> int:
        """Returns how many pairs fit an accelerator of so many GiB."""
        return max(0, int(((1 - FREE) * gib * GIB - self.state) / self.pair))


def peak_activations(model: CBViLAForPreTraining, batch: dict[str, torch.Tensor], dtype: torch.dtype) -> int:
    """Returns the bytes of activations at the peak of a forward and a backward pass."""
    tracker = MemTracker()
    tracker.track_external(model)
    with tracker, torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        model(**batch)["loss"].backward()
    model.zero_grad()
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    return sum(size for kind, size in peak.items() if getattr(kind, "name", "") in ("ACT", "TEMP"))


def main() -> None:
    """Measures and prints the results."""
    arguments = parser(__doc__, "python benchmarks/memory.py --size base --dtype bfloat16")
    arguments.add_argument("--size", choices=["tiny", "base"], default="tiny", help="as in pretraining_step.py")
    arguments.add_argument("--preset", choices=["recommended", "paper"], default="paper")
    arguments.add_argument("--pairs", type=positive, default=2, metavar="B", help="batch that is measured; default 2")
    arguments.add_argument("--dtype", choices=DTYPES, default="float32", help="bfloat16 is mixed precision")
    arguments.add_argument("--gradient_checkpointing", action="store_true", help="recompute layers in backward")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    set_seed(0)
    config, _, tokens = model_config(options.size, options.preset)
    model = CBViLAForPreTraining(config).train()
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    batches = {
        size: random_batch(config, size, tokens, torch.device("cpu")) for size in (options.pairs, options.pairs * 2)
    }
    weights = sum(parameter.numel() for parameter in model.parameters())
    small, large = (peak_activations(model, batch, DTYPES[options.dtype]) for batch in batches.values())
    need = Need(BYTES_PER_WEIGHT * weights, (large - small) / options.pairs)
    flops = count_flops(lambda: model(**batches[options.pairs])["loss"].backward()) / options.pairs
    recomputed = ", gradient checkpointing" if options.gradient_checkpointing else ""
    print(
        f"{options.size}, preset {options.preset}: {weights / 1e6:.1f} M weights, "
        f"{config.vision_config.image_size} px, {tokens} tokens, {options.dtype}{recomputed}"
    )
    show(
        {
            "weights, gradients, moments": f"{need.state / GIB:.2f} GiB",
            "kept for each pair": f"{need.pair / GIB:.3f} GiB",
            "kept whatever the batch": f"{(small - options.pairs * need.pair) / GIB:.3f} GiB",
            "counted for each pair": f"{flops / 1e12:.3f} TFLOP",
            **{f"pairs in {gib} GiB": str(need.pairs_in(gib)) for gib in ACCELERATORS},
        }
    )


if __name__ == "__main__":
    main()
