"""Batches for the first stage of a Q-Former."""

from dataclasses import dataclass
from typing import Any

from ..model.processing_cbvila import CBViLAProcessor
from .collators import check_fields, cut_options, identities


@dataclass
class CBViLADataCollatorForQFormerPreTraining:
    """Batches of pairs with `image` and `text` for [`CBViLAForQFormerPreTraining`].

    `image_id`, `text_id` and `known_text_ids`, as [`ImageTextPairs`] gives them, say which other pairs of the batch
    are true as well.

    Args:
        processor: Image processor and tokenizer.
        max_length: Longest text in tokens; longer ones are cut. `None` cuts to what the model takes.
    """

    processor: CBViLAProcessor
    max_length: int | None = 32

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the inputs of a batch: those of the processor, and ids."""
        check_fields(examples, ("image", "text"))
        batch = self.processor(
            images=[example["image"] for example in examples],
            text=[example["text"] for example in examples],
            padding=True,
            **cut_options(self.processor, self.max_length),
            return_tensors="pt",
        )
        return {**batch, **identities(examples)}
