"""An exported model: its description, and its graphs in ONNX Runtime."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..extras import require
from ..model.messages_cbvila import shown
from .export_files import DESCRIPTION, FORMAT


class Graphs(Protocol):
    """What runs graphs by name: ONNX Runtime here, or anything else that computes the same.

    Attributes:
        description: Content of export.json.
        folder: Where tokenizer and processor are.
    """

    description: dict[str, Any]
    folder: Path

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs of a graph by name."""


class ExportedModel:
    """The graphs of a folder that `cbvila export` wrote, each loaded when it is first run.

    Args:
        folder: The folder.
        int8: Whether to run the int8 versions.
        num_threads: Threads of an operation; by default as many as ONNX Runtime takes.

    Attributes:
        description: Content of its export.json.

    Raises:
        FileNotFoundError: If the folder has no export.json.
        ValueError: If it was written in another format, or has no int8 versions.
        ImportError: If onnxruntime is not installed.
    """

    def __init__(self, folder: str | Path, int8: bool = False, num_threads: int | None = None) -> None:
        self.folder, self._num_threads = Path(folder), num_threads
        self.description = _read(self.folder)
        self._file = "int8_file" if int8 else "file"
        if any(self._file not in graph for graph in self.description["graphs"].values()):
            raise ValueError(f"{self.folder} has no int8 graphs: export the model with --int8 (int8=True)")
        self._runtime = require("onnxruntime")
        self._sessions: dict[str, Any] = {}

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a graph.

        Args:
            graph: Its name.
            inputs: Arrays by name; more than it takes are left out.

        Returns:
            Its outputs by name.
        """
        session = self._session(graph)
        taken = {name: inputs[name] for name in self.description["graphs"][graph]["inputs"]}
        names = list(self.description["graphs"][graph]["outputs"])
        return dict(zip(names, session.run(names, taken), strict=True))

    @property
    def files(self) -> list[Path]:
        """The files of its graphs, with those that hold weights of more than 2 GB."""
        graphs = [self.folder / graph[self._file] for graph in self.description["graphs"].values()]
        return [file for graph in graphs for file in (graph, Path(f"{graph}.data")) if file.is_file()]

    def _session(self, graph: str) -> Any:
        if graph not in self._sessions:
            options = self._runtime.SessionOptions()
            if self._num_threads is not None:
                options.intra_op_num_threads = self._num_threads
            path = self.folder / self.description["graphs"][graph][self._file]
            self._sessions[graph] = self._runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return self._sessions[graph]


def require_graphs(graphs: Graphs, names: tuple[str, ...], what_for: str) -> None:
    """Checks that a model has the graphs that a task needs.

    Raises:
        ValueError: If one is missing.
    """
    there = graphs.description["graphs"]
    for name in names:
        if name not in there:
            raise ValueError(
                f"{graphs.folder} has no graph {name!r}, which {what_for} needs; it has {', '.join(there)}, of a "
                f"{graphs.description['architecture']}"
            )


def _read(folder: Path) -> dict[str, Any]:
    file = folder / DESCRIPTION
    if not file.is_file():
        raise FileNotFoundError(
            f"{shown(str(folder), 255)} has no {DESCRIPTION}: give a folder that `cbvila export` wrote"
        )
    description = json.loads(file.read_text(encoding="utf-8"))
    if description.get("format") != FORMAT:
        raise ValueError(
            f"{file} has the format {shown(description.get('format'))}, and this version reads {FORMAT}: export the "
            "model again"
        )
    return description
