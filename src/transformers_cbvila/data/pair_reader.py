"""One row of a source as a pair: its image as it is kept, its captions, and what an error calls it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..model.messages_cbvila import shown
from .bad_rows import FAULT, WAY_OUT, key_columns, reason, row_origin
from .images import encoded
from .source_rows import image_locator
from .texts import class_names, named, texts_in


class Columns(NamedTuple):
    """The columns that pairs are made of."""

    image: str
    caption: str
    keyword: str | None = None


class PairReader:
    """Reads rows of one source.

    Args:
        source: The source.
        columns: Where things are.
        features: Of the rows, as far as they are known.
        counts_rows: Whether the numbers of rows count from the start of the source.
    """

    def __init__(self, source: str, columns: Columns, features: Mapping[str, Any], counts_rows: bool = True):
        self.source = source
        self.columns = columns
        self.counts_rows = counts_rows
        self._place = image_locator(source)
        self._names = {column: class_names(features.get(column)) for column in columns if column is not None}

    def __call__(self, row: Mapping[str, Any], number: int) -> dict[str, Any]:
        """The pair of a row. ValueError, which names the row, if a caption is no text."""
        return {"image": encoded(self._place(row[self.columns.image])), **self.texts(row, number)}

    def or_fault(self, row: Mapping[str, Any], number: int) -> dict[str, Any]:
        """The pair of a row; if a caption is no text, what is wrong with it, for whoever counts bad rows."""
        try:
            return {**self(row, number), FAULT: None}
        except ValueError as error:
            texts: dict[str, Any] = {"captions": [], "keywords": [], "origin": self.origin(row, number)}
            return {"image": None, **texts, FAULT: reason(error)}

    def text_columns(self, names: Sequence[str]) -> list[str]:
        """The columns that `texts` reads."""
        wanted = [self.columns.caption, self.columns.keyword, *key_columns(names)]
        return list(dict.fromkeys(name for name in wanted if name is not None))

    def texts(self, row: Mapping[str, Any], number: int) -> dict[str, Any]:
        """What there is of a pair beside its image."""
        origin = self.origin(row, number)
        try:
            captions = self._read(row, self.columns.caption, "caption")
            keywords = [] if self.columns.keyword is None else self._read(row, self.columns.keyword, "keyword")
        except ValueError as error:
            raise ValueError(f"{origin}: {error}. {WAY_OUT}.") from error
        return {"captions": captions, "keywords": keywords, "origin": origin}

    def origin(self, row: Mapping[str, Any], number: int) -> str:
        """What an error calls a row: its number or key and its file, or else what it holds."""
        if self.counts_rows or key_columns(list(row)):
            return row_origin(self.source, number, row)
        image = row.get(self.columns.image)
        path = image.get("path") if isinstance(image, Mapping) else image if isinstance(image, str) else None
        return f"The row of {self.source} with {shown(path or row[self.columns.caption])}"

    def _read(self, row: Mapping[str, Any], column: str, what: str) -> list[str]:
        return texts_in(named(row[column], self._names[column]), f"{what} in column {column!r}")
