import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from image_server import RED, png
from PIL import Image

from transformers_cbvila.model.image_loading_cbvila import load_image, to_rgb
from transformers_cbvila.model.image_metadata_cbvila import EXIF_ORIENTATION

BLUE, WHITE = (0, 0, 255), (255, 255, 255)


def pixels(image: Image.Image) -> list:
    assert image.mode == "RGB"
    return np.asarray(image).tolist()


def pixel(image: Image.Image) -> tuple:
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


# Where the pixels 0 1 / 2 3 of the file belong on the screen, from the EXIF standard's table of orientations.
UPRIGHT = {
    1: [[0, 1], [2, 3]],
    2: [[1, 0], [3, 2]],
    3: [[3, 2], [1, 0]],
    4: [[2, 3], [0, 1]],
    5: [[0, 2], [1, 3]],
    6: [[2, 0], [3, 1]],
    7: [[3, 1], [2, 0]],
    8: [[1, 3], [0, 2]],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_load_image_applies_exif_orientation_once(tmp_path: Path, orientation: int, suffix: str):
    stored = Image.fromarray(np.array([[0, 1], [2, 3]], dtype=np.uint8))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path = tmp_path / f"turned{suffix}"
    stored.save(path, exif=exif)
    assert np.asarray(load_image(path))[..., 0].tolist() == UPRIGHT[orientation]
    with Image.open(path) as opened:
        assert np.asarray(to_rgb(opened))[..., 0].tolist() == UPRIGHT[orientation]


def test_load_image_ignores_garbage_exif(tmp_path: Path):
    Image.new("RGB", (4, 4), BLUE).save(tmp_path / "x.jpg", exif=b"Exif\0\0garbage", quality=100)
    assert load_image(tmp_path / "x.jpg").size == (4, 4)


def test_to_rgb_leaves_its_input_unchanged():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.getexif()[EXIF_ORIENTATION] = 6
    assert to_rgb(image).size == (1, 2)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGBA", (2, 1), (255, 0, 0, 0))


@pytest.mark.parametrize(
    ("suffix", "options"), [(".gif", {}), (".webp", {"lossless": True}), (".png", {}), (".tiff", {})]
)
def test_load_image_takes_the_first_frame(tmp_path: Path, suffix: str, options: dict):
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, BLUE)]
    path = tmp_path / f"animated{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as opened:
        assert opened.n_frames == 2
    assert pixel(load_image(path)) == RED


def palette_image() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 255, 255, 0, 0])
    image.putpixel((1, 0), 1)
    return image


def test_to_rgb_palette():
    assert pixels(to_rgb(palette_image())) == [[list(BLUE), list(RED)]]


@pytest.mark.parametrize(("transparency", "suffix"), [(0, ".png"), (0, ".gif"), (b"\x00\xff", ".png")])
def test_load_image_transparent_palette_is_white(tmp_path: Path, transparency, suffix: str):
    path = tmp_path / f"palette{suffix}"
    palette_image().save(path, transparency=transparency)
    assert pixels(load_image(path)) == [[list(WHITE), list(RED)]]


def test_load_image_transparent_rgb_is_white(tmp_path: Path):
    Image.new("RGB", (2, 2), RED).save(tmp_path / "key.png", transparency=RED)
    assert pixel(load_image(tmp_path / "key.png")) == WHITE


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("RGBA", (255, 0, 0, 51), (255, 204, 204)),
        ("RGBa", (51, 0, 0, 51), (255, 204, 204)),
        ("LA", (0, 51), (204, 204, 204)),
        ("La", (0, 51), (204, 204, 204)),
        ("PA", (0, 0), (255, 255, 255)),
    ],
)
def test_to_rgb_composites_alpha_on_white(mode: str, color: tuple, expected: tuple):
    assert pixel(to_rgb(Image.new(mode, (1, 1), color))) == expected


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("1", 1, (255, 255, 255)),
        ("L", 7, (7, 7, 7)),
        ("RGBX", (1, 2, 3, 0), (1, 2, 3)),
        ("YCbCr", (255, 128, 128), (255, 255, 255)),
        ("HSV", (0, 255, 255), (255, 0, 0)),
        ("I", 25700, (100, 100, 100)),
        ("I", 200, (200, 200, 200)),
        ("F", 0.2, (51, 51, 51)),
        ("F", 51.0, (51, 51, 51)),
    ],
)
def test_to_rgb_other_modes(mode: str, color, expected: tuple):
    assert pixel(to_rgb(Image.new(mode, (1, 1), color))) == expected


def test_load_image_cmyk_jpeg(tmp_path: Path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=100)
    assert np.allclose(pixel(load_image(tmp_path / "print.jpg")), RED, atol=3)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_load_image_scales_16_bit_grey(tmp_path: Path, suffix: str):
    deep = np.array([[0, 128, 129, 25700, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / f"deep{suffix}")
    assert np.asarray(load_image(tmp_path / f"deep{suffix}"))[0, :, 1].tolist() == [0, 0, 1, 100, 255]


def test_to_rgb_big_endian_16_bit_grey():
    assert pixel(to_rgb(Image.new("I;16B", (1, 1), 25700))) == (100, 100, 100)


def test_load_image_transparent_16_bit_grey_is_white(tmp_path: Path):
    Image.fromarray(np.array([[0, 25700]], dtype=np.uint16)).save(tmp_path / "deep.png", transparency=0)
    assert np.asarray(load_image(tmp_path / "deep.png"))[0, :, 0].tolist() == [255, 100]


@pytest.mark.parametrize("value", [-1, 70000])
def test_to_rgb_rejects_32_bit_values_out_of_range(value: int):
    with pytest.raises(ValueError, match=rf"{value}.*0\.\.255"):
        to_rgb(Image.new("I", (2, 2), value))


GREY = np.array([[0, 100], [200, 255], [3, 4], [5, 6], [7, 8]], dtype=np.uint8)
COLOR = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)


@pytest.mark.parametrize(
    "array",
    [
        GREY,
        GREY[..., None],
        GREY[None],
        torch.from_numpy(GREY),
        GREY.astype(np.int64),
        GREY.astype(np.float64),
        (GREY / 255).astype(np.float16),
        torch.from_numpy(GREY / 255).to(torch.float32).requires_grad_(),
    ],
)
def test_to_rgb_grey_arrays(array):
    rgb = np.asarray(to_rgb(array))
    assert rgb.shape == (5, 2, 3)
    assert all((rgb[..., channel] == GREY).all() for channel in range(3))


@pytest.mark.parametrize(
    "array",
    [
        COLOR,
        COLOR.transpose(2, 0, 1),
        torch.from_numpy(COLOR).permute(2, 0, 1),
        torch.from_numpy(COLOR).float(),
        torch.from_numpy(COLOR).bfloat16(),
        COLOR / 255,
        np.concatenate([COLOR, np.full((2, 5, 1), 255, dtype=np.uint8)], axis=-1),
    ],
)
def test_to_rgb_colour_arrays(array):
    assert np.array_equal(np.asarray(to_rgb(array)), COLOR)


def test_to_rgb_composites_alpha_arrays_on_white():
    assert pixel(to_rgb(np.array([[[255, 0, 0, 51]]] * 6, dtype=np.uint8))) == (255, 204, 204)


def test_to_rgb_bool_array():
    assert np.asarray(to_rgb(np.array([[True, False]])))[0, :, 0].tolist() == [255, 0]


def test_to_rgb_input_data_format_wins():
    ambiguous = np.arange(9 * 3, dtype=np.uint8).reshape(3, 9, 1).repeat(3, axis=2)
    assert to_rgb(ambiguous, input_data_format="channels_last").size == (9, 3)
    assert to_rgb(ambiguous, input_data_format="channels_first").size == (3, 9)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 5, 7), np.uint8), r"channels.*\(5, 5, 7\).*image\[\.\.\., :3\]"),
        (np.zeros((5, 5, 2), np.uint8), r"channels"),
        (np.zeros((0, 5, 3), np.uint8), r"empty.*\(0, 5, 3\)"),
        (np.zeros((5, 0), np.float32), r"empty.*\(5, 0\)"),
        (np.zeros(5, np.uint8), r"dimensions.*\(5,\)"),
        (np.zeros((1, 1, 1, 5, 5), np.uint8), r"dimensions.*\(1, 1, 1, 5, 5\)"),
        (np.full((4, 4), np.nan), r"NaN or infinite.*nan_to_num"),
        (torch.full((3, 4, 4), float("inf")), r"NaN or infinite"),
        (np.full((4, 4), -0.5), r"-0\.5.*\[0, 1\].*normalization"),
        (np.full((4, 4), 1.02), r"1\.02.*clip to \[0, 1\]"),
        (np.full((4, 4), 300.0), r"300.*0\.\.255"),
        (np.full((4, 4), -1), r"-1 to -1.*0\.\.255"),
        (np.full((4, 4), 256), r"256.*0\.\.255"),
        (np.full((4, 4), 1j), r"complex128.*uint8"),
        (np.full((4, 4), "x"), r"<U1"),
    ],
)
def test_to_rgb_rejects_bad_arrays(array, message: str):
    with pytest.raises(ValueError, match=message):
        to_rgb(array)


def test_to_rgb_rejects_wrong_channels():
    with pytest.raises(ValueError, match="got 5"):
        to_rgb(COLOR.transpose(1, 0, 2), input_data_format="channels_first")


@pytest.mark.parametrize("thing", [None, 3, b"bytes", {"image": 1}])
def test_load_image_rejects_other_types(thing):
    with pytest.raises(ValueError, match=type(thing).__name__):
        load_image(thing)


@pytest.mark.parametrize("kind", [str, Path])
def test_load_image_rejects_missing_path(tmp_path: Path, kind):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png.*relative paths start at.*URL"):
        load_image(kind(tmp_path / "nowhere.png"))


def test_load_image_rejects_a_folder(tmp_path: Path):
    with pytest.raises(ValueError, match="is not a file"):
        load_image(tmp_path)


@pytest.mark.parametrize(("content", "message"), [(b"", r"empty \(0 bytes\)"), (b"hello", "not an image.*PNG")])
def test_load_image_rejects_other_files(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.png.*{message}"):
        load_image(tmp_path / "x.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".webp", ".tiff", ".bmp"])
def test_load_image_rejects_truncated_file(tmp_path: Path, suffix: str):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"cut\{suffix}.*(truncated or damaged|not an image)"):
        load_image(path)


def test_to_rgb_rejects_truncated_opened_file(tmp_path: Path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"cut\.jpg.*truncated or damaged.*again"):
        to_rgb(Image.open(path))


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_to_rgb_rejects_empty_image(size: tuple):
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]}.*at least 1"):
        to_rgb(Image.new("RGB", size))


def test_load_image_rejects_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.new("RGB", (30, 30)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"huge\.png.*too large.*900 pixels.*MAX_IMAGE_PIXELS"):
        load_image(tmp_path / "huge.png")


def test_load_image_data_url():
    url = "data:image/png;base64," + base64.b64encode(png()).decode()
    assert pixel(load_image(url)) == RED


@pytest.mark.parametrize("url", ["data:image/png;base64,###", "data:image/svg+xml,<svg/>", "data:"])
def test_load_image_rejects_bad_data_url(url: str):
    with pytest.raises(ValueError, match="data:image.*base64"):
        load_image(url)


def test_load_image_url(image_server):
    assert pixel(load_image(f"{image_server.url}/red.png")) == RED


def test_load_image_rejects_missing_url(image_server):
    with pytest.raises(ValueError, match=r"could not download .*missing\.png.*404.*path"):
        load_image(f"{image_server.url}/missing.png")
