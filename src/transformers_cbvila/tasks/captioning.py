"""Captioning by a frozen language model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data import option_texts
from ..data.column_names import CAPTION_COLUMNS
from ..data.given_options import Repeatable
from ..data.image_views import ImageViews
from ..data.scenes.caption_truth import has_truth, is_true
from ..data.task_examples import CaptionedImages
from ..data.texts import class_names, named, texts_of
from ..metrics.answer_normalization import normalize_answer
from ..metrics.caption_metrics import caption_metrics, load_caption_metrics
from ..metrics.intervals import mean_with_interval
from .columns import column_option
from .evaluation import Evaluation
from .fields import FieldReader, Fields, Measured, Metrics
from .language_model_task import LanguageModelTask, without_folder
from .rows import TaskRows
from .task import called, text_fields
from .text_writing import Prompt, caption_log_likelihoods, write_texts
from .training_defaults import CROPS_AND_FLIPS, TrainingDefaults


@dataclass
class Captioning(LanguageModelTask):
    """Captioning: an image, and texts that describe it, which a frozen language model learns to write."""

    name = "captioning"
    source_task = "retrieval"
    main_metric = "log_likelihood"
    columns = {"caption_column": CAPTION_COLUMNS}
    optional_columns = {"objects": ("objects",)}
    defaults = TrainingDefaults(
        "the projector is new", 1e-3, 1e-4, batch_size=32, passes=5, least_steps=1000, views=CROPS_AND_FLIPS
    )
    merged_fields = ("captions",)
    evaluation_options = LanguageModelTask.evaluation_options | {"caption_metric"}
    has_text_baseline = False

    caption_column: str | None = column_option(option_texts.CAPTIONS, CAPTION_COLUMNS)
    caption_metric: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Metric of evaluate, such as rouge, meteor or sacrebleu, or its folder; several may be given.",
            "action": Repeatable,
        },
    )

    def field_reader(self, columns: Mapping[str, str], features: Any, classes: Sequence[str]) -> FieldReader:
        """Returns what reads the captions of a row and, of scenes, the objects that they are about."""
        column, objects = columns["caption_column"], columns.get("objects")
        names, what = class_names(features[column]), called("caption", columns)

        def read(row: Mapping[str, Any]) -> Fields:
            fields: Fields = {"captions": texts_of(named(row[column], names), what)}
            return fields if objects is None else {**fields, "objects": row[objects]}

        return read

    def texts(self, fields: Fields) -> Iterator[tuple[str, str]]:
        """Yields nothing: the input is the image alone."""
        return iter(())

    def targets(self, fields: Fields) -> Iterator[tuple[str, str]]:
        """Yields the captions of a row, which training predicts."""
        return text_fields(fields, ("captions",))

    def training_set(self, rows: TaskRows, seed: int, views: ImageViews) -> CaptionedImages:
        """Returns one example for every caption of every image."""
        return CaptionedImages(rows, [len(captions) for captions in rows.column("captions")], seed, views)

    def recorded_options(self) -> dict[str, Any]:
        """Returns the options for the record of a run, folders by their names only."""
        return super().recorded_options() | {"caption_metric": [without_folder(name) for name in self.caption_metric]}

    def compared_metrics(self) -> tuple[str, ...]:
        """Returns the names of the metrics that are higher for a better model."""
        return "log_likelihood", "exact_match", "true_captions"

    def check_evaluation(self, processor: Any, rows: TaskRows | None, official: bool) -> None:
        """Raises an error for a caption metric that is not there."""
        load_caption_metrics(self.caption_metric)

    def counts(self, rows: TaskRows) -> dict[str, set[int]]:
        """Returns the numbers of images and captions."""
        return {**super().counts(rows), "captions": {sum(map(len, rows.column("captions")))}}

    def measure(self, model: Any, processor: Any, rows: TaskRows, evaluation: Evaluation) -> Measured:
        """Returns how likely captions are, how many written ones equal one, and of scenes, how many are true."""
        collate, batch_size, progress = self.collator(processor, None), evaluation.batch_size, evaluation.progress
        likelihoods, others = (
            caption_log_likelihoods(model, collate, rows, batch_size, shift, progress).numpy() for shift in (0, 1)
        )
        prompts = (Prompt([row["image"]], collate.prompt()) for row in rows)
        how = (batch_size, self.max_new_tokens, progress)
        written = write_texts(model, processor, prompts, len(rows), *how)
        references = rows.column("captions")
        equal = np.asarray(
            [_equals_one(text, row) for text, row in zip(written, references, strict=True)], dtype=float
        )
        found: Metrics = {"metric": "mean log-likelihood of a token of the first caption", "images": len(rows)}
        found |= mean_with_interval("log_likelihood", likelihoods, evaluation.seed)
        # The same captions after the image of another row: what the captions tell by themselves.
        found |= {"log_likelihood_floor": float(others.mean())} if len(rows) > 1 else {}
        found |= mean_with_interval("exact_match", equal, evaluation.seed)
        found["exact_match_floor"] = _most_frequent_share(evaluation.train_rows or rows, references)
        found |= caption_metrics(load_caption_metrics(self.caption_metric), written, references)
        predictions = [
            {"row": number, "prediction": text, "captions": row, "log_likelihood": float(likelihood)}
            for number, (text, row, likelihood) in enumerate(zip(written, references, likelihoods, strict=True))
        ]
        truths = _truths(written, rows)
        if truths is not None:
            found |= mean_with_interval("true_captions", np.asarray(truths, dtype=float), evaluation.seed)
            predictions = [{**row, "true": truth} for row, truth in zip(predictions, truths, strict=True)]
        return Measured(found, predictions)


def _equals_one(text: str, captions: Sequence[str]) -> bool:
    """Returns whether a text is one of the captions, but for case, punctuation and articles."""
    return normalize_answer(text) in {normalize_answer(caption) for caption in captions}


def _most_frequent_share(rows: TaskRows, references: Sequence[Sequence[str]]) -> float:
    """Returns the share of images whose captions have the most frequent one of `rows` among them."""
    counts = Counter(normalize_answer(caption) for captions in rows.column("captions") for caption in captions)
    usual = counts.most_common(1)[0][0]
    return float(np.mean([_equals_one(usual, captions) for captions in references]))


def _truths(written: Sequence[str], rows: TaskRows) -> list[bool] | None:
    """Returns whether each text is true of its image, if all rows are scenes."""
    objects = [record.fields.get("objects") for record in rows.records]
    if not all(map(has_truth, objects)):
        return None
    size = rows[0]["image"].width
    return [is_true(text, found or (), size) for text, found in zip(written, objects, strict=True)]
