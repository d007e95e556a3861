"""Output and additional inputs of quantizers.

Shapes: B batch, N visual tokens, D vision width, R books, K codes of a book.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from transformers.utils import ModelOutput


class CBViLAGradients(NamedTuple):
    """Which outputs of a quantizer pass gradients on to the image encoder.

    Args:
        quantized: Whether `quantized` does.
        detached: Whether `detached` does.
    """

    quantized: bool = True
    detached: bool = False


DEFAULT_GRADIENTS = CBViLAGradients()


class CBViLAQuantizerHints(NamedTuple):
    """Additional inputs of a quantizer.

    Args:
        token_classes: (B, N) a class for each token, -1 where it is not known.
        codes: (K', C) codes to look up in, in place of the quantizer's own. The output then has both loss terms, of
            these codes, and moving averages do not count it.
    """

    token_classes: Tensor | None = None
    codes: Tensor | None = None

    @classmethod
    def of(cls, token_classes: Tensor | None = None, codes: Tensor | None = None) -> "CBViLAQuantizerHints | None":
        """Returns the hints, or `None` if there are none."""
        return None if token_classes is None and codes is None else cls(token_classes, codes)


@dataclass
class CBViLAQuantizerOutput(ModelOutput):
    """Output of a quantizer.

    Args:
        quantized (`torch.FloatTensor` (B, N, D)): Quantized tokens, for the pixel loss.
        detached (`torch.FloatTensor` (B, N, D)): The same values for MIM, without gradient to the codes.
        indices (`torch.LongTensor` (B, N) or (B, N, R)): Code indices of each token, without noise; with several
            books one per book, each counted from 0.
        counts (`torch.LongTensor` (ΣK,)): How often each code was chosen in this batch, book after book.
        latents (`torch.FloatTensor` (B, N, C), *optional*): What was compared with the codes, for objectives.
        codes (`tuple[torch.FloatTensor]`): The codes (K, C) of each book, without gradient.
        terms (`dict[str, torch.FloatTensor]`, *optional*): The quantizer's own loss terms (), by the name of the
            objective that weights them.
        metrics (`dict[str, torch.FloatTensor]`, *optional*): Scalars to log.
    """

    quantized: Tensor | None = None
    detached: Tensor | None = None
    indices: Tensor | None = None
    counts: Tensor | None = None
    latents: Tensor | None = None
    codes: tuple[Tensor, ...] | None = None
    terms: dict[str, Tensor] | None = None
    metrics: dict[str, Tensor] | None = None
