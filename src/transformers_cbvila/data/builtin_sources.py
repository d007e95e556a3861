"""All built-in sources by name."""

import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from ..late_classes import LateClass, LateClasses
from ..model.messages_cbvila import shown
from .builtin_options import parse_options
from .builtin_source import BuiltinSource

# Names have no brackets. A path with such a name is given as ./NAME.
BUILTIN_SOURCES: MutableMapping[str, type[BuiltinSource]] = LateClasses(
    {
        "easy-vqa": LateClass("data.easy_vqa.source", "EasyVQASource"),
        "scenes": LateClass("data.scenes.source", "ScenesSource"),
    }
)
_NAME_AND_OPTIONS = re.compile(r"(?P<name>[^\[\]]+)(?:\[(?P<options>.*)\])?", re.DOTALL)


def find_builtin(source: str) -> BuiltinSource | None:
    """Returns the built-in source that `NAME` or `NAME[key=value,…]` names, or None if it names none.

    Raises:
        ValueError: If the options are not ones that the source takes.
    """
    name = source.partition("[")[0]
    if name not in BUILTIN_SOURCES:
        return None
    parts = _NAME_AND_OPTIONS.fullmatch(source)
    if parts is None and "]" in source:  # a pattern of files, such as easy-vqa[12].csv
        return None
    if parts is None:
        raise ValueError(f"{shown(source)} lacks the closing bracket of its options; expected {name}[key=value].")
    kind = BUILTIN_SOURCES[name]
    return kind(parse_options(name, parts["options"] or "", kind.options_type))


def classes_of_objects(objects: Sequence[Mapping[str, Any]]) -> list[int]:
    """Returns the class of each value of a label map, by the records of its objects; none if no source knows them.

    All sources are asked, since an exported table does not name its own.
    """
    found = (kind.classes_of_objects(objects) for kind in BUILTIN_SOURCES.values())
    return next((classes for classes in found if classes is not None), [])


def check_task(name: str, source: BuiltinSource, task: str) -> None:
    """Raises a ValueError if a built-in source, called `name`, has no rows for a task."""
    if task not in source.tasks:
        raise ValueError(f"{name} has no rows for {task}; it has rows for {', '.join(source.tasks)}.")
