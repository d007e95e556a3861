"""Image-text contrast (ITC): embeddings of a pair are closer than those of other pairs. From ALBEF, not the paper."""

from typing import Any, Literal

from torch import Tensor

from .momentum_cbvila import MomentumTargets, momentum_itc_loss
from .objective_cbvila import Answer, CBViLAObjective, CBViLAObjectiveOptions, CBViLAStep, Scored
from .options_cbvila import options, require_range
from .soft_targets_cbvila import blog_targets, soft_targets

_TARGET_TEMPERATURE = 0.02  # at 0.1 nothing was learned from random weights (docs/study.md, Four ways to align)


@options
class CBViLAITCOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLAITC`].

    Args:
        weight: Weight of the term; 0 leaves out the projections as well.
        grad_to_encoders: Whether the term trains the encoders. Without, it trains the projections and the temperature
            only, also in fine-tuning for retrieval, and embeddings pass no gradient on to images and texts; alignment
            (`align_steps`), which trains contrast alone, then leaves the encoders as they are.
        targets: `"one_hot"`: the own pair is right, other known matches are left out, and all else is wrong. `"soft"`:
            see [`soft_targets`]; equal pairs share theirs, and with a momentum encoder it is the one that they come
            from.
        target_temperature: Temperature of soft targets; 0.02 by default.
        compat: `"blog"` computes soft targets as a widely read snippet does; see [`blog_targets`].
    """

    grad_to_encoders: bool = True
    targets: Literal["one_hot", "soft"] = "one_hot"
    target_temperature: float | None = None
    compat: Literal["blog"] | None = None

    flat_names = {"itc_weight": "weight"}
    presets = {"paper": {"weight": 0.0}, "codis": {"weight": 0.0}}

    def check(self, where: str) -> None:
        """Raises a ValueError for values out of range, and for options of soft targets without these."""
        super().check(where)
        for name in ("target_temperature", "compat"):
            if getattr(self, name) is not None and self.targets != "soft":
                raise ValueError(f"{where}: {name}={getattr(self, name)!r} is for targets='soft'; give both or none.")
        if self.target_temperature is not None:
            require_range(where, "target_temperature", self.target_temperature, 0, above=True)
        if self.compat is not None and self.target_temperature is not None:
            raise ValueError(f"{where}: compat={self.compat!r} has no target_temperature of its own; leave it out.")


class CBViLAITC(CBViLAObjective):
    """Contrastive loss over the pairs of all processes, or with those of a momentum encoder."""

    name = "itc"
    options_class = CBViLAITCOptions
    phase = "align"
    needs = frozenset({"projections", "other_pairs", "momentum_pairs"})
    is_default = True

    @classmethod
    def trains_encoders(cls, options: Any) -> bool:
        """Returns what the options say."""
        return options.grad_to_encoders

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Computes the contrastive loss, with a momentum encoder's targets if the step has its pairs."""
        return {self.name: Scored(self._loss(step))}

    def _loss(self, step: CBViLAStep) -> Tensor:
        options: CBViLAITCOptions = self.options
        temperature = (options.target_temperature or _TARGET_TEMPERATURE) if options.targets == "soft" else None
        own = step.image_embeds, step.text_embeds
        momentum: MomentumTargets | None = step.momentum
        if momentum is not None and momentum.pairs is not None:
            if options.compat is not None:
                raise ValueError(
                    f"itc: compat={options.compat!r} compares the pairs of a batch only; train without "
                    "momentum_distill and queue_size, or leave compat out."
                )
            return momentum_itc_loss(step.similarity, *own, momentum, step.pairs.first, temperature)
        if temperature is None:
            return step.pairs.itc_loss()
        if options.compat is not None:
            targets = blog_targets(step.pairs.embeds, 1 / step.similarity_scale)
            return step.pairs.soft_itc_loss(*(rows.narrow(0, step.pairs.first, len(own[0])) for rows in targets))
        shared = soft_targets(own, step.pairs.embeds, temperature)
        return step.pairs.soft_itc_loss(shared, shared)
