"""Images and texts about them as batches for a language model that reads images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..model.label_checks_cbvila import IGNORED_LABEL
from ..model.processing_cbvila_conditional_generation import CBViLAConditionalGenerationProcessor
from .collators import check_fields


@dataclass
class CBViLADataCollatorForConditionalGeneration:
    """Batches of examples with `image`, `text` and, optionally, `prompt` for [`CBViLAForConditionalGeneration`].

    A row is the image, the prompt, the text that continues it and the token that ends a text; the text and the end are
    labelled. Without a prompt, the text is a caption, as in Frozen.

    Args:
        processor: Image processor and tokenizer, which needs an end token.
    """

    processor: CBViLAConditionalGenerationProcessor

    def __post_init__(self) -> None:
        if self.processor.tokenizer.eos_token is None:
            raise ValueError(
                "The tokenizer has no eos_token, which ends a text: set it, e.g. tokenizer.eos_token = ..."
            )

    def prompt(self, text: str = "") -> str:
        """Returns what a model continues: an image, and a prompt about it."""
        return f"{self.processor.image_token} {text}".rstrip()

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Returns the inputs of a batch, and labels (B, T)."""
        check_fields(examples, ("image", "text"))
        end = self.processor.tokenizer.eos_token
        prompts = [self.prompt(example.get("prompt", "")) for example in examples]
        texts = [f"{prompt} {example['text']}{end}" for prompt, example in zip(prompts, examples, strict=True)]
        images = [example["image"] for example in examples]
        batch = dict(self.processor(images=images, text=texts, return_tensors="pt", padding=True))
        return {**batch, "labels": self._labels(batch["input_ids"], batch["attention_mask"], prompts)}

    def _labels(self, ids: Tensor, attention_mask: Tensor, prompts: Sequence[str]) -> Tensor:
        """Returns labels (B, T): the tokens of a row from where it differs from its prompt alone, padding left out."""
        image, run = self.processor.image_token, self.processor.replace_image_token()
        alone = self.processor.tokenizer([prompt.replace(image, run) for prompt in prompts])["input_ids"]
        labels = torch.where(attention_mask == 1, ids, IGNORED_LABEL)
        for row, of_prompt in enumerate(alone):
            places = attention_mask[row].nonzero().squeeze(-1)
            labels[row, places[: _common_length(ids[row, places].tolist(), of_prompt)]] = IGNORED_LABEL
        return labels


def _common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Returns how many items two lists begin with in common."""
    differ = (number for number, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))
