"""Search in images or texts: encoded once, found by similarity, re-ranked by matching."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from ..bundled import local_or_hub_id
from ..data.image_files import image_files
from ..devices import placed
from ..model.item_lists_cbvila import items_of
from ..model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from ..model.number_checks_cbvila import check_number, check_whole
from ..model.processing_cbvila import CBViLAProcessor
from .calibration import Calibration
from .encoding import GalleryEncoder
from .faiss_index import FaissIndex
from .gallery import Encoded, Gallery, check_comparable
from .gallery_identity import describe, processor_id, weights_id
from .gallery_writing import SHARD_BYTES, save_gallery, store_gallery
from .pair_matching import match_pairs
from .query_parts import QueryPart, combined, query_parts
from .similarity import most_similar
from .stored_gallery import StoredGallery

_FAISS_FILE = "index.faiss"
_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder")


@dataclass
class CBViLARetrieverOutput(ModelOutput):
    """Output of [`CBViLARetriever.search`], best first; with a leading dimension (Q,) for a list of queries.

    Args:
        indices (`torch.LongTensor` (k,)): Positions of the items in what was indexed, from 0. -1 where an approximate
            index found fewer than k.
        scores (`torch.FloatTensor` (k,)): Log-odds of "matches", plus the weighted similarities if requested, where
            items were re-ranked by matching; similarities otherwise.
        similarities (`torch.FloatTensor` (k,)): Cosines of the embeddings.
        probabilities (`torch.FloatTensor` (k,), *optional*): How probably an item matches the query, where the
            checkpoint's `match_calibration` holds: for a text in images or an image in texts, in the checkpoint's own
            order.
    """

    indices: Tensor | None = None
    scores: Tensor | None = None
    similarities: Tensor | None = None
    probabilities: Tensor | None = None


class CBViLARetriever:
    """Searches in images by text, in texts by image, and in either by its own kind.

    Items are encoded once. A query is compared with all of them by similarity. The most similar images of a text, or
    the most similar texts of an image, can then be re-ranked by the fusion encoder, with the log-odds of the model's
    `itm_logits` as scores, `itm_logits[:, 1] - itm_logits[:, 0]`.

    Args:
        model: The model, which is moved to `device`.
        processor: Its processor.
        device: Where to compute; by default on the accelerator if there is one, as transformers' pipelines. A model
            that `device_map` placed stays where it is.

    Attributes:
        rerank_k: How many of the most similar items [`search`] re-ranks by default: the checkpoint's
            `config.rerank_k`, which was measured. 0 for similarity alone.
        files: Paths of the indexed images, item by item, if [`index`] was given their folder.

    Example:
    ```python
    >>> from PIL import Image
    >>> from transformers_cbvila import CBViLARetriever, bundled_checkpoint

    >>> retriever = CBViLARetriever.from_pretrained(bundled_checkpoint("cbvila-tiny"))
    >>> images = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    >>> found = retriever.index(images, progress=False).search(text="a green picture", top_k=2)
    >>> found.indices.shape, found.scores.shape
    (torch.Size([2]), torch.Size([2]))

    ```
    """

    def __init__(
        self,
        model: CBViLAForImageTextRetrieval,
        processor: CBViLAProcessor,
        device: str | int | torch.device | None = None,
    ) -> None:
        self.model, self.processor = placed(model, device), processor
        self.rerank_k: int = model.config.rerank_k
        self.files: list[Path] = []
        self._kind = ""
        self._gallery: Gallery | None = None
        self._faiss: FaissIndex | None = None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, device: str | int | torch.device | None = None, **kwargs: Any
    ) -> "CBViLARetriever":
        """Loads model and processor.

        Args:
            pretrained_model_name_or_path: A folder, a Hub id, or the name of a bundled checkpoint.
            device: Where to compute, see [`CBViLARetriever`].
            **kwargs: Passed to the model's `from_pretrained`, e.g. `dtype` and `device_map`; those that say where to
                load from, such as `revision` and `token`, also to the processor's.

        Raises:
            FileNotFoundError: If the name is neither a folder nor bundled, and cannot be a Hub id.
            ValueError: If the checkpoint was not trained for retrieval.
        """
        name = str(pretrained_model_name_or_path)
        source = local_or_hub_id(name)
        loaded: Any = CBViLAForImageTextRetrieval.from_pretrained(source, output_loading_info=True, **kwargs)
        model, report = loaded
        if report["missing_keys"]:
            raise ValueError(
                f"{name} was not trained for retrieval: it has no {sorted(report['missing_keys'])[0]} and "
                f"{len(report['missing_keys']) - 1} more. Give a CBViLAForPreTraining or a "
                "CBViLAForImageTextRetrieval, such as `cbvila finetune retrieval` writes."
            )
        where_from = {option: kwargs[option] for option in _HUB_OPTIONS if option in kwargs}
        return cls(model.eval(), CBViLAProcessor.from_pretrained(source, **where_from), device)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    def to(self, device: str | int | torch.device) -> "CBViLARetriever":
        """Moves the model. The index stays in CPU memory or on disk and can be searched from any device."""
        self.model = placed(self.model, device)
        return self

    def __len__(self) -> int:
        return 0 if self._gallery is None else sum(map(len, self._gallery.blocks))

    def index(
        self,
        images: Iterable[Any] | str | Path | None = None,
        texts: Iterable[str] | None = None,
        folder: str | Path | None = None,
        keep_states: bool = True,
        max_length: int = 30,
        batch_size: int = 64,
        shard_bytes: int = SHARD_BYTES,
        progress: bool = True,
    ) -> "CBViLARetriever":
        """Encodes the items to search in. Replaces what was indexed before.

        Args:
            images: Anything that the processor takes as an image, in a list, an array of four dimensions, a column of
                a dataset or of pandas, or a generator; or a folder, whose images, including those of subfolders, are
                sorted by their paths (which are then in `files`).
            texts: Strings, instead of images.
            folder: Where to store the encoded items, for more than fit in memory. The same call with the same items
                resumes an interrupted run. Other items are detected: texts and paths (with their files) by a hash,
                anything else by its number, if known, and by comparing three items, or a generator's first one.
            keep_states: Whether to keep the states that matching needs, (S, D) per item. Without them search is by
                similarity only.
            max_length: Maximum number of tokens per text.
            batch_size: Items encoded at a time.
            shard_bytes: Approximate size of a file in the folder, which is also what an interrupted run loses.
            progress: Whether to show a progress bar.

        Returns:
            The retriever itself.

        Raises:
            ValueError: If there is nothing to index, an item cannot be read (the message names it), both images and
                texts are given, or the folder holds something else.
        """
        if (images is None) == (texts is None):
            raise ValueError("Index images or texts: exactly one of the two.")
        items, kind, self.files = texts if images is None else images, "texts" if images is None else "images", []
        if kind == "images" and isinstance(items, str | Path):
            items = self.files = image_files(items)
        items = items_of(items, kind)
        encoder = GalleryEncoder(self.model, self.processor, kind, max_length, batch_size, progress, keep_states)
        self._gallery = encoder.encode(items) if folder is None else store_gallery(folder, encoder, items, shard_bytes)
        self._kind, self._faiss = kind, None
        return self

    @torch.no_grad()
    def search(
        self,
        text: str | Sequence[str] | None = None,
        image: Any = None,
        top_k: int = 10,
        rerank_k: int | None = None,
        max_length: int = 30,
        batch_size: int = 64,
        progress: bool = False,
        similarity_weight: float | None = None,
        negative_text: str | Sequence[str] | None = None,
        weights: Mapping[str, float] | None = None,
        min_probability: float | None = None,
    ) -> CBViLARetrieverOutput:
        """Finds the items that fit a text, an image or both best, for one query or a list.

        Args:
            text: One text or several, in a form that [`index`] takes.
            image: One image or several, instead of texts or beside them, one for each.
            top_k: How many items to return; all, if there are fewer.
            rerank_k: How many of the most similar items to re-rank by matching, at least `top_k`; 0 for similarity
                alone. Default: `retriever.rerank_k`, or 0 if matching is impossible, which it is between items of one
                kind, without states, and with a model that was trained without matching (ITM has weight 0).
            max_length: Maximum number of tokens per text.
            batch_size: Queries encoded at a time.
            progress: Whether to show progress bars.
            similarity_weight: Weight of similarity / temperature when added to the matching score. 0: matching alone,
                as in ALBEF. 1: the sum of both, for models whose ITM was trained with negatives drawn by similarity.
                Default: that of the checkpoint, `config.similarity_weight`, which was fitted with its `rerank_k`.
            negative_text: What is not wanted, one for each query: items come later, the more they are like it.
            weights: What `"text"` (1), `"image"` (1), `"negative_text"` (0.5) count for in a query of several parts,
                which goes by similarity alone: with the direction of the weighted sum of their embeddings.
            min_probability: Least probability of a match: items below it are left out, with the index -1 and a score
                of -inf, so that nothing found is an answer. Needs a checkpoint whose `match_calibration` was fitted
                (`cbvila inspect` and `cbvila evaluate retrieval` do) and its own order.

        Raises:
            ValueError: If nothing is indexed, neither text nor image is given, parts differ in number, a number is out
                of range, matching is requested but impossible, or the model cannot compare images with texts.
        """
        self._indexed()  # raises early
        check_whole("top_k", top_k, 1)
        parts, several = query_parts(text, image, negative_text, weights)
        kind = parts[0].kind
        candidates = self._candidates(parts, rerank_k, similarity_weight)
        if similarity_weight is None:
            similarity_weight = self.model.config.similarity_weight
        queries = self._encoded(parts, max_length, batch_size, progress)
        matches = candidates > 0
        cosines, rows = self._shortlist(queries.embeds, max(top_k, candidates))
        scores = cosines
        if matches:
            scores = self._match(queries, kind, rows, progress)
            if similarity_weight:  # both sides are -inf for an item that an approximate index did not find
                scores = scores + similarity_weight * float(self.model.cbvila.similarity_scale()) * cosines
            scores, order = scores.sort(dim=1, descending=True, stable=True)
            cosines, rows = cosines.gather(1, order), rows.gather(1, order)
        found = {"indices": rows, "scores": scores, "similarities": cosines}
        found = {name: tensor[:, :top_k] for name, tensor in found.items()}
        if (calibration := self._calibration(parts, candidates, similarity_weight, min_probability)) is not None:
            found["probabilities"] = calibration.probabilities(found["scores"])
        if min_probability is not None:
            found = _without_improbable(found, min_probability)
        return CBViLARetrieverOutput(**(found if several else {name: tensor[0] for name, tensor in found.items()}))

    def _calibration(
        self, parts: list[QueryPart], candidates: int, similarity_weight: float, min_probability: float | None
    ) -> Calibration | None:
        """Returns the checkpoint's calibration if it holds for these queries, which a least probability needs."""
        config = self.model.config
        why_not = ""
        if config.match_calibration is None:
            why_not = (
                "this checkpoint has no match_calibration: `cbvila inspect` and `cbvila evaluate retrieval` fit one"
            )
        elif len(parts) > 1 or parts[0].kind == self._kind:
            why_not = "probabilities are of a text with an image, one query and one item"
        elif candidates != config.rerank_k or (candidates and similarity_weight != config.similarity_weight):
            why_not = "probabilities hold for the checkpoint's own order: leave rerank_k and similarity_weight out"
        if min_probability is not None:
            check_number("min_probability", min_probability)
            if not 0 <= min_probability <= 1:
                raise ValueError(f"min_probability={min_probability} must be from 0 to 1.")
            if why_not:
                raise ValueError(f"min_probability={min_probability}: {why_not}.")
        return None if why_not else Calibration(*config.match_calibration)

    def _encoded(self, parts: list[QueryPart], max_length: int, batch_size: int, progress: bool) -> Encoded:
        """Returns the queries, with the states of their only part if they have one alone."""
        encoded = []
        for kind, items, _ in parts:
            encoder = GalleryEncoder(self.model, self.processor, kind, max_length, batch_size, progress)
            encoded.append(encoder.encode(items))
            both = (encoded[-1], self._indexed())
            check_comparable(*(both if kind == "images" else both[::-1]))
        if len(parts) == 1:
            return encoded[0]
        return Encoded(combined([found.embeds for found in encoded], [part.weight for part in parts]), [])

    def _candidates(self, parts: list[QueryPart], rerank_k: int | None, similarity_weight: float | None) -> int:
        """Returns how many items to re-rank for queries of these parts; 0 for similarity alone."""
        if rerank_k is not None:
            check_whole("rerank_k", rerank_k, 0)
        if similarity_weight is not None:
            check_number("similarity_weight", similarity_weight)
        why_not = self._why_no_matching(parts)
        if rerank_k and why_not:
            raise ValueError(f"rerank_k={rerank_k}: {why_not}; leave it out to search by similarity.")
        wanted = self.rerank_k if rerank_k is None else rerank_k
        candidates = 0 if why_not else wanted
        if similarity_weight and not candidates:
            raise ValueError(
                f"similarity_weight={similarity_weight} is added to matching scores, and similarity alone decides "
                f"here: {why_not or 'pass rerank_k=64, for one'}."
            )
        return candidates

    def _why_no_matching(self, parts: list[QueryPart]) -> str:
        """Returns why queries of these parts cannot be matched; an empty string if they can."""
        if len(parts) > 1:
            return "the query has several parts, and matching is of an image with a text"
        if parts[0].kind == self._kind:
            return f"{self._kind} are indexed, and matching is of an image with a text"
        if not len(self._indexed().states):
            return "what was indexed has no states to match (keep_states=False)"
        matches = self.model.config.needs("hard_negatives")
        return "" if matches else "the model was trained without matching (ITM has weight 0)"

    def _shortlist(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        if self._faiss is not None:
            return self._faiss.most_similar(queries, k)
        return most_similar([queries], self._indexed().blocks, k)

    def _match(self, queries: Encoded, kind: str, rows: Tensor, progress: bool) -> Tensor:
        """Returns the logits (Q, k) of queries with rows (Q, k) of the gallery; -inf where the row is -1."""
        gallery = self._indexed()
        query, place = (rows >= 0).nonzero(as_tuple=True)
        pairs = torch.stack([query, rows[query, place]], dim=1)
        if kind == "images":
            logits = match_pairs(self.model, queries, gallery, pairs, progress=progress)
        else:
            logits = match_pairs(self.model, gallery, queries, pairs.flip(1), progress=progress)
        return logits.new_full(rows.shape, -torch.inf).index_put_((query, place), logits)

    def add_faiss_index(self, string_factory: str = "Flat", train_rows: int = 100_000) -> "CBViLARetriever":
        """Builds a FAISS index in memory, which [`search`] then uses (`pip install faiss-cpu`).

        Args:
            string_factory: FAISS's description of the index: `"Flat"` compares a query with all items,
                `"IVF1024,Flat"` with some, `"IVF1024,PQ32"` keeps 32 bytes per item.
            train_rows: How many embeddings to train the index on, at most about twice as many.

        Raises:
            ImportError: If FAISS is not installed.
            ValueError: If nothing is indexed.
        """
        self._faiss = FaissIndex.build(self._indexed().blocks, string_factory, train_rows)
        return self

    def save(self, folder: str | Path) -> None:
        """Writes the index, without the model. Replaces a gallery in the folder.

        Args:
            folder: The folder; made if it does not exist.

        Raises:
            ValueError: If nothing is indexed, or the folder holds other files.
        """
        gallery = self._indexed()
        folder = Path(folder).absolute()
        if not (isinstance(gallery, StoredGallery) and folder.exists() and folder.samefile(gallery.folder)):
            has_states = len(gallery.states) > 0
            encoder = GalleryEncoder(self.model, self.processor, self._kind, keep_states=has_states)
            save_gallery(folder, describe(encoder), gallery)
        if self._faiss is None:
            (folder / _FAISS_FILE).unlink(missing_ok=True)
        else:
            self._faiss.write(folder / _FAISS_FILE)

    def load(self, folder: str | Path) -> "CBViLARetriever":
        """Opens what [`save`], or [`index`] with a folder, wrote. It stays on disk and is memory-mapped.

        Of galleries that were written before they recorded their processor, only the weights are checked.

        Args:
            folder: The folder.

        Returns:
            The retriever itself.

        Raises:
            FileNotFoundError: If the folder has no gallery.
            ValueError: If the gallery is not complete, or was encoded with another model or processor.
        """
        gallery = StoredGallery(folder)
        if gallery.description["weights"] != weights_id(self.model):
            raise ValueError(
                f"The gallery in {folder} was encoded by other weights than this model's, or in another precision: "
                "load the model that made it, or index the items again."
            )
        wanted = processor_id(self.processor, gallery.description["kind"])
        if gallery.description.get("processor", wanted) != wanted:
            raise ValueError(
                f"The gallery in {folder} was encoded with another processor than this one, which makes other pixels "
                "or tokens of the same items: load the processor that made it, or index the items again."
            )
        file = Path(folder) / _FAISS_FILE
        self._faiss = FaissIndex.read(file) if file.is_file() else None
        self._kind, self._gallery, self.files = gallery.description["kind"], gallery, []
        return self

    def _indexed(self) -> Gallery:
        if self._gallery is None:
            raise ValueError("Nothing is indexed: call index(images) or load(folder) first.")
        return self._gallery


def _without_improbable(found: dict[str, Tensor], least: float) -> dict[str, Tensor]:
    """Returns results (Q, k) without those of a lower probability, as if they had not been found."""
    left_out = found["probabilities"] < least
    gone = {"indices": -1, "probabilities": 0.0}
    return {name: tensor.masked_fill(left_out, gone.get(name, float("-inf"))) for name, tensor in found.items()}
