"""Rows of scenes per CPU-second: whole rows, with image, texts, label map and graph, and their texts alone.

Pretraining's rows are also read as training reads them: through a `Dataset`, whose images are addresses.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from measuring import Spread, clock, in_turns, parser, positive, show

from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.data.scenes.options import STYLES, TASKS, SceneOptions
from transformers_cbvila.data.scenes.scene_rows import SceneRows
from transformers_cbvila.data.sources import load_pairs


def per_second(times: Spread, rows: int) -> str:
    """Returns rows per second from the seconds that so many of them took."""
    return str(Spread([rows / seconds for seconds in times.values]))


def reading(rows: Sequence[Any], read: Callable[[int], Any] | None = None) -> Callable[[], None]:
    """Returns the task of reading all rows."""

    def task() -> None:
        for number in range(len(rows)):
            (read or rows.__getitem__)(number)

    return task


def main() -> None:
    """Prints the rates of all tasks at the usual options, and of pretraining in each style and number of objects."""
    arguments = parser(__doc__, "python benchmarks/scenes.py --size 96")
    arguments.add_argument("--size", type=positive, default=64, metavar="PIXELS", help="of images; default 64")
    arguments.add_argument(
        "--rows", type=positive, default=1000, metavar="N", help="of each measurement; default 1000"
    )
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    usual = SceneOptions(size=options.size, rows=options.rows)
    every = {task: SceneRows(usual, "train", task) for task in TASKS}
    every["pretraining, test"] = SceneRows(usual, "test")
    for style in STYLES[1:]:
        every[f"pretraining, {style}"] = SceneRows(SceneOptions(options.size, style=style, rows=options.rows), "train")
    for objects in (2, 4):
        world = SceneOptions(options.size, objects=objects, rows=options.rows)
        every[f"pretraining, up to {objects} objects"] = SceneRows(world, "train")
    tasks = {name: reading(rows) for name, rows in every.items()}
    tasks |= {f"{name}, texts": reading(every[name], every[name].texts) for name in TASKS}
    pairs = ImageTextPairs(load_pairs(f"scenes[size={options.size},rows={options.rows}]"))
    tasks["as training examples"] = reading(pairs)
    times = in_turns(tasks, options.rounds, clock(torch.device("cpu")))
    print("Rows per CPU-second: median (smallest to largest)")
    show({name: per_second(spread, options.rows) for name, spread in times.items()})


if __name__ == "__main__":
    main()
