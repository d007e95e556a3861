"""A sheet of pictures: a line of them for each caption, which stands above."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..model.messages_cbvila import shown

_SIDE, _GAP, _LINE = 128, 8, 24  # pixels
_PAPER, _INK = "white", (40, 44, 52)


def sheet(lines: Sequence[Sequence[Image.Image]], captions: Sequence[str]) -> Image.Image:
    """Returns a sheet with a line of pictures for each caption; small ones are enlarged by a whole number."""
    font = ImageFont.load_default(15)
    width, height = lines[0][0].size
    zoom = max(1, round(_SIDE / max(width, height)))
    width, height = width * zoom, height * zoom
    columns = max(map(len, lines))
    texts = max(round(font.getlength(caption)) for caption in captions)
    size = (max(columns * (width + _GAP), texts + _GAP) + _GAP, len(lines) * (height + _LINE + _GAP) + _GAP)
    drawn = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(drawn)
    for number, (pictures, caption) in enumerate(zip(lines, captions, strict=True)):
        top = _GAP + number * (height + _LINE + _GAP)
        pen.text((_GAP, top), caption, _INK, font)
        for column, picture in enumerate(pictures):
            enlarged = picture.resize((width, height), Image.Resampling.NEAREST)
            drawn.paste(enlarged, (_GAP + column * (width + _GAP), top + _LINE))
    return drawn


def require_image_file(option: str, path: str | Path) -> None:
    """Checks that Pillow writes files of a name, before there is anything to be lost.

    Args:
        option: The option that names the file.
        path: The file.

    Raises:
        ValueError: If its ending is that of no image format; the message names the option.
    """
    if Image.registered_extensions().get(Path(path).suffix.lower()) not in Image.SAVE:
        raise ValueError(f"{option}={shown(str(path), 255)}: name an image file, such as one that ends with .png.")
