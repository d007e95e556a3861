"""Drawings with transparency, turned into the small pictures on white of a pack."""

import io
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image


@contextmanager
def allowed_pixels(number: int) -> Iterator[None]:
    """Lets Pillow read pictures of up to `number` pixels without a warning, where they come from a known file."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, number
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def read_png(content: bytes) -> Image.Image:
    """Returns the RGBA picture in a PNG."""
    return Image.open(io.BytesIO(content)).convert("RGBA")


def draw_svg(content: bytes, size: int) -> Image.Image:
    """Returns an SVG drawn by librsvg, `size` pixels wide and high, RGBA.

    Raises:
        RuntimeError: `rsvg-convert` is not installed, or can't draw this.
    """
    command = ["rsvg-convert", f"--width={size}", f"--height={size}"]
    try:
        done = subprocess.run(command, input=content, capture_output=True)
    except FileNotFoundError:
        raise RuntimeError(
            "rsvg-convert, which draws SVG, is not installed: it is in the package librsvg2-bin of Debian and Ubuntu, "
            "and in librsvg of Homebrew and conda-forge"
        ) from None
    if done.returncode:
        raise RuntimeError(f"rsvg-convert can't draw an SVG of {len(content)} bytes: {done.stderr.decode().strip()}")
    return read_png(done.stdout)


def shrink(picture: Image.Image, size: int) -> Image.Image:
    """Returns an RGBA picture scaled, proportions kept, so that its longer side has `size` pixels."""
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    # Colours weighted by their opacity, so that those of transparent pixels do not show at edges.
    return picture.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")


def on_white(picture: Image.Image, size: int) -> Image.Image:
    """Returns an RGBA picture in the middle of a white square with sides of `size` pixels, RGB."""
    square = Image.new("RGBA", (size, size), "white")
    square.alpha_composite(picture, tuple((size - side) // 2 for side in picture.size))
    return square.convert("RGB")


def encode(picture: Image.Image, form: str, **options: int) -> bytes:
    """Returns the file of a picture in the form `PNG` or `JPEG`."""
    file = io.BytesIO()
    picture.save(file, form, optimize=True, **options)
    return file.getvalue()
