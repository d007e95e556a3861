"""Classes by name that are imported when somebody asks for one: their names are known at once, and cost nothing."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Generic, TypeVar

Class = TypeVar("Class")


class LazyRegistry(Mapping[str, Class], Generic[Class]):
    """Classes by name: those of the package, and those that were registered from outside.

    Args:
        package: The package that has the modules: `__package__` of the file with the registry.
        classes: By name, where a class is: `"module.Class"`, relative to the package.
    """

    def __init__(self, package: str, classes: Mapping[str, str]) -> None:
        self._package, self._classes = package, dict(classes)
        self._registered: dict[str, Class] = {}

    def __getitem__(self, name: str) -> Class:
        if name in self._registered:
            return self._registered[name]
        module, _, cls = self._classes[name].rpartition(".")
        return getattr(import_module(f".{module}", self._package), cls)

    def __iter__(self) -> Iterator[str]:
        return iter([*self._classes, *self._registered])

    def __len__(self) -> int:
        return len(self._classes) + len(self._registered)

    def register(self, name: str, cls: Class) -> None:
        """Adds a class from outside the package."""
        self._registered[name] = cls

    def unregister(self, name: str) -> None:
        """Removes a class from outside the package."""
        del self._registered[name]
