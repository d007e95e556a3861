"""Pieces of HTML that the tabs are made of. All texts are plain and escaped here."""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Container, Iterable, Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..explaining.explanation import Explanation
from ..pages.document import data_uri, percent, png
from ..pages.heat_maps import heat_map_figures, scale_bar

_SIDE = 320  # pixels of the longer side of a picture, at most
_CRISP = 128  # pictures up to this side are sent as they are, and shown with sharp pixels


class Card(NamedTuple):
    """A picture that can be chosen.

    Args:
        number: What choosing it reports.
        image: The picture.
        name: What it shows.
        caption: What stands below it.
    """

    number: int
    image: Image.Image
    name: str
    caption: str = ""


def escape(text: str) -> str:
    """Escapes a text, also from Gradio's templates, which fill in what stands in braces."""
    return html.escape(text).translate({ord(sign): f"&#{ord(sign)};" for sign in "{}$`"})


def picture(image: Image.Image, alternative: str, name: str = "") -> str:
    """Returns an `<img>` with the picture embedded; large ones are made smaller.

    Args:
        image: The picture.
        alternative: What it shows, for screen readers.
        name: Its class in the style sheet, if any.
    """
    crisp = max(image.size) <= _CRISP
    names = " ".join(filter(None, ("crisp" if crisp else "", name)))
    source = data_uri(png(image)) if crisp else _small(image)
    return f'<img class="{names}" alt="{escape(alternative)}" src="{source}" draggable="false">'


def note(text: str, kind: str = "soft") -> str:
    """Returns a paragraph of plain text: `soft`, or `problem` where something is missing."""
    return f'<p class="{kind}">{escape(text)}</p>'


def heading(text: str) -> str:
    """Returns a heading of a part of a tab."""
    return f"<h2>{escape(text)}</h2>"


def cards(items: Iterable[Card], label: str, chosen: int | None = None) -> str:
    """Returns pictures as buttons; `data-number` says which one is pressed.

    Args:
        items: The pictures.
        label: What they are, for screen readers.
        chosen: Number of the chosen one.
    """
    buttons = "".join(f"<li>{_card(item, item.number == chosen)}</li>" for item in items)
    return f'<ul class="cards" aria-label="{escape(label)}">{buttons}</ul>'


def bars(rows: Iterable[tuple[str, float]], chosen: str | None = None, label: str = "") -> str:
    """Returns buttons with a text, its share as a bar and in percent; `data-text` says which one is pressed."""
    lines = "".join(
        f'<li><button type="button" class="bar" data-text="{escape(text)}" aria-pressed="{flag(text == chosen)}">'
        f'<b>{escape(text)}</b><span class="track"><i style="width:{100 * share:.1f}%"></i></span>'
        f"<span>{percent(share, 1)}</span></button></li>"
        for text, share in rows
    )
    return f'<ul class="bars" aria-label="{escape(label)}">{lines}</ul>'


def heat_maps(explanation: Explanation) -> str:
    """Returns the heat map of each word of an explanation of one image, with the scale of their colours."""
    figures = heat_map_figures(explanation, shares=False, tag=picture, escape=escape)
    bar = picture(scale_bar(120, 8), "from dark, where a word looks least, to light, where it looks most", "scale")
    return f'<div class="heat">{figures}</div><p class="soft">least {bar} most, for each word</p>'


def patches(
    image: np.ndarray,
    grid: tuple[int, int],
    kind: str,
    labels: Sequence[str],
    codes: Sequence[int] | None = None,
    pressed: Container[int] = (),
) -> str:
    """Returns a picture with a button over each patch.

    Args:
        image: (H, W, 3) uint8.
        grid: Rows and columns of patches.
        kind: Class of the buttons.
        labels: What each patch is, for screen readers.
        codes: What patches have in common, reported as `data-code`.
        pressed: Numbers of the patches that are pressed.
    """
    buttons = "".join(
        f'<button type="button" class="{kind}" aria-label="{escape(label)}" aria-pressed="{flag(place in pressed)}"'
        f' data-patch="{place}" data-code="{"" if codes is None else codes[place]}"></button>'
        for place, label in enumerate(labels)
    )
    drawn = picture(Image.fromarray(image), "The picture as the model sees it")
    style = f"--columns:{grid[1]};--rows:{grid[0]}"
    return f'<div class="patches" style="{style}">{drawn}<div class="overlay">{buttons}</div></div>'


def figure(image: Image.Image, caption: str, alternative: str = "") -> str:
    """Returns a picture with a caption below."""
    return f"<figure>{picture(image, alternative or caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def flag(value: bool) -> str:
    """Returns the value of an attribute such as `aria-pressed`."""
    return "true" if value else "false"


def _card(card: Card, is_chosen: bool) -> str:
    """Returns a picture as a button."""
    label = f"{card.caption}: {card.name}" if card.caption else card.name
    return (
        f'<button type="button" class="card" data-number="{card.number}" aria-pressed="{flag(is_chosen)}"'
        f' aria-label="{escape(label)}">{picture(card.image, "")}'
        f"{f'<span>{escape(card.caption)}</span>' if card.caption else ''}</button>"
    )


def _small(image: Image.Image) -> str:
    """Returns a picture as a WebP data URI of at most `_SIDE` pixels."""
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE))
    file = BytesIO()
    small.save(file, format="WEBP", quality=82)
    return "data:image/webp;base64," + b64encode(file.getvalue()).decode("ascii")
