"""A protocol of the literature: two numbers under its name are comparable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """One protocol.

    Attributes:
        text: What it is, in a line, with the data set as it stands on the Hub.
        defaults: Of the task's options; what is given wins.
        fixed: Options that make the protocol: giving others is an error.
        counts: How many there may be of what the task counts (`Task.counts`): several numbers where it is measured on
            several sets.
        needed: Options that must be given, whatever their values.
    """

    text: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
