"""Image-text contrast (ITC): embeddings of a pair are closer than those of other pairs. ALBEF's; not in the paper."""

from .momentum_cbvila import momentum_itc_loss
from .objective_cbvila import Answer, CBViLAObjective, CBViLAObjectiveOptions, CBViLAStep, Scored
from .options_cbvila import options


@options
class CBViLAITCOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLAITC`].

    Args:
        weight: Of the term; 0 leaves the projections out, too.
    """

    flat_names = {"itc_weight": "weight"}
    presets = {"paper": {"weight": 0.0}}


class CBViLAITC(CBViLAObjective):
    """Contrast over the pairs of all processes, or with those of a momentum encoder."""

    name = "itc"
    options_class = CBViLAITCOptions
    phase = "align"
    needs = frozenset({"projections", "other_pairs", "momentum_pairs"})
    is_default = True

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        momentum = step.momentum
        if momentum is None or momentum.pairs is None:
            return {self.name: Scored(step.pairs.itc_loss())}
        embeds = step.image_embeds, step.text_embeds
        return {self.name: Scored(momentum_itc_loss(step.similarity, *embeds, momentum, step.pairs.first))}
