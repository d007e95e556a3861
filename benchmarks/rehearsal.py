"""Takes three steps of every training at the paper's size, by the recipes, and uses what they trained, on a CPU.

What changes is the data, which are scenes, and the batch (`--batch_size`), bf16 and worker processes; the rest is the
recipes'. Prints seconds and peak memory of each command, and stops at the first that fails. Weights are random: no
figure that an evaluation prints means anything. Needs 15 GB of disk.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from measuring import parser, positive
from transformers import BertTokenizer

from transformers_cbvila import bundled_checkpoint

VOCABULARY = 30522  # BERT's, with the words of scenes and placeholders
GIB = 2**30
ROWS = "scenes[size=256,rows=24]"
COMMON = ("--max_steps", "3", "--bf16", "false", "--dataloader_num_workers", "0", "--report_to", "none")


def write_tokenizer(folder: Path) -> None:
    """Writes a BERT tokenizer of the size of bert-base-uncased's, which the base recipes name and the Hub has."""
    known = BertTokenizer.from_pretrained(bundled_checkpoint("cbvila-scenes")).get_vocab()
    words = sorted(known, key=known.__getitem__)
    words += [f"[unused{number}]" for number in range(VOCABULARY - len(words))]
    BertTokenizer(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)


def commands(folder: Path, batch: int) -> Iterator[tuple[str, list[str]]]:
    """Yields a name and the arguments of `cbvila` for every part."""
    sizes = ["--per_device_train_batch_size", str(batch)]
    for name in ("base", "albef-base", "codis-base"):
        yield (
            f"pretrain-{name}",
            [
                *("pretrain", "--config", f"pretrain-{name}", "--train_data", ROWS, "--streaming", "false", *COMMON),
                *(*sizes, "--tokenizer", str(folder / "tokenizer"), "--burn_in_steps", "1", "--queue_size", "0"),
                *("--output_dir", str(folder / name)),
            ],
        )
    pretrained = str(folder / "base")
    yield (
        "Q-Former",
        [
            *("pretrain", "--head", "qformer", "--model", pretrained, "--train_data", ROWS, *COMMON, *sizes),
            *("--output_dir", str(folder / "qformer")),
        ],
    )
    for task, recipe in (
        ("retrieval", "retrieval-flickr30k-base"),
        ("vqa", "vqa-base"),
        ("entailment", "entailment-base"),
        ("reasoning", "reasoning-base"),
    ):
        yield (
            f"finetune-{recipe}",
            [
                *(
                    "finetune",
                    task,
                    "--config",
                    f"finetune-{recipe}",
                    "--model",
                    pretrained,
                    "--train_data",
                    ROWS,
                    *COMMON,
                ),
                *(*sizes, "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"),
                *("--output_dir", str(folder / task)),
            ],
        )
        yield (
            f"evaluate {task}",
            [
                *(
                    "evaluate",
                    task,
                    "--model",
                    str(folder / task),
                    "--data",
                    "scenes[size=384,rows=4]",
                    "--split",
                    "test",
                ),
                *("--output", str(folder / f"{task}.json")),
            ],
        )
    yield "draw", ["draw", pretrained, "a red circle", "--steps", "2", "--output", str(folder / "drawn.png")]
    yield (
        "tokenize",
        ["tokenize", "scenes[size=256,rows=4]", "--model", pretrained, "--output_dir", str(folder / "ids")],
    )


def run(arguments: list[str], log: Path, threads: int) -> tuple[float, float]:
    """Runs a command and returns its CPU-seconds and its peak memory in bytes.

    Raises:
        SystemExit: If it fails; its output is shown.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with log.open("w") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "transformers_cbvila", *arguments], stdout=output, stderr=output, env=environment
        )
        _, status, usage = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        print(log.read_text()[-3000:], file=sys.stderr)
        raise SystemExit(f"cbvila {' '.join(arguments)} failed; all that it printed is in {log}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return usage.ru_utime + usage.ru_stime, float(peak)


def main() -> None:
    """Runs all parts in a new folder."""
    arguments = parser(__doc__, "python benchmarks/rehearsal.py --output_dir runs/rehearsal")
    arguments.add_argument("--output_dir", type=Path, default=Path("runs/rehearsal"), help="default: %(default)s")
    arguments.add_argument("--batch_size", type=positive, default=2, metavar="B", help="default 2")
    options = arguments.parse_args()
    shutil.rmtree(options.output_dir, ignore_errors=True)
    options.output_dir.mkdir(parents=True)
    write_tokenizer(options.output_dir / "tokenizer")
    for name, command in commands(options.output_dir, options.batch_size):
        begin = time.perf_counter()
        cpu, peak = run(command, options.output_dir / "log.txt", options.threads)
        wall = time.perf_counter() - begin
        print(f"{name:<36} {cpu:6.0f} CPU-seconds  {wall:6.0f} s  {peak / GIB:5.1f} GiB", flush=True)


if __name__ == "__main__":
    main()
