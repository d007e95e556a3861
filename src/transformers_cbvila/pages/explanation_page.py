"""Writes an HTML page, in a single file, that shows where the words of a text look in an image."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from ..explaining.explanation import Explanation
from ..explaining.visual_words import codes_for_words
from .document import counted, html_page, image_tag, percent, table, tile
from .heat_maps import enlarged, heat_map_figures, scale_bar

_METHODS = {
    "gradcam": "Grad-CAM: attention to a patch counts where more of it would raise the score.",
    "rollout": "Attention rollout: what was attended to through the layers, whatever the score.",
}
_CODES = 3


def write_explanation_page(
    path: Path | str, explanation: Explanation, title: str = "Where the words look", codes: np.ndarray | None = None
) -> Path:
    """Writes the images with a heat map for each word, the score, and the visual words that speak for each word.

    Args:
        path: The HTML file; its folder is made if it does not exist.
        explanation: What [`explain`] returned.
        title: The title, plain text.
        codes: (N, R) code indices of the image; without them visual words are left out.

    Returns:
        The path.
    """
    body = [f'<p class="soft">“{escape(explanation.text)}”</p>', _tiles(explanation), _images(explanation)]
    body += [_heat_maps(explanation, number) for number in range(len(explanation.images))]
    if codes is not None:
        body.append(_visual_words(explanation, codes))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html_page(title, "\n".join(body), "explanation.css"), encoding="utf-8")
    return path


def _tiles(explanation: Explanation) -> str:
    """Shows the answer, the score and the probability."""
    answer = [] if explanation.answer is None else [tile(explanation.answer, "answer")]
    numbers = [
        tile(f"{explanation.score:z.2f}", explanation.score_name),
        tile(percent(explanation.probability), "probability by softmax, not calibrated"),
    ]
    return f'<div class="tiles">{"".join([*answer, *numbers])}</div>'


def _images(explanation: Explanation) -> str:
    """Shows the images."""
    names = _names(explanation)
    shown = "".join(
        image_tag(enlarged(image), f"{name}, as the model sees it")
        for image, name in zip(explanation.images, names, strict=True)
    )
    return f'<section><h2>What the model sees</h2><div class="seen">{shown}</div></section>'


def _heat_maps(explanation: Explanation, number: int) -> str:
    """Shows a heat map of each word over one image."""
    name = _names(explanation)[number]
    figures = heat_map_figures(explanation, number, name.lower())
    rows, columns = explanation.maps.shape[1:]
    title = "Where the words look" if len(explanation.images) == 1 else f"Where the words look: {name.lower()}"
    bar = image_tag(scale_bar(), "Colours from dark, the least of a word, to light, the most")
    return f"""<section class="heat"><h2>{title}</h2>
<p class="scale"><span>least</span>{bar}<span>most</span></p>
<div class="grid">{figures}</div>
<p class="soft">{_METHODS[explanation.method]} {_layers(explanation)}; mean over attention heads and over the
tokens of a word; {rows} × {columns} patches. Each word has its own scale, from its least value to
its greatest{" in any image" if len(explanation.images) > 1 else ""}; the percentage is its part of the attention of
all words. A dark map without light places is the same everywhere.</p></section>"""


def _layers(explanation: Explanation) -> str:
    """Names the fusion layers that are shown."""
    first, last = explanation.layers[0], explanation.layers[-1]
    return f"Fusion layer {first}, counted from 0" if first == last else f"Fusion layers {first} to {last}, from 0"


def _visual_words(explanation: Explanation, codes: np.ndarray) -> str:
    """Shows the codes of the patches where each word looks."""
    rows = "".join(
        f'<tr><th scope="row">{escape(word)}</th>'
        + "".join(f"<td>{_code(explanation, number, codes, code, share)}</td>" for code, share in found)
        + "<td></td>" * (_CODES - len(found))
        + "</tr>"
        for number, (word, found) in enumerate(
            zip(explanation.words, codes_for_words(explanation, codes, _CODES), strict=True)
        )
    )
    columns = '<th scope="col">word</th>' + "".join(
        f'<th scope="col">{name}</th>' for name in ("most", "second", "third")
    )
    return f"""<section><h2>Visual words that speak for a word</h2>
<p class="soft">Each patch has a visual word, a code of the model's codebook: {counted(len(np.unique(codes)), "code")}
in this image. The percentage is the part of a word's map that lies on patches with the code.</p>
{table("The codes of the patches where each word looks", rows, columns, "spoken")}</section>"""


def _code(explanation: Explanation, word: int, codes: np.ndarray, code: int, share: float) -> str:
    """Returns the patch with a code at which a word, by its number, looks most, and the word's share on the code."""
    image, (rows, columns) = explanation.images[0], explanation.maps.shape[1:]
    looks = np.where((codes == code).any(axis=1), explanation.maps[word].ravel(), -1)
    row, column = divmod(int(looks.argmax()), columns)
    height, width = image.shape[0] // rows, image.shape[1] // columns
    patch = image[row * height : (row + 1) * height, column * width : (column + 1) * width]
    picture = image_tag(Image.fromarray(patch), f"A patch with code {code}")
    return f'{picture}code {code} <span class="soft">{percent(share, 0)}</span>'


def _names(explanation: Explanation) -> list[str]:
    """Returns what the images are called."""
    count = len(explanation.images)
    return ["The image"] if count == 1 else [f"Image {number}" for number in range(1, count + 1)]
