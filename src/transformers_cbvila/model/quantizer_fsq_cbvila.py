"""Finite scalar quantization: each channel of a latent is rounded to one of a few levels (arXiv 2309.15505).

The codes are a fixed grid: nothing is learned, fitted or restarted, and there are no loss terms.

Shapes: C channels, K codes, the product of the levels of all channels.
"""

from collections.abc import Mapping
from dataclasses import field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .autocast_cbvila import without_autocast
from .code_gradients_cbvila import straight_through
from .losses_cbvila import at_least_fp32
from .nearest_codes_cbvila import count_codes
from .options_cbvila import options, require_range
from .projections_cbvila import project, projections
from .quantizer_cbvila import CBViLAQuantizer, CBViLAQuantizerOptions, token_codes
from .quantizer_output_cbvila import DEFAULT_GRADIENTS, CBViLAGradients, CBViLAQuantizerHints, CBViLAQuantizerOutput

_MARGIN = 1e-3  # lets tanh reach the outermost levels, which it would otherwise only approach


@options
class CBViLAFSQuantizerOptions(CBViLAQuantizerOptions):
    """Options of [`CBViLAFSQuantizer`].

    Args:
        levels: Number of levels of each channel, at least 2; their product is the number of codes K. The default is
            the choice of the FSQ paper for about 2 ** 10 codes.
    """

    levels: list[int] = field(default_factory=lambda: [8, 5, 5, 5])

    def check(self, where: str) -> None:
        """Raises a ValueError for values out of range."""
        require_range(where, "len(levels)", len(self.levels), 1)
        for channel, number in enumerate(self.levels):
            require_range(where, f"levels[{channel}]", number, 2)


class CBViLAFSQuantizer(CBViLAQuantizer):
    """Rounds each channel of a latent to one of its levels, between two projections.

    Latents and codes lie in the cube from -1 to 1. A channel with an even number of levels has one more level below 0
    than above, and its highest level is below 1. Indices are mixed-radix numbers, the first channel least significant.

    A tied MIM head is refused: it compares directions, and many codes differ in length only.
    """

    name = "fsq"
    options_class = CBViLAFSQuantizerOptions
    codes_differ_in_direction = False
    collapse_advice = "fewer levels in quantizer_config"
    levels: Tensor
    strides: Tensor
    grid: Tensor

    def __init__(
        self, options: CBViLAFSQuantizerOptions, width: int, gradients: CBViLAGradients = DEFAULT_GRADIENTS
    ) -> None:
        super().__init__(options, width, gradients)
        self.in_proj, self.out_proj = projections(width, len(options.levels))
        # Integers, which no cast of the model makes inexact; they follow from the options, so no checkpoint has them.
        for name, values in _grid(options.levels).items():
            self.register_buffer(name, values, persistent=False)
        # Always in fp32 at least (see CBViLAModel), also in a model that is made in half precision.
        self.to(torch.promote_types(torch.get_default_dtype(), torch.float32))

    def init_own_weights(self, std: float) -> None:
        """Fills the buffers, which loading leaves empty because no checkpoint has them."""
        for name, values in _grid(self.options.levels).items():
            init.copy_(getattr(self, name), values)

    @classmethod
    def sizes(cls, options: Any) -> tuple[int, ...]:
        """Returns K, the product of all levels."""
        return (prod(options.levels),)

    def followed(self) -> dict[str, nn.Module]:
        """Returns the projection to latents."""
        return {"in_proj": self.in_proj}

    def head_codes(self) -> tuple[Tensor, ...]:
        """Returns the grid of codes (K, C)."""
        dtype = torch.promote_types(self.out_proj.weight.dtype, torch.float32)
        return (self.grid.to(dtype) / (self.levels // 2),)

    @without_autocast
    def encode(self, tokens: Tensor, modules: Mapping[str, nn.Module] | None = None) -> Tensor:
        """Projects visual tokens (…, D) to latents (…, C) between -1 and 1."""
        in_proj = self.in_proj if modules is None else modules["in_proj"]
        unbounded = at_least_fp32(project(in_proj, tokens))
        levels = self.levels.to(unbounded.dtype)
        half_range = (levels - 1) * (1 + _MARGIN) / 2
        # An even number of levels is shifted by half a level, so that one of them is 0.
        offset = (1 - levels % 2) / 2
        bounded = (unbounded + (offset / half_range).atanh()).tanh() * half_range - offset
        return bounded / (self.levels // 2)

    @without_autocast
    def decode(self, codes: Tensor) -> Tensor:
        """Projects codes (…, C) to quantized tokens (…, D)."""
        return project(self.out_proj, codes)

    @without_autocast
    def lookup(self, latents: Tensor, hints: CBViLAQuantizerHints | None = None) -> Tensor:
        """Returns the indices (…) of the codes that latents (…, C) are rounded to."""
        half = self.levels // 2
        digits = (latents.detach() * half).round().long() + half
        return (digits.clamp_min(0).minimum(self.levels - 1) * self.strides).sum(-1)

    def indices_to_quantized(self, indices: Tensor) -> Tensor:
        """Returns the quantized tokens (…, D) of code indices (…)."""
        return self.decode(token_codes(indices, *self.head_codes()))

    @without_autocast
    def forward(
        self, tokens: Tensor, remember: bool = True, hints: CBViLAQuantizerHints | None = None
    ) -> CBViLAQuantizerOutput:
        """Quantizes visual tokens (B, N, D), see [`CBViLAQuantizer.forward`]."""
        self.check_hints(hints)
        latents, books = self.encode(tokens), self.head_codes()
        indices = self.lookup(latents)
        codes = token_codes(indices, *books)
        source = self.source_of(latents)
        return CBViLAQuantizerOutput(
            quantized=self.decode(straight_through(source, codes) if self.training else codes),
            detached=self.decode(self.detached_codes(latents, codes)),
            indices=indices,
            counts=count_codes(indices, self.num_codes),
            codes=books,
        )


def _grid(levels: list[int]) -> dict[str, Tensor]:
    """Returns the number of levels (C,) and the index stride (C,) of each channel, and all codes in levels (K, C)."""
    numbers = torch.tensor(levels)
    strides = torch.tensor([prod(levels[:channel]) for channel in range(len(levels))])
    digits = torch.arange(prod(levels)).unsqueeze(-1) // strides % numbers
    return {"levels": numbers, "strides": strides, "grid": digits - numbers // 2}
