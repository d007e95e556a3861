"""Classes by name: those of the package, and what is registered from outside."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from .messages_cbvila import listed, shown
from .options_cbvila import CBViLAOptions


def classes_by_name(module: Mapping[str, Any], base: type) -> dict[str, Any]:
    """The classes of a module's namespace that are of a kind and have a name, in the order of their import."""
    found = [value for value in module.values() if isinstance(value, type) and issubclass(value, base)]
    return {cls.name: cls for cls in found if hasattr(cls, "name")}  # type: ignore[attr-defined]


def register_class(known: MutableMapping[str, Any], name: str, cls: Any, base: type) -> None:
    """Adds a class under a name, which becomes its own; ValueError unless it can have it."""
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ValueError(
            f"{shown(cls)} cannot be registered as {shown(name)}: it must be a subclass of {base.__name__}."
        )
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{shown(name)} is no name to register {cls.__name__} under: use letters, digits and _.")
    if known.get(name, cls) is not cls:
        raise ValueError(f"{shown(name)} is the name of {known[name].__name__} already: choose another.")
    options_class = getattr(cls, "options_class", None)
    if not (isinstance(options_class, type) and issubclass(options_class, CBViLAOptions)):
        raise ValueError(
            f"{cls.__name__}.options_class is {shown(options_class)}; expected a subclass of CBViLAOptions."
        )
    cls.name = name
    known[name] = cls


def find_registered(known: Mapping[str, Any], name: Any, where: str) -> Any:
    """The class of a name; ValueError, with the names that there are, for an unknown one."""
    if name not in known:
        raise ValueError(
            f"{where}={shown(name)} is not one of {listed(map(repr, known))}. One from outside the package has to be "
            "registered before its configuration is read."
        )
    return known[name]
