"""Clocks and counters that the benchmarks share.

Times are comparable within one run only, because a machine's speed changes with its load. Every benchmark therefore
alternates its measurements, round by round, and reports medians with their range.
"""

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class Spread:
    """Repeated measurements, printed as their median with the smallest and the largest."""

    values: list[float]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.median:.3g} ({min(self.values):.3g} to {max(self.values):.3g})"


def clock(device: torch.device) -> Callable[[], float]:
    """Returns a function that gives the time in seconds.

    On the CPU it is the CPU time of the process and all its threads, which other processes affect only through caches;
    on other devices the wall time after the device has finished.
    """
    if device.type == "cpu":
        return time.process_time

    def synchronized() -> float:
        torch.accelerator.synchronize(device)
        return time.perf_counter()

    return synchronized


def seconds(task: Callable[[], object], now: Callable[[], float]) -> float:
    """Runs a task and returns how long it took."""
    start = now()
    task()
    return now() - start


def in_turns(tasks: dict[str, Callable[[], object]], rounds: int, now: Callable[[], float]) -> dict[str, Spread]:
    """Returns the seconds of each task, run one after the other in every round, after a warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for _ in range(rounds):
        for name, task in tasks.items():
            times[name].append(seconds(task, now))
    return {name: Spread(values) for name, values in times.items()}


class Product:
    """A square matrix product, as the reference for the speed of the machine.

    Args:
        size: Rows and columns.
        dtype: Type of the matrices.
        device: Where to compute.
        repeats: Products per measurement.
    """

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device, repeats: int) -> None:
        self.left, self.right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
        self.flops = 2 * size**3
        self.repeats = repeats
        self.now = clock(device)
        self._multiply()  # the first one also loads the library

    def flops_per_second(self) -> float:
        """Measures the speed."""
        return self.flops * self.repeats / seconds(self._multiply, self.now)

    def _multiply(self) -> None:
        for _ in range(self.repeats):
            self.left @ self.right


def count_flops(task: Callable[[], object]) -> int:
    """Counts the FLOPs (2 per multiply-add) of the matrix products, convolutions and attention in a task."""
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        task()
    return counter.get_total_flops()


Shape = tuple[int, ...]


def _attention_flops(query: Shape, key: Shape, value: Shape, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_flops(
    gradient: Shape, query: Shape, key: Shape, value: Shape, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    # Five products to the forward's two, because scores are recomputed. torch counts the same on other devices.
    return sdpa_flop_count(query, key, value) * 5 // 2


# torch has formulas for fused attention on all devices except the CPU.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


def peak_memory(device: torch.device) -> int:
    """Returns the peak memory in bytes: of tensors on an accelerator, of the whole process on the CPU."""
    if device.type != "cpu":
        return torch.accelerator.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def show(rows: dict[str, str]) -> None:
    """Prints two columns."""
    for name, value in rows.items():
        print(f"  {name:<36} {value}")
    print(flush=True)


def parser(description: str, example: str) -> argparse.ArgumentParser:
    """Returns a parser with the options of every benchmark, whose help ends with an example."""
    result = argparse.ArgumentParser(
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--rounds", type=positive, default=5, metavar="N", help="measurements of each; default 5")
    result.add_argument("--threads", type=positive, default=1, metavar="N", help="CPU threads; default 1")
    return result


def positive(text: str) -> int:
    """Parses a positive number.

    Raises:
        argparse.ArgumentTypeError: If it is not positive.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number.")
    return value
