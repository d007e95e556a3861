"""Registries of classes by name: the package's own, and those registered from outside."""

import inspect
from collections.abc import Mapping, MutableMapping
from difflib import get_close_matches
from typing import Any

from .messages_cbvila import listed, shown
from .options_cbvila import CBViLAOptions


def classes_by_name(module: Mapping[str, Any], base: type) -> dict[str, Any]:
    """Returns the named subclasses of `base` in a module's namespace, in the order of their import."""
    found: list[Any] = [value for value in module.values() if isinstance(value, type) and issubclass(value, base)]
    return {cls.name: cls for cls in found if hasattr(cls, "name")}


def register_class(known: MutableMapping[str, Any], name: str, cls: Any, base: type) -> None:
    """Adds a class to a registry under a name, which it gets as its `name`.

    Raises:
        ValueError: If it is no subclass of `base`, its options are none of [`CBViLAOptions`], it lacks a method or
            takes other arguments than `base`, or the name is invalid or taken.
    """
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ValueError(
            f"{shown(cls)} cannot be registered as {shown(name)}: it must be a subclass of {base.__name__}."
        )
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            f"{shown(name)} is not a valid name to register {cls.__name__} under: use letters, digits and _."
        )
    if known.get(name, cls) is not cls:
        raise ValueError(f"{shown(name)} is already the name of {known[name].__name__}: choose another.")
    options_class = getattr(cls, "options_class", None)
    if not (isinstance(options_class, type) and issubclass(options_class, CBViLAOptions)):
        raise ValueError(
            f"{cls.__name__}.options_class is {shown(options_class)}; expected a subclass of CBViLAOptions."
        )
    _check_written(cls, base)
    _check_built_alike(cls, base)
    cls.name = name
    known[name] = cls


def _check_written(cls: Any, base: Any) -> None:
    """Raises a ValueError if a class has not the methods that `base` leaves to it, its attribute `must_write`."""
    for method in getattr(base, "must_write", ()):
        if _function(cls, method) is _function(base, method):
            near = get_close_matches(method, vars(cls), n=1)
            meant = f"; is {near[0]!r} meant to be it?" if near else "."
            raise ValueError(f"{cls.__name__} has no method {method!r}, which every {base.__name__} needs{meant}")


def _check_built_alike(cls: Any, base: Any) -> None:
    """Raises a ValueError unless a class takes the arguments of `base`."""
    arguments = list(inspect.signature(base).parameters)
    try:
        inspect.signature(cls).bind(*arguments)
    except TypeError as error:
        raise ValueError(
            f"{cls.__name__} must take the arguments ({', '.join(arguments)}), as {base.__name__} does: {error}."
        ) from None


def _function(cls: Any, method: str) -> Any:
    found = getattr(cls, method)
    return getattr(found, "__func__", found)


def find_registered(known: Mapping[str, Any], name: Any, where: str) -> Any:
    """Returns the class registered under a name.

    Raises:
        ValueError: If there is none; the message lists the known names, suggests the nearest, and begins with `where`.
    """
    if name not in known:
        meant = get_close_matches(str(name), known, n=1)
        asked = f" Did you mean {meant[0]!r}?" if meant else ""
        raise ValueError(
            f"{where}={shown(name)} is not one of {listed(map(repr, known))}.{asked} A class from outside the "
            "package has to be registered before its configuration is read: import its file (or --import FILE.py)."
        )
    return known[name]
