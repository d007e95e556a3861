"""Search in one's own pictures or texts: encoded once, found by similarity, ordered by matching."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from ..bundled import local_or_hub_id
from ..data.image_files import image_files
from ..devices import placed
from ..model.item_lists_cbvila import holds_several, items_of
from ..model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from ..model.number_checks_cbvila import check_number, check_whole
from ..model.processing_cbvila import CBViLAProcessor
from .faiss_index import FaissIndex
from .gallery import Encoded, Gallery, check_comparable, encode_batches, gather, weights_id
from .reranking import match_pairs, most_similar
from .stored_gallery import SHARD_BYTES, StoredGallery, describe, processor_id, save_gallery, store_gallery

_FAISS_FILE = "index.faiss"
_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder")


@dataclass
class CBViLARetrieverOutput(ModelOutput):
    """What [`CBViLARetriever.search`] found, the best first; for a list of queries with a leading dimension.

    Args:
        indices (`torch.LongTensor` (k,)): Items, counted in the order in which they were indexed from 0. -1 where an
            approximate index found less than k.
        scores (`torch.FloatTensor` (k,)): Log-odds of "matches", with weighted similarities if these were asked for,
            where matching ordered the items; their similarities where it did not.
        similarities (`torch.FloatTensor` (k,)): Cosines of the embeddings.
    """

    indices: Tensor | None = None
    scores: Tensor | None = None
    similarities: Tensor | None = None


class CBViLARetriever:
    """Searches in images by text, in texts by image, and in either by its own kind.

    Items are encoded once. A query is compared with all of them by similarity; a text with the most similar images, or
    an image with the most similar texts, is then matched by the fusion encoder, whose scores are the
    log-odds that the model's `itm_logits` give the pair, `itm_logits[:, 1] - itm_logits[:, 0]`.

    Args:
        model: The model, which is moved to `device`.
        processor: Its processor.
        device: Where to compute; without, as transformers' pipelines choose: on the accelerator if there is one. A
            model that `device_map` placed stays where it is.

    Attributes:
        rerank_k: How many of the most similar items matching orders if [`search`] is not told: what the checkpoint's
            `config.rerank_k` says, which was measured on it. 0: similarity alone.
        files: Where the indexed pictures lie, item by item, if [`index`] was given their folder.

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
    ):
        self.model, self.processor = placed(model, device), processor
        self.rerank_k: int = model.config.rerank_k
        self.files: list[Path] = []
        self._kind = ""
        self._gallery: Gallery | None = None
        self._faiss: FaissIndex | None = None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, device: str | int | torch.device | None = None, **kwargs
    ) -> "CBViLARetriever":
        """Loads model and processor from a folder, a Hub id or by the name of a bundled checkpoint.

        Args:
            device: Where to compute, see [`CBViLARetriever`].
            kwargs: The model's, e.g. `dtype` and `device_map`; `revision`, `token` and others that say where from are
                the processor's, too.

        Raises:
            FileNotFoundError: If the name is neither a folder nor bundled, and can be no Hub id.
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
        """Moves the model; what is indexed stays in the CPU's memory or on disk, and is good for any device."""
        self.model = placed(self.model, device)
        return self

    def __len__(self) -> int:
        """How many items are indexed."""
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
        """Encodes what to search in, in place of what was indexed before.

        Args:
            images: Anything that the processor takes as an image, from a list, an array of four dimensions, a column
                of a data set or of pandas, or a generator; or a folder, whose pictures are taken, those of its
                subfolders too, sorted by their paths (then in `files`).
            texts: Strings, in place of images.
            folder: Where to keep what is encoded, for more than memory holds. Killed, the same call goes on, with the
                same items: those of a list of texts or paths (and the files there) are told from any others; anything
                else by their number, if that is known, and by a look at three of them, or at a generator's first.
            keep_states: Whether to keep what matching needs, (S, D) per item. Without, search goes by similarity only.
            max_length: Tokens that are read of a text.
            batch_size: How many are encoded at a time.
            shard_bytes: How much of what is encoded is in one file of the folder; so much a killed run loses.
            progress: Whether to show a progress bar.

        Returns:
            The retriever itself.

        Raises:
            ValueError: If there is nothing to index, an item cannot be read (the message says which), there are both
                images and texts, or the folder holds something else.
        """
        if (images is None) == (texts is None):
            raise ValueError("Index images or texts: exactly one of the two.")
        items, kind, self.files = texts if images is None else images, "texts" if images is None else "images", []
        if kind == "images" and isinstance(items, str | Path):
            items = self.files = image_files(items)
        items = items_of(items, kind)
        options: Any = {
            "max_length": max_length,
            "batch_size": batch_size,
            "progress": progress,
            "keep_states": keep_states,
        }
        gallery: Gallery
        if folder is None:
            gallery = gather(encode_batches(self.model, self.processor, kind, items, **options))
        else:
            options["shard_bytes"] = shard_bytes
            gallery = store_gallery(folder, self.model, self.processor, kind, items, **options)
        self._kind, self._gallery, self._faiss = kind, gallery, None
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
        similarity_weight: float = 0.0,
    ) -> CBViLARetrieverOutput:
        """Finds the items that go best with a text or an image, or with each of a list of either.

        Args:
            text: A query, or several, in a form that [`index`] takes.
            image: The same, in place of a text.
            top_k: How many items to return; all, where there are fewer.
            rerank_k: How many of the most similar items matching orders, at least `top_k`. 0: similarity decides.
                Without, as `retriever.rerank_k` says, which is 0 where it was not measured; and similarity where there
                is nothing to match: between items of one kind, without states, and in a model that was trained without
                matching (ITM has weight 0).
            max_length: Tokens that are read of a text.
            batch_size: How many queries are encoded at a time.
            progress: Whether to show progress bars.
            similarity_weight: How much of the similarity over the temperature is added to what matching says. 0:
                matching alone, as in ALBEF. 1: the sum of both, for models whose ITM learned from mismatches that were
                drawn by similarity.

        Raises:
            ValueError: If nothing is indexed, there are both a text and an image or neither, a number makes no sense,
                matching is asked for where there is nothing to match, or the model cannot compare images with texts.
        """
        gallery = self._indexed()
        if (text is None) == (image is None):
            raise ValueError("Search by text or by image: exactly one of the two.")
        query, kind = (image, "images") if text is None else (text, "texts")
        check_whole("top_k", top_k, 1)
        check_number("similarity_weight", similarity_weight)
        candidates = self._candidates(kind, rerank_k, similarity_weight)
        several = holds_several(query)
        asked = list(items_of(query, kind)) if several else [query]
        queries = gather(encode_batches(self.model, self.processor, kind, asked, max_length, batch_size, progress))
        check_comparable(*((queries, gallery) if kind == "images" else (gallery, queries)))
        matches = candidates > 0
        cosines, rows = self._shortlist(queries.embeds, max(top_k, candidates))
        scores = cosines
        if matches:
            scores = self._match(queries, kind, rows, progress)
            if similarity_weight:  # an item that an approximate index did not find has infinities on either side
                scores = scores + similarity_weight * float(self.model.cbvila.similarity_scale()) * cosines
            scores, order = scores.sort(dim=1, descending=True, stable=True)
            cosines, rows = cosines.gather(1, order), rows.gather(1, order)
        found = (tensor[:, :top_k] if several else tensor[0, :top_k] for tensor in (rows, scores, cosines))
        return CBViLARetrieverOutput(*found)

    def _candidates(self, kind: str, rerank_k: int | None, similarity_weight: float) -> int:
        """How many items matching orders for queries of a kind; 0 where similarity decides."""
        if rerank_k is not None:
            check_whole("rerank_k", rerank_k, 0)
        why_not = self._why_no_matching(kind)
        if rerank_k and why_not:
            raise ValueError(f"rerank_k={rerank_k}: {why_not}; leave it out to search by similarity.")
        wanted = self.rerank_k if rerank_k is None else rerank_k
        candidates = 0 if why_not else wanted
        if similarity_weight and not candidates:
            raise ValueError(
                f"similarity_weight={similarity_weight} is added to what matching says, and similarity alone decides "
                f"here: {why_not or 'pass rerank_k=64, for one'}."
            )
        return candidates

    def _why_no_matching(self, kind: str) -> str:
        """Why the matching head has nothing to say of queries of a kind; nothing if it has."""
        if kind == self._kind:
            return f"{kind} are indexed, and matching is of an image with a text"
        if not len(self._indexed().states):
            return "what was indexed has no states to match (keep_states=False)"
        matches = self.model.config.needs("hard_negatives")
        return "" if matches else "the model was trained without matching (ITM has weight 0)"

    def _shortlist(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        if self._faiss is not None:
            return self._faiss.most_similar(queries, k)
        return most_similar([queries], self._indexed().blocks, k)

    def _match(self, queries: Encoded, kind: str, rows: Tensor, progress: bool) -> Tensor:
        """Logits (Q, k) of the queries with rows (Q, k) of the gallery; -inf where there is none."""
        gallery = self._indexed()
        asking, place = (rows >= 0).nonzero(as_tuple=True)
        pairs = torch.stack([asking, rows[asking, place]], dim=1)
        if kind == "images":
            logits = match_pairs(self.model, queries, gallery, pairs, progress=progress)
        else:
            logits = match_pairs(self.model, gallery, queries, pairs.flip(1), progress=progress)
        return logits.new_full(rows.shape, -torch.inf).index_put_((asking, place), logits)

    def add_faiss_index(self, string_factory: str = "Flat", train_rows: int = 100_000) -> "CBViLARetriever":
        """Has FAISS find the most similar items from now on (`pip install faiss-cpu`).

        Args:
            string_factory: What to build, in FAISS's words: `"Flat"` compares with all, `"IVF1024,Flat"` with some,
                `"IVF1024,PQ32"` keeps 32 bytes of each. The index is in memory.
            train_rows: How many embeddings such an index learns from, at most about twice.

        Raises:
            ImportError: If FAISS is not installed.
            ValueError: If nothing is indexed.
        """
        self._faiss = FaissIndex.build(self._indexed().blocks, string_factory, train_rows)
        return self

    def save(self, folder: str | Path) -> None:
        """Writes what is indexed, without the model, in place of a gallery that the folder may hold.

        Raises:
            ValueError: If nothing is indexed, or the folder holds other files.
        """
        gallery = self._indexed()
        folder = Path(folder).absolute()
        if not (isinstance(gallery, StoredGallery) and folder.exists() and folder.samefile(gallery.folder)):
            description = describe(self.model, self.processor, self._kind, len(gallery.states) > 0)
            save_gallery(folder, description, gallery)
        if self._faiss is None:
            (folder / _FAISS_FILE).unlink(missing_ok=True)
        else:
            self._faiss.write(folder / _FAISS_FILE)

    def load(self, folder: str | Path) -> "CBViLARetriever":
        """Takes what [`save`], or [`index`] with a folder, wrote; it stays on disk, and nothing is encoded anew.

        A gallery from before galleries noted their processor is taken as it is: only its weights can be checked.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is not complete, or another model or processor made it.
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
