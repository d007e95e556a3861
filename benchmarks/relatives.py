"""What quantizers and objectives of other papers cost: a pretraining step with each, and without, in turns.

Operations are counted and do not depend on the machine. Times are ratios of neighbouring turns.
"""

from typing import NamedTuple

import torch
from measuring import Spread, clock, parser, positive, seconds, show
from pretraining_step import TrainingStep, model_config, random_batch
from transformers import set_seed

from transformers_cbvila import CBViLAConfig, CBViLAForPreTraining
from transformers_cbvila.data.masking import generator_for

CPU = torch.device("cpu")
CLASSES = 50


class Relative(NamedTuple):
    """A quantizer or an objective.

    Args:
        quantizer: Options beside size and width of the codes that the model has without it.
        objectives: Objectives beside those of the model.
    """

    quantizer: dict = {}
    objectives: dict = {}


GUIDED = {"type": "class_guided"}
RELATIVES = {
    "lgvq": Relative(objectives={"lgvq": {}}),
    "class_guided": Relative(GUIDED),
    "sgc_consistency": Relative(GUIDED, {"sgc_consistency": {}}),
    "sgc_consistency, both views": Relative(GUIDED, {"sgc_consistency": {"grad_to_both": True}}),
    "adaptive": Relative({"type": "adaptive"}),
    "raq": Relative(objectives={"raq": {}}),
}


def with_relative(config: CBViLAConfig, relative: Relative) -> CBViLAConfig:
    """Returns a configuration with a quantizer or an objective of another paper."""
    changed = CBViLAConfig.from_dict(config.to_dict())
    codes = config.quantizer_config
    if relative.quantizer:
        sizes = {"size": codes.size, "dim": codes.dim} if relative.quantizer["type"] == "class_guided" else {}
        changed.quantizer_config = {**sizes, **relative.quantizer}
    changed.objectives = {**changed.objectives, **relative.objectives}
    return changed


def inputs_of(model: CBViLAForPreTraining, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the batch with masked words, classes and a second view, as far as the model takes them."""
    draws = generator_for(1)
    patches = len(batch["pixel_values"]), model.config.vision_config.num_patches
    if model.needs("masked_words"):
        batch = batch | {"masked_words": batch["mlm_labels"] != -100}
    if "token_classes" in model.cbvila.quantizer.takes_hints:
        batch = batch | {"token_classes": torch.randint(CLASSES, patches, generator=draws)}
    if model.needs("other_view"):
        views = {"pixel_values": batch["pixel_values"].flip(-1), "token_classes": batch["token_classes"].flip(-1)}
        batch = batch | {f"other_{name}": view for name, view in views.items()}
    return batch


def step_of(config: CBViLAConfig, batch: dict[str, torch.Tensor]) -> TrainingStep:
    """Returns a step of a model with random weights."""
    set_seed(0)
    model = CBViLAForPreTraining(config).train()
    return TrainingStep(model, inputs_of(model, batch), torch.float32)


def main() -> None:
    """Prints the operations and times of a step with each, relative to a step without."""
    arguments = parser(__doc__, "python benchmarks/relatives.py --names lgvq class_guided --rounds 5")
    arguments.add_argument("--size", choices=["tiny", "base"], default="base", help="tiny: recipes/pretrain-tiny.yaml")
    arguments.add_argument("--names", nargs="+", choices=RELATIVES, default=list(RELATIVES), metavar="NAME")
    arguments.add_argument("--batch_size", type=positive, default=2, metavar="B", help="default 2")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    config, _, tokens = model_config(options.size, "recommended")
    batch = random_batch(config, options.batch_size, tokens, CPU)
    plain, now = step_of(config, batch), clock(CPU)
    flops = plain.flops()
    plain()
    print(f"{options.size}, batch {options.batch_size}, {options.threads} thread(s); beside a step without")
    for name in options.names:
        step = step_of(with_relative(config, RELATIVES[name]), batch)
        operations = step.flops() / flops
        step()
        ratios = [seconds(step, now) / seconds(plain, now) for _ in range(options.rounds)]
        del step  # before the next model is built
        show({f"{name}, operations": f"{operations - 1:+.1%}", f"{name}, CPU time": f"x {Spread(ratios)}"})


if __name__ == "__main__":
    main()
