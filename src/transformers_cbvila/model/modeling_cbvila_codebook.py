"""The visual codebook of CB-ViLA: visual tokens in, visual words out (Sec. III-A).

The look-up is always Eq. 1, in at least fp32. Training noise touches only what the gradients flow through, never an
index. Nothing here updates weights in `forward`: with `codebook_update="ema"` a training forward adds up what was
assigned, and [`CBViLACodebook.update`], called once per optimiser step, moves the codes.

Shapes: B batch, N visual tokens, M = B * N, D vision width, C code width, K codes.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_cbvila import CBViLAConfig
from .losses_cbvila import at_least_fp32, codebook_loss, commitment_loss
from .modeling_cbvila_layers import without_autocast

_CHUNK = 4096  # tokens whose distances to all codes are in memory at once
_FORGOTTEN = 1e-5  # moving count below which a moving average means nothing any more


@dataclass
class CBViLACodebookOutput(ModelOutput):
    """What the codebook makes of an image.

    Args:
        words (`torch.FloatTensor` (B, N, D)): Visual words for the pixel loss; gradients as configured.
        frozen_words (`torch.FloatTensor` (B, N, D)): Visual words for MIM: no gradient reaches the codes, and the
            image encoder only with `mim_grad_to_vit`.
        indices (`torch.LongTensor` (B, N)): Index of the nearest code of each token, Eq. 1.
        codes (`torch.FloatTensor` (K, C)): The codes that indices point to, without gradient.
        counts (`torch.LongTensor` (K,)): How often each code was chosen in this batch.
        codebook_loss, commitment_loss (`torch.FloatTensor` ()): Second and third term of Eq. 3, unweighted.
    """

    words: Tensor | None = None
    frozen_words: Tensor | None = None
    indices: Tensor | None = None
    codes: Tensor | None = None
    counts: Tensor | None = None
    codebook_loss: Tensor | None = None
    commitment_loss: Tensor | None = None


def nearest_codes(latents: Tensor, codes: Tensor) -> Tensor:
    """Eq. 1: for latents (M, C) the indices (M,) of the nearest of the codes (K, C) by Euclidean distance."""
    # argmin |v - c|^2 = argmin |c|^2 - 2 v.c: one matrix product, and never a (tokens, codes, width) tensor.
    half_norms = codes.square().sum(-1) / 2
    chunks = [torch.addmm(half_norms, chunk, codes.T, alpha=-1).argmin(-1) for chunk in latents.split(_CHUNK)]
    return torch.cat(chunks)


def count_codes(indices: Tensor, num_codes: int) -> Tensor:
    """How often each of `num_codes` codes is among the indices (…): (K,). (`bincount` waits for the device.)"""
    flat = indices.flatten()
    return torch.zeros(num_codes, dtype=torch.long, device=flat.device).scatter_add(0, flat, torch.ones_like(flat))


def rotate_to(latents: Tensor, codes: Tensor) -> Tensor:
    """Forward the codes, backward a rotation and rescaling of the gradient onto the latents (both (M, C)).

    Fifty et al., "Restructuring vector quantization with the rotation trick", Eq. 4.2. No gradient reaches the codes.
    """
    with torch.no_grad():
        ratio = codes.norm(dim=-1, keepdim=True) / latents.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        source, target = F.normalize(latents, dim=-1), F.normalize(codes, dim=-1)
        middle = F.normalize(source + target, dim=-1)
    along_middle = (latents * middle).sum(-1, keepdim=True)
    along_source = (latents * source).sum(-1, keepdim=True)
    return ratio * (latents - 2 * middle * along_middle + 2 * target * along_source)


class CBViLACodebook(nn.Module):
    """K codes and the way to them and back.

    Attributes:
        codes (K, C): a parameter with `codebook_update="loss"`, a buffer with `"ema"`.
        initialized (): whether the codes were fitted to features once (k-means); stored, so that resuming and loading
            skip it.
        ema_counts (K,), ema_sums (K, C): the moving averages (`"ema"` only).
    """

    codes: Tensor
    initialized: Tensor
    ema_counts: Tensor
    ema_sums: Tensor
    pending_counts: Tensor
    pending_sums: Tensor
    gumbel_scale: Tensor

    def __init__(self, config: CBViLAConfig):
        super().__init__()
        self.config = config
        width, size = config.vision_config.hidden_size, config.codebook_size
        dim = config.codebook_dim or width
        # Literal reading: codes live where the ViT's outputs live, and there is nothing in between.
        self.in_proj: nn.Module = nn.Identity()
        self.out_proj: nn.Module = nn.Identity()
        if dim != width or config.codebook_norm == "l2":
            self.in_proj = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, dim))
            self.out_proj = nn.Linear(dim, width)
        codes = torch.zeros(size, dim)
        if config.codebook_update == "loss":
            self.codes = nn.Parameter(codes)
        else:
            self.register_buffer("codes", codes)
            self.register_buffer("ema_counts", torch.ones(size))
            self.register_buffer("ema_sums", torch.zeros(size, dim))
            # Buffers that no checkpoint holds keep the precision they are made in, which loading sets to the model's.
            dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
            self.register_buffer("pending_counts", torch.zeros(size, dtype=dtype), persistent=False)
            self.register_buffer("pending_sums", torch.zeros(size, dim, dtype=dtype), persistent=False)
        self._last_latents: Tensor | None = None  # candidates for restarts
        self.register_buffer("initialized", torch.tensor(False))
        if config.quantizer_gradient == "gumbel":
            self.register_buffer("gumbel_scale", torch.tensor(0.0))  # 0: no batch seen yet

    def init_own_weights(self, std: float) -> None:
        # Random directions. The trainer replaces them by k-means; without it they still do not start all at 0, where
        # the first winners would take everything.
        init.normal_(self.codes, std=self.codes.shape[-1] ** -0.5)
        if self.config.codebook_norm == "l2":
            init.copy_(self.codes, F.normalize(self.codes, dim=-1))
        init.zeros_(self.initialized)
        if self.config.codebook_update == "ema":
            init.ones_(self.ema_counts)
            init.copy_(self.ema_sums, self.codes)
            init.zeros_(self.pending_counts)
            init.zeros_(self.pending_sums)
        if self.config.quantizer_gradient == "gumbel":
            init.zeros_(self.gumbel_scale)

    @property
    def num_codes(self) -> int:
        return self.codes.shape[0]

    @without_autocast
    def encode(self, tokens: Tensor) -> Tensor:
        """Visual tokens (…, D) as latents (…, C), the vectors that Eq. 1 compares with the codes."""
        latents = at_least_fp32(_project(self.in_proj, tokens))
        return F.normalize(latents, dim=-1) if self.config.codebook_norm == "l2" else latents

    @without_autocast
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (…, C) as visual words (…, D)."""
        return _project(self.out_proj, codes)

    @without_autocast
    def lookup(self, latents: Tensor) -> Tensor:
        """Eq. 1: latents (…, C) to the indices (…) of their nearest codes."""
        with torch.no_grad():
            flat = latents.reshape(-1, latents.shape[-1])
            return nearest_codes(flat, at_least_fp32(self.codes)).view(latents.shape[:-1])

    def indices_to_words(self, indices: Tensor) -> Tensor:
        """Code indices (…) to visual words (…, D)."""
        return self.decode(F.embedding(indices, at_least_fp32(self.codes)))

    @without_autocast
    def forward(self, tokens: Tensor) -> CBViLACodebookOutput:
        """Discretises visual tokens (B, N, D), [CLS] not among them."""
        latents = self.encode(tokens)
        indices = self.lookup(latents)
        all_codes = at_least_fp32(self.codes)
        codes = F.embedding(indices, all_codes)
        counts = count_codes(indices, self.num_codes)
        if self.training and torch.is_grad_enabled() and self.config.codebook_update == "ema":
            self._remember(latents.detach(), indices, counts)
        frozen = codes.detach()
        if self.config.mim_grad_to_vit:
            frozen = latents + (frozen - latents).detach()
        return CBViLACodebookOutput(
            words=self.decode(self._pass_gradient(latents, codes)),
            frozen_words=self.decode(frozen),
            indices=indices,
            codes=all_codes.detach(),
            counts=counts,
            codebook_loss=codebook_loss(latents, codes),
            commitment_loss=commitment_loss(latents, codes),
        )

    @torch.no_grad()
    def set_codes(self, codes: Tensor, counts: Tensor | None = None) -> None:
        """Replaces the codes by (K, C) others, as k-means does; `counts` (K,) is the weight of each in the average."""
        if codes.shape != self.codes.shape:
            raise ValueError(f"codes have shape {tuple(codes.shape)}; this codebook's is {tuple(self.codes.shape)}.")
        codes = codes.to(self.codes.device, self.codes.dtype)
        codes = F.normalize(codes, dim=-1) if self.config.codebook_norm == "l2" else codes
        if dist.is_available() and dist.is_initialized():
            from torch.distributed.tensor import DTensor, distribute_tensor

            if isinstance(self.codes, DTensor):  # a parameter that FSDP2 has sharded
                codes = distribute_tensor(codes, self.codes.device_mesh, self.codes.placements)
        self.codes.copy_(codes)
        if self.config.codebook_update == "ema":
            self.ema_counts.copy_(torch.ones_like(self.ema_counts) if counts is None else counts)
            self.ema_sums.copy_(self.codes * self.ema_counts.unsqueeze(-1))
            self.pending_counts.zero_()
            self.pending_sums.zero_()
        self.initialized.fill_(True)

    @torch.no_grad()
    def update(self) -> None:
        """Moves the codes to the moving average of what was assigned to them; call it once per optimiser step.

        Assignments of all micro-batches since the last call count, on all processes. Does nothing with
        `codebook_update="loss"`, or when there was no training forward.
        """
        if self.config.codebook_update != "ema":
            return
        if dist.is_available() and dist.is_initialized():
            packed = torch.cat([self.pending_counts.unsqueeze(-1), self.pending_sums], dim=-1)
            dist.all_reduce(packed)
            self.pending_counts.copy_(packed[:, 0])
            self.pending_sums.copy_(packed[:, 1:])
        # A step that assigned nothing is no step: averages that decayed all the same would forget every code.
        rate = (1 - self.config.codebook_decay) * self.pending_counts.any().to(self.ema_counts.dtype)
        self.ema_counts.lerp_(self.pending_counts, rate)
        self.ema_sums.lerp_(self.pending_sums, rate)
        means = self.ema_sums / self.ema_counts.clamp_min(_FORGOTTEN).unsqueeze(-1)
        if self.config.codebook_norm == "l2":
            means = F.normalize(means, dim=-1)
        # The mean of a code that nothing chooses stays the same while both averages decay, until they underflow.
        self.codes.copy_(torch.where(self.ema_counts.unsqueeze(-1) > _FORGOTTEN, means, self.codes))
        self.pending_counts.zero_()
        self.pending_sums.zero_()

    @torch.no_grad()
    def restart_unused(self, threshold: float, limit: int, generator: torch.Generator) -> int:
        """Moves codes that are hardly used to latents of the last training batch; a tool for burn-in (EMA only).

        Args:
            threshold: Codes count as unused below this share of the average code's moving count: never below an
                absolute count, which restarts healthy codes for ever when there are few tokens per code.
            limit: How many codes may move at once.
            generator: Source of the draws.

        Returns:
            How many codes moved.
        """
        if self.config.codebook_update != "ema" or self._last_latents is None:
            return 0
        average = self.ema_counts.mean()
        unused = (self.ema_counts < threshold * average).nonzero().flatten()[:limit]
        picks = torch.randint(len(self._last_latents), (len(unused),), generator=generator).to(unused.device)
        fresh = self._last_latents[picks].to(self.codes)
        if dist.is_available() and dist.is_initialized():
            dist.broadcast(fresh, src=0)  # every process must revive the same codes at the same places
        self.codes[unused] = fresh
        # The averages must follow, or the next update undoes the move; a full count gives the code time.
        self.ema_counts[unused] = average
        self.ema_sums[unused] = fresh * average
        return len(unused)

    def _remember(self, latents: Tensor, indices: Tensor, counts: Tensor) -> None:
        flat = latents.reshape(-1, latents.shape[-1]).to(self.pending_sums)
        self._last_latents = flat
        self.pending_counts += counts.to(self.pending_counts)
        self.pending_sums.index_add_(0, indices.flatten(), flat)

    def _pass_gradient(self, latents: Tensor, codes: Tensor) -> Tensor:
        """The codes (B, N, C), with the configured way back for gradients. In evaluation, just the codes."""
        kind = self.config.quantizer_gradient
        if not self.training:
            return codes
        if kind == "rotation":
            return rotate_to(latents, codes.detach())
        if kind == "gumbel":
            return self._gumbel(latents)
        return latents + (codes - latents).detach()

    def _gumbel(self, latents: Tensor) -> Tensor:
        """A hard sample of the gumbel softmax over codes, with the soft sample's gradient to codes and latents.

        The logits are negative squared distances over a running scale of the data: unscaled, the softmax is either
        uniform or already one-hot, depending on the width.
        """
        flat, codes = latents.reshape(-1, latents.shape[-1]), at_least_fp32(self.codes)
        distances = flat.square().sum(-1, keepdim=True) - 2 * flat @ codes.T + codes.square().sum(-1)
        # The gap between the nearest and the next few codes is the scale at which the choice is open.
        nearest = distances.detach().topk(min(8, self.num_codes), largest=False).values
        gap = (nearest[:, 1:] - nearest[:, :1]).mean().to(self.gumbel_scale)
        scale = torch.where(self.gumbel_scale > 0, self.gumbel_scale.lerp(gap, 0.01), gap)
        scale = scale.clamp_min(torch.finfo(scale.dtype).tiny)
        if torch.is_grad_enabled():
            self.gumbel_scale.copy_(scale)
        # Counted from the nearest code, so that codes that are all the same do not overflow at a scale of nearly 0.
        sample = F.gumbel_softmax((nearest[:, :1] - distances) / scale, self.config.gumbel_temperature, hard=True)
        return (sample @ codes).view_as(latents)


def _project(projection: nn.Module, x: Tensor) -> Tensor:
    """A projection of `x` in the precision of its weights: fp32, unless the whole model was cast to another."""
    weight = next(projection.parameters(), x)
    return projection(x.to(weight.dtype))


@torch.no_grad()
def codebook_statistics(counts: Tensor) -> dict[str, Tensor]:
    """Health of a codebook over a window of tokens, from how often each code was chosen (K,).

    Returns:
        `usage`, the share of codes chosen at all; `perplexity`, exp of the entropy of their distribution (at most K,
        and at most the number of tokens); `top_share`, the share of the most frequent code. Scalars.
    """
    counts = at_least_fp32(counts)
    shares = counts / counts.sum().clamp_min(1)
    entropy = -(shares * shares.clamp_min(torch.finfo(shares.dtype).tiny).log()).sum()
    return {"usage": (counts > 0).to(shares.dtype).mean(), "perplexity": entropy.exp(), "top_share": shares.max()}


__all__ = ["CBViLACodebook", "codebook_statistics"]
