"""The contract of a quantizer: visual tokens in, quantized visual tokens and their code indices out (Sec. III-A).

A quantizer is one file with one subclass and its options; `quantizers_cbvila.py` names those that there are. The model
calls `forward`; training calls the hooks of [`CBViLAQuantizerHooks`], and knows nothing else about it.

Shapes: B batch, N visual tokens, D vision width, C code width, R books, K codes of a book.
"""

from collections.abc import Mapping
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
    """Options that every quantizer has.

    Args:
        type: Name of the quantizer; filled in.
    """

    type: str = ""


class CBViLAQuantizer(CBViLAQuantizerHooks):
    """Base class of quantizers. Indices never have noise in them: the same in training and evaluation.

    A subclass sets `name` and, if it has options, `options_class`; it implements `sizes`, `forward`, `encode`,
    `lookup`, `indices_to_quantized` and `head_codes`.

    Args:
        options: An `options_class`.
        width: D, of the tokens.
        gradients: Which outputs train the image encoder.

    Attributes:
        book_sizes (`tuple[int, ...]`): K of each book. One for most quantizers; then indices are (B, N).
        takes_hints: Names of the hints that it uses; others are refused.
        collapse_advice: What helps against few codes in use, as the end of a sentence.
        keys_of_0_1: Patterns of keys in checkpoints of version 0.1, with what they are called now.
    """

    name: ClassVar[str]
    options_class: ClassVar[type[CBViLAQuantizerOptions]] = CBViLAQuantizerOptions
    takes_hints: ClassVar[frozenset[str]] = frozenset()
    keys_of_0_1: ClassVar[dict[str, str]] = {}
    collapse_advice: ClassVar[str] = "fewer codes"
    book_sizes: tuple[int, ...]

    def __init__(self, options: Any, width: int, gradients: CBViLAGradients = DEFAULT_GRADIENTS):
        super().__init__()
        self.options = options
        self.width = width
        self.gradients = gradients

    @classmethod
    def sizes(cls, options: Any) -> tuple[int, ...]:
        """`book_sizes` of a quantizer with these options."""
        raise NotImplementedError

    @property
    def num_codes(self) -> int:
        """Codes of all books together."""
        return sum(self.book_sizes)

    def forward(
        self, tokens: Tensor, remember: bool = True, hints: CBViLAQuantizerHints | None = None
    ) -> CBViLAQuantizerOutput:
        """Quantizes visual tokens (B, N, D), [CLS] not among them.

        Args:
            remember: Whether the tokens count in moving averages: once per image, not for another view of it.
            hints: What is known of the tokens.
        """
        raise NotImplementedError

    def encode(self, tokens: Tensor, modules: Mapping[str, nn.Module] | None = None) -> Tensor:
        """Visual tokens (…, D) to latents (…, C), which are compared with codes.

        Args:
            modules: Take the place of those of [`~CBViLAQuantizer.followed`], for example their moving averages.
        """
        raise NotImplementedError

    def lookup(self, latents: Tensor, hints: CBViLAQuantizerHints | None = None) -> Tensor:
        """Latents (B, N, C) to indices (B, N) or (B, N, R)."""
        raise NotImplementedError

    def indices_to_quantized(self, indices: Tensor) -> Tensor:
        """Indices (…) or (…, R) to quantized tokens (…, D)."""
        raise NotImplementedError

    def head_codes(self) -> tuple[Tensor, ...]:
        """The codes (K, C) of each book, which a tied MIM head compares its predictions with; without gradient."""
        raise NotImplementedError

    def source_of(self, latents: Tensor) -> Tensor:
        """Latents (…, C) that quantized tokens pass their gradients to, as `gradients` says."""
        return latents if self.gradients.quantized else latents.detach()

    def detached_codes(self, latents: Tensor, codes: Tensor) -> Tensor:
        """Codes (…, C) without their gradient, with one to the latents (…, C) if `gradients` says so."""
        codes = codes.detach()
        return straight_through(latents, codes) if self.gradients.detached else codes

    def global_indices(self, indices: Tensor) -> Tensor:
        """Indices (…) or (…, R) as (…, R), counted through all books."""
        sizes = torch.tensor((0, *self.book_sizes[:-1]), device=indices.device)
        return (indices.unsqueeze(-1) if len(self.book_sizes) == 1 else indices) + sizes.cumsum(0)

    def check_hints(self, hints: CBViLAQuantizerHints | None) -> None:
        """Raises a ValueError for hints that this quantizer does not use."""
        given = {name for name, value in (hints or CBViLAQuantizerHints())._asdict().items() if value is not None}
        if given - self.takes_hints:
            raise ValueError(
                f"{', '.join(sorted(given - self.takes_hints))} given to the quantizer {self.name!r}, which does not "
                "use it: leave it out, or choose another quantizer_config."
            )


def token_codes(indices: Tensor, codes: Tensor) -> Tensor:
    """Rows (…, C) of codes (K, C) in at least fp32."""
    return F.embedding(indices, at_least_fp32(codes))
