"""Exports models as ONNX graphs, with what a process without torch needs to run them."""

import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers.utils import CONFIG_NAME

from ..bundled import checkpoint_source, class_of_checkpoint
from ..extras import require
from ..model.processing_cbvila import CBViLAProcessor
from ..onnx_runtime.export_files import DESCRIPTION, FORMAT
from ..output_files import write_json
from ..output_folders import is_free
from .graphs import Graph, GraphInput, exported_class, graphs_of
from .preparation import preparation_of
from .quantization import int8_name, write_int8


def export_onnx(
    source: str | Path,
    output_dir: str | Path,
    *,
    graphs: Sequence[str] | None = None,
    int8: bool = False,
    overwrite: bool = False,
) -> Path:
    """Exports a model as ONNX graphs, one for each tower and head, with dynamic batch size and text length.

    Beside the graphs lie config.json, tokenizer and processor, and export.json, which names the inputs and outputs
    of each graph with their shapes and says how images and texts become inputs. Everything is complete or not there:
    export.json is written last.

    Args:
        source: A folder, a Hub id, or the name of a bundled checkpoint: a model of one of the classes in `GRAPHS`.
        output_dir: A folder that is empty, or does not exist yet.
        graphs: Names of the graphs to export; by default all that the model has.
        int8: Whether to write int8 versions as well (dynamic quantization of matrix products and embeddings).
        overwrite: Whether `output_dir` may hold an earlier export, which is replaced.

    Returns:
        The folder.

    Raises:
        ImportError: If the extra `onnx` is not installed.
        FileNotFoundError: If the source is neither a folder nor bundled, and cannot be a Hub id.
        ValueError: If there is something at `output_dir`, or the model or its processor cannot be exported, or the
            model lacks one of the graphs.

    Example:
    ```python
    from transformers_cbvila import export_onnx

    export_onnx("cbvila-tiny", "exported", int8=True)
    ```
    """
    for module in ("onnx", "onnxscript", *(["onnxruntime"] if int8 else [])):
        require(module)
    target = Path(output_dir)
    _check_target(target, overwrite)
    model, processor = load_exported(str(source))
    wanted = graphs_of(model, None if graphs is None else list(graphs))
    description = {
        "format": FORMAT,
        "architecture": type(model).__name__,
        **preparation_of(model, processor),
        "graphs": {},
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.absolute().parent, prefix=f".{target.name}-") as scratch:
        folder = Path(scratch)
        for graph in wanted:
            description["graphs"][graph.name] = write_graph(graph, folder, int8)
        model.config.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_json(folder / DESCRIPTION, description)
        _move(folder, target)
    return target


def load_exported(name: str) -> tuple[Any, CBViLAProcessor]:
    """Returns a model that can be exported, in fp32 on the CPU and in evaluation mode, and its processor.

    Raises:
        ValueError: If its class is not exported.
    """
    source = checkpoint_source(name)
    class_name = class_of_checkpoint(source)
    if class_name is None:
        raise ValueError(f"{name}: its {CONFIG_NAME} does not say of which class it is (architectures)")
    try:
        cls = exported_class(class_name)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    # flex and flash attention do not export
    model = cls.from_pretrained(source, dtype=torch.float32, attn_implementation="sdpa")
    return model.eval(), CBViLAProcessor.from_pretrained(source)


def write_graph(graph: Graph, folder: Path, int8: bool) -> dict[str, Any]:
    """Writes a graph into a folder, and an int8 version if wanted; returns its description."""
    given = graph.inputs()
    sizes = {size for each in given.values() for size in each.dims.values()}
    dims = {size: size.unit * torch.export.Dim(size.name) for size in sizes}
    shapes = tuple({i: dims[size] for i, size in each.dims.items()} for each in given.values())
    samples = tuple(each.sample for each in given.values())
    with torch.no_grad():
        outputs = list(graph(*samples))
    # Not by transformers' OnnxExporter, which is experimental: it exports the forward of a whole model, and splits one
    # only as `generate` calls its parts, while these graphs are towers and heads.
    with _quietly():
        program: Any = torch.onnx.export(
            graph,
            samples,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(given),
            output_names=outputs,
            verbose=False,
        )
    inputs = {value.name: _shape(value) for value in program.model.graph.inputs}
    if inputs != {name: _expected_shape(each) for name, each in given.items()}:
        raise RuntimeError(f"torch made a size of the sample inputs a constant of the graph {graph.name}: {inputs}")
    _name_sizes(program, given)
    file = f"{graph.name}.onnx"
    program.save(folder / file)  # weights of more than 2 GB go to a file beside it
    outputs_shapes = {value.name: _shape(value) for value in program.model.graph.outputs}
    description: dict[str, Any] = {"file": file, "inputs": inputs, "outputs": outputs_shapes}
    if int8:
        description["int8_file"] = write_int8(folder / file, folder / int8_name(file)).name
    return description


def _name_sizes(program: Any, given: Mapping[str, GraphInput]) -> None:
    """Gives sizes of outputs that follow from multiples the names of these, where torch has numbered symbols."""
    names: dict[str, str] = {}
    values = {node.name: node.meta["val"] for node in program.exported_program.graph.find_nodes(op="placeholder")}
    for name, each in given.items():
        for i, size in each.dims.items():
            (symbol,) = values[name].shape[i].node.expr.free_symbols
            names[str(symbol)] = size.name
    for value in program.model.graph.outputs:
        sizes = [re.sub(r"\w+", lambda found: names.get(found[0], found[0]), str(size)) for size in value.shape]
        value.shape = type(value.shape)(int(size) if size.isdigit() else size for size in sizes)


def _shape(value: Any) -> list[int | str]:
    return [dim if isinstance(dim, int) else str(dim) for dim in value.shape]


def _expected_shape(given: GraphInput) -> list[int | str]:
    return [str(given.dims[i]) if i in given.dims else size for i, size in enumerate(given.sample.shape)]


def _check_target(target: Path, overwrite: bool) -> None:
    if is_free(target):
        return
    if not overwrite:
        raise ValueError(
            f"{target} is there already; name another folder, or replace an earlier export with --overwrite "
            "(overwrite=True)"
        )
    if not (target / DESCRIPTION).is_file():
        raise ValueError(f"{target} is no earlier export: it has no {DESCRIPTION}; name another folder")


def _move(folder: Path, target: Path) -> None:
    """Moves a finished export to its place, where an earlier one may be; its description last."""
    target.mkdir(exist_ok=True)
    before = target / DESCRIPTION
    if before.is_file():
        for graph in json.loads(before.read_text(encoding="utf-8"))["graphs"].values():
            for file in (graph["file"], graph.get("int8_file")):
                if file is not None:
                    (target / Path(file).name).unlink(missing_ok=True)
        before.unlink()
    files = sorted(folder.iterdir(), key=lambda path: path.name == DESCRIPTION)
    for path in files:
        if path.is_dir():
            shutil.rmtree(target / path.name, ignore_errors=True)
        os.replace(path, target / path.name)


@contextmanager
def _quietly() -> Iterator[None]:
    """Leaves out what torch's exporter says of packages that nothing here uses."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*axis name: .* will not be used", category=UserWarning)
            yield
    finally:
        registration.setLevel(level)
