"""Measures a pretraining step of CB-ViLA with all objectives: time, FLOPs, share of a matrix product, memory."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from measuring import DTYPES, Product, Spread, clock, count_flops, parser, peak_memory, positive, show
from torch import nn
from transformers import set_seed

from transformers_cbvila import CBViLAConfig, CBViLAForPreTraining
from transformers_cbvila.data.masking import generator_for, mask_patches, mask_tokens

TINY_RECIPE = Path(__file__).parents[1] / "src" / "transformers_cbvila" / "recipes" / "pretrain-tiny.yaml"
CLS, SEP, MASK, FIRST_WORD = 101, 102, 103, 1000  # BERT's ids
PHASES = ("forward", "backward", "optimiser")


class TrainingStep:
    """Forward, backward and optimizer step of a model on one batch, as in [`CBViLATrainer`], timed separately.

    Args:
        model: The model.
        batch: The batch.
        dtype: Type of mixed precision, or fp32.
        compiled: Whether to use `torch.compile`.
    """

    def __init__(self, model: nn.Module, batch: dict, dtype: torch.dtype, compiled: bool = False) -> None:
        self.model, self.batch = model, batch
        self.device = next(model.parameters()).device
        self.autocast = torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.02, fused=True)
        self.now = clock(self.device)
        self.run_model: Callable = torch.compile(model) if compiled else model

    def loss(self, run_model: Callable) -> torch.Tensor:
        """Returns the loss of the batch."""
        with self.autocast:
            return run_model(**self.batch)["loss"]

    def flops(self) -> int:
        """Counts the FLOPs of forward and backward, without `torch.compile`, which does not change the products."""
        flops = count_flops(lambda: self.loss(self.model).backward())
        self.optimizer.zero_grad()
        return flops

    def __call__(self) -> dict[str, float]:
        """Runs the step; returns the seconds of its three phases, and its wall time as "wall"."""
        wall, times = time.perf_counter(), [self.now()]
        loss = self.loss(self.run_model)
        times.append(self.now())
        loss.backward()
        times.append(self.now())
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if hasattr(self.model, "after_step"):
            self.model.after_step()
        self.optimizer.zero_grad()
        times.append(self.now())
        phases = [end - start for start, end in zip(times, times[1:], strict=False)]
        return {**dict(zip(PHASES, phases, strict=True)), "wall": time.perf_counter() - wall}


def measure(steps: dict[str, TrainingStep], product: Product, rounds: int) -> tuple[Spread, dict[str, dict]]:
    """Measures in turns; returns FLOPs per second of the product, and for each step the seconds by phase."""
    rates, rows = [product.flops_per_second()], {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            rows[name].append(step())
            rates.append(product.flops_per_second())
    return Spread(rates), {
        name: {phase: Spread([row[phase] for row in taken]) for phase in taken[0]} for name, taken in rows.items()
    }


def model_config(size: str, preset: str) -> tuple[CBViLAConfig, int, int]:
    """Returns the configuration of a size, and its default batch size and text length."""
    if size == "base":
        return CBViLAConfig.from_preset(preset), 2, 30
    recipe = yaml.safe_load(TINY_RECIPE.read_text())
    fields = recipe["model_config"]
    fields["text_config"]["vocab_size"] = recipe["vocab_size"]
    config = CBViLAConfig.from_preset(preset, **fields)
    return config, recipe["per_device_train_batch_size"], recipe["max_length"]


def random_batch(config: CBViLAConfig, batch: int, tokens: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Returns a batch of random images and captions without padding, with the masks of real training."""
    vision, vocabulary = config.vision_config, config.text_config.vocab_size
    draws = generator_for(0)
    ids = torch.randint(FIRST_WORD, vocabulary, (batch, tokens), generator=draws)
    ids[:, 0], ids[:, -1] = CLS, SEP
    maskable = (ids != CLS) & (ids != SEP)
    masked = [mask_tokens(*row, MASK, vocabulary, draws) for row in zip(ids, maskable, strict=True)]
    bool_masked_pos = [mask_patches(vision.num_patches, draws) for _ in range(batch)]
    tensors = {
        "pixel_values": torch.randn(batch, 3, vision.image_size, vision.image_size, generator=draws),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "input_ids_masked": torch.stack([corrupted for corrupted, _ in masked]),
        "mlm_labels": torch.stack([labels for _, labels in masked]),
        "bool_masked_pos": torch.stack(bool_masked_pos),
    }
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def derived_metrics(flops: int, batch: int, rate: Spread, times: dict[str, Spread]) -> dict[str, float]:
    """Returns speed and cost of a step.

    Args:
        flops: FLOPs of forward and backward.
        batch: Batch size.
        rate: FLOPs per second of the matrix product.
        times: Seconds by phase.

    Returns:
        `step` (seconds), `pairs_per_second`, `share` (FLOPs per second of forward and backward, relative to the matrix
        product's) and `gflop_equivalents` (time of the step in GFLOPs of the matrix product).
    """
    working = times["forward"].median + times["backward"].median
    step = working + times["optimiser"].median
    return {
        "step": step,
        "pairs_per_second": batch / step,
        "share": flops / working / rate.median,
        "gflop_equivalents": step * rate.median / 1e9,
    }


def report(
    title: str, flops: int, batch: int, product: str, rate: Spread, times: dict[str, Spread], cpu: bool
) -> None:
    """Prints the results of one step; `product` names the matrix product, the others see [`derived_metrics`]."""
    derived = derived_metrics(flops, batch, rate, times)
    unit = "CPU-s" if cpu else "s"
    print(title)
    rows = {phase: f"{times[phase]} {unit}" for phase in PHASES}
    rows["step"] = f"{derived['step']:.3g} {unit}"
    rows["step, wall time"] = f"{times['wall']} s"
    rows["pairs per " + ("CPU-second" if cpu else "second")] = f"{derived['pairs_per_second']:.3g}"
    rows["counted, forward + backward"] = f"{flops / 1e9:.4g} GFLOP, {flops / 2e9 / batch:.4g} GMAC per pair"
    rows[product] = f"{Spread([value / 1e9 for value in rate.values])} GFLOP/s"
    rows["forward + backward, share of that"] = f"{derived['share']:.1%}"
    rows["step x product"] = f"{derived['gflop_equivalents']:,.0f} GFLOP-equivalents"
    show(rows)


def main() -> None:
    """Measures and prints the results."""
    arguments = parser(__doc__, "python benchmarks/pretraining_step.py --size base --rounds 5")
    arguments.add_argument("--size", choices=["tiny", "base"], default="tiny", help="tiny: recipes/pretrain-tiny.yaml")
    arguments.add_argument("--preset", choices=["recommended", "paper"], default="recommended")
    arguments.add_argument("--batch_size", type=positive, metavar="B", help="default: 2 at base size, the recipe's")
    arguments.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1 and so on")
    arguments.add_argument("--dtype", choices=DTYPES, default="float32", help="bfloat16 is mixed precision")
    arguments.add_argument("--compile", action="store_true", help="run the model through torch.compile")
    arguments.add_argument("--product", type=positive, metavar="N", help="side of the product: 2048, on cuda 8192")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    config, batch, tokens = model_config(options.size, options.preset)
    batch = options.batch_size or batch

    set_seed(0)
    model = CBViLAForPreTraining(config).to(device).train()
    step = TrainingStep(model, random_batch(config, batch, tokens, device), dtype, options.compile)
    side = options.product or (2048 if device.type == "cpu" else 8192)
    product = Product(side, dtype, device, repeats=1 if device.type == "cpu" else 20)
    flops = step.flops()
    for _ in range(1 if device.type == "cpu" else 3):
        step()
    rate, times = measure({"ours": step}, product, options.rounds)
    weights = sum(parameter.numel() for parameter in model.parameters())
    title = (
        f"{options.size}, preset {options.preset}: {weights / 1e6:.1f} M weights; batch {batch}, "
        f"{config.vision_config.image_size} px, {tokens} tokens; {options.dtype}{', compiled' * options.compile}, "
        f"{'CPU, ' + str(options.threads) + ' thread(s)' if device.type == 'cpu' else torch.cuda.get_device_name()}"
    )
    report(title, flops, batch, f"product of {side}x{side} matrices", rate, times["ours"], device.type == "cpu")
    show({"peak memory": f"{peak_memory(device) / 2**30:.2f} GiB"})


if __name__ == "__main__":
    main()
