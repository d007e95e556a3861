"""How messages show a value that somebody gave: recognisable, on one line and never longer than it needs to be."""

from collections.abc import Iterable
from typing import Any

SHOWN_CHARACTERS = 80


def shown(value: Any, limit: int = SHOWN_CHARACTERS) -> str:
    """The `repr` of a value, cut where it grows too long: "'data:image/png;base64,iVBOR…' (400,152 characters)".

    Args:
        limit: Characters of the `repr` that are kept.
    """
    # a repr is as long as its value: of a long text only the beginning is asked for
    if isinstance(value, str | bytes) and len(value) > limit:
        unit = "characters" if isinstance(value, str) else "bytes"
        return f"{value[:limit]!r}… ({len(value):,} {unit})"
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else f"{text[:limit]}… (a {type(value).__name__})"


def shown_error(error: BaseException, limit: int = 300) -> str:
    """What an error says and of which kind it is, cut where it grows too long: "OSError: image file is truncated"."""
    return one_line(f"{type(error).__name__}: {error}", limit)


def one_line(text: str, limit: int = 300) -> str:
    """A text that somebody else wrote, such as a library's error, on one line, cut where it grows too long."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]}…"


def listed(names: Iterable[Any], limit: int = 500) -> str:
    """Names with commas between them, as many as there is room for: "id, image, … (1,024 in all)"."""
    names = list(map(str, names))
    text = ", ".join(names)
    return (
        text
        if len(text) <= limit
        else f"{text[:limit].rpartition(', ')[0] or text[:limit]}, … ({len(names):,} in all)"
    )
