"""Compares CPU time and FLOPs of a pretraining step of this working tree with another commit's.

Each tree has its own process and its own `pretraining_step.py`. They alternate, so that the machine's load affects
both. FLOPs must be equal; times are reported as the median ratio of neighbouring turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from compare import ROOT, checkout

# Runs in each tree, with names that the benchmark has had since version 0.1.
WORKER = """
import sys, time, torch
from transformers import set_seed
from transformers_cbvila import CBViLAForPreTraining
from pretraining_step import TrainingStep, model_config, random_batch
torch.set_num_threads(1)
set_seed(0)
config, batch, tokens = model_config(sys.argv[1], "recommended")
step = TrainingStep(
    CBViLAForPreTraining(config).train(), random_batch(config, batch, tokens, torch.device("cpu")), torch.float32
)
print(step.flops(), flush=True)
step()
for line in sys.stdin:
    begin = time.process_time()
    for _ in range(int(line)):
        step()
    print(time.process_time() - begin, flush=True)
"""


class Tree:
    """A process that runs steps with the code of one checkout.

    Args:
        path: The checkout.
        size: `"tiny"` or `"base"`.
    """

    def __init__(self, path: Path, size: str) -> None:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(str(path / name) for name in ("src", "benchmarks")),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, size],
            env=environment,
            cwd=path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.flops = int(self._answer())

    def seconds(self, steps: int) -> float:
        """Runs steps and returns their CPU seconds."""
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a process ended early; see its output above")
        return line

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()


def main(argv: list[str] | None = None) -> int:
    """Measures and prints the comparison; returns 1 if FLOPs differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="commit to compare with")
    parser.add_argument("--size", choices=["tiny", "base"], default="tiny")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=5, help="steps in a turn")
    options = parser.parse_args(argv)
    with checkout(options.base) as tree:
        before, after = Tree(tree, options.size), Tree(ROOT, options.size)
        pairs = []
        for turn in range(options.rounds):
            order = (before, after) if turn % 2 == 0 else (after, before)  # neither is always first
            taken = {id(side): side.seconds(options.steps) for side in order}
            pairs.append((taken[id(before)], taken[id(after)]))
        before.close()
        after.close()
    ratios = sorted(now / then for then, now in pairs)
    seconds = [statistics.median(side) / options.steps for side in zip(*pairs, strict=True)]
    print(f"FLOPs of forward and backward: {before.flops:,} before, {after.flops:,} now")
    print(f"CPU seconds of a step: {seconds[0]:.4f} before, {seconds[1]:.4f} now")
    print(f"ratio: {statistics.median(ratios):.4f} ({ratios[0]:.4f} to {ratios[-1]:.4f}), {len(ratios)} turns")
    return 0 if before.flops == after.flops else 1


if __name__ == "__main__":
    sys.exit(main())
