"""Images and their captions as batches for a language model that reads images."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..model.label_checks_cbvila import IGNORED_LABEL
from ..model.processing_cbvila_conditional_generation import CBViLAConditionalGenerationProcessor
from .collators import check_fields


@dataclass
class CBViLADataCollatorForCaptioning:
    """Batches of examples with `image` and `text` for [`CBViLAForConditionalGeneration`].

    A row is the image, its caption and the token that ends a text, as in Frozen; the caption and the end are labelled.

    Args:
        processor: Image processor and tokenizer, which needs an end token.
    """

    processor: CBViLAConditionalGenerationProcessor

    def __post_init__(self) -> None:
        if self.processor.tokenizer.eos_token is None:
            raise ValueError(
                "The tokenizer has no eos_token, which ends a caption: set it, e.g. tokenizer.eos_token = ..."
            )

    @property
    def prompt(self) -> str:
        """The text that a caption continues."""
        return self.processor.image_token

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Returns the inputs of a batch, and labels (B, T)."""
        check_fields(examples, ("image", "text"))
        end = self.processor.tokenizer.eos_token
        texts = [f"{self.prompt} {example['text']}{end}" for example in examples]
        images = [example["image"] for example in examples]
        batch = dict(self.processor(images=images, text=texts, return_tensors="pt", padding=True))
        is_image = batch["input_ids"] == self.processor.image_token_id
        after_image = (is_image.cumsum(-1) == self.processor.num_image_tokens) & ~is_image
        is_caption = after_image & (batch["attention_mask"] == 1)
        return {**batch, "labels": torch.where(is_caption, batch["input_ids"], IGNORED_LABEL)}
