"""Clocks, counters and ceilings that the benchmarks share.

Times are compared within one run only: a machine's speed changes with its load, so every benchmark takes its
measurements in turns, round after round, and reports medians with their range.
"""

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class Spread:
    """The median of repeated measurements, with the smallest and the largest."""

    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.median:.3g} ({min(self.values):.3g} to {max(self.values):.3g})"


def clock(device: torch.device) -> Callable[[], float]:
    """What to read before and after: the time in seconds that was spent on the work.

    On the CPU the process' own time, of all its threads, in which other processes do not count (though their use of
    the caches shows); elsewhere wall time after the device has finished.
    """
    if device.type == "cpu":
        return time.process_time

    def synchronized() -> float:
        torch.accelerator.synchronize(device)
        return time.perf_counter()

    return synchronized


def seconds(task: Callable[[], object], now: Callable[[], float]) -> float:
    """How long a task takes."""
    start = now()
    task()
    return now() - start


def in_turns(tasks: dict[str, Callable[[], object]], rounds: int, now: Callable[[], float]) -> dict[str, Spread]:
    """Seconds of each task, run one after the other in every round, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for _ in range(rounds):
        for name, task in tasks.items():
            times[name].append(seconds(task, now))
    return {name: Spread(values) for name, values in times.items()}


class Product:
    """A square matrix product, the ceiling that shares are measured against."""

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device, repeats: int):
        self.left, self.right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
        self.flops = 2 * size**3
        self.repeats = repeats
        self.now = clock(device)
        self._multiply()  # the first one also loads the library

    def flops_per_second(self) -> float:
        return self.flops * self.repeats / seconds(self._multiply, self.now)

    def _multiply(self) -> None:
        for _ in range(self.repeats):
            self.left @ self.right


def count_flops(task: Callable[[], object]) -> int:
    """Floating point operations (2 per multiply-add) of the matrix products, convolutions and attention in a task."""
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        task()
    return counter.get_total_flops()


def _attention_flops(query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_flops(gradient, query, key, value, *args, out_shape=None, **kwargs) -> int:
    # Five products to the forward's two: the scores are computed once more. So torch counts on other devices.
    return sdpa_flop_count(query, key, value) * 5 // 2


# torch has formulas for the fused attention of every device but this one.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


def peak_memory(device: torch.device) -> int:
    """Most bytes ever in use: tensors on an accelerator, the whole process (Python and libraries too) on the CPU."""
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
    """A parser with what every benchmark takes, and help that ends with an example."""
    result = argparse.ArgumentParser(
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--rounds", type=positive, default=5, metavar="N", help="measurements of each; default 5")
    result.add_argument("--threads", type=positive, default=1, metavar="N", help="CPU threads; default 1")
    return result


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number.")
    return value
