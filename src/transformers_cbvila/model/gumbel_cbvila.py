"""Gumbel-softmax choice of codes, as noise on the way of gradients only (Jang et al., arXiv 1611.01144).

Shapes: M latents, C code width, K codes.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .code_table_cbvila import several_processes
from .nearest_codes_cbvila import distance_scores, latent_chunks

_OPEN_CHOICE = (0.3, 0.95)  # share of noisy choices that are the nearest code: outside, the choice is not open


class CBViLAGumbelChoice(nn.Module):
    """Draws a code per latent near the nearest ones, at a running scale of the data.

    The logits are negative squared distances over that scale: unscaled, the softmax is either uniform or already
    one-hot, depending on the width.

    Attributes:
        scale (): Running gap between the nearest code and the next few; 0 before the first batch.
        pending_gap (2,): Sum of gaps and their number since the last step.
    """

    scale: Tensor
    pending_gap: Tensor

    def __init__(self, temperature: float):
        super().__init__()
        self.temperature = temperature
        self.waits_for_step = False
        self.register_buffer("scale", torch.tensor(0.0))
        self.register_buffer("pending_gap", torch.zeros(2), persistent=False)

    def init_own_weights(self, std: float) -> None:
        init.zeros_(self.scale)
        init.zeros_(self.pending_gap)

    def forward(self, latents: Tensor, codes: Tensor, learns: bool) -> tuple[Tensor, Tensor, Tensor]:
        """A hard sample of the gumbel softmax over codes, with the soft sample's gradient to codes and latents.

        What the backward pass keeps of all (tokens, codes) is the softmax alone; the rest lives for a chunk of tokens.

        Args:
            latents, codes: (M, C) and (K, C), in at least fp32.
            learns: Whether the running scale takes these latents in.

        Returns:
            Sampled codes (M, C), the noiseless nearest indices (M,), and the share of samples that are nearest ().
        """
        half_norms = codes.square().sum(-1) / 2
        samples, indices, sampled = [], [], []
        for chunk in latent_chunks(latents):
            scores = distance_scores(chunk, codes, half_norms)
            nearest = scores.detach().topk(min(8, codes.shape[0]), largest=False).values
            # Counted from the nearest, so that codes that are all the same do not overflow at a scale of nearly 0.
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
        """The scale () at which the choice is open.

        `nearest` (M, 8) are half the squared distances to the nearest codes, in order, up to a constant per latent.
        """
        gap = 2 * (nearest[:, 1:] - nearest[:, :1]).mean().to(self.scale)
        if learns:
            self.waits_for_step = True
            self.pending_gap += torch.stack([gap, torch.ones_like(gap)]).to(self.pending_gap)
        # Before the first step there are only these tokens to go by.
        scale = torch.where(self.scale > 0, self.scale, gap)
        return scale.clamp_min(torch.finfo(scale.dtype).tiny)

    @torch.no_grad()
    def ema_step(self) -> None:
        """Moves the running scale to the gaps since the last step, on all processes."""
        self.waits_for_step = False
        total = self.pending_gap
        if several_processes():
            dist.all_reduce(total)
        gap = (total[0] / total[1].clamp_min(1)).to(self.scale)
        moved = torch.where(self.scale > 0, self.scale.lerp(gap, 0.01), gap)
        self.scale.copy_(torch.where(total[1] > 0, moved, self.scale))
        total.zero_()

    @torch.no_grad()
    def forget_pending(self) -> None:
        self.waits_for_step = False
        self.pending_gap.zero_()

    @torch.no_grad()
    def reset(self) -> None:
        """Forgets the scale: the next batch says how far apart other codes are."""
        self.scale.zero_()
        self.forget_pending()

    @torch.no_grad()
    def synchronize(self) -> None:
        """Gives every process the buffers of process 0."""
        if several_processes():
            for buffer in self.buffers():
                dist.broadcast(buffer, src=0)


def choice_alarm(share: float) -> str | None:
    """What is wrong with the share of noisy choices that are the nearest code; `None` if nothing is."""
    if _OPEN_CHOICE[0] <= share <= _OPEN_CHOICE[1]:
        return None
    return (
        f"gumbel noise left {share:.0%} of the tokens at their nearest code; expected {_OPEN_CHOICE[0]:.0%} to "
        f"{_OPEN_CHOICE[1]:.0%}. Above it no gradient passes the choice, below it quantized tokens are noise. Raise "
        "the temperature in quantizer_config when it is too high, lower it when it is too low, or use "
        "gradient='straight_through'."
    )


class _SoftGradient(torch.autograd.Function):
    """Chosen codes (M, C) as they are; backward as if they were `soft @ codes` too, which forward need not compute."""

    @staticmethod
    def forward(ctx, chosen: Tensor, soft: Tensor, codes: Tensor) -> Tensor:
        ctx.save_for_backward(codes)
        return chosen.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (codes,) = ctx.saved_tensors
        return gradient, gradient @ codes.T, None
