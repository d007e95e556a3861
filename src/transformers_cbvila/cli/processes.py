"""The processes that `accelerate launch` starts for a command, which share its work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Processes:
    """This process among those of a command.

    Args:
        index: Its number, counted from 0.
        count: How many there are.
        device: Its device; None for the default one.
        wait: Returns when every process has called it.
    """

    index: int = 0
    count: int = 1
    device: Any = None
    wait: Callable[[], None] = lambda: None

    @property
    def is_main(self) -> bool:
        """Whether this is the one that says what all have done."""
        return self.index == 0


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Gives the group of the processes that `accelerate launch` started, or this process alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # Without cpu=True, processes on CPUs would not know of each other.
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=on_cpu)
    try:
        yield Processes(state.process_index, state.num_processes, state.device, state.wait_for_everyone)
    finally:
        state.destroy_process_group()


@contextmanager
def said_once(processes: Processes) -> Iterator[None]:
    """Lets only the main process print to standard output."""
    if processes.is_main:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield
