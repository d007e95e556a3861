"""The projector of LLaVA 1.5 (arXiv 2310.03744), an MLP of each patch, with patches averaged to a coarser grid."""

from math import isqrt
from typing import Any

from torch import Tensor, nn

from .options_cbvila import options, require_range
from .projector_cbvila import CBViLAProjector, CBViLAProjectorOptions


@options
class CBViLAMLPProjectorOptions(CBViLAProjectorOptions):
    """Options of the MLP.

    Args:
        side: An image becomes side x side tokens, row by row, each the mean of the patches in its part of the image.
            At most the number of patches in a row.
    """

    side: int = 4

    def check(self, where: str) -> None:
        """Raises a ValueError for values of the right type that are out of range."""
        require_range(where, "side", self.side, 1)


class CBViLAMLPProjector(CBViLAProjector):
    """Maps the means of patches to a grid of tokens, in which what is at a place stays in the token of that place."""

    name = "mlp"
    options_class = CBViLAMLPProjectorOptions

    def __init__(self, options: Any, width: int, language_width: int) -> None:
        super().__init__(options, width, language_width)
        self.pool = nn.AdaptiveAvgPool2d(options.side)
        self.norm = nn.LayerNorm(width)
        first, second = nn.Linear(width, language_width), nn.Linear(language_width, language_width)
        self.mlp = nn.Sequential(first, nn.GELU(), second)

    @classmethod
    def num_tokens(cls, options: Any) -> int:
        """Returns the number k of tokens that an image takes in the language model's input."""
        return options.side**2

    def forward(self, tokens: Tensor) -> Tensor:
        """Projects image tokens (b, 1 + n, D) to rows (b, k, D') for the language model.

        Raises:
            ValueError: If patches are no square, or fewer than tokens.
        """
        number = tokens.shape[1] - 1
        rows = isqrt(number)
        if rows**2 != number or rows < self.options.side:
            raise ValueError(
                f"projector_config: side={self.options.side}, and the image has {number} patches; expected those of a "
                "square image, at least as many in a row as side: change side, or the size of images."
            )
        grid = self.pool(tokens[:, 1:].transpose(1, 2).unflatten(-1, (rows, rows)))
        return self.mlp(self.norm(grid.flatten(2).transpose(1, 2)))
