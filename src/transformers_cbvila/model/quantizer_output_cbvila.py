"""What a quantizer gives, and what it may be told.

Shapes: B batch, N visual tokens, D vision width, R books, K codes of a book.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from transformers.utils import ModelOutput


class CBViLAGradients(NamedTuple):
    """Which quantized tokens pass gradients on to the image encoder; those to the codes are the quantizer's choice."""

    quantized: bool = True
    detached: bool = False


DEFAULT_GRADIENTS = CBViLAGradients()


class CBViLAQuantizerHints(NamedTuple):
    """What a quantizer may know of the tokens beside themselves: `token_classes` (B, N), a class for each of them."""

    token_classes: Tensor | None = None

    @classmethod
    def of(cls, token_classes: Tensor | None) -> "CBViLAQuantizerHints | None":
        """Hints, or `None` if nothing is known."""
        return None if token_classes is None else cls(token_classes)


@dataclass
class CBViLAQuantizerOutput(ModelOutput):
    """Output of a quantizer.

    Args:
        quantized (`torch.FloatTensor` (B, N, D)): Quantized tokens, for the pixel loss.
        detached (`torch.FloatTensor` (B, N, D)): The same values for MIM: no gradient reaches the codes.
        indices (`torch.LongTensor` (B, N) or (B, N, R)): Codes of each token, without noise; one per book, counted
            from 0 in each, if there are several books.
        counts (`torch.LongTensor` (ΣK,)): How often each code was chosen in this batch, book after book.
        codes (`tuple[torch.FloatTensor]`): The codes (K, C) of each book, without gradient.
        terms (`dict[str, torch.FloatTensor]`): The quantizer's own loss terms (), by the name of the objective that
            weighs them; `None` without any.
        metrics (`dict[str, torch.FloatTensor]`): Scalars to log; `None` without any.
    """

    quantized: Tensor | None = None
    detached: Tensor | None = None
    indices: Tensor | None = None
    counts: Tensor | None = None
    codes: tuple[Tensor, ...] | None = None
    terms: dict[str, Tensor] | None = None
    metrics: dict[str, Tensor] | None = None
