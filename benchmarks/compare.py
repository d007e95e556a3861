"""Checks that this tree trains to the same weights as another commit, bit for bit: `make compare BASE=<commit>`.

Weights depend on the machine and on torch, so nothing is stored: both commits run here, one after the other
(`recorded_runs.py`). A tensor may have another name, but not other bits.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECORDER = ROOT / "benchmarks" / "recorded_runs.py"


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """Gives a temporary folder with a commit's files."""
    git = ["git", "-C", str(ROOT)]
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "base"
        subprocess.run([*git, "worktree", "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)


def record(tree: Path, output: Path, runs: list[str]) -> dict[str, dict[str, str]]:
    """Runs `recorded_runs.py` of this tree on a checkout, and returns the fingerprints by run and tensor."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    chosen = ["--runs", *runs] if runs else []
    subprocess.run(
        [sys.executable, str(RECORDER), "--output", str(output), *chosen], check=True, cwd=tree, env=environment
    )
    return json.loads(output.read_text())


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Returns a line for each tensor that does not have the same bits in both."""
    lines = [f"{name} differs" for name in before if name in after and before[name] != after[name]]
    gone, new = before.keys() - after.keys(), after.keys() - before.keys()
    # renamed tensors are matched by their bits; equal ones (zeros, say) are counted
    left = Counter(before[name] for name in gone)
    left.subtract(Counter(after[name] for name in new))
    lines += [f"{name} is gone" for name in sorted(gone) if left[before[name]] > 0]
    return lines + [f"{name} is new" for name in sorted(new) if left[after[name]] < 0]


def main(argv: list[str] | None = None) -> int:
    """Compares and prints the differences; returns 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="commit to compare with")
    parser.add_argument("--runs", nargs="*", default=[], help="which runs (default: all)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        with checkout(options.base) as tree:
            before = record(tree, Path(scratch) / "before.json", options.runs)
        after = record(ROOT, Path(scratch) / "after.json", options.runs)
    found = {name: differences(before[name], after[name]) for name in before}
    for name, lines in found.items():
        print(f"{name}: {len(lines)} of {len(before[name])} tensors differ" if lines else f"{name}: equal")
        for line in lines[:10]:
            print(f"  {line}")
    equal = not any(found.values())
    print("equal" if equal else "different")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
