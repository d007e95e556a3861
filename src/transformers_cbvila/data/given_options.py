"""Options of commands: whether somebody gave them, whatever their values, and how often they may be given."""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields
from typing import Any, Self

from ..model.messages_cbvila import shown


class Repeatable(argparse.Action):
    """An option that may be given once with several values or several times; both replace its default."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Adds the values to those that were given before."""
        repeated = vars(namespace).setdefault("repeated_options", set())
        before = getattr(namespace, self.dest) if self.dest in repeated else []
        repeated.add(self.dest)
        setattr(namespace, self.dest, [*before, *(values or ())])


def refuse_without(options: Any, other: str, names: Iterable[str]) -> None:
    """Raises a ValueError for the first option that says more of another one, which is off or not given.

    Args:
        options: A dataclass of options. Values that are the defaults are no mistake.
        other: The other option.
        names: Options that only matter with it.
    """
    needed = getattr(options, other)
    if needed:
        return
    off = shown(needed) if isinstance(needed, int | float) else "not given"
    for name in names:
        value = getattr(options, name)
        if value != default_of(options, name):
            raise ValueError(f"{name}={shown(value)} is for {other}, which is {off}. Set both, or neither.")


def default_of(options: Any, name: str) -> Any:
    """Returns the default of a field of a dataclass that has one."""
    option = type(options).__dataclass_fields__[name]
    return option.default if option.default_factory is MISSING else option.default_factory()


class GivenOptions:
    """Base of dataclasses of options: an instance knows which of its fields were given.

    Defaults that depend on the model and the data then replace only those that were not; a given value counts even if
    it equals the default.
    """

    _given: frozenset[str]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Makes an instance and notes which fields it was given."""
        options = super().__new__(cls)
        by_position = [field.name for field in fields(cls) if field.init and not field.kw_only]  # type: ignore[arg-type]
        options._given = frozenset(by_position[: len(args)]) | frozenset(kwargs)
        return options

    def is_given(self, name: str) -> bool:
        """Whether somebody gave the option."""
        return name in self._given

    def set_given(self, names: Iterable[str]) -> None:
        """Sets which options were given; for parsers, which make every field from a value."""
        self._given = frozenset(names)
