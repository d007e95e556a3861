"""The visual prefix of Frozen (arXiv 2106.13884): a linear map of one vector per image to k token embeddings."""

from typing import Any, Literal

from torch import Tensor, nn

from .options_cbvila import options, require_range
from .projector_cbvila import CBViLAProjector, CBViLAProjectorOptions


@options
class CBViLAPrefixProjectorOptions(CBViLAProjectorOptions):
    """Options of the visual prefix.

    Args:
        length: Number k of tokens per image.
        pooling: The vector of an image: the vision tower's class token (`"cls"`), the mean of its other tokens
            (`"patches"`), or the mean of the quantized tokens, the visual words (`"words"`).
        dropout: Probability with which elements of the prefix are dropped in training.
    """

    length: int = 2
    pooling: Literal["cls", "patches", "words"] = "cls"
    dropout: float | int = 0.0

    def check(self, where: str) -> None:
        """Raises a ValueError for values of the right type that are out of range."""
        require_range(where, "length", self.length, 1)
        require_range(where, "dropout", self.dropout, 0, below=1)


class CBViLAPrefixProjector(CBViLAProjector):
    """Maps the class token, or the mean of the other tokens, to k tokens."""

    name = "prefix"
    options_class = CBViLAPrefixProjectorOptions

    def __init__(self, options: Any, width: int, language_width: int) -> None:
        super().__init__(options, width, language_width)
        self.linear = nn.Linear(width, options.length * language_width)
        self.dropout = nn.Dropout(options.dropout)

    @classmethod
    def num_tokens(cls, options: Any) -> int:
        """Returns the number k of tokens that an image takes in the language model's input."""
        return options.length

    @classmethod
    def reads_words(cls, options: Any) -> bool:
        """Returns whether it reads quantized tokens of patches in place of the vision tower's."""
        return options.pooling == "words"

    def forward(self, tokens: Tensor) -> Tensor:
        """Projects image tokens (b, 1 + n, D) to rows (b, k, D') for the language model."""
        vector = tokens[:, 0] if self.options.pooling == "cls" else tokens[:, 1:].mean(1)
        return self.dropout(self.linear(vector).unflatten(-1, (self.options.length, self.language_width)))
