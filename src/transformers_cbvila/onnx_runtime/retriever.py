"""Search with an exported model, without torch: found by similarity, re-ranked by matching.

Shapes: Q queries, k results, B pairs, S visual tokens, L text tokens, D hidden, E embedding width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .exported_model import ExportedModel, Graphs, require_graphs
from .images import pixel_values
from .texts import Texts

_MAX_LENGTH = 30  # tokens of a text, as of CBViLARetriever


class CBViLAOnnxRetrieverOutput(NamedTuple):
    """Results of a search, best first; with a leading dimension (Q,) for a list of queries.

    Args:
        indices: (k,) positions of the items in what was indexed, from 0.
        scores: (k,) log-odds of "matches", plus weighted similarities if the checkpoint says so, where items were
            re-ranked; similarities otherwise.
        similarities: (k,) cosines of the embeddings.
    """

    indices: np.ndarray
    scores: np.ndarray
    similarities: np.ndarray


class _Encoded(NamedTuple):
    """Embeddings (Q, E) of items, and the states of each: (S, Dv) of an image, (L, D) of a text."""

    embeds: np.ndarray
    states: list[np.ndarray]


class CBViLAOnnxRetriever:
    """Searches images by text and texts by image, as [`CBViLARetriever`] does.

    Needs onnxruntime, tokenizers, numpy and Pillow, and neither torch nor transformers.

    Args:
        graphs: The exported model.
        batch_size: Items encoded, and pairs matched, at a time.

    Attributes:
        rerank_k: How many of the most similar items matching re-ranks by default: what the checkpoint says.

    Raises:
        ValueError: If the model has no graphs that search needs, or was not trained to compare images with texts.

    Example:
    ```python
    from transformers_cbvila import CBViLAOnnxRetriever

    retriever = CBViLAOnnxRetriever.from_pretrained("exported").index(images=["a.png", "b.png"])
    retriever.search(text="a red square", top_k=1, rerank_k=2).indices
    ```
    """

    def __init__(self, graphs: Graphs, batch_size: int = 32) -> None:
        require_graphs(graphs, ("image_encoder", "text_encoder"), "search")
        if "retrieval" not in graphs.description:
            raise ValueError(f"{graphs.folder}: this model was not trained to compare images with texts")
        self._graphs, self._batch_size = graphs, batch_size
        self._texts, self._options = Texts(graphs.folder, graphs.description["texts"]), graphs.description["retrieval"]
        self.rerank_k: int = self._options["rerank_k"]
        self._kind, self._gallery = "", _Encoded(np.empty((0, 0)), [])

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, int8: bool = False, num_threads: int | None = None
    ) -> "CBViLAOnnxRetriever":
        """Loads a folder that `cbvila export` wrote; see [`ExportedModel`] for arguments and errors."""
        return cls(ExportedModel(folder, int8, num_threads))

    def __len__(self) -> int:
        return len(self._gallery.embeds)

    def index(self, images: Sequence[Any] | None = None, texts: Sequence[str] | None = None) -> "CBViLAOnnxRetriever":
        """Encodes the items to search in, which replace what was indexed before, and returns the retriever.

        Args:
            images: Images: paths, PIL images, arrays or URLs.
            texts: Texts, instead of images; cut to 30 tokens.

        Raises:
            ValueError: If both or neither are given, there are none, or one cannot be read.
        """
        if (images is None) == (texts is None):
            raise ValueError("Index images or texts: exactly one of the two.")
        kind, items = ("texts", texts) if images is None else ("images", images)
        if items is None or isinstance(items, str) or not len(items):
            raise ValueError(f"{kind} must be a list with one item or more.")
        self._kind, self._gallery = kind, self._encode(kind, items)
        return self

    def search(
        self, text: Any = None, image: Any = None, top_k: int = 10, rerank_k: int | None = None
    ) -> CBViLAOnnxRetrieverOutput:
        """Finds the items that fit a text or an image best, for one query or a list.

        Args:
            text: A text, or a list of Q.
            image: An image, or a list of Q, instead.
            top_k: How many items to return; all, if there are fewer.
            rerank_k: How many of the most similar items matching re-ranks, at least `top_k`; 0 for similarity alone.
                Default: `retriever.rerank_k`, or 0 if matching is impossible: between items of one kind, or without
                the graph `matching`.

        Raises:
            ValueError: If nothing is indexed, both or neither are given, a number is out of range, or matching is
                requested but impossible.
        """
        if not len(self):
            raise ValueError("Nothing is indexed: call index first.")
        if (text is None) == (image is None):
            raise ValueError("Search by a text or by an image: exactly one of the two.")
        if top_k < 1:
            raise ValueError(f"top_k={top_k} must be at least 1.")
        kind, given = ("texts", text) if image is None else ("images", image)
        several = isinstance(given, list | tuple)
        candidates = self._candidates(kind, rerank_k)
        queries = self._encode(kind, given if several else [given])
        cosines = queries.embeds @ self._gallery.embeds.T
        rows = np.argsort(-cosines, axis=1, kind="stable")[:, : max(top_k, candidates)]
        cosines = np.take_along_axis(cosines, rows, axis=1)
        scores = cosines
        if candidates:
            beside = self._options["similarity_weight"] * self._options["similarity_scale"]
            scores = self._match(queries, kind, rows) + np.float32(beside) * cosines
            order = np.argsort(-scores, axis=1, kind="stable")
            rows, scores, cosines = (np.take_along_axis(each, order, axis=1) for each in (rows, scores, cosines))
        found = [each[:, :top_k] for each in (rows, scores, cosines)]
        return CBViLAOnnxRetrieverOutput(*(found if several else [each[0] for each in found]))

    def _candidates(self, kind: str, rerank_k: int | None) -> int:
        """Returns how many items to re-rank for a query of this kind."""
        why_not = ""
        if kind == self._kind:
            why_not = f"{kind} are indexed, and matching is of an image with a text"
        elif "matching" not in self._graphs.description["graphs"]:
            why_not = "this export has no graph 'matching'"
        if rerank_k is None:
            return 0 if why_not else self.rerank_k
        if rerank_k < 0:
            raise ValueError(f"rerank_k={rerank_k} must be at least 0.")
        if rerank_k and why_not:
            raise ValueError(f"rerank_k={rerank_k}: {why_not}; leave it out to search by similarity.")
        return rerank_k

    def _encode(self, kind: str, items: Sequence[Any]) -> _Encoded:
        batches = [items[start : start + self._batch_size] for start in range(0, len(items), self._batch_size)]
        parts = [(self._encode_images if kind == "images" else self._encode_texts)(batch) for batch in batches]
        states = [state for part in parts for state in part.states]
        return _Encoded(np.concatenate([part.embeds for part in parts]), states)

    def _encode_images(self, images: Sequence[Any]) -> _Encoded:
        inputs = {"pixel_values": pixel_values(images, self._graphs.description["images"])}
        encoded = self._graphs.run("image_encoder", inputs)
        return _Encoded(encoded["image_embeds"], list(encoded["image_states"]))

    def _encode_texts(self, texts: Sequence[str]) -> _Encoded:
        inputs = self._texts.encode(texts, _MAX_LENGTH)
        encoded = self._graphs.run("text_encoder", inputs)
        lengths = inputs["attention_mask"].sum(1)
        states = [row[:length] for row, length in zip(encoded["text_states"], lengths, strict=True)]
        return _Encoded(encoded["text_embeds"], states)

    def _match(self, queries: _Encoded, kind: str, rows: np.ndarray) -> np.ndarray:
        """Returns the log-odds (Q, k) of "matches" of queries with rows (Q, k) of the gallery."""
        pairs = [(query, row) for query, found in enumerate(rows.tolist()) for row in found]
        logits = []
        for start in range(0, len(pairs), self._batch_size):
            batch = pairs[start : start + self._batch_size]
            asked = [queries.states[query] for query, _ in batch]
            found = [self._gallery.states[row] for _, row in batch]
            texts, images = (asked, found) if kind == "texts" else (found, asked)
            logits.append(self._graphs.run("matching", {**_padded(texts), "image_states": np.stack(images)}))
        both = np.concatenate([part["itm_logits"] for part in logits])
        return (both[:, 1] - both[:, 0]).reshape(rows.shape)


def _padded(states: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Returns `text_states` (B, L, D) of B texts of any length, and their `attention_mask` (B, L)."""
    longest = max(map(len, states))
    padded = np.zeros((len(states), longest, states[0].shape[-1]), dtype=states[0].dtype)
    mask = np.zeros((len(states), longest), dtype=np.int64)
    for number, state in enumerate(states):
        padded[number, : len(state)], mask[number, : len(state)] = state, 1
    return {"text_states": padded, "attention_mask": mask}
