"""Takes three steps of every training at the paper's size, by the recipes, and uses what they made, on a CPU.

What differs from a real run is the data, which are generated scenes, the batch, and precision (fp32). Prints what each
command took, and stops at the first that fails. Weights are random: what evaluations print means nothing. The folder
takes 18 GB. `--parts` runs some of them again, with what the others left in the folder.
"""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from measuring import parser, positive
from transformers import BertTokenizer

from transformers_cbvila import bundled_checkpoint

VOCABULARY = 30522  # of bert-base-uncased, which the recipes name and the Hub has
GIB = 2**30
# Options of all trainings, of those of pretraining, and of those of fine-tuning.
TRAINED = (
    "--max_steps 3 --bf16 false --dataloader_num_workers 0 --report_to none --per_device_train_batch_size {batch}"
)
SCENES = "--train_data scenes[size=256,rows=24]"
AT_256 = f"{SCENES} --streaming false --tokenizer {{folder}}/tokenizer --queue_size 0"
AT_384 = (
    "--model {folder}/base --train_data scenes[size=384,rows=24] "
    "--eval_strategy no --save_strategy no --load_best_model_at_end false"
)
# By name, the arguments of `cbvila`.
PARTS = dict(
    line.split(": ", 1)
    for line in f"""
pretrain-base: pretrain --config pretrain-base --burn_in_steps 1 {AT_256} {TRAINED} --output_dir {{folder}}/base
pretrain-albef: pretrain --config pretrain-albef-base {AT_256} {TRAINED} --output_dir {{folder}}/albef
pretrain-codis: pretrain --config pretrain-codis-base {AT_256} {TRAINED} --output_dir {{folder}}/codis
qformer: pretrain --head qformer --model {{folder}}/base {SCENES} {TRAINED} --output_dir {{folder}}/qformer
inspect: inspect {{folder}}/base --data scenes[size=256,rows=16] --split test --output {{folder}}/inspect.json
tokenize: tokenize scenes[size=256,rows=8] --split test --model {{folder}}/base --output_dir {{folder}}/ids
draw: draw {{folder}}/base "a red circle" --steps 2 --output {{folder}}/drawn.png
""".strip().splitlines()
)
for task, recipe in (
    ("retrieval", "retrieval-flickr30k"),
    ("vqa", "vqa"),
    ("entailment", "entailment"),
    ("reasoning", "reasoning"),
):
    trained = f"{{folder}}/{task}"
    PARTS[task] = f"finetune {task} --config finetune-{recipe}-base {AT_384} {TRAINED} --output_dir {trained}"
    PARTS[f"evaluate-{task}"] = (
        f"evaluate {task} --model {trained} --data scenes[size=384,rows=8] --split test --output {trained}.json"
    )
PARTS["evaluate-reasoning"] += " --image_column left_image right_image"


class Used(NamedTuple):
    """What a command took: CPU-seconds, seconds, and bytes of memory at its peak."""

    cpu: float
    seconds: float
    peak: float


def command(part: str, folder: Path, batch: int) -> list[str]:
    """Returns the arguments of `cbvila` for a part."""
    return shlex.split(PARTS[part].format(folder=shlex.quote(str(folder)), batch=batch))


def write_tokenizer(folder: Path) -> None:
    """Writes a tokenizer of the size of bert-base-uncased's, with the words of scenes and placeholders."""
    known = BertTokenizer.from_pretrained(bundled_checkpoint("cbvila-scenes")).get_vocab()
    words = sorted(known, key=known.__getitem__)
    words += [f"[unused{number}]" for number in range(VOCABULARY - len(words))]
    BertTokenizer(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)


def run(arguments: list[str], log: Path, threads: int) -> Used:
    """Runs `cbvila` and returns what it took.

    Raises:
        SystemExit: If it fails; the end of its output is shown.
    """
    begin, environment = time.perf_counter(), {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with log.open("w") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "transformers_cbvila", *arguments], stdout=output, stderr=output, env=environment
        )
        _, status, usage = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        print(log.read_text()[-3000:], file=sys.stderr)
        raise SystemExit(f"cbvila {shlex.join(arguments)} failed; all that it printed is in {log}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Used(usage.ru_utime + usage.ru_stime, time.perf_counter() - begin, peak)


def main() -> None:
    """Runs the parts, one after the other."""
    arguments = parser(__doc__, "python benchmarks/rehearsal.py --output_dir runs/rehearsal")
    arguments.add_argument("--output_dir", type=Path, default=Path("runs/rehearsal"), help="default: %(default)s")
    arguments.add_argument("--batch_size", type=positive, default=2, metavar="B", help="default 2")
    arguments.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help="default: all"
    )
    options = arguments.parse_args()
    folder = options.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder / "tokenizer")
    for part in options.parts:
        used = run(command(part, folder, options.batch_size), folder / f"{part}.txt", options.threads)
        print(
            f"{part:<20} {used.cpu:6.0f} CPU-seconds {used.seconds:6.0f} s {used.peak / GIB:6.1f} GiB at most",
            flush=True,
        )


if __name__ == "__main__":
    main()
