"""Visual entailment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..data.given_options import Repeatable
from ..data.image_views import ImageViews
from ..data.task_collators import CBViLADataCollatorForVisualEntailment
from ..data.task_examples import ViewedRows
from ..data.texts import class_names, named, texts_of
from ..model.configuration_cbvila import CBViLAConfig
from ..model.modeling_cbvila_classification import ENTAILMENT_LABELS, with_labels
from ..model.modeling_cbvila_visual_entailment import CBViLAForVisualEntailment
from ..model.processing_cbvila import CBViLAProcessor
from .classification import measure_classes
from .columns import column_option
from .evaluation import Evaluation
from .fields import FieldReader, Fields, Measured
from .label_column import label_reader
from .protocol import Protocol
from .rows import TaskRows
from .task import Task, called, text_fields
from .training_defaults import CROPS_AND_FLIPS, TrainingDefaults

_TEXTS = ("hypothesis", "sentence2", "sentence", "statement", "text", "caption", "txt")
_LABELS = ("label", "gold_label", "cls")


@dataclass
class TextClassification(Task):
    """What entailment and reasoning have in common: a text about a row's images, and its class.

    Class attributes:
        default_classes: Classes of a head that is new.
    """

    default_classes: ClassVar[tuple[str, ...]]
    columns = {"text_column": _TEXTS, "label_column": _LABELS}

    text_column: str | None = column_option(
        "Column with the text",
        _TEXTS,
        aliases=["--caption_column"],
    )
    label_column: str | None = column_option(
        "Column with the class, by name (text, true or false, or a ClassLabel)", _LABELS
    )
    class_names: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Of labels that are numbers and say nothing else: the classes, from 0 on.",
            "action": Repeatable,
        },
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Longest text in tokens; default: as many as the model takes."}
    )

    def field_reader(self, columns: Mapping[str, str], features: Any, classes: Sequence[str]) -> FieldReader:
        """Returns what reads the text of a row and its class."""
        column, what = columns["text_column"], called("text", columns)
        names = class_names(features[column])
        label = label_reader(columns["label_column"], features, classes, self.class_names)
        return lambda row: {"text": texts_of(named(row[column], names), what)[0], "label": label(row)}

    def texts(self, fields: Fields) -> Iterator[tuple[str, str]]:
        """Yields the text of a row."""
        return text_fields(fields, ("text",))

    def classes(self, config: CBViLAConfig) -> tuple[str, ...]:
        """Returns the model's own classes, or those that its head takes when it is new."""
        return tuple((with_labels(config, self.default_classes, self.head.__name__).id2label or {}).values())

    def training_set(self, rows: TaskRows, seed: int, views: ImageViews) -> ViewedRows:
        """Returns rows whose images are seen differently every epoch."""
        return ViewedRows(rows, seed, views)

    def collator(self, processor: CBViLAProcessor, config: CBViLAConfig) -> CBViLADataCollatorForVisualEntailment:
        """Returns the collator of texts and labels, texts cut to `max_length`."""
        return CBViLADataCollatorForVisualEntailment(processor, id2label(config), self.max_length)

    def compared_metrics(self) -> tuple[str, ...]:
        """Returns the names of the accuracies."""
        return ("accuracy",)

    def measure(self, model: Any, processor: CBViLAProcessor, rows: TaskRows, evaluation: Evaluation) -> Measured:
        """Returns the accuracy and, of rows with a group, the consistency: the share of groups without a mistake."""
        return measure_classes(model, self.collator(processor, model.config), rows, evaluation)


def id2label(config: CBViLAConfig) -> dict[int, str]:
    """Returns the names of a model's classes by their ids."""
    return {int(number): name for number, name in (config.id2label or {}).items()}


@dataclass
class VisualEntailment(TextClassification):
    """Visual entailment: an image, a text, and which class the pair belongs to."""

    name = "entailment"
    head = CBViLAForVisualEntailment
    card = "entailment.md"
    hub_task = "visual-entailment"
    default_classes = ENTAILMENT_LABELS
    defaults = TrainingDefaults(
        "the classifier is new", 2e-4, 2e-5, batch_size=32, passes=4, least_steps=800, views=CROPS_AND_FLIPS
    )
    protocols = {
        "snli-ve": Protocol(
            "SNLI-VE's accuracy over three classes, on the validation or the test set; its own JSON Lines, joined "
            "with Flickr30K's photographs by --image_data",
            counts={"rows": (17_858, 17_901)},
        ),
    }
