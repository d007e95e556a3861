"""Suggests known words for an unknown one in error messages."""

import difflib
from collections.abc import Iterable

_LONGEST = 80  # characters of a word that are compared
_OFFERED = 3


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns the end of a message that suggests known words, such as "; did you mean --epochs?", or nothing.

    Words whose initials are the unknown word (`lr`, `learning_rate`) come first, then those that have it as a part
    (`epochs`, `num_train_epochs`), then those with a similar spelling.
    """
    plain = {_plain(name): name for name in reversed(list(known))}  # of two equal spellings the first
    wanted = _plain(word)
    found = [name for name in plain if "".join(part[:1] for part in name.split("_")) == wanted]
    if not found:
        parts_of = [name for name in plain if f"_{wanted}_" in f"_{name}_"]
        found = difflib.get_close_matches(wanted, parts_of, n=_OFFERED, cutoff=0.0)
    found = found or difflib.get_close_matches(wanted, plain, n=1, cutoff=0.6)
    meant = [plain[name] for name in found[:_OFFERED]]
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()[:_LONGEST]
