"""Words of codes, codes of words and places of codes as HTML strings. Text from data is escaped."""

from __future__ import annotations

from html import escape

import numpy as np
from PIL import Image

from ..inspection.code_words import CodeWords, places_of_code
from ..inspection.visual_words import VisualWords
from .document import image_tag, percent, table

_PAPER, _INK = np.array([240, 242, 245.0]), np.array([20, 60, 120.0])


def words_of_code(code_words: CodeWords, code: int) -> str:
    """Returns the words that go with a code, each with its share in the code's patches and in all."""
    found = code_words.of_code(code)
    return "".join(
        f'<span class="soft">{escape(word)}: {percent(share, 0)}, of all {percent(frequency, 0)}</span>'
        for word, share, frequency in found
    )


def places_tag(code: int, words: VisualWords) -> str:
    """Returns a small map of where in images a code occurs; the darkest place is where it does most often."""
    places = places_of_code(code, words)
    row, column = np.unravel_index(int(places.argmax()), places.shape)
    most = percent(float(places.max()), 1)
    alt = f"where code {code} occurs: in {most} of images in row {row + 1}, column {column + 1}"
    shades = (places / max(float(places.max()), 1e-9))[..., None]
    drawn = Image.fromarray((_PAPER + shades * (_INK - _PAPER)).round().astype(np.uint8))
    return image_tag(drawn, alt, "places")


def words_section(code_words: CodeWords, words: VisualWords) -> str:
    """Shows the codes of the words that codes tell most about; nothing without words."""
    rows = "".join(_row(code_words, word, words) for word in code_words.most_telling_words())
    if not rows:
        return ""
    return f"""<section><h2>Codes of words</h2>
<p class="soft">The reverse: codes that images with a word in their captions or labels have more often than others,
with how many times as often; beside a number is the mean colour of the code's patches. Words of most images, such as
&ldquo;a&rdquo;, tell nothing and are left out.</p>
{table("Words with the codes that go with them", rows, name="words")}</section>"""


def _row(code_words: CodeWords, word: str, words: VisualWords) -> str:
    codes = "".join(
        f'<span class="code">{swatch(words, code)}{code} <span class="soft">{ratio:.1f} ×</span></span>'
        for code, ratio in code_words.of_word(word)
    )
    share = float(code_words.frequencies[code_words.words.index(word)])
    return (
        f'<tr><th scope="row">{escape(word)}<span class="soft">in {percent(share, 1)} of images</span></th>'
        f"<td>{codes}</td></tr>"
    )


def swatch(words: VisualWords, code: int) -> str:
    """Returns a square in the mean colour of a code's patches."""
    return f'<span class="swatch" style="background:rgb({rgb(words, code)})"></span>'


def rgb(words: VisualWords, code: int) -> str:
    """Returns the mean colour of a code's patches: "220,30,30"."""
    return ",".join(f"{255 * value:.0f}" for value in words.colours[code])
