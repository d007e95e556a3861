"""Options in the name of a built-in source: `NAME[key=value,key=value]`, read by the types of a dataclass."""

from collections.abc import Callable
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..model.messages_cbvila import shown
from ..nearest import nearest

_BOOLEANS = {"true": True, "false": False}
_BETWEEN = "+"  # divides the items of a tuple, as commas divide options


def parse_options(name: str, text: str, kind: type) -> Any:
    """Returns an instance of a source's dataclass of options.

    Args:
        name: Name of the source, for errors.
        text: What its brackets hold: "size=96,objects=4".
        kind: The dataclass.

    Raises:
        ValueError: If an option is unknown, is given twice or has a value of another type, or the dataclass refuses
            the value.
    """
    types, values = get_type_hints(kind), dict[str, Any]()
    known = [field.name for field in fields(kind) if field.init]
    for item in filter(None, (item.strip() for item in text.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ValueError(f"{name}: option {shown(item)} has no value; expected {name}[key=value,key=value].")
        if key not in known:
            there_are = f"its options are {', '.join(known)}" if known else "it has no options"
            raise ValueError(f"{name} has no option {shown(key)}; {there_are}{nearest(key, known) or '.'}")
        if key in values:
            raise ValueError(f"{name}: option {key} is given twice; give it once.")
        try:
            values[key] = parse_value(value, types[key])
        except ValueError:
            raise ValueError(f"{name}: {key}={shown(value)} is not {_expected(types[key])}.") from None
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def parse_value(text: str, kind: Any) -> Any:
    """Returns a text as a value of a type that options may have.

    Raises:
        ValueError: If it is none.
    """
    arguments = get_args(kind)
    if get_origin(kind) is tuple:
        return tuple(parse_value(item.strip(), arguments[0]) for item in text.split(_BETWEEN)) if text else ()
    if get_origin(kind) in (Union, UnionType):
        inner = next(argument for argument in arguments if argument is not NoneType)
        return None if text.lower() == "none" else parse_value(text, inner)
    if get_origin(kind) is Literal or kind is bool:
        values = _BOOLEANS if kind is bool else {str(value).lower(): value for value in arguments}
        if text.lower() not in values:
            raise ValueError(f"{shown(text)} is none of {', '.join(values)}.")
        return values[text.lower()]
    read: Callable[[str], Any] = kind
    return read(text)


def _expected(kind: Any) -> str:
    """What an error calls the values of a type."""
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if get_origin(kind) is tuple:
        return f"one or several values with {_BETWEEN!r} between them, each {_expected(arguments[0])}"
    if get_origin(kind) in (Union, UnionType):
        return " or ".join("none" if argument is NoneType else _expected(argument) for argument in arguments)
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a text")
