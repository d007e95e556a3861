"""LLaVA's projector: patches averaged to a grid, and an MLP of each of its cells."""

import pytest
import torch
from tiny import noise_image
from tiny_language import language_model, reading_model, reading_processor

from transformers_cbvila.model.projector_mlp_cbvila import CBViLAMLPProjector, CBViLAMLPProjectorOptions


def projector(side=2, width=3, language_width=5):
    torch.manual_seed(0)
    return CBViLAMLPProjector(CBViLAMLPProjectorOptions(side=side), width, language_width)


@torch.no_grad()
def test_a_token_is_of_the_patches_of_its_part():
    model, tokens = projector(), torch.randn(2, 17, 3)
    found = model(tokens)
    assert found.shape == (2, 4, 5) and model.num_tokens(model.options) == 4
    for cell, patches in enumerate(([0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15])):
        mean = torch.stack([tokens[:, 1 + patch] for patch in patches]).mean(0)
        torch.testing.assert_close(found[:, cell], model.mlp(model.norm(mean)))
    tokens[:, 1 + 5] += 1
    tokens[:, 0] += 1
    assert [(one != other).any().item() for one, other in zip(model(tokens)[0], found[0], strict=True)] == [
        True,
        False,
        False,
        False,
    ]


@torch.no_grad()
def test_as_many_tokens_as_patches_are_these_patches():
    model, tokens = projector(side=3), torch.randn(1, 10, 3)
    torch.testing.assert_close(model(tokens), model.mlp(model.norm(tokens[:, 1:])))


@pytest.mark.parametrize("patches", [12, 1])
def test_images_without_such_a_grid(patches):
    with pytest.raises(ValueError, match=f"side=2, and the image has {patches} patches; expected those of a square"):
        projector()(torch.randn(1, 1 + patches, 3))


def test_no_tokens():
    with pytest.raises(ValueError, match="projector_config: side=0"):
        reading_model(projector={"type": "mlp", "side": 0})


def test_a_model_reads_images_with_it(tmp_path):
    model = reading_model(projector={"type": "mlp", "side": 2})
    images = [noise_image(seed=seed) for seed in range(3)]
    processor = reading_processor(num_image_tokens=4)
    batch = processor(images=images, text=["<image> a", "<image> a dog <image>"], return_tensors="pt")
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, language_model=language_model())
    assert loaded.config.num_image_tokens == 4 and torch.equal(loaded(**batch).logits, model(**batch).logits)
    assert torch.equal(*(one.generate(**batch, max_new_tokens=4, do_sample=False) for one in (model, loaded)))
