"""Maps of attention from text tokens to image patches, as pure functions of tensors.

Shapes: B rows, H heads, L text tokens, S visual tokens that a text attends to, N patches, n images of a text, W words.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def albef_layer(layers: int) -> int:
    """Returns the fusion layer whose Grad-CAM ALBEF's authors show, counted from 0: the last one of the first half.

    Of six layers it is the third, which localized best in theirs.
    """
    return (layers - 1) // 2


def gradcam(attention: Tensor, gradient: Tensor) -> Tensor:
    """Returns the Grad-CAM of one cross-attention layer (B, L, S), as ALBEF computes it.

    Args:
        attention: (B, H, L, S) attention weights after the softmax.
        gradient: (B, H, L, S) the gradient of a score with respect to them; only its positive part counts.
    """
    return (attention * gradient.clamp_min(0)).mean(dim=1)


def rollout(self_attentions: Sequence[Tensor], cross_attentions: Sequence[Tensor], images: int = 1) -> Tensor:
    """Returns attention rollout through fusion layers: how much of each visual token is in each text token.

    As in Abnar and Zuidema (2020), every attention counts one half and the residual connection the other half, so
    that the shares of a token, with those of the texts' own tokens, sum to 1. Needs no gradient, and does not depend
    on what the model answers.

    Args:
        self_attentions: (B, H, L, L) of each layer.
        cross_attentions: (B, H, L, S) of each layer.
        images: Images that successive layers attend to in turn.

    Returns:
        (B, images, L, S).
    """
    rows, _, length, keys = cross_attentions[0].shape
    shares = cross_attentions[0].new_zeros(rows, images, length, keys)
    for step, (own, cross) in enumerate(zip(self_attentions, cross_attentions, strict=True)):
        mixed = (own.mean(dim=1).unsqueeze(1) @ shares + shares) / 2
        shares = mixed / 2
        shares[:, step % images] += cross.mean(dim=1) / 2
    return shares


def on_patches(maps: Tensor, patches: int) -> Tensor:
    """Returns maps (…, N) of patches for maps (…, S) of visual tokens, without the class token.

    Where texts attend to continuous and quantized tokens at once, S is 2 (1 + N), and both of a patch are added up.
    """
    return maps.unflatten(-1, (-1, 1 + patches))[..., 1:].sum(dim=-2)


def of_words(maps: Tensor, tokens: Sequence[Sequence[int]]) -> Tensor:
    """Returns maps (…, W, N) of words for maps (…, L, N) of tokens: the mean over the tokens of each word."""
    return torch.stack([maps[..., list(of_word), :].mean(dim=-2) for of_word in tokens], dim=-2)


def normalized(maps: Tensor) -> Tensor:
    """Scales the maps of each word (n, W, N) to 0 to 1, by their least and greatest value over all n images.

    A map that is the same everywhere singles out no place: it becomes 0.
    """
    lowest, highest = maps.amin(dim=(0, 2), keepdim=True), maps.amax(dim=(0, 2), keepdim=True)
    spread = highest - lowest
    return torch.where(spread > 0, (maps - lowest) / spread.clamp_min(torch.finfo(maps.dtype).tiny), 0)
