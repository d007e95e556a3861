"""The paper's quantizer: the nearest of K learned codes (Eq. 1), with three gradient estimators."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from .autocast_cbvila import without_autocast
from .code_gradients_cbvila import rotate_to, straight_through
from .code_table_cbvila import CBViLACodeTable
from .gumbel_cbvila import CBViLAGumbelChoice, choice_alarm
from .losses_cbvila import at_least_fp32, codebook_loss, commitment_loss
from .nearest_codes_cbvila import count_codes
from .options_cbvila import options, require_range
from .quantizer_cbvila import CBViLAQuantizerOptions, token_codes, unused_decay
from .quantizer_one_table_cbvila import CBViLAOneTableQuantizer
from .quantizer_output_cbvila import DEFAULT_GRADIENTS, CBViLAGradients, CBViLAQuantizerHints, CBViLAQuantizerOutput

_OLD_PREFIX = r"(?<!objectives\.)\bcodebook\."


@options
class CBViLANearestQuantizerOptions(CBViLAQuantizerOptions):
    """Options of [`CBViLANearestQuantizer`].

    Args:
        size: Number of codes K ("3K", Sec. IV-C).
        dim: Code width C. `None` is the width of the vision encoder, as Eq. 1 reads literally, without projections
            around the look-up.
        norm: Whether latents and codes are scaled to length 1 (`"l2"`).
        update: How codes learn: as moving averages of the latents assigned to them (`"ema"`), or by the second term of
            Eq. 3 (`"loss"`). The default deviates from the paper: after a k-means start both work, and moving averages
            keep more varied codes in use (docs/study.md).
        decay: Decay of the moving average per optimizer step.
        gradient: The gradient estimator of the look-up. Noise (`"gumbel"`) is used in training only; indices are
            always those of Eq. 1.
        temperature: Temperature of the gumbel softmax, relative to the scale of the data.
    """

    size: int = 3000
    dim: int | None = 32
    norm: Literal["l2", "none"] = "l2"
    update: Literal["ema", "loss"] = "ema"
    decay: float = 0.99
    gradient: Literal["straight_through", "gumbel", "rotation"] = "straight_through"
    temperature: float | int = 1.0

    flat_names = {
        "codebook_size": "size",
        "codebook_dim": "dim",
        "codebook_norm": "norm",
        "codebook_update": "update",
        "codebook_decay": "decay",
        "quantizer_gradient": "gradient",
        "gumbel_temperature": "temperature",
    }
    presets = {"paper": {"gradient": "gumbel", "update": "loss", "dim": None, "norm": "none"}}

    def check(self, where: str) -> None:
        """Raises a ValueError for values out of range."""
        require_range(where, "size", self.size, 2)
        if self.dim is not None:
            require_range(where, "dim", self.dim, 1)
        require_range(where, "decay", self.decay, 0, 1)
        require_range(where, "temperature", self.temperature, 0, above=True)

    def unused(self) -> dict[str, str]:
        """Returns the options that others leave without effect."""
        found = {} if self.gradient == "gumbel" else {"temperature": f"gradient={self.gradient!r} draws no noise"}
        return found | unused_decay(self.update)


class CBViLANearestQuantizer(CBViLAOneTableQuantizer):
    """Replaces each token by the nearest of K codes, with projections unless codes have the width of tokens."""

    name = "nearest"
    takes_hints = frozenset({"codes"})
    options_class = CBViLANearestQuantizerOptions
    collapse_advice = "update='ema', or norm='l2' with a small dim, in quantizer_config; fewer codes"
    keys_of_0_1 = {rf"{_OLD_PREFIX}gumbel_scale$": "quantizer.gumbel.scale", _OLD_PREFIX: "quantizer.table."}

    def __init__(
        self, options: CBViLANearestQuantizerOptions, width: int, gradients: CBViLAGradients = DEFAULT_GRADIENTS
    ) -> None:
        super().__init__(options, width, gradients)
        decay = options.decay if options.update == "ema" else None
        self.table = CBViLACodeTable(options.size, options.dim or width, width, options.norm == "l2", decay)
        self.gumbel = CBViLAGumbelChoice(options.temperature) if options.gradient == "gumbel" else None
        # Always in fp32 at least (see CBViLAModel), also in a model that is made in half precision.
        self.to(torch.promote_types(torch.get_default_dtype(), torch.float32))

    @classmethod
    def sizes(cls, options: Any) -> tuple[int, ...]:
        """Returns K."""
        return (options.size,)

    @classmethod
    def resized(cls, options: Any, number: int) -> CBViLANearestQuantizerOptions:
        """Returns the options with another number of codes."""
        return replace(options, size=number)

    def lookup(self, latents: Tensor, hints: CBViLAQuantizerHints | None = None) -> Tensor:
        """Returns the indices (…) of the codes nearest to latents (…, C)."""
        return self.table.lookup(latents, None if hints is None else hints.codes)

    @without_autocast
    def forward(
        self, tokens: Tensor, remember: bool = True, hints: CBViLAQuantizerHints | None = None
    ) -> CBViLAQuantizerOutput:
        """Quantizes visual tokens (B, N, D), see [`CBViLAQuantizer.forward`]."""
        self.check_hints(hints)
        latents = self.encode(tokens)
        if hints is not None and hints.codes is not None:
            return self._quantize_with(hints.codes, latents)
        source = self.source_of(latents)
        metrics = {}
        if self.training and self.gumbel is not None:
            flat = source.reshape(-1, source.shape[-1])
            sampled, nearest, share = self.gumbel(flat, self.table(), self.learns)
            indices, passed = nearest.view(latents.shape[:-1]), sampled.view_as(latents)
            codes, metrics = token_codes(indices, self.table()), {"argmin_share": share}
        else:
            indices = self.lookup(latents)
            codes = token_codes(indices, self.table())
            passed = self._pass_gradient(source, codes)
        counts = count_codes(indices, self.num_codes)
        if remember and self.learns and self.table.is_moving_average:
            self.table.remember(latents.detach(), indices, counts)
        terms = {"commitment": commitment_loss(latents, codes)}
        if not self.table.is_moving_average:
            terms["codebook"] = codebook_loss(latents, codes)
        return CBViLAQuantizerOutput(
            quantized=self.table.decode(passed),
            detached=self.table.decode(self.detached_codes(latents, codes)),
            indices=indices,
            counts=counts,
            codes=self.head_codes(),
            terms=terms,
            metrics=metrics,
        )

    def _quantize_with(self, codes: Tensor, latents: Tensor) -> CBViLAQuantizerOutput:
        """Quantizes latents (B, N, C) with other codes (K', C), which their look-up gives no gradient."""
        if codes.dim() != 2 or codes.shape[-1] != latents.shape[-1]:
            raise ValueError(
                f"codes have shape {tuple(codes.shape)}; expected (number of codes, {latents.shape[-1]}), the code "
                "width."
            )
        indices = self.table.lookup(latents, codes)
        found = token_codes(indices, codes)
        passed = straight_through(self.source_of(latents), found) if self.training else found
        return CBViLAQuantizerOutput(
            quantized=self.table.decode(passed),
            detached=self.table.decode(self.detached_codes(latents, found)),
            indices=indices,
            counts=count_codes(indices, len(codes)),
            codes=(at_least_fp32(codes).detach(),),
            terms={"commitment": commitment_loss(latents, found), "codebook": codebook_loss(latents, found)},
        )

    def _pass_gradient(self, latents: Tensor, codes: Tensor) -> Tensor:
        """Returns the codes (B, N, C), in training with the configured gradient estimator."""
        if not self.training:
            return codes
        if self.options.gradient == "rotation":
            return rotate_to(latents, codes.detach())
        return straight_through(latents, codes)

    @property
    def waits_for_step(self) -> bool:
        """Whether there are assignments since the last step."""
        return super().waits_for_step or (self.gumbel is not None and self.gumbel.waits_for_step)

    def fit(
        self, latents: Tensor, generator: torch.Generator, scale: float, hints: CBViLAQuantizerHints | None = None
    ) -> None:
        """Fits the codes to latents (M, C), and resets the gumbel scale."""
        super().fit(latents, generator, scale, hints)
        if self.gumbel is not None:
            self.gumbel.reset()

    def after_step(self) -> None:
        """Updates the codes and the gumbel scale."""
        if self.gumbel is not None and not self.is_frozen:
            self.gumbel.ema_step()
        super().after_step()

    def after_skipped_step(self) -> None:
        """Discards the assignments since the last step."""
        super().after_skipped_step()
        if self.gumbel is not None:
            self.gumbel.discard_pending()

    def synchronize(self) -> None:
        """Broadcasts the buffers of process 0."""
        super().synchronize()
        if self.gumbel is not None:
            self.gumbel.synchronize()

    def metric_alarm(self, metrics: Mapping[str, float]) -> str | None:
        """Returns a warning if gumbel noise is too weak or too strong."""
        return choice_alarm(metrics["argmin_share"]) if "argmin_share" in metrics else None
