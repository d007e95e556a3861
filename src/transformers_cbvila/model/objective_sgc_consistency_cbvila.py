"""Consistency of visual words: two views of an image use the same codes for a class (after SGC-VQGAN, 2409.06105).

Views come with the batch, as do the classes of their patches. The paper has no public code or formulas; this is our
reading of its "consistent semantic learning".

Shapes: b images, N patches, M tokens, C code width, K codes, P pairs of an image and a class.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .autocast_cbvila import without_autocast
from .losses_cbvila import at_least_fp32, masked_mean
from .objective_cbvila import Answer, CBViLAObjective, CBViLAObjectiveOptions, CBViLAStep, Scored
from .options_cbvila import options, require_range


@options
class CBViLASGCConsistencyOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLASGCConsistency`].

    Args:
        weight: Weight of the term.
        temperature: Temperature of the softmax of negative squared distances to the codes.
        grad_to_both: Whether both views train the image encoder, instead of the first one only. The other view then
            takes a backward pass, as well.
    """

    temperature: float | int = 0.1
    grad_to_both: bool = False

    def check(self, where: str) -> None:
        """Raises a ValueError for values out of range."""
        super().check(where)
        require_range(where, "temperature", self.temperature, 0, above=True)


class CBViLASGCConsistency(CBViLAObjective):
    """Makes the mean code distribution of a class the same in two views of an image; in training only."""

    name = "sgc_consistency"
    options_class = CBViLASGCConsistencyOptions
    needs = frozenset({"quantizer", "token_classes", "other_view"})

    @classmethod
    def check_with(cls, options: Any, config: Any) -> None:
        """Raises a ValueError for a quantizer that takes no classes."""
        if options.weight > 0 and not config.takes_hint("token_classes"):
            raise ValueError(
                f"objectives[{cls.name!r}] (weight={options.weight}) compares the codes of a class, and the "
                f"quantizer {config.quantizer_config.type!r} takes no classes: choose "
                "quantizer_config={'type': 'class_guided'}."
            )

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Computes the term, in training, if the batch has another view and the classes of both."""
        view = step.other_view
        if not step.training or step.hints is None or view is None or view.hints is None:
            return {}
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.options.grad_to_both):
            other = step.quantize(view)
        (codes,) = step.quantized.codes
        probabilities = [
            code_probabilities(o.latents, codes, self.options.temperature) for o in (step.quantized, other)
        ]
        classes = step.hints.token_classes, view.hints.token_classes
        divergences, in_both = class_divergences(probabilities, classes)
        return {self.name: Scored(masked_mean(divergences, in_both), in_both)}


@without_autocast
def code_probabilities(latents: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """Returns the softmax (b, N, K) of negative squared distances of latents (b, N, C) and codes (K, C)."""
    latents, codes = at_least_fp32(latents), at_least_fp32(codes)
    # The length of a latent is the same for all codes.
    distances = codes.square().sum(-1) - 2 * latents @ codes.T
    return (-distances / temperature).softmax(-1)


def class_divergences(distributions: Sequence[Tensor], classes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the symmetric divergence of two views for each pair of an image and a class.

    It is the mean of both directions of the Kullback-Leibler divergence of the mean distributions.

    Args:
        distributions: (b, N, K) of the tokens of each of both views.
        classes: (b, N) their classes, -1 where none is known.

    Returns:
        The divergences (P,), and which pairs (P,) are known and in both views; the others do not count.
    """
    keys = torch.stack(tuple(classes))
    images = torch.arange(keys.shape[1], device=keys.device).unsqueeze(-1)
    stride = keys.amax() + 2 if keys.numel() else 1
    pairs, places = (images * stride + keys + 1).unique(return_inverse=True)
    (one, in_one), (other, in_other) = (
        _means(view, place, len(pairs)) for view, place in zip(distributions, places, strict=True)
    )
    tiny = torch.finfo(one.dtype).tiny
    logs = one.clamp_min(tiny).log() - other.clamp_min(tiny).log()
    return ((one - other) * logs).sum(-1) / 2, in_one & in_other & (pairs % stride > 0)


def _means(view: Tensor, places: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Returns the mean (P, K) of the tokens (b, N, K) at each of P places (b, N), and which have any (P,)."""
    rows, places = view.flatten(0, 1), places.flatten()
    counts = rows.new_zeros(number).index_add(0, places, rows.new_ones(len(rows)))
    sums = rows.new_zeros(number, rows.shape[-1]).index_add(0, places, rows)
    return sums / counts.clamp_min(1).unsqueeze(-1), counts > 0
