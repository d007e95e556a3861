"""The paper's quantizer: the nearest of K learned codes (Eq. 1), with three ways for gradients to pass it."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .autocast_cbvila import without_autocast
from .code_gradients_cbvila import rotate_to, straight_through
from .code_table_cbvila import CBViLACodeTable
from .gumbel_cbvila import CBViLAGumbelChoice, choice_alarm
from .losses_cbvila import codebook_loss, commitment_loss
from .nearest_codes_cbvila import count_codes
from .options_cbvila import options, require_range
from .quantizer_cbvila import CBViLAQuantizer, CBViLAQuantizerOptions, token_codes
from .quantizer_output_cbvila import DEFAULT_GRADIENTS, CBViLAGradients, CBViLAQuantizerHints, CBViLAQuantizerOutput

_OLD = r"(?<!objectives\.)\bcodebook\."


@options
class CBViLANearestQuantizerOptions(CBViLAQuantizerOptions):
    """Options of [`CBViLANearestQuantizer`].

    Args:
        size: Number of codes K ("3K", Sec. IV-C).
        dim: Code width C. `None` is the width of the vision encoder, as Eq. 1 reads literally; then there are no
            projections around the look-up.
        norm: Whether latents and codes are unit vectors (`"l2"`).
        update: How codes learn: by a moving average of the latents assigned to them (`"ema"`, a deviation from the
            paper: after a k-means start both live, and the averages stay more varied, docs/study.md), or by the second
            term of Eq. 3 (`"loss"`).
        decay: Of that moving average, per optimizer step.
        gradient: How gradients pass the look-up. Noise (`"gumbel"`) is used in training only; indices are always those
            of Eq. 1.
        temperature: Of the gumbel softmax, relative to the data's scale.
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
        require_range(where, "size", self.size, 2)
        if self.dim is not None:
            require_range(where, "dim", self.dim, 1)
        require_range(where, "decay", self.decay, 0, 1)
        require_range(where, "temperature", self.temperature, 0, above=True)


class CBViLANearestQuantizer(CBViLAQuantizer):
    """Nearest of K codes, between two projections where codes have a width of their own."""

    name = "nearest"
    options_class = CBViLANearestQuantizerOptions
    collapse_advice = "update='ema', or norm='l2' with a small dim, in quantizer_config; fewer codes"
    keys_of_0_1 = {rf"{_OLD}gumbel_scale$": "quantizer.gumbel.scale", _OLD: "quantizer.table."}

    def __init__(self, options: Any, width: int, gradients: CBViLAGradients = DEFAULT_GRADIENTS):
        super().__init__(options, width, gradients)
        decay = options.decay if options.update == "ema" else None
        self.table = CBViLACodeTable(options.size, options.dim or width, width, options.norm == "l2", decay)
        self.gumbel = CBViLAGumbelChoice(options.temperature) if options.gradient == "gumbel" else None
        self.book_sizes = self.sizes(options)
        # Always in fp32 at least (see CBViLAModel), also in a model that is made in half precision.
        self.to(torch.promote_types(torch.get_default_dtype(), torch.float32))

    @classmethod
    def sizes(cls, options: Any) -> tuple[int, ...]:
        return (options.size,)

    def tables(self) -> tuple[CBViLACodeTable, ...]:
        return (self.table,)

    def followed(self) -> dict[str, nn.Module]:
        return {"in_proj": self.table.in_proj}

    def head_codes(self) -> tuple[Tensor, ...]:
        return (self.table().detach(),)

    def encode(self, tokens: Tensor, modules: Mapping[str, nn.Module] | None = None) -> Tensor:
        return self.table.encode(tokens, None if modules is None else modules["in_proj"])

    def lookup(self, latents: Tensor, hints: CBViLAQuantizerHints | None = None) -> Tensor:
        return self.table.lookup(latents)

    def indices_to_quantized(self, indices: Tensor) -> Tensor:
        return self.table.decode(token_codes(indices, self.table()))

    @without_autocast
    def forward(
        self, tokens: Tensor, remember: bool = True, hints: CBViLAQuantizerHints | None = None
    ) -> CBViLAQuantizerOutput:
        self.check_hints(hints)
        latents = self.encode(tokens)
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

    def _pass_gradient(self, latents: Tensor, codes: Tensor) -> Tensor:
        """The codes (B, N, C), with the configured way back for gradients. In evaluation, just the codes."""
        if not self.training:
            return codes
        if self.options.gradient == "rotation":
            return rotate_to(latents, codes.detach())
        return straight_through(latents, codes)

    @property
    def waits_for_step(self) -> bool:
        return super().waits_for_step or (self.gumbel is not None and self.gumbel.waits_for_step)

    def fit(self, latents: Tensor, generator: torch.Generator, scale: float) -> None:
        super().fit(latents, generator, scale)
        if self.gumbel is not None:
            self.gumbel.reset()

    def after_step(self) -> None:
        if self.gumbel is not None and not self.is_frozen:
            self.gumbel.ema_step()
        super().after_step()

    def after_skipped_step(self) -> None:
        super().after_skipped_step()
        if self.gumbel is not None:
            self.gumbel.discard_pending()

    def synchronize(self) -> None:
        super().synchronize()
        if self.gumbel is not None:
            self.gumbel.synchronize()

    def metric_alarm(self, metrics: Mapping[str, float]) -> str | None:
        return choice_alarm(metrics["argmin_share"]) if "argmin_share" in metrics else None
