"""How near to a tie two codes are that stand for the same patch in two computations of a model.

Shapes: B images, N patches, H height, W width.
"""

import copy
from typing import Any

import numpy as np
import torch

from ..model.modeling_cbvila_vision import tokens_to_quantize
from ..model.quantizer_cbvila import token_codes
from ..model.quantizer_one_table_cbvila import CBViLAOneTableQuantizer


class CodeGaps:
    """Compares, in double precision, the distances of a patch's latent to two codes.

    Args:
        model: A `CBViLAModel` with one table of codes, in evaluation mode.
    """

    def __init__(self, model: Any) -> None:
        self._vision: Any = copy.deepcopy(model.vision_model).double()
        self._quantizer: Any = copy.deepcopy(model.quantizer).double()

    @staticmethod
    def can_measure(model: Any) -> bool:
        """Returns whether the codes of a `CBViLAModel` are chosen by distance from one table."""
        return model.has_quantizer and isinstance(model.quantizer, CBViLAOneTableQuantizer)

    @torch.no_grad()
    def largest(self, pixel_values: np.ndarray, indices: np.ndarray, others: np.ndarray) -> float:
        """Returns by how much the squared distances to two codes of a patch differ at most.

        Args:
            pixel_values: (B, 3, H, W) images.
            indices: (B, N) codes.
            others: (B, N) other codes.

        Returns:
            The largest difference over that latent's and these codes' mean squared length. Products of fp32 numbers of
            this size are rounded by up to 6e-8 of it: codes whose distances differ by no more are tied in fp32.
        """
        patches = torch.from_numpy(indices != others)
        if not patches.any():
            return 0.0
        encoded = self._vision(torch.from_numpy(pixel_values).double(), interpolate_pos_encoding=True)
        latents = self._quantizer.encode(tokens_to_quantize(encoded))[patches]
        (table,) = self._quantizer.head_codes()
        codes = torch.stack([token_codes(torch.from_numpy(each)[patches], table) for each in (indices, others)])
        distances = (latents - codes).square().sum(-1)
        lengths = latents.square().sum(-1) / 2 + codes.square().sum(-1).mean(0) / 2
        return float(((distances[0] - distances[1]).abs() / lengths).max())
