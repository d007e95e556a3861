"""Search in images or texts: encoded once, found by similarity, re-ranked by matching."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import length_hint
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from ..bundled import local_or_hub_id
from ..devices import placed
from ..model.item_lists_cbvila import items_of
from ..model.messages_cbvila import shown
from ..model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from ..model.number_checks_cbvila import check_number, check_whole
from ..model.processing_cbvila import CBViLAProcessor
from .calibration import Calibration
from .encoding import GalleryEncoder
from .faiss_index import FAISS_FILE, FaissIndex
from .filters import Filter, rows_that_pass
from .folder_gallery import encode_folder, is_of_folder, open_folder, store_folder
from .gallery import Encoded, Gallery, check_comparable
from .gallery_identity import describe, processor_id, weights_id
from .gallery_writing import SHARD_BYTES, copy_gallery, save_gallery, store_gallery
from .indexed_items import IndexedItems, check_one_for_each, metadata_rows, read_items, write_items
from .near_duplicates import check_fold_duplicates, most_distinct
from .pair_matching import match_pairs
from .query_parts import QueryPart, combined, query_parts
from .selected_gallery import SelectedGallery
from .similarity import most_similar
from .stored_gallery import StoredGallery

_TEXT_LENGTH = 30  # tokens, by default
_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder")


@dataclass
class CBViLARetrieverOutput(ModelOutput):
    """Output of [`CBViLARetriever.search`], best first; with a leading dimension (Q,) for a list of queries.

    Args:
        indices (`torch.LongTensor` (k,)): Positions of the items in what was indexed, from 0. -1 where an approximate
            index, or another query with near-duplicates folded, found fewer than k.
        scores (`torch.FloatTensor` (k,)): Log-odds of "matches", plus the weighted similarities if requested, where
            items were re-ranked by matching; similarities otherwise.
        similarities (`torch.FloatTensor` (k,)): Cosines of the embeddings.
        probabilities (`torch.FloatTensor` (k,), *optional*): How probably an item matches the query, where the
            checkpoint's `match_calibration` holds: for a text in images or an image in texts, in the checkpoint's own
            order.
        folded (`torch.LongTensor` (k,), *optional*): How many near-duplicates an item stands for, beside itself, if
            they were folded.
    """

    indices: Tensor | None = None
    scores: Tensor | None = None
    similarities: Tensor | None = None
    probabilities: Tensor | None = None
    folded: Tensor | None = None


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
        metadata: The metadata of the indexed items, a dictionary for each; empty if they have none. Of a folder's
            pictures each has at least `file_name`, the path relative to the folder.
        left_out: Paths of the folder's pictures that could not be read, with the reason.

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
        self._items = IndexedItems()
        self._kind = ""
        self._gallery: Gallery | None = None
        self._folder: Path | None = None  # of the gallery, if it is on disk
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
    def files(self) -> list[Path]:
        """Paths of the indexed images."""
        return self._items.files

    @property
    def metadata(self) -> list[dict[str, Any]]:
        """The metadata of the indexed items."""
        return self._items.metadata

    @property
    def left_out(self) -> dict[Path, str]:
        """Pictures of the folder that could not be read."""
        return self._items.left_out

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
        max_length: int = _TEXT_LENGTH,
        batch_size: int = 64,
        shard_bytes: int = SHARD_BYTES,
        progress: bool = True,
        metadata: Iterable[Mapping[str, Any]] | None = None,
    ) -> "CBViLARetriever":
        """Encodes the items to search in. Replaces what was indexed before.

        Of a folder of pictures each content is encoded once. Pictures that cannot be read are left out: a warning
        counts and names them, and `left_out` has the reasons. With `folder`, the same call again follows the pictures:
        what is new or changed, by size and time, is encoded, what was moved, renamed or copied is known by its
        content, and what is gone is forgotten.

        Args:
            images: Anything that the processor takes as an image, in a list, an array of four dimensions, a column of
                a dataset or of pandas, or a generator; or a folder, whose images, including those of subfolders, are
                sorted by their paths (which are then in `files`). Hidden ones, and folders that are links, are not
                looked into.
            texts: Strings, instead of images.
            folder: Where to store the encoded items, for more than fit in memory. The same call with the same items
                resumes an interrupted run. Other items than a folder's are expected to stay the same, which is
                checked: texts and paths (with their files) by a hash, anything else by its number, if known, and by
                comparing three items, or a generator's first one.
            keep_states: Whether to keep the states that matching needs, (S, D) per item. Without them search is by
                similarity only.
            max_length: Maximum number of tokens per text.
            batch_size: Items encoded at a time.
            shard_bytes: Approximate size of a file in the folder, which is also what an interrupted run loses.
            progress: Whether to show a progress bar.
            metadata: A dictionary of columns for each item, such as the rows of a dataset, by which [`search`]
                filters. Values are what JSON has. For a folder of pictures the rows have `file_name` and come in any
                order; by default they are read from its metadata.jsonl, .csv or .parquet.

        Returns:
            The retriever itself.

        Raises:
            ValueError: If there is nothing to index, an option would change nothing (`max_length` of images,
                `shard_bytes` without `folder`), an item of a list cannot be read (the message names it), both
                images and texts are given, the folder holds something else, or the metadata are not one for each.
        """
        if (images is None) == (texts is None):
            raise ValueError("Index images or texts: exactly one of the two.")
        items, kind = (images, "images") if texts is None else (texts, "texts")
        _check_length(max_length, kind)
        check_whole("shard_bytes", shard_bytes)
        if folder is None and shard_bytes != SHARD_BYTES:
            raise ValueError(
                f"shard_bytes={shown(shard_bytes)} is for folder, which is not given. Set both, or neither."
            )
        encoder = GalleryEncoder(self.model, self.processor, kind, max_length, batch_size, progress, keep_states)
        if kind == "images" and isinstance(items, str | Path):
            if folder is None:
                self._gallery, self._items = encode_folder(items, encoder, metadata)
            else:
                self._gallery, self._items = store_folder(items, folder, encoder, shard_bytes, metadata)
        else:
            self._gallery, self._items = _indexed_list(items, encoder, folder, shard_bytes, metadata)
        self._kind, self._faiss, self._folder = kind, None, None if folder is None else Path(folder)
        return self

    @torch.no_grad()
    def search(
        self,
        text: str | Sequence[str] | None = None,
        image: Any = None,
        top_k: int = 10,
        rerank_k: int | None = None,
        max_length: int = _TEXT_LENGTH,
        batch_size: int = 64,
        progress: bool = False,
        similarity_weight: float | None = None,
        negative_text: str | Sequence[str] | None = None,
        weights: Mapping[str, float] | None = None,
        min_probability: float | None = None,
        negative_image: Any = None,
        filter: Filter | None = None,
        fold_duplicates: float | None = None,
    ) -> CBViLARetrieverOutput:
        """Finds the items that fit a text, an image or both best, for one query or a list.

        With `filter` or `fold_duplicates` every item that passes is compared, also if there is a FAISS index.

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
            weights: What `"text"` (1), `"image"` (1), `"negative_text"` (0.5) and `"negative_image"` (0.5) count for
                in a query of several parts, which goes by similarity alone: with the direction of the weighted sum of
                their embeddings.
            min_probability: Least probability of a match: items below it are left out, with the index -1 and a score
                of -inf, so that nothing found is an answer. Needs a checkpoint whose `match_calibration` was fitted
                (`cbvila inspect` and `cbvila evaluate retrieval` do) and its own order.
            negative_image: What is not wanted, as `negative_text`.
            filter: Which items to search in, before anything is ranked: a function that takes the metadata of an item
                and returns whether it passes, or a dictionary of columns with the value, or the list of values, that
                pass.
            fold_duplicates: Least cosine of two items that are near-duplicates, above 0 and up to 1. Of such a group
                only the item is returned that is most similar to the query, and `folded` says for how many others it
                stands. What is near depends on the model: docs/search.md says how to choose.

        Raises:
            ValueError: If nothing is indexed, neither text nor image is given, parts differ in number, a number is out
                of range, matching is requested but impossible, the model cannot compare images with texts, or there is
                nothing that the filter could go by.
        """
        self._indexed()  # raises early
        check_whole("top_k", top_k, 1)
        if fold_duplicates is not None:
            check_fold_duplicates(fold_duplicates)
        passing = None if filter is None else rows_that_pass(filter, self.metadata)
        parts, several = query_parts(text, image, negative_text, negative_image, weights)
        kind = parts[0].kind
        _check_length(max_length, *(part.kind for part in parts))
        candidates = self._candidates(parts, rerank_k, similarity_weight)
        if similarity_weight is None:
            similarity_weight = self.model.config.similarity_weight
        queries = self._encoded(parts, max_length, batch_size, progress)
        matches = candidates > 0
        found = self._shortlist(queries.embeds, max(top_k, candidates), passing, fold_duplicates)
        if matches:
            scores = self._match(queries, kind, found["indices"], progress)
            if similarity_weight:  # both sides are -inf for an item that was not found
                scale = float(self.model.cbvila.similarity_scale())
                scores = scores + similarity_weight * scale * found["similarities"]
            scores, order = scores.sort(dim=1, descending=True, stable=True)
            found = {name: tensor.gather(1, order) for name, tensor in found.items()} | {"scores": scores}
        else:
            found["scores"] = found["similarities"]
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
            why_not = "probabilities are of a text with an image, one query and one item: leave it out for others"
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

    def _shortlist(
        self, queries: Tensor, k: int, passing: Tensor | None, fold_duplicates: float | None
    ) -> dict[str, Tensor]:
        """Returns indices and similarities (Q, k) of the items that are most similar, of those that pass if given."""
        gallery = self._indexed()
        if passing is not None:
            if not len(passing):
                nothing = torch.empty(len(queries), 0)
                found = {"indices": nothing.long(), "similarities": nothing.to(queries)}
                return found if fold_duplicates is None else found | {"folded": nothing.long()}
            gallery = SelectedGallery(gallery, passing)
        if fold_duplicates is not None:
            cosines, rows, folded = most_distinct(queries, gallery.blocks, k, fold_duplicates)
            found = {"folded": folded}
        elif self._faiss is not None and passing is None:
            cosines, rows, found = *self._faiss.most_similar(queries, k), {}
        else:
            cosines, rows, found = *most_similar([queries], gallery.blocks, k), {}
        if passing is not None:
            rows = torch.where(rows < 0, rows, passing[rows])
        return found | {"indices": rows, "similarities": cosines}

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
        if self._folder is None:
            has_states = len(gallery.states) > 0
            encoder = GalleryEncoder(self.model, self.processor, self._kind, keep_states=has_states)
            save_gallery(folder, describe(encoder), gallery, self._items)
        elif not (folder.exists() and folder.samefile(self._folder)):
            copy_gallery(folder, self._folder)
        if self._faiss is None:
            (folder / FAISS_FILE).unlink(missing_ok=True)
        else:
            self._faiss.write(folder / FAISS_FILE)

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
        file = Path(folder) / FAISS_FILE
        self._faiss = FaissIndex.read(file) if file.is_file() else None
        self._kind, self._folder = gallery.description["kind"], Path(folder)
        if is_of_folder(folder):
            self._gallery, self._items = open_folder(self._folder)
        else:
            self._gallery, self._items = gallery, read_items(self._folder)
        return self

    def _indexed(self) -> Gallery:
        if self._gallery is None:
            raise ValueError("Nothing is indexed: call index(images) or load(folder) first.")
        return self._gallery


def _check_length(max_length: int, *kinds: str) -> None:
    """Raises a ValueError for a length of texts where all items are images."""
    check_whole("max_length", max_length)
    if max_length != _TEXT_LENGTH and "texts" not in kinds:
        raise ValueError(f"max_length={shown(max_length)} is of texts, and there are images alone; leave it out.")


def _indexed_list(
    items: Any, encoder: GalleryEncoder, folder: str | Path | None, shard_bytes: int, metadata: Any
) -> tuple[Gallery, IndexedItems]:
    """Encodes images or texts that are no folder."""
    items = items_of(items, encoder.kind)
    rows = [] if metadata is None else metadata_rows(metadata)
    if metadata is not None:
        check_one_for_each(rows, encoder.kind, length_hint(items, len(rows)))
    gallery = encoder.encode(items) if folder is None else store_gallery(folder, encoder, items, shard_bytes)
    if metadata is not None:  # the number of items of a generator is known now
        check_one_for_each(rows, encoder.kind, sum(map(len, gallery.blocks)))
    found = IndexedItems(metadata=rows)
    if folder is not None:
        write_items(Path(folder), found)
    return gallery, found


def _without_improbable(found: dict[str, Tensor], least: float) -> dict[str, Tensor]:
    """Returns results (Q, k) without those of a lower probability, as if they had not been found."""
    left_out = found["probabilities"] < least
    gone = {"indices": -1, "probabilities": 0.0, "folded": 0}
    return {name: tensor.masked_fill(left_out, gone.get(name, float("-inf"))) for name, tensor in found.items()}
