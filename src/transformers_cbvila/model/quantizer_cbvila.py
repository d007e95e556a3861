"""Interface of quantizers, which map visual tokens to quantized tokens and code indices (Sec. III-A).

Each quantizer has a file of its own, with one subclass and its options; `quantizers_cbvila.py` lists them. The model
calls `forward`; training calls the hooks of [`CBViLAQuantizerHooks`] and nothing else.

Shapes: B batch, N visual tokens, D vision width, C code width, R books, K codes of a book.
"""

from collections.abc import Mapping
from math import log2
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .code_gradients_cbvila import straight_through
from .losses_cbvila import at_least_fp32
from .options_cbvila import CBViLAOptions, options
from .quantizer_hooks_cbvila import CBViLAQuantizerHooks
from .quantizer_output_cbvila import DEFAULT_GRADIENTS, CBViLAGradients, CBViLAQuantizerHints, CBViLAQuantizerOutput


@options
class CBViLAQuantizerOptions(CBViLAOptions):
    """Options common to all quantizers.

    Args:
        type: Name of the quantizer; set by the configuration.
        feature_layers: Layers of the image encoder whose states are quantized, 0 for its embeddings; with several, the
            mean of their normalized states. By default the encoder's output is. The first ones tell what a patch looks
            like and nothing of others, so that fewer codes reconstruct as well, and they move less in training.
    """

    type: str = ""
    feature_layers: list[int] | None = None


class CBViLAQuantizer(CBViLAQuantizerHooks):
    """Base class of quantizers. Code indices are free of noise, so they are the same in training and evaluation.

    A subclass sets `name` and, if it has options, `options_class`; it implements `sizes`, `forward`, `encode`,
    `lookup`, `indices_to_quantized` and `head_codes`.

    Args:
        options: An instance of `options_class`.
        width: Width D of the tokens.
        gradients: Which outputs train the image encoder.

    Attributes:
        book_sizes (`tuple[int, ...]`): K of each book. Most quantizers have one book; indices are then (B, N).
        takes_hints: Names of the hints that the quantizer uses; others raise an error.
        codes_differ_in_direction: Whether codes can be told apart by their directions, which is what a tied MIM head
            compares.
        collapse_advice: How to keep more codes in use, as the end of a sentence in a warning.
        must_write: Methods that a subclass has to have.
        keys_of_0_1: Patterns of state-dict keys of version 0.1, with their replacements.
    """

    name: ClassVar[str]
    must_write = ("sizes", "forward", "encode", "lookup", "indices_to_quantized", "head_codes")
    options_class: ClassVar[type[CBViLAQuantizerOptions]] = CBViLAQuantizerOptions
    takes_hints: ClassVar[frozenset[str]] = frozenset()
    keys_of_0_1: ClassVar[dict[str, str]] = {}
    codes_differ_in_direction: ClassVar[bool] = True
    collapse_advice: ClassVar[str] = "fewer codes"
    book_sizes: tuple[int, ...]

    def __init__(self, options: Any, width: int, gradients: CBViLAGradients = DEFAULT_GRADIENTS) -> None:
        super().__init__()
        self.options = options
        self.width = width
        self.gradients = gradients
        self.book_sizes = self.sizes(options)

    @classmethod
    def sizes(cls, options: Any) -> tuple[int, ...]:
        """Returns the `book_sizes` of a quantizer with these options."""
        raise NotImplementedError

    @classmethod
    def loss_weights(cls, options: Any) -> dict[str, float]:
        """Returns the weight of each of its own terms that no objective weighs, by name."""
        return {}

    @classmethod
    def resized(cls, options: Any, number: int) -> Any:
        """Returns the options of the same quantizer with another number of codes.

        Raises:
            ValueError: If it has not a single table of codes whose number can change.
        """
        raise ValueError(f"The quantizer {cls.name!r} cannot change its number of codes after training.")

    @classmethod
    def feature_layers(cls, options: Any) -> tuple[int, ...]:
        """Returns the layers of the image encoder that it quantizes; none for the encoder's output."""
        return tuple(options.feature_layers or ())

    @property
    def num_codes(self) -> int:
        """Number of codes of all books together."""
        return sum(self.book_sizes)

    def forward(
        self, tokens: Tensor, remember: bool = True, hints: CBViLAQuantizerHints | None = None
    ) -> CBViLAQuantizerOutput:
        """Quantizes visual tokens.

        Args:
            tokens: (B, N, D) visual tokens without the class token.
            remember: Whether the tokens count in moving averages: once per image, not for further views.
            hints: Additional inputs, for quantizers that use any.
        """
        raise NotImplementedError

    def encode(self, tokens: Tensor, modules: Mapping[str, nn.Module] | None = None) -> Tensor:
        """Projects visual tokens to latents (…, C), which are compared with codes.

        Args:
            tokens: (…, D) visual tokens.
            modules: Replacements for the modules of [`~CBViLAQuantizer.followed`], such as their moving averages.
        """
        raise NotImplementedError

    def lookup(self, latents: Tensor, hints: CBViLAQuantizerHints | None = None) -> Tensor:
        """Returns the code indices (B, N), or (B, N, R) with several books, of latents (B, N, C)."""
        raise NotImplementedError

    def indices_to_quantized(self, indices: Tensor) -> Tensor:
        """Returns the quantized tokens (…, D) of code indices (…), or (…, R) with several books."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """Projects codes (…, C), or latents, to quantized tokens (…, D)."""
        raise NotImplementedError

    def unquantized(self, tokens: Tensor) -> Tensor:
        """Returns tokens (B, N, D) after both projections without a look-up, which shows what the look-up changes."""
        return self.decode(self.encode(tokens))

    def head_codes(self) -> tuple[Tensor, ...]:
        """Returns the codes (K, C) of each book without gradient, which a tied MIM head predicts."""
        raise NotImplementedError

    def source_of(self, latents: Tensor) -> Tensor:
        """Returns the latents (…, C) that receive the gradients of `quantized`, detached if `gradients` says so."""
        return latents if self.gradients.quantized else latents.detach()

    def detached_codes(self, latents: Tensor, codes: Tensor) -> Tensor:
        """Returns the codes (…, C) without gradient, or with one to the latents (…, C) if `gradients` says so."""
        codes = codes.detach()
        return straight_through(latents, codes) if self.gradients.detached else codes

    def global_indices(self, indices: Tensor) -> Tensor:
        """Returns indices (…) or (…, R) as (…, R) numbered across all books."""
        sizes = torch.tensor((0, *self.book_sizes[:-1]), device=indices.device)
        return (indices.unsqueeze(-1) if len(self.book_sizes) == 1 else indices) + sizes.cumsum(0)

    def bits_per_token(self, indices: Tensor) -> float:
        """Returns the bits that an index (…), or those (…, R) of a patch, takes if all codes are as likely."""
        return sum(log2(size) for size in self.book_sizes)

    def check_hints(self, hints: CBViLAQuantizerHints | None) -> None:
        """Raises a ValueError for hints that the quantizer does not use."""
        given = {name for name, value in (hints or CBViLAQuantizerHints())._asdict().items() if value is not None}
        if given - self.takes_hints:
            raise ValueError(
                f"The quantizer {self.name!r} does not use {', '.join(sorted(given - self.takes_hints))}: leave it "
                "out, or choose another quantizer_config."
            )


def unused_decay(update: str) -> dict[str, str]:
    """Returns the option `decay` with the reason why codes that learn by `update` leave it without effect, if so."""
    return {} if update == "ema" else {"decay": "codes that learn by loss are no moving averages"}


def token_codes(indices: Tensor, codes: Tensor) -> Tensor:
    """Returns the codes (…, C) of indices (…) into codes (K, C), in at least fp32."""
    return F.embedding(indices, at_least_fp32(codes))
