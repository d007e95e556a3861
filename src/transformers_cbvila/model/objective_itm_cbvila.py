"""Image-text matching (ITM, Eq. 5): classifies whether a text belongs to an image, with hard negatives.

Shapes: b local pairs.
"""

from typing import Any, Literal

from torch import nn

from .losses_cbvila import classification_loss
from .negatives_cbvila import itm_labels
from .objective_cbvila import Answer, CBViLAObjective, CBViLAObjectiveOptions, CBViLAStep, Scored, TextQuery
from .options_cbvila import options
from .pair_similarity_cbvila import itm_batch
from .quantizer_cbvila import CBViLAQuantizer


@options
class CBViLAITMOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLAITM`].

    Args:
        weight: Weight of the term.
        negative_source: How training draws negatives unless the caller gives their hardness: with a probability that
            grows with similarity (`"similarity"`, as in the paper), or uniformly (`"uniform"`).
    """

    negative_source: Literal["similarity", "uniform"] = "similarity"

    flat_names = {"itm_weight": "weight", "negative_source": "negative_source"}


class CBViLAITM(CBViLAObjective):
    """Classifies b true pairs, then each text with a negative image, then each image with a negative text."""

    name = "itm"
    options_class = CBViLAITMOptions
    keys_of_0_1 = {r"^itm_head\.": "objectives.itm.head."}
    needs = frozenset({"other_pairs", "hard_negatives"})
    is_default = True

    def __init__(self, options: CBViLAITMOptions, config: Any, quantizer: CBViLAQuantizer | None = None) -> None:
        super().__init__(options, config, quantizer)
        self.head = nn.Linear(config.multimodal_config.hidden_size, 2)

    def text_queries(self, step: CBViLAStep) -> list[TextQuery]:
        """Returns the 3b pairs to classify, with their labels."""
        negatives, processes = step.negatives, None
        if negatives is None:
            negatives, processes = step.pairs.negatives(self._hardness(step), step.negative_seed), step.processes
        batch = itm_batch(processes, step.images, step.image_index, step.texts, step.attention_mask, negatives)
        labels = itm_labels(*negatives)
        return [TextQuery(batch.texts, batch.attention_mask, batch.image_index, batch.fetched_images, labels)]

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Computes the cross-entropy of matches."""
        (answer,) = answers
        logits, labels = self.head(answer.states[:, 0]), answer.query.labels
        loss = classification_loss(logits, labels)
        return {self.name: Scored(loss, labels != -100, {"itm_logits": logits})}

    def _hardness(self, step: CBViLAStep) -> float | None:
        if not step.training:
            return None  # takes the most similar
        if step.negative_hardness is not None:
            return step.negative_hardness
        return 1.0 if self.options.negative_source == "similarity" else 0.0
