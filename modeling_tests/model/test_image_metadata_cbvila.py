"""Damaged metadata does not make an image unreadable, and orientation is read from its tag alone."""

import random
import struct
import warnings
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from transformers_cbvila.model.image_loading_cbvila import load_image, to_rgb
from transformers_cbvila.model.image_metadata_cbvila import EXIF_ORIENTATION, without_metadata

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
X_RESOLUTION, MAKER = 0x011A, 0x010F


def saved(form, orientation=6):
    exif = NOISE.getexif()
    exif[EXIF_ORIENTATION], exif[X_RESOLUTION], exif[MAKER] = orientation, 72.0, "maker"
    text = PngImagePlugin.PngInfo()
    text.add_text("key", "a long text" * 20, zip=True)
    options = {"PNG": {"pnginfo": text}, "JPEG": {"comment": b"a comment", "icc_profile": b"x" * 99}}
    file = BytesIO()
    NOISE.save(file, form, exif=exif, **options.get(form, {}))
    return file.getvalue()


def beside_pixels(form, file):
    """Places of bytes that are metadata."""
    if form == "WEBP":
        return range(file.index(b"EXIF") + 8, len(file))
    places, place = [], 2 if form == "JPEG" else 8
    if form == "JPEG":
        while file[place + 1] != 0xDA:
            kind, length = struct.unpack_from(">xBH", file, place)
            places += range(place + 4, place + 2 + length) if kind in (0xE1, 0xE2, 0xFE) else ()
            place += 2 + length
        return places
    while place < len(file):
        length, kind = struct.unpack_from(">I4s", file, place)
        places += range(place + 8, place + 12 + length) if kind[:1].islower() else ()
        place += 12 + length
    return places


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("seed", range(40))
def test_load_image_with_damaged_metadata_keeps_the_pixels(form, seed):
    draws, file = random.Random(seed), bytearray(saved(form))
    places = beside_pixels(form, bytes(file))
    for _ in range(1 + seed):
        file[draws.choice(places)] = draws.randrange(256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = load_image(bytes(file))
    upright = load_image(saved(form, orientation=1))
    turned = {(24, 32): upright.transpose(Image.Transpose.ROTATE_270), (32, 24): upright}
    if image.size in turned:  # a damaged orientation may say any turn
        matches = [np.array_equal(image, upright.transpose(turn)) for turn in Image.Transpose]
        assert np.array_equal(image, upright) or any(matches)
    assert image.size in turned


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF"])
def test_load_image_turns_images_with_unwritable_tags(form, tmp_path):
    # Pillow's own exif_transpose writes all tags again, and fails for a negative resolution
    file = saved(form).replace(struct.pack(">II", 72, 1), struct.pack(">iI", -72, 1))
    file = file.replace(struct.pack("<II", 72, 1), struct.pack("<iI", -72, 1))
    path = tmp_path / "phone"
    path.write_bytes(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert load_image(path).size == (24, 32)


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("x"), struct.error("x"), SyntaxError("x"), OverflowError("x"), KeyError("x"), TypeError("x")],
)
def test_to_rgb_warns_of_exif_errors(error, monkeypatch):
    def getexif(image):
        raise error

    monkeypatch.setattr(Image.Image, "getexif", getexif)
    with pytest.warns(UserWarning, match=f"EXIF.*{type(error).__name__}.*not turned"):
        assert to_rgb(NOISE).size == (32, 24)


@pytest.mark.parametrize("orientation", [0, 9, 99, "six", (6,)])
def test_to_rgb_ignores_unknown_orientations(orientation, monkeypatch):
    monkeypatch.setattr(Image.Image, "getexif", lambda image: {EXIF_ORIENTATION: orientation})
    assert to_rgb(NOISE).size == (32, 24)


def test_load_image_warns_of_a_broken_png_text():
    file = saved("PNG")
    place = file.index(b"zTXt") + 12
    broken = file[:place] + bytes([file[place] ^ 255]) + file[place + 1 :]
    with pytest.warns(UserWarning, match="without its metadata, which is damaged"):
        assert np.array_equal(load_image(broken), NOISE)


def test_load_image_rejects_broken_pixels():
    for form in ("JPEG", "PNG"):
        with pytest.raises(ValueError, match="truncated or damaged"):
            load_image(saved(form)[:-300])


@pytest.mark.parametrize("file", [b"", b"hello", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\nxx", b"RIFF"])
def test_without_metadata_leaves_unknown_files_alone(file):
    assert without_metadata(file) is None


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_without_metadata_keeps_the_pixels(form):
    file = saved(form, orientation=1)
    bare = without_metadata(file)
    assert len(bare) < len(file) and b"maker" not in bare
    assert np.array_equal(load_image(bare), load_image(file))
