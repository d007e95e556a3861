"""Masked language modelling (MLM, Eq. 6): predicts the masked tokens of a caption from the others and the image.

Shapes: b local pairs, L text tokens, V vocabulary.
"""

from typing import Any

import torch

from .losses_cbvila import classification_loss, distilled_loss, masked_rows, take_rows
from .objective_cbvila import Answer, CBViLAObjective, CBViLAObjectiveOptions, CBViLAStep, Scored, TextQuery
from .options_cbvila import options
from .quantizer_cbvila import CBViLAQuantizer
from .text_head_cbvila import CBViLATextHead

# Prefix of the MLM head in a checkpoint, for heads that start from its weights.
HEAD_OF_CHECKPOINT = r"^objectives\.mlm\.head\."


@options
class CBViLAMLMOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLAMLM`].

    Args:
        weight: Weight of the term.
    """

    flat_names = {"mlm_weight": "weight"}


class CBViLAMLM(CBViLAObjective):
    """Predicts masked tokens, with soft targets from a momentum encoder if there is one."""

    name = "mlm"
    options_class = CBViLAMLMOptions
    keys_of_0_1 = {r"^mlm_head\.": "objectives.mlm.head."}
    phase = "burn_in"
    needs = frozenset({"masked_text", "momentum_tokens"})
    is_default = True

    def __init__(self, options: CBViLAMLMOptions, config: Any, quantizer: CBViLAQuantizer | None = None) -> None:
        super().__init__(options, config, quantizer)
        self.head = CBViLATextHead(config.text_config)

    def text_queries(self, step: CBViLAStep) -> list[TextQuery]:
        """Returns the captions with masked tokens, if the batch has any."""
        if step.masked_texts is None:
            return []
        rows = torch.arange(step.masked_texts.shape[0], device=step.masked_texts.device)
        return [TextQuery(step.masked_texts, step.attention_mask, rows)]

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Computes the cross-entropy at masked tokens."""
        if not answers or step.mlm_labels is None:
            return {}
        is_masked = step.mlm_labels != -100
        rows = masked_rows(is_masked)
        logits = self.head(take_rows(answers[0].states, rows))
        loss = classification_loss(logits, take_rows(step.mlm_labels, rows))
        if step.momentum is not None:
            loss = distilled_loss(loss, logits, step.momentum.mlm_logits, step.momentum.alpha)
        return {self.name: Scored(loss, is_masked, {"mlm_logits": logits})}
