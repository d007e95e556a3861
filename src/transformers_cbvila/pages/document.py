"""Builds HTML pages in a single file: styles and images are embedded, and nothing is loaded from the network."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from importlib.resources import files
from io import BytesIO

from PIL import Image

UNKNOWN = "–"


def html_page(title: str, body: str, *styles: str, head: str = "") -> str:
    """Returns a whole page.

    Args:
        title: Plain text, also the heading.
        body: HTML below the heading.
        *styles: Names of style sheets of this folder to embed after `page.css`.
        head: HTML at the end of the head.
    """
    folder = files("transformers_cbvila.pages")
    style = "".join((folder / name).read_text(encoding="utf-8") for name in ("page.css", *styles))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{style}</style>{head}
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
    """Returns a headline number and its label, both plain text."""
    return f'<div class="tile"><b>{escape(value)}</b><span class="soft">{escape(note)}</span></div>'


def image_tag(image: Image.Image, alt: str, name: str = "") -> str:
    """Returns an `<img>` with the image embedded.

    Args:
        image: The image.
        alt: What it shows, plain text, for screen readers.
        name: Its class in the style sheets, if any.
    """
    kind = f' class="{name}"' if name else ""
    return f'<img{kind} alt="{escape(alt)}" src="{data_uri(png(image))}">'


def table(caption: str, rows: str, columns: str = "", name: str = "") -> str:
    """Returns a table.

    Args:
        caption: What it shows, plain text, for screen readers; it is not displayed.
        rows: The rows, as HTML.
        columns: The header cells, `<th scope="col">` each, if any.
        name: Its class in the style sheets.
    """
    head = f"<thead><tr>{columns}</tr></thead>" if columns else ""
    hidden_caption = f'<caption class="visually-hidden">{escape(caption)}</caption>'
    return f'<table class="{name}">{hidden_caption}{head}<tbody>{rows}</tbody></table>'


def counted(number: int, noun: str) -> str:
    """Returns a number with a noun: "1 code", "1,200 codes"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(share: float | None, digits: int = 2) -> str:
    """Formats a share, 0 to 1, as a percentage; a dash for None."""
    return UNKNOWN if share is None else f"{100 * share:.{digits}f}\u202f%"


def png(image: Image.Image) -> bytes:
    """Returns the bytes of a PNG file."""
    file = BytesIO()
    (image if image.mode in ("RGB", "RGBA") else image.convert("RGB")).save(file, format="PNG", optimize=True)
    return file.getvalue()


def data_uri(png: bytes) -> str:
    """Returns a PNG file as a data URI."""
    return "data:image/png;base64," + b64encode(png).decode("ascii")
