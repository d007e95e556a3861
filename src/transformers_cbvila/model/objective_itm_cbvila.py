"""Image-text matching (ITM, Eq. 5): whether a text is of an image, against hard negatives.

Shapes: b pairs at hand.
"""

from typing import Any, Literal

from torch import nn

from .losses_cbvila import classification_loss
from .negatives_cbvila import itm_labels
from .objective_cbvila import Answer, CBViLAObjective, CBViLAObjectiveOptions, CBViLAStep, Scored, TextQuery
from .options_cbvila import options
from .pair_similarity_cbvila import itm_batch


@options
class CBViLAITMOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLAITM`].

    Args:
        weight: Of the term.
        negative_source: How negatives are drawn in training when the caller does not say how hard they are: the more
            similar the likelier (`"similarity"`, the paper), or all alike (`"uniform"`).
    """

    negative_source: Literal["similarity", "uniform"] = "similarity"

    flat_names = {"itm_weight": "weight", "negative_source": "negative_source"}


class CBViLAITM(CBViLAObjective):
    """Classifies true pairs (b), then each text with a wrong image (b), then each image with a wrong text (b)."""

    name = "itm"
    options_class = CBViLAITMOptions
    keys_of_0_1 = {r"^itm_head\.": "objectives.itm.head."}
    needs = frozenset({"other_pairs", "hard_negatives"})
    is_default = True

    def __init__(self, options: Any, config: Any, quantizer: nn.Module | None = None):
        super().__init__(options, config, quantizer)
        self.head = nn.Linear(config.multimodal_config.hidden_size, 2)

    def text_queries(self, step: CBViLAStep) -> list[TextQuery]:
        negatives, processes = step.negatives, None
        if negatives is None:
            negatives, processes = step.pairs.negatives(self._hardness(step), step.negative_seed), step.processes
        batch = itm_batch(processes, step.images, step.image_index, step.texts, step.attention_mask, negatives)
        labels = itm_labels(*negatives)
        return [TextQuery(batch.texts, batch.mask, batch.image_index, batch.fetched_images, labels)]

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        (answer,) = answers
        logits, labels = self.head(answer.states[:, 0]), answer.query.labels
        loss = classification_loss(logits, labels)
        return {self.name: Scored(loss, labels != -100, {"itm_logits": logits})}

    def _hardness(self, step: CBViLAStep) -> float | None:
        if not step.training:
            return None  # the most similar
        if step.negative_hardness is not None:
            return step.negative_hardness
        return 1.0 if self.options.negative_source == "similarity" else 0.0
