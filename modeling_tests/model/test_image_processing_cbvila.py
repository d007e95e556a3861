import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import noise_image
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from transformers_cbvila.model.image_processing_cbvila import CBViLAImageProcessor
from transformers_cbvila.model.image_processing_pil_cbvila import CBViLAImageProcessorPil

MEAN = torch.tensor(OPENAI_CLIP_MEAN)[:, None, None]
STD = torch.tensor(OPENAI_CLIP_STD)[:, None, None]
SIDE = 8


@pytest.fixture
def processor() -> CBViLAImageProcessorPil:
    return CBViLAImageProcessorPil(size={"height": SIDE, "width": SIDE})


def noise(height: int = SIDE, width: int = SIDE, seed: int = 0) -> np.ndarray:
    return np.array(noise_image((width, height), seed))


def normalised(levels: np.ndarray) -> torch.Tensor:
    """What the processor must give for (H, W, 3) levels that need no resize."""
    return (torch.from_numpy(levels).permute(2, 0, 1) / 255 - MEAN) / STD


def test_image_processor_defaults():
    out = CBViLAImageProcessorPil()(Image.new("RGB", (20, 30), (255, 0, 51)), return_tensors="pt")["pixel_values"]
    assert out.shape == (1, 3, 256, 256)
    assert out.dtype == torch.float32
    expected = ((torch.tensor([1.0, 0.0, 0.2])[:, None, None] - MEAN) / STD).expand(3, 256, 256)
    torch.testing.assert_close(out[0], expected, atol=1e-6, rtol=0)


def test_image_processor_resizes_bicubic(processor: CBViLAImageProcessorPil):
    levels = noise(20, 13)
    expected = np.array(Image.fromarray(levels).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    out = processor(levels, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(out, normalised(expected), atol=1e-6, rtol=0)


def saved(levels: np.ndarray, folder: Path) -> Path:
    Image.fromarray(levels).save(folder / "image.png")
    return folder / "image.png"


def channels_first(levels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(levels).permute(2, 0, 1)


FORMS = {
    "PIL": lambda levels, folder: Image.fromarray(levels),
    "path": saved,
    "path as str": lambda levels, folder: str(saved(levels, folder)),
    "numpy": lambda levels, folder: levels,
    "numpy channels first": lambda levels, folder: levels.transpose(2, 0, 1),
    "tensor": lambda levels, folder: channels_first(levels),
    "floats in 0..1": lambda levels, folder: channels_first(levels) / 255,
    "floats in 0..255": lambda levels, folder: levels.astype(np.float64),
    "RGBA": lambda levels, folder: Image.fromarray(levels).convert("RGBA"),
    "list": lambda levels, folder: [levels],
    "nested list": lambda levels, folder: [[levels]],
    "4-dimensional array": lambda levels, folder: levels[None],
    "4-dimensional tensor": lambda levels, folder: channels_first(levels)[None],
}


@pytest.mark.parametrize("form", FORMS)
def test_image_processor_takes_every_image_form(processor: CBViLAImageProcessorPil, tmp_path: Path, form: str):
    out = processor(FORMS[form](noise(), tmp_path), return_tensors="pt")["pixel_values"]
    assert len(out) == 1
    torch.testing.assert_close(out[0], normalised(noise()), atol=1e-6, rtol=0)


@pytest.mark.parametrize("grey", [np.zeros((10, 12)), np.zeros((10, 12, 1)), Image.new("L", (12, 10))])
def test_image_processor_makes_grey_images_rgb(processor: CBViLAImageProcessorPil, grey):
    out = processor(grey, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(out[0], (-MEAN / STD).expand(3, SIDE, SIDE), atol=1e-6, rtol=0)


def test_image_processor_keeps_the_order(processor: CBViLAImageProcessorPil):
    arrays = [noise(seed=seed) for seed in range(4)]
    images = [arrays[0], Image.fromarray(arrays[1]), [torch.from_numpy(arrays[2])], np.stack(arrays[3:])]
    out = processor(images, return_tensors="np")["pixel_values"]
    assert isinstance(out, np.ndarray)
    for row, levels in zip(out, arrays, strict=True):
        np.testing.assert_allclose(row, normalised(levels).numpy(), atol=1e-6)


def test_image_processor_applies_alpha_16_bit_and_orientation(processor: CBViLAImageProcessorPil):
    clear = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    deep = Image.fromarray(np.full((SIDE, SIDE), 25700, dtype=np.uint16))
    turned = Image.fromarray(noise())
    turned.getexif()[0x0112] = 3
    out = processor([clear, deep, turned], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(out[0], normalised(np.full_like(noise(), 255)), atol=1e-6, rtol=0)
    torch.testing.assert_close(out[1], normalised(np.full_like(noise(), 100)), atol=1e-6, rtol=0)
    torch.testing.assert_close(out[2], normalised(noise()).flip(1, 2), atol=1e-6, rtol=0)


def test_image_processor_do_rescale_false_takes_unit_floats(processor: CBViLAImageProcessorPil):
    images = [noise() / 255, torch.from_numpy(noise()).float() / 255]
    out = processor(images, do_rescale=False, return_tensors="pt")["pixel_values"]
    for row in out:
        torch.testing.assert_close(row, normalised(noise()), atol=1e-6, rtol=0)


def test_image_processor_do_rescale_false_keeps_levels(processor: CBViLAImageProcessorPil):
    out = processor(noise(), do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
    assert np.array_equal(out[0], noise().transpose(2, 0, 1))


def test_image_processor_do_rescale_false_rejects_mixed_scales(processor: CBViLAImageProcessorPil):
    with pytest.raises(ValueError, match=r"image 1 holds floats in \[0, 1\] and image 0 levels.*leave do_rescale on"):
        processor([noise(), noise() / 255], do_rescale=False)


def test_image_processor_options_of_init_equal_those_of_call():
    processor = CBViLAImageProcessorPil(size=SIDE, do_rescale=False, input_data_format="channels_first")
    out = processor(noise().transpose(2, 0, 1) / 255, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(out[0], normalised(noise()), atol=1e-6, rtol=0)


def test_image_processor_uses_input_data_format(processor: CBViLAImageProcessorPil):
    ambiguous = noise(3, 9)
    out = processor(ambiguous, input_data_format="channels_last", do_resize=False, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(out[0], normalised(ambiguous), atol=1e-6, rtol=0)


def test_image_processor_do_convert_rgb_false(processor: CBViLAImageProcessorPil):
    out = processor(Image.new("RGBA", (SIDE, SIDE)), do_convert_rgb=False, do_normalize=False, return_tensors="pt")
    assert out["pixel_values"].shape == (1, 4, SIDE, SIDE)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ("/no/such/file.png", FileNotFoundError, r"image 1 of 2: .*/no/such/file\.png"),
        (np.full((4, 4), np.nan), ValueError, "image 1 of 2: .*NaN"),
        (Image.new("RGB", (0, 4)), ValueError, "image 1 of 2: .*0 x 4"),
        (None, ValueError, "image 1 of 2: .*NoneType"),
    ],
)
def test_image_processor_error_names_the_image(processor: CBViLAImageProcessorPil, bad, error: type, message: str):
    with pytest.raises(error, match=message):
        processor([noise(), bad])
    with pytest.raises(error) as caught:
        processor(bad)
    assert "image 0" not in str(caught.value)


@pytest.mark.parametrize("nothing", [[], [[]], np.zeros((0, 3, 4, 4))])
def test_image_processor_rejects_no_images(processor: CBViLAImageProcessorPil, nothing):
    with pytest.raises(ValueError, match="empty list of images; pass at least one"):
        processor(nothing)


def test_image_processor_save_and_load(tmp_path: Path):
    CBViLAImageProcessorPil(size={"height": 24, "width": 16}, image_mean=[0.5, 0.5, 0.5]).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["image_processor_type"] == "CBViLAImageProcessor"
    loaded = CBViLAImageProcessorPil.from_pretrained(tmp_path)
    out = loaded(np.full((5, 5), 0.5), return_tensors="pt")["pixel_values"]
    assert out.shape == (1, 3, 24, 16)
    torch.testing.assert_close(out[:, 0], torch.full((1, 24, 16), (128 / 255 - 0.5) / OPENAI_CLIP_STD[0]))


def test_image_processor_backends_declare_the_same():
    names = (
        "resample",
        "image_mean",
        "image_std",
        "size",
        "do_resize",
        "do_rescale",
        "do_normalize",
        "do_convert_rgb",
    )
    for name in names:
        assert getattr(CBViLAImageProcessor, name) == getattr(CBViLAImageProcessorPil, name)


def test_image_processor_without_torchvision_names_the_pil_backend(monkeypatch: pytest.MonkeyPatch):
    module = importlib.import_module(CBViLAImageProcessor.__module__)
    monkeypatch.setattr(module, "is_torchvision_available", lambda: False)
    with pytest.raises(ImportError, match="pip install torchvision, or use CBViLAImageProcessorPil"):
        CBViLAImageProcessor()


@pytest.fixture
def torchvision_processor() -> CBViLAImageProcessor:
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    return CBViLAImageProcessor(size={"height": SIDE, "width": SIDE})


@pytest.mark.parametrize("size", [(SIDE, SIDE), (64, 48), (5, 3), (300, 1)])
def test_image_processor_backends_agree_within_one_level(
    processor: CBViLAImageProcessorPil, torchvision_processor: CBViLAImageProcessor, size: tuple
):
    levels = noise(*size)
    images = [levels, Image.fromarray(levels).convert("LA"), Image.fromarray(levels).convert("CMYK"), levels / 255]
    by_pil = processor(images, return_tensors="pt")["pixel_values"]
    by_torch = torchvision_processor(images, return_tensors="pt")["pixel_values"]
    assert ((by_pil - by_torch).abs() * STD * 255).max() <= 1.001
