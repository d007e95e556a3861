"""Heat maps over images, and the figures of an explanation."""

import html
from collections.abc import Callable

import numpy as np
from PIL import Image

from ..explaining.explanation import Explanation
from .document import image_tag, percent

_SIDE = 320  # pixels of the longer side, at least: small images are enlarged by a whole number
_COVER = 0.62  # how much of a pixel the colour is
# From the least to the most: ever lighter, so that the order can also be told without colours.
_SCALE = np.array([(22, 18, 60), (76, 38, 130), (176, 50, 110), (240, 110, 50), (252, 225, 110)], dtype=np.float64)


def heat_colours(values: np.ndarray) -> np.ndarray:
    """Returns the colours (…, 3), 0 to 255, of values (…) from 0 to 1."""
    places = np.clip(values, 0, 1) * (len(_SCALE) - 1)
    return np.stack([np.interp(places, np.arange(len(_SCALE)), channel) for channel in _SCALE.T], axis=-1)


def enlarged(image: np.ndarray) -> Image.Image:
    """Returns an image (H, W, 3) uint8, enlarged by a whole number if it is small."""
    height, width = image.shape[:2]
    zoom = max(1, -(-_SIDE // max(height, width)))
    return Image.fromarray(image).resize((width * zoom, height * zoom), Image.Resampling.NEAREST)


def heat_map(image: np.ndarray, values: np.ndarray) -> Image.Image:
    """Returns a grey image with values over it in colours.

    Args:
        image: (H, W, 3) uint8.
        values: (rows, columns) values of the patches, 0 to 1; between their centres they are interpolated.
    """
    # Lightness and not luma: of a light ground, yellow differs little in luma.
    light = ((image.max(axis=2).astype(np.uint16) + image.min(axis=2)) // 2).astype(np.uint8)
    grey = enlarged(np.stack([light] * 3, axis=2)).convert("L")
    smooth = Image.fromarray(values.astype(np.float32)).resize(grey.size, Image.Resampling.BILINEAR)
    mixed = np.asarray(grey, dtype=np.float64)[..., None] * (1 - _COVER) + heat_colours(np.asarray(smooth)) * _COVER
    return Image.fromarray(mixed.round().astype(np.uint8))


def scale_bar(width: int = 240, height: int = 12) -> Image.Image:
    """Returns the colours from 0, on the left, to 1."""
    line = heat_colours(np.linspace(0, 1, width))
    return Image.fromarray(np.broadcast_to(line.round().astype(np.uint8), (height, width, 3)).copy())


def place_of_maximum(values: np.ndarray) -> str:
    """Returns where values (rows, columns) are greatest, such as "upper left" or "centre", in thirds of the image."""
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    down = ("upper", "", "lower")[int((row + 0.5) * 3 / values.shape[0])]
    across = ("left", "", "right")[int((column + 0.5) * 3 / values.shape[1])]
    return " ".join(part for part in (down, across) if part) or "centre"


def heat_map_alternative(word: str, values: np.ndarray, image: str = "the image") -> str:
    """Returns what a heat map of a word shows over what is called `image`, for screen readers."""
    if values.max() == values.min():
        return f"Heat map of “{word}” over {image}: the same everywhere"
    return f"Heat map of “{word}” over {image}: greatest at the {place_of_maximum(values)}"


def heat_map_figures(
    explanation: Explanation,
    number: int = 0,
    image: str = "the image",
    shares: bool = True,
    tag: Callable[[Image.Image, str], str] = image_tag,
    escape: Callable[[str], str] = html.escape,
) -> str:
    """Returns a `<figure>` for each word: its heat map over an image, and below it the word.

    Args:
        explanation: What [`explain`] returned.
        number: Of the image, counted from 0.
        image: What the image is called.
        shares: Whether to say which part of the attention of all words a word has.
        tag: Returns the tag of a picture with what it shows in words.
        escape: Escapes a word.
    """
    seen, figures = explanation.images[number], []
    words = zip(explanation.words, explanation.known, explanation.shares, explanation.image_maps[number], strict=True)
    for word, known, share, values in words:
        notes = [f"{percent(float(share), 0)} of all words"] if shares else []
        notes += [] if known else ["not a word that the model knows"]
        below = f'<span class="soft">{"; ".join(notes)}</span>' if notes else ""
        drawn = tag(heat_map(seen, values), heat_map_alternative(word, values, image))
        figures.append(f"<figure>{drawn}<figcaption><b>{escape(word)}</b>{below}</figcaption></figure>")
    return "".join(figures)
