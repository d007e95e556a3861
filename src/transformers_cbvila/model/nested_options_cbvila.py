"""Nested options of a configuration, `quantizer_config` and `objectives`, also from the flat names of version 0.1."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from .messages_cbvila import shown
from .objectives_cbvila import OBJECTIVES
from .options_cbvila import CBViLAOptions
from .quantizer_cbvila import CBViLAQuantizerOptions
from .quantizers_cbvila import QUANTIZERS
from .registry_cbvila import find_registered

NESTED = ("quantizer_config", "objectives")
DEFAULT_QUANTIZER = "nearest"
RENAMED = {"fusion_config": "multimodal_config"}  # since version 0.1
# For each flat name of version 0.1: the part of the configuration, the objective in it, and the option.
FLAT_NAMES: dict[str, tuple[str, str | None, str]] = {
    **{
        flat: ("quantizer_config", None, option)
        for flat, option in QUANTIZERS[DEFAULT_QUANTIZER].options_class.flat_names.items()
    },
    **{
        flat: ("objectives", name, option)
        for name, cls in OBJECTIVES.items()
        for flat, option in cls.options_class.flat_names.items()
    },
}


def quantizer_options(value: Any) -> CBViLAQuantizerOptions:
    """Builds the options of a quantizer from `quantizer_config`.

    Args:
        value: A dictionary such as `{"type": "nearest", "size": 256}`, options, or `None` for the default.

    Raises:
        ValueError: If the type or an option is unknown, or a value has the wrong type.
    """
    if isinstance(value, CBViLAQuantizerOptions):
        value.type = value.type or next(n for n, c in QUANTIZERS.items() if c.options_class is type(value))
        return value
    fields = {"type": DEFAULT_QUANTIZER, **_mapping("quantizer_config", value)}
    cls = find_registered(QUANTIZERS, fields["type"], "quantizer_config: type")
    return cls.options_class.build(fields, "quantizer_config")


def objective_options(value: Any) -> dict[str, Any]:
    """Builds the options of each objective from `objectives`, including default objectives that it does not mention.

    Args:
        value: A dictionary such as `{"mim": {"weight": 0.5}}`, with dictionaries, options, or `None` (a weight of 0).

    Raises:
        ValueError: If an objective or an option is unknown, or a value has the wrong type.
    """
    given = _mapping("objectives", value)
    for name in given:
        find_registered(OBJECTIVES, name, "objectives: the name")
    built = {}
    for name, cls in OBJECTIVES.items():
        if name in given or cls.is_default:
            found = given.get(name)
            if found is None and name in given:  # null in YAML leaves an objective out
                found = {"weight": 0.0}
            where = f"objectives[{name!r}]"
            built[name] = (
                found
                if isinstance(found, cls.options_class)
                else cls.options_class.build(_mapping(where, found), where)
            )
    return built


def nest(fields: MutableMapping[str, Any]) -> None:
    """Moves options with flat names into `quantizer_config` and `objectives`, in place; they override nested ones."""
    for flat in [name for name in fields if name in FLAT_NAMES]:
        where, objective, option = FLAT_NAMES[flat]
        part = {option: fields.pop(flat)}
        fields[where] = merge(where, fields.get(where), part if objective is None else {objective: part})


def with_new_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options in which names of version 0.1 are replaced by their current names."""
    return {RENAMED.get(name, name): value for name, value in options.items()}


def with_current_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a configuration with current names, and flat names moved into the nested options."""
    renamed = with_new_names(fields)
    nest(renamed)
    return renamed


def merge(where: str, before: Any, changes: Any) -> dict[str, Any]:
    """Returns `quantizer_config` or `objectives` (as `where` says) with changes to some of their options.

    With another type of quantizer, previous options are dropped; objectives that `changes` does not mention stay.
    """
    before, changes = _as_dicts(where, before), _as_dicts(where, changes)
    if where == "quantizer_config":
        kind = before.get("type", DEFAULT_QUANTIZER)
        return {**(before if changes.get("type", kind) == kind else {}), **changes}
    merged = {**before}
    for name, value in changes.items():
        merged[name] = (
            value if value is None else {**(before.get(name) or {}), **_mapping(f"{where}[{name!r}]", value)}
        )
    return merged


def preset_options(name: str) -> dict[str, Any]:
    """Returns the options of quantizer and objectives that a preset sets."""
    quantizer = QUANTIZERS[DEFAULT_QUANTIZER].options_class.presets.get(name, {})
    objectives = {key: cls.options_class.presets.get(name) for key, cls in OBJECTIVES.items()}
    return {"quantizer_config": quantizer, "objectives": {key: value for key, value in objectives.items() if value}}


def _as_dicts(where: str, value: Any) -> dict[str, Any]:
    if isinstance(value, CBViLAOptions):
        return value.to_dict()
    value = _mapping(where, value)
    return {name: part.to_dict() if isinstance(part, CBViLAOptions) else part for name, part in value.items()}


def _mapping(where: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is {shown(value)}; expected a dictionary of options.")
    return value
