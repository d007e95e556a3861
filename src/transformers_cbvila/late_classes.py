"""Classes by name that are imported when they are first looked up: for our registries, and for transformers' own.

The registry of an Auto class (`_LazyAutoMapping`) imports transformers' own models lazily, but keeps what `register`
adds as objects in a dictionary, `_extra_content`. [`LateClasses`] replaces that dictionary and imports on look-up.
"""

from collections import UserDict
from collections.abc import Mapping
from importlib import import_module
from typing import Any


class LateClass:
    """A class of this package that is imported later.

    Args:
        module: Its module, relative to the package.
        name: Its name.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def load(self) -> type:
        """Imports and returns the class."""
        return getattr(import_module(f"{__package__}.{self.module}"), self.name)


class LateClasses(UserDict):
    """A dictionary that replaces a [`LateClass`] by the class when it is read."""

    def __getitem__(self, key: Any) -> Any:
        value = self.data[key]
        if isinstance(value, LateClass):
            value = self.data[key] = value.load()
        return value


def take_late_classes(registry: Any) -> None:
    """Makes a registry of transformers accept a [`LateClass`]. A second call has no effect."""
    content: Mapping[Any, Any] = registry._extra_content
    if not isinstance(content, LateClasses):
        registry._extra_content = LateClasses(content)
