"""How similar images are to their reconstructions: PSNR and SSIM.

Shapes: B images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_LARGEST_PSNR = 100.0  # dB, of equal images
_WINDOW, _SIGMA = 11, 1.5
_STABILIZERS = (0.01**2, 0.03**2)


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio (B,), at most 100 dB, of images (B, C, H, W) with values from 0 to 1."""
    errors = (images - others).square().flatten(1).mean(1)
    return (-10 * errors.log10()).clamp_max(_LARGEST_PSNR)


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Returns the structural similarity (B,) of images (B, C, H, W) with values from 0 to 1; 1 where they are equal.

    Means over channels and all whole windows of 11 pixels, weighted by a Gaussian of 1.5 pixels, as of Wang et al.,
    "Image quality assessment" (2004). In smaller images the window is the largest odd one that fits.
    """
    images, others = images.double(), others.double()  # in fp32, variances of plain areas drown in rounding
    side = min(_WINDOW, *images.shape[-2:])
    side -= 1 - side % 2
    offsets = torch.arange(side, dtype=images.dtype, device=images.device) - side // 2
    weights = (-offsets.square() / (2 * _SIGMA**2)).exp()
    kernel = torch.outer(weights, weights)[None, None] / weights.sum().square()

    def blurred(values: Tensor) -> Tensor:
        return F.conv2d(values.flatten(0, 1).unsqueeze(1), kernel)

    mean, other_mean = blurred(images), blurred(others)
    variance, other_variance = blurred(images**2) - mean**2, blurred(others**2) - other_mean**2
    covariance = blurred(images * others) - mean * other_mean
    first, second = _STABILIZERS
    similarity = (2 * mean * other_mean + first) * (2 * covariance + second)
    similarity = similarity / ((mean**2 + other_mean**2 + first) * (variance + other_variance + second))
    return similarity.view(len(images), -1).mean(1)
