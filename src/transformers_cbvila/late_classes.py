"""Classes that stand in transformers' registries by name until somebody asks for them.

A registry of an Auto class (`_LazyAutoMapping`) imports transformers' own models when they are first looked up. What
`register` adds to it is kept in a dictionary, `_extra_content`, as objects. With `LateClasses` in its place these are
imported at the first look-up, too; whoever looks gets the class itself.
"""

from collections import UserDict
from collections.abc import Mapping
from importlib import import_module
from typing import Any


class LateClass:
    """A class of this package that is not imported yet.

    Args:
        module: Its module, relative to the package.
        name: Its name.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def load(self) -> type:
        return getattr(import_module(f"{__package__}.{self.module}"), self.name)


class LateClasses(UserDict):
    """A dictionary whose values are loaded when they are read, by whatever way."""

    def __getitem__(self, key: Any) -> Any:
        value = self.data[key]
        if isinstance(value, LateClass):
            value = self.data[key] = value.load()
        return value


def take_late_classes(registry: Any) -> None:
    """Lets a registry of transformers take a [`LateClass`]. A second call changes nothing."""
    content: Mapping[Any, Any] = registry._extra_content
    if not isinstance(content, LateClasses):
        registry._extra_content = LateClasses(content)
