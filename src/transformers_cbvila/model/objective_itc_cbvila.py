"""Image-text contrast (ITC): embeddings of a pair are closer than those of other pairs. From ALBEF, not the paper."""

from .momentum_cbvila import momentum_itc_loss
from .objective_cbvila import Answer, CBViLAObjective, CBViLAObjectiveOptions, CBViLAStep, Scored
from .options_cbvila import options


@options
class CBViLAITCOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLAITC`].

    Args:
        weight: Weight of the term; 0 leaves out the projections as well.
        grad_to_encoders: Whether the term trains the encoders. Without, it trains the projections and the temperature
            only, also in fine-tuning for retrieval, and embeddings pass no gradient on to images and texts; alignment
            (`align_steps`), which trains contrast alone, then leaves the encoders as they are.
    """

    grad_to_encoders: bool = True

    flat_names = {"itc_weight": "weight"}
    presets = {"paper": {"weight": 0.0}}


class CBViLAITC(CBViLAObjective):
    """Contrastive loss over the pairs of all processes, or with those of a momentum encoder."""

    name = "itc"
    options_class = CBViLAITCOptions
    phase = "align"
    needs = frozenset({"projections", "other_pairs", "momentum_pairs"})
    is_default = True

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Computes the contrastive loss, with soft targets if the step has a momentum encoder's pairs."""
        momentum = step.momentum
        if momentum is None or momentum.pairs is None:
            return {self.name: Scored(step.pairs.itc_loss())}
        embeds = step.image_embeds, step.text_embeds
        return {self.name: Scored(momentum_itc_loss(step.similarity, *embeds, momentum, step.pairs.first))}
