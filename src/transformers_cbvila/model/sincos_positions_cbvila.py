"""Position embeddings made of sines and cosines of rows and columns, as initial values."""

import torch
from torch import Tensor

_SLOWEST = 100.0  # periods from 2π to 100 times that: grids have tens of rows, where texts have thousands of tokens


def sincos_positions(grid: tuple[int, int], size: int) -> Tensor:
    """Returns position embeddings (N, size) of the patches of a grid, row by row.

    As in MAE (arXiv 2111.06377): half of the numbers are sines and cosines of the row, half of the column. Near places
    are similar, and which of two patches lies farther left is a linear function of both.

    Args:
        grid: Rows and columns of patches.
        size: Width, a multiple of 4.
    """
    frequencies = _SLOWEST ** -(torch.arange(size // 4) / (size // 4))
    rows, columns = (_waves(torch.arange(count), frequencies) for count in grid)
    return torch.cat([rows.repeat_interleave(grid[1], 0), columns.repeat(grid[0], 1)], dim=1)


def _waves(places: Tensor, frequencies: Tensor) -> Tensor:
    angles = places.unsqueeze(1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)
