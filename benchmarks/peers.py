"""Compares a pretraining step of CB-ViLA with one of transformers' FLAVA: same image size, text length and batch.

FLAVA is the most similar published model: ViT-B/16, BERT, a fusion encoder, masked image modelling on visual words.
Both have random weights. FLAVA's text encoder has 12 layers instead of 6; its visual words come from a frozen,
separate network; it does not reconstruct pixels; it fuses once by self-attention over both modalities.
"""

from typing import Any

import torch
from measuring import Product, parser, peak_memory, positive, show
from pretraining_step import PHASES, TrainingStep, measure, model_config, random_batch, report
from transformers import FlavaConfig, FlavaForPreTraining, set_seed

from transformers_cbvila import CBViLAForPreTraining

CODE_SIDE = 8  # pixels per side of the patch of one of FLAVA's visual words


def flava_model(image_size: int, **fields: Any) -> FlavaForPreTraining:
    """Returns FLAVA with all its objectives, for images of another size than its 224 px."""
    image = {**fields.pop("image_config", {}), "image_size": image_size}
    return FlavaForPreTraining(FlavaConfig(image_config=image, **fields)).train()


def flava_batch(batch: dict[str, torch.Tensor], patch_size: int) -> dict[str, torch.Tensor]:
    """Converts our batch for FLAVA: true pairs, and images scaled to one visual word per patch."""
    images, side = batch["pixel_values"], batch["pixel_values"].shape[-1] // patch_size
    return {
        "pixel_values": images,
        "codebook_pixel_values": torch.nn.functional.interpolate(images, size=(side * CODE_SIDE, side * CODE_SIDE)),
        "bool_masked_pos": batch["bool_masked_pos"].view(-1, side, side),
        "input_ids": batch["input_ids"],
        "input_ids_masked": batch["input_ids_masked"],
        "attention_mask": batch["attention_mask"],
        "mlm_labels": batch["mlm_labels"],
        "itm_labels": torch.ones(images.shape[0], dtype=torch.long, device=images.device),
        "return_loss": True,
    }


def main() -> None:
    """Measures and prints the comparison."""
    arguments = parser(__doc__, "python benchmarks/peers.py --rounds 3")
    arguments.set_defaults(rounds=3)
    arguments.add_argument("--batch_size", type=positive, default=2, metavar="B")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    device, size = torch.device("cpu"), options.batch_size
    set_seed(0)
    config, _, tokens = model_config("base", "recommended")
    vision = config.vision_config
    batch = random_batch(config, size, tokens, device)
    steps = {
        "CB-ViLA": TrainingStep(CBViLAForPreTraining(config).train(), batch, torch.float32),
        "FLAVA": TrainingStep(flava_model(vision.image_size), flava_batch(batch, vision.patch_size), torch.float32),
    }
    flops = {name: step.flops() for name, step in steps.items()}
    for step in steps.values():
        step()
    rate, times = measure(steps, Product(2048, torch.float32, device, repeats=1), options.rounds)
    for name, taken in times.items():
        title = f"{name}: batch {size}, {vision.image_size} px, {tokens} tokens; float32, {options.threads} thread(s)"
        report(title, flops[name], size, "product of 2048x2048 matrices", rate, taken, cpu=True)
    totals = {name: sum(taken[phase].median for phase in PHASES) for name, taken in times.items()}
    show(
        {
            "step, CB-ViLA / FLAVA": f"{totals['CB-ViLA'] / totals['FLAVA']:.2f}",
            "peak memory, both": f"{peak_memory(device) / 2**30:.2f} GiB",
        }
    )


if __name__ == "__main__":
    main()
