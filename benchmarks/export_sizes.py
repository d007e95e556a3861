"""Measures what free image sizes cost an exported image encoder, beside the same graph for one size.

Prints CPU seconds for images of the model's own size, and the ratio of both graphs, medians with the range of all
rounds. It needs the extra `onnx`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from measuring import Spread, clock, in_turns, parser, show

from transformers_cbvila.export.graphs import FreeSize, GraphInput, ImageEncoder
from transformers_cbvila.export.onnx_export import load_exported, write_graph
from transformers_cbvila.extras import require


class OneSizeImageEncoder(ImageEncoder):
    """The image encoder for images of the model's own size alone."""

    def inputs(self) -> dict[str, GraphInput]:
        """Returns `pixel_values`."""
        side = self.model.config.vision_config.image_size
        return {"pixel_values": GraphInput(torch.zeros(2, 3, side, side), {0: FreeSize("batch")})}


def runner(graph: ImageEncoder, folder: Path, threads: int) -> Callable[[np.ndarray], object]:
    """Exports a graph into a folder, and returns what runs it on images (B, 3, H, W)."""
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(folder / write_graph(graph, folder, int8=False)["file"], options)
    return lambda images: session.run(None, {"pixel_values": images})


def main() -> None:
    """Measures and prints."""
    arguments = parser(__doc__, "python benchmarks/export_sizes.py --model cbvila-scenes --rounds 30")
    arguments.add_argument("--model", default="cbvila-scenes", help="a folder, or a bundled checkpoint")
    asked = arguments.parse_args()
    model, _ = load_exported(asked.model)
    side, runners = model.config.vision_config.image_size, {}
    for name, kind in (("any size", ImageEncoder), ("one size", OneSizeImageEncoder)):
        with TemporaryDirectory() as folder:
            runners[name] = runner(kind(model).eval(), Path(folder), asked.threads)
    for batch in (1, 32):
        images = np.random.default_rng(0).normal(size=(batch, 3, side, side)).astype(np.float32)
        tasks = {name: partial(run, images) for name, run in runners.items()}
        spent = in_turns(tasks, asked.rounds, clock(torch.device("cpu")))
        ratio = Spread([free / one for free, one in zip(*(each.values for each in spent.values()), strict=True)])
        print(f"{batch} images of {side}x{side}")
        show({**{f"{name}, CPU seconds": str(each) for name, each in spent.items()}, "ratio": str(ratio)})


if __name__ == "__main__":
    main()
