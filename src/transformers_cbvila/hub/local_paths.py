"""Refuses to publish a config.json that names folders of this machine."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..model import objectives_cbvila, projectors_cbvila, quantizers_cbvila
from ..model.messages_cbvila import shown
from ..model.nested_options_cbvila import DEFAULT_QUANTIZER


def check_names_no_folder(config: Mapping[str, Any], path: Path) -> None:
    """Checks that options which name a folder or a Hub id name none of this machine.

    Args:
        config: Content of a config.json.
        path: Its path, for the error.

    Raises:
        ValueError: If one names a folder.
    """
    for where, name, value in _sources(config):
        if _is_local(value):
            raise ValueError(
                f"{path} has {where}{name}={shown(value)}, a folder of this machine, whose path would be published, "
                f"and which others do not have; publish what is in it, and write its Hub id as {name} in {path}"
            )


def _sources(config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yields the options that name a folder or a Hub id: where they are, their name and value."""
    if "language_model" in config:
        yield "", "language_model", config["language_model"]
    for where, cls, given in _options(config):
        if cls is not None and isinstance(given, Mapping):  # others have an error of their own
            yield from ((where, name, given[name]) for name in cls.options_class.sources if name in given)


def _options(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yields options of registered classes: where they are, the class, if there is one, and the options."""
    quantizer, objectives = config.get("quantizer_config"), config.get("objectives")
    quantizer = quantizer if isinstance(quantizer, Mapping) else {}
    objectives = objectives if isinstance(objectives, Mapping) else {}
    projector = config.get("projector_config")
    projector = projector if isinstance(projector, Mapping) else {}
    quantizer_class = quantizers_cbvila.QUANTIZERS.get(quantizer.get("type", DEFAULT_QUANTIZER))
    yield "quantizer_config: ", quantizer_class, quantizer
    projector_type = projector.get("type", projectors_cbvila.DEFAULT_PROJECTOR)
    yield "projector_config: ", projectors_cbvila.PROJECTORS.get(projector_type), projector
    for name, given in objectives.items():
        yield f"objectives: {name}: ", objectives_cbvila.OBJECTIVES.get(name), given


def _is_local(value: Any) -> bool:
    """Returns whether `from_pretrained` would look for a folder; a Hub id is a name, or an owner and a name."""
    if not isinstance(value, str):
        return False
    return value.startswith((".", "~", "/")) or "\\" in value or value.count("/") > 1 or Path(value).exists()
