"""Image-text retrieval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data import option_texts
from ..data.column_names import CAPTION_COLUMNS, NEGATIVE_CAPTION_COLUMNS
from ..data.given_options import default_of
from ..data.image_views import ImageViews
from ..data.task_collators import CBViLADataCollatorForImageTextRetrieval
from ..data.task_examples import CaptionedImages
from ..data.texts import class_names, named, texts_of, texts_or_blanks
from ..metrics.baselines import chance_recall
from ..model.configuration_cbvila import CBViLAConfig
from ..model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.measure import ImagesOfRows, TrueMatches, caption_image_index, check_matches, measure_gallery
from ..retrieval.recall_names import DEPTHS, ORDERS, WAYS, recall_names
from ..retrieval.retrieval_order import keep_better_order
from .columns import column_option
from .evaluation import Evaluation
from .fields import FieldReader, Fields, Measured, Metrics
from .protocol import Protocol
from .rows import TaskRows
from .task import Task, called, check_at_least, text_fields
from .training_defaults import CROPS_AND_FLIPS, TrainingDefaults


@dataclass
class ImageTextRetrieval(Task):
    """Image-text retrieval: an image, and what is true of it."""

    name = "retrieval"
    head = CBViLAForImageTextRetrieval
    card = "retrieval.md"
    hub_task = "image-text-retrieval"
    columns = {"caption_column": CAPTION_COLUMNS}
    optional_columns = {"negative_captions": NEGATIVE_CAPTION_COLUMNS}
    main_metric = "mean_recall"
    defaults = TrainingDefaults(
        "nothing in the head is new",
        5e-4,
        1e-5,
        batch_size=64,  # contrast learns from the others of its batch
        passes=5,
        least_steps=600,
        views=CROPS_AND_FLIPS,
        hardening="0.1,0.5",
    )
    protocols = {
        "coco-5k": Protocol(
            "COCO's 5,000 test images of Karpathy's split with all their captions, 256 candidates re-ranked; "
            "nlphuji/mscoco_2014_5k_test_image_text_retrieval@refs/convert/parquet",
            {"rerank_k": 256},
            {"own_captions_only": True},
            {"rows": (5000,), "captions": (25_010, 25_000)},  # all that there are, and five of each image
        ),
        "flickr30k-1k": Protocol(
            "Flickr30K's 1,000 test images with their 5,000 captions, 128 candidates re-ranked; "
            "nlphuji/flickr30k@refs/convert/parquet --where split=test",
            {"rerank_k": 128},
            {"own_captions_only": True},
            {"rows": (1000,), "captions": (5000,)},
        ),
    }
    zero_shot_heads = ("CBViLAForPreTraining",)
    merged_fields = ("captions", "negative_captions")
    evaluation_options = frozenset({"rerank_k", "own_captions_only"})
    has_text_baseline = has_baselines = False
    has_predictions = False
    resumes_evaluation = shares_evaluation = True

    caption_column: str | None = column_option(option_texts.CAPTIONS, CAPTION_COLUMNS, aliases=["--text_column"])
    rerank_k: int = field(
        default=64, metadata={"help": "Most similar candidates per query that matching re-ranks; 0: none."}
    )
    own_captions_only: bool = field(
        default=False,
        metadata={
            "help": "Only an image's own captions are right, as in the published protocols; otherwise equal captions "
            "are right for each other's images as well."
        },
    )
    max_length: int = field(default=30, metadata={"help": "Longest caption in tokens; longer ones are cut."})

    def __post_init__(self) -> None:
        """Raises a ValueError for options that cannot be."""
        super().__post_init__()
        check_at_least("rerank_k", self.rerank_k, 0)

    def check_model(self, config: CBViLAConfig) -> None:
        """Raises a ValueError if candidates are to be re-ranked by a model that cannot match them."""
        if self.rerank_k != default_of(self, "rerank_k"):
            check_matches(self.rerank_k, config)

    def field_reader(self, columns: Mapping[str, str], features: Any, classes: Sequence[str]) -> FieldReader:
        """Returns what reads the captions of a row."""
        column, negative = columns["caption_column"], columns.get("negative_captions")
        names, what = class_names(features[column]), called("caption", columns)

        def read(row: Mapping[str, Any]) -> Fields:
            fields: Fields = {"captions": texts_of(named(row[column], names), what)}
            if negative is not None:
                fields["negative_captions"] = texts_or_blanks(row[negative], f"negative caption in {negative!r}")
            return fields

        return read

    def texts(self, fields: Fields) -> Iterator[tuple[str, str]]:
        """Yields captions of a row."""
        return text_fields(fields, ("captions",))

    def training_set(self, rows: TaskRows, seed: int, views: ImageViews) -> CaptionedImages:
        """Returns one example for every caption of every image."""
        return CaptionedImages(rows, [len(captions) for captions in rows.column("captions")], seed, views)

    def collator(self, processor: CBViLAProcessor, config: CBViLAConfig) -> CBViLADataCollatorForImageTextRetrieval:
        """Returns the collator of captions, cut to `max_length`."""
        return CBViLADataCollatorForImageTextRetrieval(processor, self.max_length)

    def compared_metrics(self) -> tuple[str, ...]:
        """Returns the names of the recalls, and of their mean."""
        endings = ORDERS if self.rerank_k else ("",)
        return tuple(name for ending in endings for name in (f"mean_recall{ending}", *recall_names(ending)))

    def keep_findings(self, folder: Path, metrics: Metrics, prefix: str = "") -> str | None:
        """Writes whether matching ranks better than similarity, where retrievers look for it."""
        return keep_better_order(folder, metrics, self.rerank_k, prefix)

    def counts(self, rows: TaskRows) -> dict[str, set[int]]:
        """Returns the numbers of images and captions."""
        return {**super().counts(rows), "captions": {sum(map(len, rows.column("captions")))}}

    def measure(self, model: Any, processor: CBViLAProcessor, rows: TaskRows, evaluation: Evaluation) -> Measured:
        """Returns recall at 1, 5 and 10 both ways: by similarity, re-ranked by matching, and by both combined."""
        captions = rows.column("captions")
        texts = [text for row in captions for text in row]
        found: Metrics = measure_gallery(
            model,
            processor,
            ImagesOfRows(rows),
            captions,
            self.rerank_k,
            evaluation.batch_size,
            evaluation.seed,
            evaluation.progress,
            self.max_length,
            self.own_captions_only,
            evaluation.folder,
            evaluation.together,
        )
        of_images, of_texts = TrueMatches(texts, caption_image_index(captions), self.own_captions_only).counts()
        for way, relevant, gallery in zip(WAYS, (of_images, of_texts), (len(texts), len(rows)), strict=True):
            for k in DEPTHS:
                found[f"{way}_retrieval_r{k}_floor"] = chance_recall(relevant.tolist(), gallery, k)
        for ending in ORDERS:
            names = recall_names(ending)
            if names[0] in found:
                found[f"mean_recall{ending}"] = float(np.mean([found[name] for name in names]))
        found |= {
            "metric": "recall at 1, 5 and 10",
            "rerank_k": self.rerank_k if "mean_recall_reranked" in found else 0,
            "gallery_images": len(rows),
            "gallery_texts": len(texts),
            "duplicate_captions": len(texts) - len(set(texts)),
        }
        return Measured(found, [])
