"""One row of a source as a pair: its image, not decoded, its captions, and what an error calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..extras import require
from ..model.messages_cbvila import shown
from .bad_rows import FAULT, WAY_OUT, key_columns, reason, row_origin
from .builtin_sources import classes_of_objects
from .images import encoded
from .label_maps import drawn_label_map
from .source_images import image_locator
from .texts import attributes_in, class_names, named, texts_in, texts_or_blanks

if TYPE_CHECKING:
    from datasets import Features


TEXTS = ("captions", "keywords", "negative_captions")  # columns of pairs with lists of texts


class Columns(NamedTuple):
    """The columns that pairs are made of."""

    image: str
    caption: str
    keyword: str | None = None
    negative_caption: str | None = None
    labels: LabelColumns | None = None


class LabelColumns(NamedTuple):
    """The columns that label maps are made of.

    Args:
        label_map: The maps; `None` if a built-in source draws them, or there are none.
        objects: Records of the objects that the values of a map stand for; `None` if values are classes.
    """

    label_map: str | None = None
    objects: str | None = None


def pair_features(with_faults: bool = False, with_labels: bool = False) -> Features:
    """Returns the features of pairs, with columns for label maps, and what is wrong with a row, if asked for."""
    datasets = require("datasets")
    text = datasets.Value("string")
    texts = datasets.List(text)
    columns: dict[str, Any] = dict.fromkeys(TEXTS, texts) | {"origin": text}
    if with_labels:
        columns |= {"label_map": datasets.Image(decode=False), "label_classes": datasets.List(datasets.Value("int32"))}
    if with_faults:
        columns[FAULT] = text
    return datasets.Features(image=datasets.Image(decode=False), **columns)


class PairReader:
    """Reads rows of one source.

    Args:
        source: The source.
        columns: Its columns.
        features: Features of the rows, as far as they are known.
        counts_rows: Whether the numbers of rows count from the start of the source.
    """

    def __init__(self, source: str, columns: Columns, features: Mapping[str, Any], counts_rows: bool = True) -> None:
        self.source = source
        self.columns = columns
        self.counts_rows = counts_rows
        self._place = image_locator(source)
        of_texts = [column for column in columns[:4] if isinstance(column, str)]
        self._names = {column: class_names(features.get(column)) for column in of_texts}

    def __call__(self, row: Mapping[str, Any], number: int) -> dict[str, Any]:
        """Returns the pair of a row. ValueError, which names the row, if a caption is not a text."""
        pair = {"image": encoded(self._place(row[self.columns.image])), **self.texts(row, number)}
        return pair if self.columns.labels is None else {**pair, "label_map": self._label_map(row, pair["image"])}

    def or_fault(self, row: Mapping[str, Any], number: int) -> dict[str, Any]:
        """Returns the pair of a row or, if a caption is not a text, an empty one with the reason as its fault."""
        try:
            return {**self(row, number), FAULT: None}
        except ValueError as error:
            texts: dict[str, Any] = {name: list[str]() for name in TEXTS}
            if self.columns.labels is not None:
                texts |= {"label_map": None, "label_classes": []}
            return {"image": None, **texts, "origin": self.origin(row, number), FAULT: reason(error)}

    def text_columns(self, names: Sequence[str]) -> list[str]:
        """Returns the columns that `texts` reads."""
        objects = None if self.columns.labels is None else self.columns.labels.objects
        of_texts = (self.columns.caption, self.columns.keyword, self.columns.negative_caption)
        wanted = [*of_texts, objects, *key_columns(names)]
        return list(dict.fromkeys(name for name in wanted if name is not None))

    def texts(self, row: Mapping[str, Any], number: int) -> dict[str, Any]:
        """Returns the texts and origin of a pair and, with label maps, the classes of their values."""
        origin = self.origin(row, number)
        try:
            captions = self._read(row, self.columns.caption, "caption")
            keywords = self._keywords(row)
            negative_captions = self._read(row, self.columns.negative_caption, "negative caption", texts_or_blanks)
        except ValueError as error:
            raise ValueError(f"{origin}: {error}. {WAY_OUT}.") from error
        texts = {"captions": captions, "keywords": keywords, "negative_captions": negative_captions, "origin": origin}
        return texts if self.columns.labels is None else {**texts, "label_classes": self._label_classes(row)}

    def origin(self, row: Mapping[str, Any], number: int) -> str:
        """Returns what an error calls a row: its number or key and its file, or else what it holds."""
        if self.counts_rows or key_columns(list(row)):
            return row_origin(self.source, number, row)
        image = row.get(self.columns.image)
        path = image.get("path") if isinstance(image, Mapping) else image if isinstance(image, str) else None
        return f"The row of {self.source} with {shown(path or row[self.columns.caption])}"

    def _keywords(self, row: Mapping[str, Any]) -> list[str]:
        column = self.columns.keyword
        return [] if column is None else attributes_in(row[column]) or self._read(row, column, "keyword")

    def _label_map(self, row: Mapping[str, Any], image: Any) -> Any:
        labels = self.columns.labels
        if labels is None or labels.label_map is None:
            return drawn_label_map(image)
        return encoded(self._place(row[labels.label_map]))

    def _label_classes(self, row: Mapping[str, Any]) -> list[int]:
        """Returns the class of each value of a row's label map; none if values are classes."""
        labels = self.columns.labels
        if labels is None or labels.label_map is None or labels.objects is None:
            return []
        return classes_of_objects(row[labels.objects] or ())

    def _read(
        self,
        row: Mapping[str, Any],
        column: str | None,
        what: str,
        read: Callable[[Any, str], list[str]] = texts_in,
    ) -> list[str]:
        if column is None:
            return []
        return read(named(row[column], self._names[column]), f"{what} in column {column!r}")
