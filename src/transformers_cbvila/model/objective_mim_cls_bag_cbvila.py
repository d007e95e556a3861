"""MIM from the [CLS] query alone: predicts the codes of an image's masked patches as an unordered bag.

Fig. 1 mentions "the cls token" where Eq. 4 is per token; this term implements that reading.

Shapes: b images, N patches, ΣK codes of all books.
"""

from typing import Any

from torch import nn

from .losses_cbvila import books_bag_loss
from .objective_cbvila import Answer, CBViLAObjective, CBViLAObjectiveOptions, CBViLAStep, Scored, VisualQuery
from .objective_mim_cbvila import mim_queries, mim_targets
from .options_cbvila import options
from .quantizer_cbvila import CBViLAQuantizer


@options
class CBViLAMIMClsBagOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLAMIMClsBag`].

    Args:
        weight: Weight of the term; off by default.
    """

    weight: float | int = 0.0

    flat_names = {"mim_cls_bag_weight": "weight"}


class CBViLAMIMClsBag(CBViLAObjective):
    """Predicts the codes of masked patches from the state of the [CLS] query."""

    name = "mim_cls_bag"
    options_class = CBViLAMIMClsBagOptions
    keys_of_0_1 = {r"^mim_cls_head\.": "objectives.mim_cls_bag.head."}
    phase = "stable"
    needs = frozenset({"quantizer", "visual_queries", "code_targets"})

    def __init__(self, options: CBViLAMIMClsBagOptions, config: Any, quantizer: CBViLAQuantizer | None = None) -> None:
        super().__init__(options, config, quantizer)
        self.book_sizes = quantizer.book_sizes
        self.grad_to_vit = config.trains_encoder("detached")  # as MIM's query, so that one runs for both
        self.head = nn.Linear(config.multimodal_config.hidden_size, sum(self.book_sizes))

    @classmethod
    def check_with(cls, options: Any, config: Any) -> None:
        """Raises a ValueError if the fusion encoder has no [CLS] query."""
        if options.weight > 0 and config.fusion_visual_cls == "none":
            raise ValueError(
                f"objectives[{cls.name!r}] (weight={options.weight}) uses the [CLS] query, which "
                "fusion_visual_cls='none' leaves out: choose 'learned' or 'vit', or a weight of 0."
            )

    @classmethod
    def hides_patches(cls, options: Any) -> bool:
        """Returns True: its query masks patches."""
        return True

    def visual_queries(self, step: CBViLAStep) -> list[VisualQuery]:
        """Returns MIM's query."""
        return mim_queries(step, self.grad_to_vit)

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Computes the cross-entropy of each image's prediction with the codes of its masked patches."""
        if not answers:
            return {}
        logits, mask = self.head(answers[0].cls), step.bool_masked_pos
        return {self.name: Scored(books_bag_loss(logits, mim_targets(step), mask, self.book_sizes), mask)}

    def code_weights(self) -> list[nn.Module]:
        """Returns the head."""
        return [self.head]
