"""How far an export is from the model: differences, codes, answers, recall, size and time, with torch and without.

Shapes: B rows of a batch, N rows in all.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.measured_pairs import MeasuredPairs
from ..data.source_rows import split_as_read, usual_split
from ..data.sources import load_pairs
from ..model.configuration_cbvila import CBViLAVisionConfig
from ..onnx_runtime.export_files import PARITY
from ..onnx_runtime.exported_model import ExportedModel, Graphs
from ..onnx_runtime.images import pixel_values
from ..onnx_runtime.question_answering import CBViLAOnnxQuestionAnswering
from ..onnx_runtime.retriever import CBViLAOnnxRetriever
from ..onnx_runtime.texts import Texts
from ..output_files import write_json
from ..tasks.row_reading import load_task_rows
from ..tasks.vqa import VisualQuestionAnswering
from .code_gaps import CodeGaps
from .graphs import Entailment, Reasoning, graphs_of
from .onnx_export import load_exported

_BATCH, _TEXT_LENGTH = 32, 30
_DEPTHS = (1, 5, 10)
Row = tuple[Any, str]  # an image, and a question or caption


class TorchGraphs:
    """The graphs of a model in torch, in the form in which ONNX Runtime has them.

    Args:
        model: The model.
        export: Its export, whose graphs, tokenizer and description are taken.
    """

    def __init__(self, model: Any, export: Graphs) -> None:
        self.description, self.folder = export.description, export.folder
        self._graphs = {graph.name: graph for graph in graphs_of(model, list(self.description["graphs"]))}

    @torch.no_grad()
    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a graph."""
        names = self.description["graphs"][graph]["inputs"]
        outputs = self._graphs[graph](*(torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in names))
        return {name: value.numpy() for name, value in outputs.items()}


class ComparedGraphs:
    """Runs every graph in torch and in all exported forms on the same inputs, and keeps how they differ.

    Args:
        torch_graphs: The graphs in torch, whose outputs are returned.
        others: The exported forms by name.
        code_gaps: What compares the codes of images where they differ, if it can.

    Attributes:
        differences: For each form the largest absolute difference of each output of floating-point numbers.
        identical: For each form, how many code indices are those of torch, and how many there are.
        gaps: For each form, by how much the distances to its code of a patch and to torch's differ at most.
        seconds: Time of all runs, of torch and of each form.
    """

    def __init__(self, torch_graphs: Graphs, others: Mapping[str, Graphs], code_gaps: CodeGaps | None = None) -> None:
        self.description, self.folder = torch_graphs.description, torch_graphs.folder
        self._torch, self._others, self._code_gaps = torch_graphs, others, code_gaps
        self.differences: dict[str, dict[str, float]] = {form: {} for form in others}
        self.identical = {form: np.zeros(2, dtype=np.int64) for form in others}
        self.gaps = dict.fromkeys(others if code_gaps is not None else (), 0.0)
        self.seconds = dict.fromkeys(("torch", *others), 0.0)

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a graph everywhere, and returns torch's outputs."""
        expected = self._timed("torch", self._torch, graph, inputs)
        for form, graphs in self._others.items():
            for name, value in self._timed(form, graphs, graph, inputs).items():
                self._compare(form, f"{graph}.{name}", value, expected[name])
                if name == "codebook_indices" and self._code_gaps is not None:
                    gap = self._code_gaps.largest(inputs["pixel_values"], value, expected[name])
                    self.gaps[form] = max(self.gaps[form], gap)
        return expected

    def shares(self) -> dict[str, float]:
        """Returns for each form the share of code indices that are those of torch; nothing where there are none."""
        return {form: float(same / total) for form, (same, total) in self.identical.items() if total}

    def _timed(self, form: str, graphs: Graphs, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        start = time.perf_counter()
        outputs = graphs.run(graph, inputs)
        self.seconds[form] += time.perf_counter() - start
        return outputs

    def _compare(self, form: str, name: str, value: np.ndarray, expected: np.ndarray) -> None:
        if np.issubdtype(expected.dtype, np.integer):
            self.identical[form] += (int((value == expected).sum()), expected.size)
        else:
            largest = self.differences[form].get(name, 0.0)
            self.differences[form][name] = max(largest, float(np.abs(value - expected).max()))


def measure_parity(
    source: str | Path, export: str | Path, data: str, split: str | None = None, rows: int = 1000
) -> dict[str, Any]:
    """Measures how far an export is from its model, and writes parity.json beside its graphs.

    Everything runs on one thread of the CPU. Graphs get equal inputs when their outputs are compared; answers and
    recall are those of the whole chain in each form.

    Args:
        source: The model that was exported, as [`export_onnx`] takes it.
        export: The folder of the export; int8 graphs in it are measured as well.
        data: Where rows come from: a source of images with questions for a model that answers them, with captions for
            any other.
        split: Its split; by default the usual one for measuring.
        rows: How many of its first rows.

    Returns:
        What the file has: `bytes`, `milliseconds_per_row`, `largest_difference` by output, `identical_codes`,
        `largest_code_gap` (see [`CodeGaps`]), `identical_answers` (or classes) and `recall`, as far as the model has
        them, each by form: `torch`, `onnx`, `int8`; and for a few rows at `other_image_sizes` the largest difference
        and the identical codes.

    Raises:
        FileNotFoundError: If the folder is no export, or the data are not there.
        ValueError: If `rows` is not positive, or the data lack a column.
    """
    if rows < 1:
        raise ValueError(f"rows={rows} must be at least 1")
    forms = _forms(Path(export))
    split = split or usual_split([data])
    model, _ = load_exported(str(source))
    asks = "question_encoder" in forms["onnx"].description["graphs"]
    answers = asks or _classifier(forms["onnx"]) is not None
    given = _questions(data, split, rows) if asks else _captions(data, split, rows)
    base = getattr(model, "cbvila", model)
    gaps = CodeGaps(base) if CodeGaps.can_measure(base) and not asks else None
    with _one_thread():
        torch_graphs = TorchGraphs(model, forms["onnx"])
        compared = ComparedGraphs(torch_graphs, forms, gaps)
        results = {
            "torch": _results(compared, given),
            **{form: _results(graphs, given) for form, graphs in forms.items()},
        }
        seconds = dict(compared.seconds)
        if "drawing" in compared.description["graphs"]:
            _draw(compared, given[:_BATCH])
        at_sizes = {
            f"{height}x{width}": _at_size(ComparedGraphs(torch_graphs, forms), given[:_BATCH], height, width)
            for height, width in _other_sizes(model.config.vision_config)
        }
    report: dict[str, Any] = {
        "model": Path(source).name,
        "data": Path(data).name,
        "split": split_as_read([data], split),
        "rows": len(given),
        "bytes": {form: _bytes(graphs) for form, graphs in forms.items()},
        "milliseconds_per_row": {form: 1000 * spent / len(given) for form, spent in seconds.items()},
        "largest_difference": compared.differences,
    }
    if compared.shares():
        report["identical_codes"] = compared.shares()
    if compared.gaps:
        report["largest_code_gap"] = compared.gaps
    if answers:
        pairs = {form: zip(results[form], results["torch"], strict=True) for form in forms}
        report["identical_answers"] = {form: float(np.mean([a == b for a, b in both])) for form, both in pairs.items()}
    elif results["torch"]:
        report["recall"] = results
    report["other_image_sizes"] = at_sizes
    write_json(Path(export, PARITY), report)
    return report


def _forms(folder: Path) -> dict[str, ExportedModel]:
    forms = {"onnx": ExportedModel(folder, num_threads=1)}
    if all("int8_file" in graph for graph in forms["onnx"].description["graphs"].values()):
        forms["int8"] = ExportedModel(folder, int8=True, num_threads=1)
    return forms


def _questions(data: str, split: str, rows: int) -> list[Row]:
    """Returns an image and one of its questions for each row."""
    found = load_task_rows(VisualQuestionAnswering(), [data], split)
    return [(row["image"], row["question"][0]) for row in (found[i] for i in range(min(rows, len(found))))]


def _captions(data: str, split: str, rows: int) -> list[Row]:
    found = MeasuredPairs(load_pairs(data, split))
    return [(row["image"], row["captions"][0]) for row in (found[i] for i in range(min(rows, len(found))))]


def _results(graphs: Graphs, rows: Sequence[Row]) -> Any:
    """Returns what the whole chain comes to: answers, or recalls by name; nothing of a model that does neither."""
    images, texts = [image for image, _ in rows], [text for _, text in rows]
    if "question_encoder" in graphs.description["graphs"]:
        ask = CBViLAOnnxQuestionAnswering(graphs)
        starts = range(0, len(rows), _BATCH)
        return [answer for i in starts for answer in ask(images[i : i + _BATCH], texts[i : i + _BATCH])]
    if "retrieval" in graphs.description:
        return _recalls(CBViLAOnnxRetriever(graphs, _BATCH), images, texts)
    found = []
    for i in range(0, len(rows), _BATCH):
        encoded = _encode(graphs, rows[i : i + _BATCH])
        found += _classes(graphs, encoded)
    return found


def _classifier(graphs: Graphs) -> str | None:
    """Returns the name of the graph that classifies, if there is one."""
    return next((name for name in (Entailment.name, Reasoning.name) if name in graphs.description["graphs"]), None)


def _classes(graphs: Graphs, encoded: dict[str, np.ndarray]) -> list[int]:
    """Returns the class of each encoded text with its image, and those before it where a text has several."""
    name = _classifier(graphs)
    if name is None:
        return []
    states = encoded["image_states"]
    if name == Reasoning.name:
        images = graphs.description["graphs"][name]["inputs"]["image_states"][1]
        states = np.stack([np.roll(states, place, axis=0) for place in range(images)], axis=1)
    logits = graphs.run(name, {**encoded, "image_states": states})["logits"]
    return [int(number) for number in logits.argmax(-1)]


def _recalls(retriever: CBViLAOnnxRetriever, images: list[Any], texts: list[str]) -> dict[str, float]:
    """Returns the shares of queries with their own item, or one with an equal text, among the k best."""
    found = {
        "text_retrieval": retriever.index(texts=texts).search(image=images, top_k=max(_DEPTHS)).indices,
        "image_retrieval": retriever.index(images=images).search(text=texts, top_k=max(_DEPTHS)).indices,
    }
    known = np.asarray(texts)
    right = {name: known[rows] == known[:, None] for name, rows in found.items()}
    return {f"{name}_r{k}": float(hits[:, :k].any(1).mean()) for name, hits in right.items() for k in _DEPTHS}


def _other_sizes(vision: CBViLAVisionConfig) -> list[tuple[int, int]]:
    """Returns heights and widths beside the model's own: a larger square, and an image twice as wide as high."""
    half = max(1, vision.image_size // vision.patch_size // 2) * vision.patch_size
    larger = vision.image_size + half
    return [(larger, larger), (half, 2 * half)]


def _at_size(compared: ComparedGraphs, rows: Sequence[Row], height: int, width: int) -> dict[str, dict[str, float]]:
    """Returns how far the graphs that read images are from torch's, at another size, for each form."""
    inputs = _inputs(compared, rows, {"height": height, "width": width})
    for name, graph in compared.description["graphs"].items():
        if "pixel_values" in graph["inputs"]:
            compared.run(name, inputs)
    shares = {form: {"identical_codes": share} for form, share in compared.shares().items()}
    largest = {form: max(values.values()) for form, values in compared.differences.items() if values}
    return {form: {"largest_difference": value, **shares.get(form, {})} for form, value in largest.items()}


def _inputs(graphs: Graphs, rows: Sequence[Row], size: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
    """Returns texts and images as inputs by name, of the model's own size or of another."""
    texts = Texts(graphs.folder, graphs.description["texts"])
    inputs = texts.encode([text for _, text in rows], _TEXT_LENGTH)
    options = {**graphs.description["images"], **(size or {})}
    return {**inputs, "pixel_values": pixel_values([image for image, _ in rows], options)}


def _encode(graphs: Graphs, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Returns inputs and outputs of the encoders by name."""
    inputs = _inputs(graphs, rows)
    return {**inputs, **graphs.run("image_encoder", inputs), **graphs.run("text_encoder", inputs)}


def _draw(graphs: Graphs, rows: Sequence[Row]) -> None:
    """Runs a step of drawing, in which every second visual word is hidden."""
    encoded = _encode(graphs, rows)
    shape = encoded["codebook_indices"].shape[:2]
    hidden = np.broadcast_to(np.arange(shape[1]) % 2 == 0, shape)
    graphs.run("drawing", {**encoded, "bool_masked_pos": np.ascontiguousarray(hidden)})


def _bytes(graphs: ExportedModel) -> int:
    return sum(file.stat().st_size for file in graphs.files)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
