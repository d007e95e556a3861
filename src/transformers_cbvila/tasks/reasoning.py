"""Visual reasoning (NLVR, NLVR2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data.given_options import refuse_without
from ..data.task_collators import CBViLADataCollatorForVisualReasoning
from ..model.configuration_cbvila import CBViLAConfig
from ..model.messages_cbvila import shown
from ..model.modeling_cbvila_classification import REASONING_LABELS
from ..model.modeling_cbvila_visual_reasoning import CBViLAForVisualReasoning
from ..model.processing_cbvila import CBViLAProcessor
from .entailment import TextClassification, id2label
from .fields import FieldReader
from .image_layout import ImageLayout
from .protocol import Protocol
from .task import check_at_least
from .training_defaults import TrainingDefaults


@dataclass
class VisualReasoning(TextClassification):
    """Visual reasoning: several images, and a statement that is true or false of them."""

    name = "reasoning"
    head = CBViLAForVisualReasoning
    card = "reasoning.md"
    hub_task = "visual-reasoning"
    default_classes = REASONING_LABELS
    defaults = TrainingDefaults("the classifier is new", 3e-4, 2e-5, batch_size=32, passes=5, least_steps=1000)
    protocols = {
        "nlvr2": Protocol(
            "NLVR2's accuracy, and consistency over the pairs of images of a sentence, on dev or test-P; "
            "HuggingFaceM4/NLVR2",
            {"image_column": ["left_image", "right_image"]},
            {"group_column": "identifier", "group_parts": [0, 1, 3]},
            {"rows": (6_982, 6_967)},
        ),
        "nlvr1": Protocol(
            "NLVR's pictures of three boxes in all orders, on dev or Test-P; consistency over all pictures of a "
            "sentence, in all orders",
            {"image_parts": 3, "image_gap": 0.125},
            {"group_column": "identifier", "group_parts": [0]},  # identifiers are SENTENCE-PICTURE
            {"rows": (5_934, 5_940)},
        ),
    }
    evaluation_options = frozenset({"group_column", "group_parts"})

    image_parts: int = field(
        default=1, metadata={"help": "Split each picture into so many images of equal width, side by side (NLVR: 3)."}
    )
    image_gap: float = field(
        default=0.0,
        metadata={"help": "What lies between these images, as a share of the picture's width (NLVR: 0.125)."},
    )
    group_column: str | None = field(
        default=None,
        metadata={
            "help": "Column whose equal values are judged as one: consistency is the share of groups with no mistake."
        },
    )
    group_parts: list[int] = field(
        default_factory=list,
        metadata={
            "help": "Of values like dev-850-0-1, the parts between dashes that name the group, counted from 0; NLVR2: "
            "0 1 3; NLVR: 0. Default: the whole value."
        },
    )

    def __post_init__(self) -> None:
        """Raises a ValueError for options that cannot be."""
        super().__post_init__()
        refuse_without(self, "group_column", ["group_parts"])
        check_at_least("image_parts", self.image_parts, 1)
        if self.image_gap and self.image_parts == 1:
            raise ValueError(
                f"image_gap={self.image_gap} lies between the images of a picture, which is not split: set "
                "image_parts, or leave it out."
            )
        if not 0 <= self.image_gap * (self.image_parts - 1) < 1:
            raise ValueError(f"image_gap={self.image_gap} leaves no room for {self.image_parts} images in a picture.")

    @property
    def image_layout(self) -> ImageLayout:
        """Several images per row, of one column each or split from one file."""
        return ImageLayout(several=True, parts=self.image_parts, gap=self.image_gap)

    @property
    def num_images(self) -> int:
        """Images per statement."""
        return len(self.image_column) * self.image_parts

    def value_columns(self) -> list[str]:
        """Returns the columns with ids of images and with groups."""
        return [*super().value_columns(), *([] if self.group_column is None else [self.group_column])]

    def field_reader(self, columns: Mapping[str, str], features: Any, classes: Sequence[str]) -> FieldReader:
        """Returns what reads the text of a row, its class and, where there is a column for it, its group."""
        read, group = super().field_reader(columns, features, classes), self.group_column
        if group is None:
            return read
        return lambda row: {**read(row), "group": _group(row[group], self.group_parts)}

    def prepare_config(self, config: CBViLAConfig) -> None:
        """Sets the number of images per statement."""
        config.num_images = self.num_images

    def check_model(self, config: CBViLAConfig) -> None:
        """Raises a ValueError if a model was trained with another number of images than the data have."""
        if config.num_images != self.num_images:
            raise ValueError(
                f"The model judges {config.num_images} image(s) at a time, and the data have {self.num_images}; set "
                "image_column (one for each image) and image_parts as in its training."
            )

    def collator(self, processor: CBViLAProcessor, config: CBViLAConfig) -> CBViLADataCollatorForVisualReasoning:
        """Returns the collator of texts and labels, texts cut to `max_length`."""
        return CBViLADataCollatorForVisualReasoning(processor, id2label(config), self.max_length)

    def compared_metrics(self) -> tuple[str, ...]:
        """Returns the names of the accuracies."""
        return ("accuracy",) if self.group_column is None else ("accuracy", "consistency")


def _group(value: Any, parts: Sequence[int]) -> str:
    pieces = str(value).split("-")
    if not parts:
        return str(value)
    if max(parts) >= len(pieces):
        raise ValueError(f"its group is {shown(value)}, which has no part {max(parts)} between dashes")
    return "-".join(pieces[part] for part in parts)
