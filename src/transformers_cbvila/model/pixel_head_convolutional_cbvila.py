"""A head that paints quantized tokens by convolutions, as decoders of VQ-VAE (arXiv 1711.00937) do.

Shapes: b images, h x w patches, N = h w, D width of tokens, C width of the head, P pixels of a patch.
"""

import torch.nn.functional as F
from torch import Tensor, nn

_WIDER = 4  # times C in the hidden layer of a block


class CBViLAConvolutionalPixelHead(nn.Module):
    """Predicts the pixels of a patch from its token and those around it.

    It stays on the grid of patches, so that it fits patches of any size: blocks of a depthwise convolution and a
    layer of each patch by itself (ConvNeXt, arXiv 2201.03545), then the pixels.

    Args:
        token_size: D.
        hidden_size: C.
        num_layers: Number of blocks; n of them see n patches far.
        num_pixels: P.
    """

    def __init__(self, token_size: int, hidden_size: int, num_layers: int, num_pixels: int) -> None:
        super().__init__()
        self.embed = nn.Linear(token_size, hidden_size)
        self.layers = nn.ModuleList(_Block(hidden_size) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_size)
        self.decoder = nn.Linear(hidden_size, num_pixels)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Returns pixels (b, N, P) of tokens (b, N, D) in a grid of (h, w)."""
        states = self.embed(tokens.to(self.embed.weight.dtype)).unflatten(1, grid)
        for layer in self.layers:
            states = states + layer(states)
        return self.decoder(self.norm(states)).flatten(1, 2)


class _Block(nn.Module):
    """What a block adds to states (b, h, w, C)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(size, size, kernel_size=3, padding=1, groups=size)
        self.norm = nn.LayerNorm(size)
        self.wide = nn.Linear(size, _WIDER * size)
        self.narrow = nn.Linear(_WIDER * size, size)

    def forward(self, states: Tensor) -> Tensor:
        around = self.around(states.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.narrow(F.gelu(self.wide(self.norm(around))))
