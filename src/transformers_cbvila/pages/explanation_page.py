"""Writes an HTML page, in a single file, that shows where the words of a text look in an image."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from ..explaining.explanation import Explanation
from ..explaining.visual_words import codes_for_words, words_for_code
from .document import counted, html_page, image_tag, percent, table, tile
from .heat_maps import enlarged, heat_map_figures, scale_bar

_METHODS = {
    "gradcam": "Grad-CAM: attention to a patch counts where more of it would raise the score.",
    "rollout": "Attention rollout: what was attended to through the layers, whatever the score.",
}
_CODES = 3  # of a word
_WORDS = 3  # of a code
_ROWS = 24  # codes that are shown
_PATCHES = 8  # numbers of patches that are shown


def write_explanation_page(
    path: Path | str, explanation: Explanation, title: str = "Where the words look", codes: np.ndarray | None = None
) -> Path:
    """Writes the images with a heat map for each word, the score, and which visual words and words go together.

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
        body += [_visual_words(explanation, codes), _words_of_codes(explanation, codes)]
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


def _words_of_codes(explanation: Explanation, codes: np.ndarray) -> str:
    """Shows the words that look at the patches of each code, and which patches these are."""
    found = {code: words_for_code(explanation, codes, code) for code in np.unique(codes).tolist()}
    shown = sorted(found, key=lambda code: -found[code][0][1])[:_ROWS]
    rows = "".join(
        f'<tr><th scope="row">{_patch(explanation, codes, code)}code {code}</th><td>{_places(codes, code)}</td><td>'
        + ", ".join(f'{escape(word)} <span class="soft">{mean:.2f}</span>' for word, mean in found[code][:_WORDS])
        + "</td></tr>"
        for code in shown
    )
    columns = "".join(f'<th scope="col">{name}</th>' for name in ("visual word", "patches", "words"))
    which = "" if len(shown) == len(found) else f" The {len(shown)} of {len(found)} codes at which words look most."
    return f"""<section><h2>Words that go with a visual word</h2>
<p class="soft">The reverse: the words that look most at the patches of a code, with the mean of their map there, from
0 to 1. Patches are numbered row by row from 0, as cbvila draw --redraw and --words take them.{which}</p>
{table("The words that look at the patches of each code", rows, columns, "spoken")}</section>"""


def _places(codes: np.ndarray, code: int) -> str:
    """Returns the numbers of the patches that have a code, of many the first ones."""
    patches = np.flatnonzero((codes == code).any(axis=1)).tolist()
    more = f" and {len(patches) - _PATCHES} more" if len(patches) > _PATCHES else ""
    return ", ".join(map(str, patches[:_PATCHES])) + more


def _patch(explanation: Explanation, codes: np.ndarray, code: int) -> str:
    """Returns the first patch with a code."""
    return _picture(explanation, int((codes == code).any(axis=1).argmax()), code)


def _code(explanation: Explanation, word: int, codes: np.ndarray, code: int, share: float) -> str:
    """Returns the patch with a code at which a word, by its number, looks most, and the word's share on the code."""
    looks = np.where((codes == code).any(axis=1), explanation.maps[word].ravel(), -1)
    picture = _picture(explanation, int(looks.argmax()), code)
    return f'{picture}code {code} <span class="soft">{percent(share, 0)}</span>'


def _picture(explanation: Explanation, number: int, code: int) -> str:
    """Returns a patch of the image, by its number, which has a code."""
    image, (rows, columns) = explanation.images[0], explanation.maps.shape[1:]
    row, column = divmod(number, columns)
    height, width = image.shape[0] // rows, image.shape[1] // columns
    patch = image[row * height : (row + 1) * height, column * width : (column + 1) * width]
    return image_tag(Image.fromarray(patch), f"A patch with code {code}")


def _names(explanation: Explanation) -> list[str]:
    """Returns what the images are called."""
    count = len(explanation.images)
    return ["The image"] if count == 1 else [f"Image {number}" for number in range(1, count + 1)]
