"""Gumbel-softmax sampling of codes (Jang et al., arXiv 1611.01144): noise for gradients, never for code indices.

Shapes: M latents, C code width, K codes.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .distributed_cbvila import several_processes
from .nearest_codes_cbvila import distance_scores, latent_chunks

# Share of sampled codes that are the nearest one. Above, samples hardly vary; below, they are mostly noise.
_EXPECTED_SHARE = (0.3, 0.95)


class CBViLAGumbelChoice(nn.Module):
    """Samples a code per latent from the nearest ones, at a running scale of the data.

    The logits are negative squared distances divided by that scale: unscaled, the softmax is either uniform or
    one-hot, depending on the code width.

    Attributes:
        scale (): Running gap between the nearest code and the next few; 0 before the first batch.
        pending_gap (2,): Sum of gaps and their number since the last step.
    """

    scale: Tensor
    pending_gap: Tensor

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.waits_for_step = False
        self.register_buffer("scale", torch.tensor(0.0))
        self.register_buffer("pending_gap", torch.zeros(2), persistent=False)

    def init_own_weights(self, std: float) -> None:
        """Initializes the buffers."""
        init.zeros_(self.scale)
        init.zeros_(self.pending_gap)

    def forward(self, latents: Tensor, codes: Tensor, learns: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Samples from the gumbel softmax over codes; the gradient to codes and latents is that of the soft sample.

        The backward pass keeps the softmax as the only (M, K) tensor; the others exist for one chunk of latents at a
        time.

        Args:
            latents: (M, C) in at least fp32.
            codes: (K, C) in at least fp32.
            learns: Whether these latents count in the running scale.

        Returns:
            Sampled codes (M, C), the noiseless nearest indices (M,), and the share of samples that are nearest ().
        """
        half_norms = codes.square().sum(-1) / 2
        samples, indices, sampled = [], [], []
        for chunk in latent_chunks(latents):
            scores = distance_scores(chunk, codes, half_norms)
            nearest = scores.detach().topk(min(8, codes.shape[0]), largest=False).values
            # Relative to the nearest code: equal codes would overflow at a scale close to 0.
            logits = (nearest[:, :1] - scores) * (2 / self._scale_of(nearest, learns) / self.temperature)
            negative_noise = torch.empty_like(logits).exponential_().log_()
            soft = torch.sub(logits, negative_noise, alpha=1 / self.temperature).softmax(-1)
            indices.append(scores.detach().argmin(-1))
            sampled.append(soft.detach().argmax(-1))
            samples.append(_SoftGradient.apply(F.embedding(sampled[-1], codes), soft, codes.detach()))
        nearest_indices = torch.cat(indices)
        share = (torch.cat(sampled) == nearest_indices).to(latents.dtype).mean()
        return torch.cat(samples), nearest_indices, share

    def _scale_of(self, nearest: Tensor, learns: bool) -> Tensor:
        """Returns the scale () of the logits.

        `nearest` (M, 8) are half the squared distances to the nearest codes, in order, up to a constant per latent.
        """
        gap = 2 * (nearest[:, 1:] - nearest[:, :1]).mean().to(self.scale)
        if learns:
            self.waits_for_step = True
            self.pending_gap += torch.stack([gap, torch.ones_like(gap)]).to(self.pending_gap)
        # Before the first step the gap of these latents is the only estimate.
        scale = torch.where(self.scale > 0, self.scale, gap)
        return scale.clamp_min(torch.finfo(scale.dtype).tiny)

    @torch.no_grad()
    def ema_step(self) -> None:
        """Updates the running scale with the gaps since the last step, over all processes."""
        self.waits_for_step = False
        total = self.pending_gap
        if several_processes():
            dist.all_reduce(total)
        gap = (total[0] / total[1].clamp_min(1)).to(self.scale)
        moved = torch.where(self.scale > 0, self.scale.lerp(gap, 0.01), gap)
        self.scale.copy_(torch.where(total[1] > 0, moved, self.scale))
        total.zero_()

    @torch.no_grad()
    def discard_pending(self) -> None:
        """Discards the gaps since the last step."""
        self.waits_for_step = False
        self.pending_gap.zero_()

    @torch.no_grad()
    def reset(self) -> None:
        """Resets the running scale; the next batch sets it for new codes."""
        self.scale.zero_()
        self.discard_pending()

    @torch.no_grad()
    def synchronize(self) -> None:
        """Broadcasts the buffers of process 0."""
        if several_processes():
            for buffer in self.buffers():
                dist.broadcast(buffer, src=0)


def choice_alarm(share: float) -> str | None:
    """Returns a warning if the share of sampled codes that are the nearest one is out of range, else `None`."""
    if _EXPECTED_SHARE[0] <= share <= _EXPECTED_SHARE[1]:
        return None
    return (
        f"gumbel noise left {share:.0%} of the tokens at their nearest code; expected {_EXPECTED_SHARE[0]:.0%} to "
        f"{_EXPECTED_SHARE[1]:.0%}. Above this range hardly any gradient reaches other codes, below it quantized "
        "tokens are mostly noise. Raise the temperature in quantizer_config when the share is too high, lower it when "
        "it is too low, or use gradient='straight_through'."
    )


class _SoftGradient(torch.autograd.Function):
    """Returns the chosen codes (M, C); the gradient is that of `soft @ codes`, which forward need not compute."""

    @staticmethod
    def forward(ctx: Any, chosen: Tensor, soft: Tensor, codes: Tensor) -> Tensor:
        ctx.save_for_backward(codes)
        return chosen.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (codes,), (gradient,) = ctx.saved_tensors, gradients
        return gradient, gradient @ codes.T, None
