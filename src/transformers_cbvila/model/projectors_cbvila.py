"""The registry of projectors. A new one takes a file of its own and one import here."""

from collections.abc import Mapping
from typing import Any

from .messages_cbvila import shown
from .projector_cbvila import CBViLAProjector, CBViLAProjectorOptions
from .projector_mlp_cbvila import CBViLAMLPProjector as CBViLAMLPProjector
from .projector_prefix_cbvila import CBViLAPrefixProjector as CBViLAPrefixProjector
from .projector_qformer_cbvila import CBViLAQFormerProjector as CBViLAQFormerProjector
from .registry_cbvila import classes_by_name, find_registered, register_class

PROJECTORS: dict[str, type[CBViLAProjector]] = classes_by_name(globals(), CBViLAProjector)
DEFAULT_PROJECTOR = "prefix"


def register_projector(name: str, cls: type[CBViLAProjector]) -> None:
    """Registers a projector from outside the package, for `projector_config={"type": name}`.

    Register it before loading a checkpoint that uses it.

    Args:
        name: Its name, an identifier.
        cls: Its class.

    Raises:
        ValueError: If the class is no projector, lacks a method, takes other arguments than its base, or another one
            has the name.
    """
    register_class(PROJECTORS, name, cls, CBViLAProjector)


def projector_options(value: Any) -> CBViLAProjectorOptions:
    """Builds the options of a projector from `projector_config`.

    Args:
        value: A dictionary such as `{"type": "prefix", "length": 4}`, options, or `None` for the default.

    Raises:
        ValueError: If the type or an option is unknown, or a value has the wrong type.
    """
    if isinstance(value, CBViLAProjectorOptions):
        value.type = value.type or next(name for name, cls in PROJECTORS.items() if cls.options_class is type(value))
        return value
    if not isinstance(value, Mapping | None):
        raise ValueError(f"projector_config is {shown(value)}; expected a dictionary of options.")
    fields = {"type": DEFAULT_PROJECTOR, **(value or {})}
    cls = find_registered(PROJECTORS, fields["type"], "projector_config: type")
    return cls.options_class.build(fields, "projector_config")
