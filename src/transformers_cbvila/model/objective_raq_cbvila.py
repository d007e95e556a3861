"""Rate-adaptive quantization (RAQ, arXiv 2405.14222): the model learns to reconstruct from codebooks of any size.

Each training step draws a number of codes, generates as many from the quantizer's, and reconstructs the images from
them. After training, [`~CBViLARAQ.codes_at`] gives codes for any rate.

Shapes: K codes of the quantizer, K' generated codes, C code width.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from transformers import initialization as init

from .code_generator_cbvila import CBViLACodeGenerator
from .known_matches_cbvila import scramble
from .objective_cbvila import Answer, CBViLAObjective, CBViLAObjectiveOptions, CBViLAStep, Scored, VisualQuery
from .objective_codebook_cbvila import CBViLACodebookTerm, CBViLACommitmentTerm
from .objective_pixel_cbvila import CBViLAPixel
from .options_cbvila import options, require_range
from .quantizer_cbvila import CBViLAQuantizer
from .quantizer_output_cbvila import CBViLAQuantizerHints
from .quantizers_cbvila import QUANTIZERS

_TERMS = ("raq_pixel", "raq_codebook", "raq_commitment")
_LEAST_SHARE, _MOST_TIMES = 8, 4  # by default from K / 8 to 4 K codes


@options
class CBViLARAQOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLARAQ`].

    Args:
        weight: Factor of the weights of its three terms.
        reconstruct: Weight of the reconstruction from generated codes.
        move_codes: Weight of the term that moves generated codes to the latents.
        move_latents: Weight of the term that moves latents to generated codes.
        min_codes: Smallest number of codes; `None` is an eighth of the quantizer's.
        max_codes: Largest number of codes; `None` is four times the quantizer's.
        feed: What the generator reads between codes: rows of a learned table (`"table"`, as in the authors' code), or
            its own outputs (`"own"`, as in the paper), which takes a loop over codes and so many times longer.
        dropout: Dropout of the generator. (The authors use 0.5.)
        seed: Seed of the numbers of codes, which depend on it and the step.
    """

    reconstruct: float | int = 3.0
    move_codes: float | int = 1.0
    move_latents: float | int = 1.0
    min_codes: int | None = None
    max_codes: int | None = None
    feed: Literal["table", "own"] = "table"
    dropout: float | int = 0.0
    seed: int = 0

    def check(self, where: str) -> None:
        """Raises a ValueError for values out of range."""
        super().check(where)
        for name in ("reconstruct", "move_codes", "move_latents", "seed"):
            require_range(where, name, getattr(self, name), 0)
        require_range(where, "dropout", self.dropout, 0, 1)
        for name in ("min_codes", "max_codes"):
            if getattr(self, name) is not None:
                require_range(where, name, getattr(self, name), 1)

    def limits(self, size: int) -> tuple[int, int]:
        """Returns the smallest and the largest number of codes for a quantizer of `size` codes."""
        least = max(2, size // _LEAST_SHARE) if self.min_codes is None else self.min_codes
        return least, _MOST_TIMES * size if self.max_codes is None else self.max_codes


class CBViLARAQ(CBViLAObjective):
    """Reconstructs images from generated codes, as many as are drawn for the step; absent in evaluation."""

    name = "raq"
    options_class = CBViLARAQOptions
    phase = "stable"
    needs = frozenset({"quantizer", "visual_queries"})
    steps: Tensor

    def __init__(self, options: CBViLARAQOptions, config: Any, quantizer: CBViLAQuantizer | None = None) -> None:
        super().__init__(options, config, quantizer)
        (table,) = quantizer.tables()
        self.limits = options.limits(table.num_codes)
        dim, dropout = table.codes.shape[1], float(options.dropout)
        self.generator = CBViLACodeGenerator(dim, self.limits[1], options.feed, table.unit_norm, dropout)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def init_own_weights(self, std: float) -> None:
        """Initializes the counter of steps."""
        init.zeros_(self.steps)

    @classmethod
    def loss_weights(cls, options: Any) -> dict[str, float]:
        """Returns the weights of its three terms."""
        weights = zip(_TERMS, (options.reconstruct, options.move_codes, options.move_latents), strict=True)
        return {term: float(options.weight * weight) for term, weight in weights}

    @classmethod
    def check_with(cls, options: Any, config: Any) -> None:
        """Raises a ValueError if the quantizer cannot use other codes, or no pixels are predicted."""
        if options.weight == 0:
            return
        where, chosen = f"objectives[{cls.name!r}] (weight={options.weight})", config.quantizer_config
        if "codes" not in QUANTIZERS[chosen.type].takes_hints:
            fitting = ", ".join(name for name, kind in QUANTIZERS.items() if "codes" in kind.takes_hints)
            raise ValueError(f"{where} needs a quantizer that can use other codes ({fitting}), not {chosen.type!r}.")
        if CBViLAPixel.name not in config.active_objectives():
            raise ValueError(f"{where} needs the objective {CBViLAPixel.name!r}: give it a weight above 0.")
        least, most = options.limits(sum(QUANTIZERS[chosen.type].sizes(chosen)))
        if least > most:
            raise ValueError(f"{where}: min_codes={least} is above max_codes={most}.")

    def visual_queries(self, step: CBViLAStep) -> list[VisualQuery]:
        """Returns the query with tokens quantized by generated codes."""
        if not step.training:
            return []
        (table,) = step.quantizer.tables()
        codes = self.generator(table.whole_codes(), self.number_of_codes())
        hints = CBViLAQuantizerHints(codes=codes)
        quantized = step.quantizer(step.images[:, 1:], remember=False, hints=hints)
        trains_encoder = step.quantizer.gradients.quantized
        return [VisualQuery("quantized", None, trains_encoder, quantized, is_fused=step.pixels_are_fused)]

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Computes the three terms of generated codes."""
        if not answers:
            return {}
        moves = answers[0].query.quantized.terms
        losses = (
            step.pixel_loss(answers[0].states),
            moves[CBViLACodebookTerm.name],
            moves[CBViLACommitmentTerm.name],
        )
        return {term: Scored(loss) for term, loss in zip(_TERMS, losses, strict=True)}

    def number_of_codes(self) -> int:
        """Returns the number of codes of the current step, uniform within the limits and the same on all processes."""
        least, most = self.limits
        drawn = scramble(scramble(self.steps * 0 + self.options.seed) + self.steps)
        return least + int(drawn >> 1 & 0x7FFFFFFFFFFFFFFF) % (most - least + 1)

    @torch.no_grad()
    def codes_at(self, codes: Tensor, number: int) -> Tensor:
        """Generates codes for another rate, without dropout and gradients.

        Args:
            codes: (K, C) codes of the quantizer.
            number: K', the number of codes.

        Returns:
            (K', C), for example for `reconstruct(…, codes=…)`.

        Raises:
            ValueError: If `number` is above `max_codes`.
        """
        was_training = self.generator.training
        try:
            return self.generator.eval()(codes, number)
        finally:
            self.generator.train(was_training)

    def after_step(self) -> None:
        """Counts a step, from which the next number of codes follows."""
        self.steps += 1
