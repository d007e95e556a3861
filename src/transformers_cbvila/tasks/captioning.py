"""Captioning by a frozen language model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..bundled import class_of_checkpoint
from ..data import option_texts
from ..data.captioning_collator import CBViLADataCollatorForCaptioning
from ..data.column_names import CAPTION_COLUMNS
from ..data.given_options import Repeatable
from ..data.image_views import ImageViews
from ..data.scenes.caption_truth import has_truth, is_true
from ..data.task_examples import CaptionedImages
from ..data.texts import class_names, named, texts_of
from ..extras import require
from ..metrics.answer_normalization import normalize_answer
from ..metrics.caption_metrics import caption_metrics, load_caption_metrics
from ..metrics.intervals import mean_with_interval
from ..model.configuration_cbvila_qformer import CBViLAQFormerConfig
from ..model.messages_cbvila import shown
from ..model.modeling_cbvila_conditional_generation import CBViLAForConditionalGeneration
from ..model.processing_cbvila_conditional_generation import CBViLAConditionalGenerationProcessor
from .caption_writing import caption_log_likelihoods, write_captions
from .columns import column_option
from .evaluation import Evaluation
from .fields import FieldReader, Fields, Measured, Metrics
from .language_adapter import DEFAULT_RANK, add_lora
from .rows import TaskRows
from .task import Task, called, check_at_least, text_fields
from .training_defaults import CROPS_AND_FLIPS, TrainingDefaults

_LORA_OPTIONS = ("lora", "lora_rank", "lora_alpha", "lora_target")
_NEEDS_LANGUAGE_MODEL = "name a causal language model of transformers: --language_model FOLDER, or its Hub id"


@dataclass
class Captioning(Task):
    """Captioning: an image, and texts that describe it, which a frozen language model learns to write."""

    name = "captioning"
    head = CBViLAForConditionalGeneration
    card = "captioning.md"
    hub_task = pipeline_tag = "image-text-to-text"
    source_task = "retrieval"
    main_metric = "log_likelihood"
    columns = {"caption_column": CAPTION_COLUMNS}
    optional_columns = {"objects": ("objects",)}
    defaults = TrainingDefaults(
        "the projector is new", 1e-3, 1e-4, batch_size=32, passes=5, least_steps=1000, views=CROPS_AND_FLIPS
    )
    merged_fields = ("captions",)
    training_options = frozenset({"projector_option", "projector_start", "freeze_vision_tower", *_LORA_OPTIONS})
    has_text_baseline = False

    caption_column: str | None = column_option(option_texts.CAPTIONS, CAPTION_COLUMNS)
    language_model: str | None = field(
        default=None,
        metadata={"help": "Causal language model: folder or Hub id; default: the one that the checkpoint names."},
    )
    projector_option: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Option of the projector, such as type=prefix, length=4 or pooling=patches; several may be given.",
            "action": Repeatable,
        },
    )
    projector_start: str | None = field(
        default=None,
        metadata={
            "help": "Q-Former of `cbvila pretrain --head qformer` (folder or Hub id) that the projector starts from; "
            "its sizes are the projector's."
        },
    )
    freeze_vision_tower: bool = field(
        default=False, metadata={"help": "Train the projector alone, and leave the image encoder as it is."}
    )
    lora: bool = field(
        default=False,
        metadata={
            "help": "Train an adapter of the language model as well (LoRA, by PEFT), which is saved beside the "
            "projector; the language model itself stays as it is."
        },
    )
    lora_rank: int | None = field(
        default=None, metadata={"help": f"Rank of the adapter's matrices; default: {DEFAULT_RANK}."}
    )
    lora_alpha: int | None = field(
        default=None, metadata={"help": "Scale of the adapter, times its rank; default: twice the rank."}
    )
    lora_target: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Linear layer of the language model that gets an adapter, such as q_proj; several may be given; "
            "default: all of its blocks.",
            "action": Repeatable,
        },
    )
    max_new_tokens: int = field(
        default=40, metadata={"help": "Longest caption that evaluation has written, in tokens."}
    )

    caption_metric: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Metric of evaluate, such as rouge, meteor or sacrebleu, or its folder; several may be given.",
            "action": Repeatable,
        },
    )

    def __post_init__(self) -> None:
        """Raises a ValueError for options that cannot be."""
        super().__post_init__()
        check_at_least("max_new_tokens", self.max_new_tokens, 1)
        self._check_lora()
        _ = self._projector_options

    def _check_lora(self) -> None:
        for name, value in (("lora_rank", self.lora_rank), ("lora_alpha", self.lora_alpha)):
            if value is not None:
                check_at_least(name, value, 1)
        given = [name for name in _LORA_OPTIONS[1:] if getattr(self, name)]
        if given and not self.lora:
            raise ValueError(f"{', '.join(given)} of an adapter, and no adapter is trained: add lora.")

    @property
    def projector_config(self) -> dict[str, Any]:
        """The options of the projector by name, where it starts from a Q-Former beside that one's own."""
        start = self.projector_start
        sizes = {} if start is None else CBViLAQFormerConfig.from_pretrained(start).projector_config()
        return sizes | self._projector_options

    @property
    def _projector_options(self) -> dict[str, Any]:
        found = {}
        for option in self.projector_option:
            name, mark, value = option.partition("=")
            if not mark:
                raise ValueError(f"projector_option={shown(option)}: expected OPTION=VALUE, such as length=4.")
            try:
                found[name] = json.loads(value)
            except ValueError:  # a word
                found[name] = value
        return found

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

    @classmethod
    def processor_class(cls) -> type[Any]:
        """Returns the class of its models' processors."""
        return CBViLAConditionalGenerationProcessor

    def loading_options(self) -> dict[str, Any]:
        """Returns the language model, if one is given in place of the one that a checkpoint names."""
        return {} if self.language_model is None else {"language_model": self.language_model}

    def create(self, source: str, from_scratch: bool) -> tuple[Any, Any]:
        """Returns a model with a new projector, or one that was trained for the task before, and its processor."""
        if self.lora:
            require("peft")  # before anything is loaded
        model, processor = self._created(source, from_scratch)
        if self.lora:
            add_lora(model, self.lora_rank, self.lora_alpha, self.lora_target)
        return model, processor

    def _created(self, source: str, from_scratch: bool) -> tuple[Any, Any]:
        """Returns the model without a new adapter, and its processor."""
        is_trained = class_of_checkpoint(source) == self.head.__name__
        if is_trained and not from_scratch:
            if self.projector_start is not None:
                raise ValueError(
                    f"projector_start={shown(self.projector_start)}: {source} has a projector already; leave it out, "
                    "or give the model that the Q-Former was trained on."
                )
            options = self.loading_options()
            if self.projector_option:
                options["projector_config"] = self.projector_config
            if self.freeze_vision_tower or self.is_given("freeze_vision_tower"):
                options["freeze_vision_tower"] = self.freeze_vision_tower
            return self.head.from_pretrained(source, **options), self.processor_class().from_pretrained(source)
        if is_trained:
            raise ValueError(
                "from_scratch needs a checkpoint without a projector, such as a pretrained one, as model."
            )
        if self.language_model is None:
            raise ValueError(f"{self.name} trains a model to be read by a language model: {_NEEDS_LANGUAGE_MODEL}.")
        model = self.head.from_vision_language_pretrained(
            source,
            self.language_model,
            self.projector_config,
            freeze_vision_tower=self.freeze_vision_tower,
            projector_start=self.projector_start,
        )
        if from_scratch:
            tower = model.model.vision_tower
            tower.load_state_dict(type(tower)._from_config(model.config.vision_config).state_dict())
        processor = self.processor_class().from_vision_language_pretrained(
            source, self.language_model, model.config.num_image_tokens
        )
        return model, processor

    def recorded_options(self) -> dict[str, Any]:
        """Returns the options for the record of a run, folders by their names only."""
        metrics = [_without_folder(name) for name in self.caption_metric]
        folders = {"language_model": self.language_model, "projector_start": self.projector_start}
        names = {option: folder and _without_folder(folder) for option, folder in folders.items()}
        return super().recorded_options() | names | {"caption_metric": metrics}

    def width(self, config: Any) -> int:
        """Returns the width of the image encoder: the language model is not trained."""
        return config.vision_config.hidden_size

    def training_set(self, rows: TaskRows, seed: int, views: ImageViews) -> CaptionedImages:
        """Returns one example for every caption of every image."""
        return CaptionedImages(rows, [len(captions) for captions in rows.column("captions")], seed, views)

    def collator(self, processor: Any, config: Any) -> CBViLADataCollatorForCaptioning:
        """Returns the collator of images and captions."""
        return CBViLADataCollatorForCaptioning(processor)

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
        collate, batch_size, progress = (
            self.collator(processor, model.config),
            evaluation.batch_size,
            evaluation.progress,
        )
        likelihoods, others = (
            caption_log_likelihoods(model, collate, rows, batch_size, shift, progress).numpy() for shift in (0, 1)
        )
        written = write_captions(model, collate, rows, batch_size, self.max_new_tokens, progress)
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


def _without_folder(name: str) -> str:
    """Returns a Hub id or the name of a metric as it is, and of a folder the last part."""
    return Path(name).name if Path(name).is_dir() else name
