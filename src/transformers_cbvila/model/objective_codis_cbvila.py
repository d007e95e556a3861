"""CODIS: alignment of images and texts through prototypes, with a momentum encoder as teacher (arXiv 2203.00048).

The authors published no code. Instance losses compare a student's features with the teacher's, across modalities and
within each. A codebook of prototypes is learned by optimal transport, and each modality predicts the other's
prototypes. Where the paper leaves a choice: targets are distilled as in ITC, with the share of `momentum_distill`;
transport plans are of the teacher's features, of batch and queue, and the loss counts the batch's rows alone.

Shapes: b local pairs, n pairs of the teacher (of all processes, then of the queue), E embedding width, K prototypes.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import logging

from .losses_cbvila import similarities, soft_cross_entropy
from .momentum_cbvila import MomentumPairs, MomentumTargets, known_of_both, momentum_itc_losses, own_and_all
from .objective_cbvila import Answer, CBViLAObjective, CBViLAObjectiveOptions, CBViLAStep, Scored
from .options_cbvila import options, require_range
from .transport_cbvila import as_targets, ipot, sinkhorn

logger = logging.get_logger(__name__)


@options
class CBViLACODISOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLACODIS`].

    Args:
        weight: Weight of all its terms.
        num_codes: Number of prototypes.
        temperature: Temperature of the predictions of prototypes.
        solver: `"ipot"`, whose targets are nearly one-hot, as in the paper; or `"sinkhorn"`, whose targets are smooth.
        beta, ipot_steps: Of [`ipot`].
        epsilon, sinkhorn_steps: Of [`sinkhorn`].
        freeze_codes_steps: Steps for which the prototypes stay as they are (SwAV: one pass over the data).
        instance_weight, transport_weight, swap_weight: Weights of the terms relative to each other.
    """

    num_codes: int = 4000
    temperature: float | int = 0.1
    solver: Literal["ipot", "sinkhorn"] = "ipot"
    beta: float | int = 0.5
    ipot_steps: int = 50
    epsilon: float | int = 0.05
    sinkhorn_steps: int = 3
    freeze_codes_steps: int = 0
    instance_weight: float | int = 1.0
    transport_weight: float | int = 1.0
    swap_weight: float | int = 1.0

    presets = {"codis": {"weight": 1.0}}

    def check(self, where: str) -> None:
        """Raises a ValueError for values out of range."""
        super().check(where)
        for name in ("num_codes", "ipot_steps", "sinkhorn_steps"):
            require_range(where, name, getattr(self, name), 1)
        for name in ("temperature", "beta", "epsilon"):
            require_range(where, name, getattr(self, name), 0, above=True)
        for name in ("freeze_codes_steps", "instance_weight", "transport_weight", "swap_weight"):
            require_range(where, name, getattr(self, name), 0)

    def unused(self) -> dict[str, str]:
        """Returns the options of the other solver."""
        others = ("epsilon", "sinkhorn_steps") if self.solver == "ipot" else ("beta", "ipot_steps")
        return dict.fromkeys(others, f"solver={self.solver!r} has none")


class CBViLACODIS(CBViLAObjective):
    """Instance, transport and swapped-prediction losses; in training only. It takes the place of ITC."""

    name = "codis"
    options_class = CBViLACODISOptions
    phase = "align"
    needs = frozenset({"projections", "other_pairs", "momentum_pairs", "momentum_encoder", "teacher_view"})

    codes: nn.Parameter
    steps: Tensor

    def __init__(self, options: CBViLACODISOptions, config: Any, quantizer: Any = None) -> None:
        super().__init__(options, config, quantizer)
        self.codes = nn.Parameter(torch.empty(options.num_codes, config.projection_dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._warned = False

    def init_own_weights(self, std: float) -> None:
        """Draws prototypes of length 1."""
        with torch.no_grad():
            self.codes.copy_(F.normalize(torch.randn_like(self.codes), dim=-1))
            self.steps.zero_()

    @classmethod
    def loss_weights(cls, options: Any) -> dict[str, float]:
        """Returns the weights of the three terms."""
        return {
            f"{cls.name}_{term}": float(options.weight * getattr(options, f"{term}_weight"))
            for term in ("instance", "transport", "swap")
        }

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Computes the terms, in training, with the pairs of a momentum encoder."""
        if not step.training or step.momentum is None or step.momentum.pairs is None:
            return {}
        embeds, first = (step.image_embeds, step.text_embeds), step.pairs.first
        losses = instance_losses(step.similarity, *embeds, step.momentum, first)
        terms = {"instance": Scored(torch.stack(losses).mean())}
        teacher = step.momentum.pairs.detached()
        if len(teacher.image_embeds) > 1:  # the plan of a single row would be uniform whatever it is
            terms |= self._prototype_terms(embeds, teacher, first)
        return {f"{self.name}_{term}": scored for term, scored in terms.items()}

    def _prototype_terms(self, embeds: tuple[Tensor, Tensor], teacher: MomentumPairs, first: int) -> dict[str, Scored]:
        """Computes transport and swapped prediction of the embeddings (b, E) of images and texts."""
        self._warn_of_few_rows(len(teacher.image_embeds))
        codes, count = self._codes(), len(embeds[0])
        plans = [self._plan(rows, codes.detach()) for rows in teacher[:2]]
        of_images, of_texts = own = [as_targets(plan.narrow(0, first, count)) for plan in plans]
        costs = [transport_loss(*both, codes) for both in zip(teacher.rows(first, count)[:2], own, strict=True)]
        swap = swap_loss(embeds[1], of_images, codes, self.options.temperature)
        swap = swap + swap_loss(embeds[0], of_texts, codes, self.options.temperature)
        return {"transport": Scored(costs[0] + costs[1], metrics=health(plans, own)), "swap": Scored(swap)}

    def prototypes(self) -> Tensor:
        """Returns the prototypes (K, E)."""
        return self.codes.detach()

    def after_step(self) -> None:
        """Puts the prototypes back on the unit sphere."""
        self.codes.copy_(F.normalize(self.codes, dim=-1))
        self.steps.add_(1)

    def _codes(self) -> Tensor:
        """Returns the prototypes, without a gradient while they are frozen (of 0, so that DDP finds them used)."""
        frozen = self.options.freeze_codes_steps and bool(self.steps < self.options.freeze_codes_steps)
        return self.codes.detach() + 0 * self.codes if frozen else self.codes

    def _plan(self, embeds: Tensor, codes: Tensor) -> Tensor:
        """Returns the transport plan (n, K) of embeddings (n, E)."""
        similarity = similarities(embeds, codes)
        if self.options.solver == "ipot":
            return ipot(similarity, self.options.beta, self.options.ipot_steps)
        return sinkhorn(similarity, self.options.epsilon, self.options.sinkhorn_steps)

    def _warn_of_few_rows(self, rows: int) -> None:
        if rows < self.options.num_codes and not self._warned:
            self._warned = True
            logger.warning(
                f"codis has {self.options.num_codes} prototypes, and batch and queue have {rows} pairs so far: each "
                "pair is spread over several prototypes. Take a queue_size above num_codes, or fewer prototypes."
            )


class InstanceLosses(NamedTuple):
    """Cross-entropies of a student's features with the teacher's.

    Args:
        image_to_text: () images with the teacher's texts.
        text_to_image: () texts with the teacher's images.
        image_to_image: () images with the teacher's images.
        text_to_text: () texts with the teacher's texts.
    """

    image_to_text: Tensor
    text_to_image: Tensor
    image_to_image: Tensor
    text_to_text: Tensor


def instance_losses(
    similarity: Callable[[Tensor, Tensor], Tensor],
    image_embeds: Tensor,
    text_embeds: Tensor,
    momentum: MomentumTargets,
    first: int = 0,
) -> InstanceLosses:
    """Computes the four instance losses.

    Across modalities they are those of [`momentum_itc_loss`]. Within one, a row's own pair is right, and other pairs
    that are known to match it are left out.

    Args:
        similarity: Maps embeddings of two lists to logits.
        image_embeds: (b, E) image embeddings of the student, of unit length.
        text_embeds: (b, E) text embeddings of the student.
        momentum: Targets with `pairs`, those of the batch first.
        first: Index of the first local pair among them.
    """
    own, keys = own_and_all(momentum, first, len(image_embeds))
    known = known_of_both(own, keys)
    across = momentum_itc_losses(similarity, image_embeds, text_embeds, momentum, first, known=known)
    targets = torch.arange(first, first + len(image_embeds), device=image_embeds.device)
    others = (known[0] | known[1]).scatter(1, targets.unsqueeze(1), False)
    of_images = similarity(image_embeds, keys.image_embeds).masked_fill(others, float("-inf"))
    of_texts = similarity(text_embeds, keys.text_embeds).masked_fill(others, float("-inf"))
    return InstanceLosses(*across, F.cross_entropy(of_images, targets), F.cross_entropy(of_texts, targets))


def transport_loss(embeds: Tensor, targets: Tensor, codes: Tensor) -> Tensor:
    """Computes the mean cost of carrying embeddings (b, E) to prototypes (K, E) by targets (b, K).

    Only the prototypes have a gradient.
    """
    return (targets * (1 - similarities(embeds.detach(), codes))).sum(1).mean()


def swap_loss(embeds: Tensor, targets: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """Computes the cross-entropy of prototypes predicted from embeddings (b, E) with the other modality's targets."""
    return soft_cross_entropy(similarities(embeds, codes) / temperature, targets)


@torch.no_grad()
def health(plans: list[Tensor], own: list[Tensor]) -> dict[str, Tensor]:
    """Returns how prototypes are used, from the plans (n, K) of both modalities and the targets (b, K) of the batch.

    `codis_usage` is the share of prototypes that are the first choice of any row, `codis_perplexity` that of the first
    choices (both means of images and texts), and `codis_agreement` the share of pairs whose image and text have the
    same first choice (by chance 1 / K).
    """
    shares = [plan.argmax(1).bincount(minlength=plan.shape[1]) / len(plan) for plan in plans]
    entropies = torch.stack([-torch.special.xlogy(share, share).sum() for share in shares])
    return {
        "codis_usage": torch.stack([(share > 0).float().mean() for share in shares]).mean(),
        "codis_perplexity": entropies.exp().mean(),
        "codis_agreement": (own[0].argmax(1) == own[1].argmax(1)).float().mean(),
    }
