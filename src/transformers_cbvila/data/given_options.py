"""Options that know whether somebody gave them or they have their default, whatever the values."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any


class GivenOptions:
    """Base of dataclasses of options: an instance knows which of its fields it was made with.

    A default that depends on the model and the data may then take the place of what nobody gave, and of nothing else;
    a value that somebody gave counts even where it equals the default.
    """

    _given: frozenset[str]

    def __new__(cls, *args: Any, **kwargs: Any):
        options = super().__new__(cls)
        by_position = [field.name for field in fields(cls) if field.init and not field.kw_only]  # type: ignore[arg-type]
        options._given = frozenset(by_position[: len(args)]) | frozenset(kwargs)
        return options

    def is_given(self, name: str) -> bool:
        """Whether somebody gave the option."""
        return name in self._given

    def set_given(self, names: Iterable[str]) -> None:
        """Says anew which options were given; for parsers, which make every field from a value."""
        self._given = frozenset(names)
