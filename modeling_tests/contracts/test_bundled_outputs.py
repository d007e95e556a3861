"""What the bundled checkpoints say of two images: held to recorded values, so that a rewrite of a model shows.

Record them again only when a checkpoint is retrained: `python modeling_tests/contracts/test_bundled_outputs.py`.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from transformers_cbvila import CBViLAForPreTraining, CBViLAForQuestionAnswering, bundled_checkpoint

RECORD = Path(__file__).with_name("bundled_outputs.safetensors")
IDS = torch.tensor([[2, 20, 30, 3], [2, 40, 50, 3]])
ANSWERS = torch.tensor([[187, 3], [176, 3]])
NAMES = (
    "codebook_indices",
    "mim_logits",
    "mlm_logits",
    "itm_logits",
    "pixel_predictions",
    "image_embeds",
    "text_embeds",
)


def pixels():
    """Gradients: the same on every machine, and nothing that either checkpoint was trained on."""
    ramp = torch.linspace(-1, 1, 64)
    image = torch.stack([ramp.expand(64, 64), ramp.expand(64, 64).T, ramp.expand(64, 64).flip(1)])
    return torch.stack([image, -image])


@torch.no_grad()
def outputs(name):
    if name == "cbvila-tiny-easyvqa":
        model = CBViLAForQuestionAnswering.from_pretrained(bundled_checkpoint(name)).eval()
        return {"logits": model(pixels(), IDS, labels=ANSWERS).logits}
    model = CBViLAForPreTraining.from_pretrained(bundled_checkpoint(name)).eval()
    hidden = torch.arange(32).view(2, 16) % 3 == 0
    negatives = torch.tensor([1, 0])
    output = model(
        pixels(),
        IDS,
        input_ids_masked=IDS,
        mlm_labels=IDS,
        bool_masked_pos=hidden,
        negative_image_index=negatives,
        negative_text_index=negatives,
    )
    return {field: output[field] for field in NAMES} | {f"loss_{term}": loss for term, loss in output.losses.items()}


@pytest.mark.parametrize("name", ["cbvila-tiny", "cbvila-tiny-easyvqa"])
def test_bundled_checkpoint_outputs_equal_recorded_ones(name):
    recorded = {key.partition("/")[2]: value for key, value in load_file(RECORD).items() if key.startswith(f"{name}/")}
    given = outputs(name)
    assert given.keys() == recorded.keys()
    for field, value in recorded.items():
        torch.testing.assert_close(given[field], value, atol=2e-5, rtol=1e-5, msg=lambda m, f=field: f"{f}: {m}")


if __name__ == "__main__":
    found = {f"{name}/{k}": v for name in ("cbvila-tiny", "cbvila-tiny-easyvqa") for k, v in outputs(name).items()}
    save_file({key: value.contiguous() for key, value in found.items()}, RECORD)
