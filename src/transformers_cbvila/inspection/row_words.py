"""Words of rows: those of their captions, and their labels and attributes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclass
class RowWords:
    """The words of M rows.

    Attributes:
        first: Words of the first caption of each row.
        captions: Words of all captions of each row.
        labels: Labels and attributes of each row, such as "cat" or "red"; they may be of several words.
    """

    first: list[set[str]] = field(default_factory=list)
    captions: list[set[str]] = field(default_factory=list)
    labels: list[set[str]] = field(default_factory=list)

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row with `captions` and, optionally, labels as `keywords`."""
        captions = row.get("captions") or [""]
        self.first.append(words_of(captions[0]))
        self.captions.append(set().union(*map(words_of, captions)))
        self.labels.append({label.lower() for label in row.get("keywords") or []})

    def chosen(self, rows: Sequence[int]) -> "RowWords":
        """Returns the words of some of the rows."""
        return RowWords(*([own[row] for row in rows] for own in (self.first, self.captions, self.labels)))

    @property
    def all(self) -> list[set[str]]:
        """Words of all captions and labels of each row."""
        return [captions | labels for captions, labels in zip(self.captions, self.labels, strict=True)]

    @property
    def has_one_label_each(self) -> bool:
        """Whether every row has exactly one label, so that labels are classes."""
        return bool(self.labels) and all(len(labels) == 1 for labels in self.labels)


def words_of(text: str) -> set[str]:
    """Returns the words of a text in lower case, without signs."""
    return set(WORD.findall(text.lower()))
