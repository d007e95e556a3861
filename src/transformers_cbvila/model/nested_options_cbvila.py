"""`quantizer_config` and `objectives` of a configuration: nested options, from nested or flat (0.1) names."""

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
# Where the options are that version 0.1 had side by side: by flat name the part, the objective in it, the option.
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
    """Options from `quantizer_config`: `{"type": "nearest", "size": 256}`, options themselves, or nothing."""
    if isinstance(value, CBViLAQuantizerOptions):
        value.type = value.type or next(n for n, c in QUANTIZERS.items() if c.options_class is type(value))
        return value
    fields = {"type": DEFAULT_QUANTIZER, **_mapping("quantizer_config", value)}
    cls = find_registered(QUANTIZERS, fields["type"], "quantizer_config: type")
    return cls.options_class.build(fields, "quantizer_config")


def objective_options(value: Any) -> dict[str, Any]:
    """Options by name from `objectives`; those of the default objectives that are not named, at their defaults."""
    given = _mapping("objectives", value)
    for name in given:
        find_registered(OBJECTIVES, name, "objectives: the name")
    built = {}
    for name, cls in OBJECTIVES.items():
        if name in given or cls.is_default:
            found = given.get(name)
            if found is None and name in given:  # null, as one leaves something out in YAML
                found = {"weight": 0.0}
            where = f"objectives[{name!r}]"
            built[name] = (
                found
                if isinstance(found, cls.options_class)
                else cls.options_class.build(_mapping(where, found), where)
            )
    return built


def nest(fields: MutableMapping[str, Any]) -> None:
    """Moves the flat names among the fields of a configuration to where they belong, over what is there."""
    for flat in [name for name in fields if name in FLAT_NAMES]:
        where, objective, option = FLAT_NAMES[flat]
        part = {option: fields.pop(flat)}
        fields[where] = merge(where, fields.get(where), part if objective is None else {objective: part})


def with_new_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a caller, those that version 0.1 called otherwise under their names of now."""
    return {RENAMED.get(name, name): value for name, value in options.items()}


def with_current_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same of fields of a configuration, with flat names moved to where they belong."""
    renamed = with_new_names(fields)
    nest(renamed)
    return renamed


def merge(where: str, before: Any, changes: Any) -> dict[str, Any]:
    """`quantizer_config` or `objectives` with changes to some of their options.

    Another type of quantizer begins with its own defaults; objectives that are not named stay.
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
    """What a preset sets of quantizer and objectives."""
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
