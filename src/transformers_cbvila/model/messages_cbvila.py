"""Formats values for messages: on one line and shortened."""

from collections.abc import Iterable
from typing import Any

SHOWN_CHARACTERS = 80


def shown(value: Any, limit: int = SHOWN_CHARACTERS) -> str:
    """Returns the `repr` of a value, shortened: `'data:image/png;base64,iVBOR…' (400,152 characters)`.

    Args:
        value: Any value.
        limit: Number of characters that are kept.
    """
    # The repr of a long text takes time: only that of its beginning is computed.
    if isinstance(value, str | bytes) and len(value) > limit:
        unit = "characters" if isinstance(value, str) else "bytes"
        return f"{value[:limit]!r}… ({len(value):,} {unit})"
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else f"{text[:limit]}… (a {type(value).__name__})"


def shown_error(error: BaseException, limit: int = 300) -> str:
    """Returns the type and the message of an error, shortened: `OSError: image file is truncated`."""
    return one_line(f"{type(error).__name__}: {error}", limit)


def one_line(text: str, limit: int = 300) -> str:
    """Returns a text, such as the error of a library, on one line, shortened."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]}…"


def listed(names: Iterable[Any], limit: int = 500) -> str:
    """Returns names separated by commas, shortened: `id, image, … (1,024 in all)`."""
    names = list(map(str, names))
    text = ", ".join(names)
    if len(text) <= limit:
        return text
    return f"{text[:limit].rpartition(', ')[0] or text[:limit]}, … ({len(names):,} in all)"
