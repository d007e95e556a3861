"""HTML pages that need nothing else: style and pictures are inside, and no network is asked."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from importlib.resources import files
from io import BytesIO

from PIL import Image

UNKNOWN = "–"


def html_page(title: str, body: str, *styles: str) -> str:
    """A whole page.

    Args:
        title: Plain text, for the heading too.
        body: HTML below the heading.
        styles: Names of style sheets of this folder that this page needs besides `page.css`.
    """
    folder = files("transformers_cbvila.pages")
    style = "".join((folder / name).read_text(encoding="utf-8") for name in ("page.css", *styles))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}
</main>
</body>
</html>
"""


def tile(value: str, note: str) -> str:
    """A headline figure with what it is of, both plain text."""
    return f'<div class="tile"><b>{escape(value)}</b><span class="soft">{escape(note)}</span></div>'


def picture(image: Image.Image, alt: str) -> str:
    """An image tag that holds its image; `alt` says what is to be seen to who does not see it."""
    return f'<img alt="{escape(alt)}" src="{data_uri(png(image))}">'


def table(caption: str, rows: str, columns: str = "", name: str = "") -> str:
    """A table of rows as HTML.

    Args:
        caption: What it shows, as plain text; it is read out, and not shown below the heading that says it already.
        columns: A row of `<th scope="col">`, if columns have names.
        name: Its class in the style sheets.
    """
    head = f"<thead><tr>{columns}</tr></thead>" if columns else ""
    told = f'<caption class="told">{escape(caption)}</caption>'
    return f'<table class="{name}">{told}{head}<tbody>{rows}</tbody></table>'


def counted(number: int, noun: str) -> str:
    """A number of things: "1 code", "1,200 codes"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(share: float | None, digits: int = 2) -> str:
    """A share, 0 to 1, as text."""
    return UNKNOWN if share is None else f"{100 * share:.{digits}f}\u202f%"


def png(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG file."""
    file = BytesIO()
    (image if image.mode in ("RGB", "RGBA") else image.convert("RGB")).save(file, format="PNG", optimize=True)
    return file.getvalue()


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + b64encode(png).decode("ascii")
