"""ONNX exports in the folder `onnx` of a checkpoint: which of their files are published, and what the card says."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..onnx_runtime.export_files import DESCRIPTION, PARITY

_FOLDER = "onnx"
_BESIDE = ("config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")
_NAMES = {"torch": "torch", "onnx": "ONNX", "int8": "ONNX, int8"}
_SHARES = {"identical_codes": "visual words as in torch", "identical_answers": "answers as in torch"}
_RECALLS = {
    f"{way}_r{depth}": f"{arrow} R@{depth}"
    for way, arrow in (("text_retrieval", "image → text"), ("image_retrieval", "text → image"))
    for depth in (1, 10)
}


def exported_files(folder: Path) -> list[str]:
    """Returns the names, relative to a checkpoint's folder, of the files of its export; [] without one."""
    export = folder / _FOLDER
    if not (export / DESCRIPTION).is_file():
        return []
    graphs = json.loads((export / DESCRIPTION).read_text(encoding="utf-8"))["graphs"].values()
    named = [Path(graph[key]).name for graph in graphs for key in ("file", "int8_file") if key in graph]
    # weights of more than 2 GB lie in a file beside the graph's
    wanted = [DESCRIPTION, PARITY, *_BESIDE, *(f"{name}{end}" for name in named for end in ("", ".data"))]
    return [f"{_FOLDER}/{name}" for name in wanted if (export / name).is_file()]


def exports_section(folder: Path) -> str:
    """Returns what the card of a checkpoint says of its export; empty without one."""
    if not exported_files(folder):
        return ""
    parity = folder / _FOLDER / PARITY
    if not parity.is_file():
        return "How far it is from the weights here was not measured."
    return _figures(json.loads(parity.read_text(encoding="utf-8")))


def _figures(parity: Mapping[str, Any]) -> str:
    """Returns the figures of a parity.json: a sentence and a table."""
    forms = [form for form in _NAMES if form in parity["milliseconds_per_row"]]
    rows = [["", *(_NAMES[form] for form in forms)], ["---"] * (1 + len(forms))]
    rows.append(["graphs, MB", *(_of(parity["bytes"], form, lambda size: f"{size / 1e6:.1f}") for form in forms)])
    rows.append(["ms for each row", *(f"{parity['milliseconds_per_row'][form]:.1f}" for form in forms)])
    largest = {form: max(values.values()) for form, values in parity["largest_difference"].items()}
    rows.append(["largest difference of an output", *(_of(largest, form, lambda v: f"{v:.1e}") for form in forms)])
    for key, name in _SHARES.items():
        if key in parity:
            rows.append([name, *(_of(parity[key], form, _percent) for form in forms)])
    for key, name in _RECALLS.items():
        if "recall" in parity:
            rows.append([name, *(_percent(parity["recall"][form][key]) for form in forms)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    what = f"Measured on {parity['rows']:,} rows of {parity['data']}, {parity['split']}, on one thread of a CPU:"
    return "\n".join([what, "", *lines])


def _of(values: Mapping[str, Any], form: str, text: Any) -> str:
    return text(values[form]) if form in values else "–"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
