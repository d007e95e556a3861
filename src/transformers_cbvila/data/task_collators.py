"""Rows of retrieval, entailment and reasoning to batches. Questions have theirs in `collators.py`."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..model.messages_cbvila import shown
from ..model.processing_cbvila import CBViLAProcessor
from .collators import check_fields, cut_options, identities, negative_texts


@dataclass
class CBViLADataCollatorForImageTextRetrieval:
    """Batches of pairs with `image` and `text` for [`CBViLAForImageTextRetrieval`], whose loss they ask for.

    `image_id`, `text_id` and `known_text_ids`, as [`ImageTextPairs`] gives them, say which other pairs of the batch
    are true as well: another caption of the same image is never a negative. A `negative_text`, which is false of its
    image, is one more negative of matching.

    Args:
        processor: Image processor and tokenizer.
        max_length: Longest caption in tokens; longer ones are cut. `None` cuts to what the model takes.
    """

    processor: CBViLAProcessor
    max_length: int | None = 30

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the inputs of a batch: those of the processor, ids, and the wish for a loss."""
        check_fields(examples, ("image", "text"))
        images = [example["image"] for example in examples]
        batch = encode(self.processor, images, [example["text"] for example in examples], self.max_length)
        negatives = negative_texts(self.processor, examples, self.max_length)
        return {**batch, **identities(examples), **negatives, "return_loss": True}


@dataclass
class CBViLADataCollatorForVisualEntailment:
    """Batches of `image`, `text` and, in training, `label` for [`CBViLAForVisualEntailment`].

    Args:
        processor: Image processor and tokenizer.
        id2label: `model.config.id2label`. Labels are names of classes (upper or lower case), or their ids.
        max_length: Longest text in tokens; longer ones are cut. `None` cuts to what the model takes.
    """

    processor: CBViLAProcessor
    id2label: dict[int, str]
    max_length: int | None = None
    fields: ClassVar[tuple[str, ...]] = ("image", "text")  # what an example must have

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Returns the inputs of a batch, with labels if the examples have them."""
        check_fields(examples, self.fields)
        texts = [example["text"] for example in examples]
        batch = encode(self.processor, [self.images(example) for example in examples], texts, self.max_length)
        if "label" in examples[0]:
            batch["labels"] = torch.tensor([self._id(example["label"]) for example in examples])
        return batch

    def images(self, example: dict[str, Any]) -> Any:
        """Returns what the processor takes as the image, or the images, of one text."""
        return example["image"]

    def _id(self, label: Any) -> int:
        if isinstance(label, int) and not isinstance(label, bool):
            return label
        ids = {name.lower(): number for number, name in self.id2label.items()}
        if str(label).lower() not in ids:
            raise ValueError(
                f"label={shown(label)} is no class; the model has {', '.join(map(repr, self.id2label.values()))}."
            )
        return int(ids[str(label).lower()])


@dataclass
class CBViLADataCollatorForVisualReasoning(CBViLADataCollatorForVisualEntailment):
    """Batches of `images` (a list), `text` and, in training, `label` for [`CBViLAForVisualReasoning`].

    Args:
        processor: Image processor and tokenizer.
        id2label: `model.config.id2label`. Labels are `True` and `False`, as values or names, or ids of classes.
        max_length: Longest text in tokens; longer ones are cut. `None` cuts to what the model takes.
    """

    fields: ClassVar[tuple[str, ...]] = ("images", "text")

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Returns the inputs of a batch; `pixel_values` are (B, images, 3, H, W)."""
        batch = super().__call__(examples)
        if batch["pixel_values"].dim() == 4:  # one image per statement
            batch["pixel_values"] = batch["pixel_values"].unsqueeze(1)
        return batch

    def images(self, example: dict[str, Any]) -> Any:
        """Returns the images of one text as a list."""
        return list(example["images"])


def encode(
    processor: CBViLAProcessor, images: list[Any], texts: list[str], max_length: int | None
) -> dict[str, Tensor]:
    """Returns images and texts as a batch, texts cut to `max_length` tokens or to the tokenizer's limit."""
    options = cut_options(processor, max_length)
    return dict(processor(images=images, text=texts, padding=True, **options, return_tensors="pt"))
