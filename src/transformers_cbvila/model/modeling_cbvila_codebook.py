"""The visual codebook of CB-ViLA: visual tokens in, visual words out (Sec. III-A).

The look-up is always Eq. 1, in at least fp32. Training noise touches only what the gradients flow through, never an
index. Nothing here updates weights in `forward`: with `codebook_update="ema"` a training forward adds up what was
assigned, and [`CBViLACodebook.update`], called once per optimiser step, moves the codes, unless they are frozen.

Shapes: B batch, N visual tokens, M = B * N, D vision width, C code width, K codes.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from .autocast_cbvila import without_autocast
from .configuration_cbvila import CBViLAConfig
from .losses_cbvila import at_least_fp32, codebook_loss, commitment_loss

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
        argmin_share (`torch.FloatTensor` (), *optional*): With gumbel noise, the share of tokens whose sampled code is
            the nearest one. Near 1 the softmax passes no gradient, near 0 the words are noise.
    """

    words: Tensor | None = None
    frozen_words: Tensor | None = None
    indices: Tensor | None = None
    codes: Tensor | None = None
    counts: Tensor | None = None
    codebook_loss: Tensor | None = None
    commitment_loss: Tensor | None = None
    argmin_share: Tensor | None = None


def nearest_codes(latents: Tensor, codes: Tensor) -> Tensor:
    """Eq. 1: for latents (M, C) the indices (M,) of the nearest of the codes (K, C) by Euclidean distance."""
    half_norms = codes.square().sum(-1) / 2
    return torch.cat([_scores(chunk, codes, half_norms).argmin(-1) for chunk in _chunks(latents)])


def _chunks(latents: Tensor) -> tuple[Tensor, ...]:
    """Latents (M, C) in parts that are small enough to be compared with all codes at once.

    In a graph they are one part: how many there are would otherwise be a condition of it, and an exported program
    would take no other batch.
    """
    is_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return (latents,) if is_graph else latents.split(_CHUNK)


def _scores(latents: Tensor, codes: Tensor, half_norms: Tensor) -> Tensor:
    """Half the squared distances (M, K), less what is the same for all codes of a latent: |c|^2 / 2 - v.c."""
    # One matrix product, and never a (tokens, codes, width) tensor.
    return torch.addmm(half_norms, latents, codes.T, alpha=-1)


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


class CBViLACodebook(nn.Module):
    """K codes and the way to them and back.

    Attributes:
        codes (K, C): a parameter with `codebook_update="loss"`, a buffer with `"ema"`.
        initialized (): whether the codes were fitted to features once (k-means); stored, so that resuming and loading
            skip it.
        ema_counts (K,), ema_sums (K, C): the moving averages (`"ema"` only).
        ages (K,): updates since each code was fitted or restarted; no checkpoint of the model holds them.
        expected_count (): tokens per code in the last update, over all processes.
        waits_for_update: whether a training forward added up what no update has taken in yet.
    """

    codes: Tensor
    initialized: Tensor
    ema_counts: Tensor
    ema_sums: Tensor
    pending_counts: Tensor
    pending_sums: Tensor
    ages: Tensor
    expected_count: Tensor
    gumbel_scale: Tensor
    pending_gap: Tensor

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
            self.register_buffer("pending_counts", torch.zeros(size), persistent=False)
            self.register_buffer("pending_sums", torch.zeros(size, dim), persistent=False)
            self.register_buffer("ages", torch.zeros(size, dtype=torch.long), persistent=False)
            self.register_buffer("expected_count", torch.zeros(()), persistent=False)
        self._last_latents: Tensor | None = None  # candidates for restarts
        self.waits_for_update = False
        self.register_buffer("initialized", torch.tensor(False))
        if config.quantizer_gradient == "gumbel":
            self.register_buffer("gumbel_scale", torch.tensor(0.0))  # 0: no batch seen yet
            # sum of gaps and their number, since the last update
            self.register_buffer("pending_gap", torch.zeros(2), persistent=False)
        # Always in fp32 at least (see CBViLAModel), also in a model that is made in half precision.
        self.to(torch.promote_types(torch.get_default_dtype(), torch.float32))

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
            init.zeros_(self.ages)
            init.zeros_(self.expected_count)
        if self.config.quantizer_gradient == "gumbel":
            init.zeros_(self.gumbel_scale)
            init.zeros_(self.pending_gap)

    @property
    def num_codes(self) -> int:
        return self.codes.shape[0]

    @property
    def is_frozen(self) -> bool:
        """Whether `requires_grad_(False)` was said of the codebook, or of what it is part of; its codes then stay.

        Codes that are a moving average have no gradient to switch off: they go with the projections around them.
        (Without projections, the literal reading's, nothing here shows it.)
        """
        own = [self.codes] if self.config.codebook_update == "loss" else list(self.parameters())
        return bool(own) and not any(parameter.requires_grad for parameter in own)

    @without_autocast
    def encode(self, tokens: Tensor, in_proj: nn.Module | None = None) -> Tensor:
        """Visual tokens (…, D) as latents (…, C), the vectors that Eq. 1 compares with the codes.

        `in_proj` replaces the codebook's own, for example by its moving average.
        """
        latents = at_least_fp32(_project(self.in_proj if in_proj is None else in_proj, tokens))
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
            # Outside the model's forward, FSDP2 has sharded codes that are a parameter.
            codes = self.codes.full_tensor() if hasattr(self.codes, "full_tensor") else self.codes
            return nearest_codes(flat, at_least_fp32(codes)).view(latents.shape[:-1])

    def indices_to_words(self, indices: Tensor) -> Tensor:
        """Code indices (…) to visual words (…, D)."""
        return self.decode(F.embedding(indices, at_least_fp32(self.codes)))

    @without_autocast
    def forward(self, tokens: Tensor, remember: bool = True) -> CBViLACodebookOutput:
        """Discretises visual tokens (B, N, D), [CLS] not among them.

        `remember` is whether they count in the moving average, once per image: not in another look at it.
        """
        latents = self.encode(tokens)
        source = latents if self.config.pixel_grad_to_vit else latents.detach()
        all_codes, argmin_share = at_least_fp32(self.codes), None
        if self.training and self.config.quantizer_gradient == "gumbel":
            words, indices, argmin_share = self._sample(source)
            codes = F.embedding(indices, all_codes)
        else:
            indices = self.lookup(latents)
            codes = F.embedding(indices, all_codes)
            words = self._pass_gradient(source, codes)
        counts = count_codes(indices, self.num_codes)
        if remember and self._learns() and self.config.codebook_update == "ema":
            self._remember(latents.detach(), indices, counts)
        frozen = codes.detach()
        if self.config.mim_grad_to_vit:
            frozen = latents + (frozen - latents).detach()
        return CBViLACodebookOutput(
            words=self.decode(words),
            frozen_words=self.decode(frozen),
            indices=indices,
            codes=all_codes.detach(),
            counts=counts,
            codebook_loss=codebook_loss(latents, codes),
            commitment_loss=commitment_loss(latents, codes),
            argmin_share=argmin_share,
        )

    @torch.no_grad()
    def set_codes(self, codes: Tensor, counts: Tensor | None = None) -> None:
        """Replaces the codes by (K, C) others, as k-means does; `counts` (K,) is the weight of each in the average.

        What was measured of the codes before is forgotten.
        """
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
            self.ages.zero_()
        self.forget_pending()
        if self.config.quantizer_gradient == "gumbel":
            self.gumbel_scale.zero_()  # the next batch says how far apart these are
        self.initialized.fill_(True)

    @torch.no_grad()
    def forget_pending(self) -> None:
        """Drops what was assigned since the last update, for optimiser steps that were skipped (fp16 overflow)."""
        self.waits_for_update = False
        names = ("pending_counts", "pending_sums", "pending_gap")
        for buffer in (getattr(self, name, None) for name in names):
            if buffer is not None:
                buffer.zero_()

    @torch.no_grad()
    def synchronize(self) -> None:
        """Gives every process the buffers of process 0. Updates keep them equal from then on."""
        if _several_processes():
            for buffer in self.buffers():
                dist.broadcast(buffer, src=0)

    @torch.no_grad()
    def update(self) -> None:
        """Moves the codes to the moving average of what was assigned to them; call it once per optimiser step.

        Assignments of all micro-batches since the last call count, on all processes. Does nothing with
        `codebook_update="loss"`, when there was no training forward, or when the codebook is frozen.
        """
        self.waits_for_update = False
        if self.is_frozen:
            return
        if self.config.quantizer_gradient == "gumbel":
            self._update_gumbel_scale()
        if self.config.codebook_update != "ema":
            return
        if _several_processes():
            packed = torch.cat([self.pending_counts.unsqueeze(-1), self.pending_sums], dim=-1)
            dist.all_reduce(packed)
            self.pending_counts.copy_(packed[:, 0])
            self.pending_sums.copy_(packed[:, 1:])
        # A step that assigned nothing is no step: averages that decayed all the same would forget every code.
        is_step = self.pending_counts.any()
        rate = (1 - self.config.codebook_decay) * is_step.to(self.ema_counts.dtype)
        self.ema_counts.lerp_(self.pending_counts.to(self.ema_counts), rate)
        self.ema_sums.lerp_(self.pending_sums.to(self.ema_sums), rate)
        means = self.ema_sums / self.ema_counts.clamp_min(_FORGOTTEN).unsqueeze(-1)
        if self.config.codebook_norm == "l2":
            means = F.normalize(means, dim=-1)
        # The mean of a code that nothing chooses stays the same while both averages decay, until they underflow.
        # Laplace smoothing of the counts, the usual guard, would instead pull such a code to the origin.
        self.codes.copy_(torch.where(self.ema_counts.unsqueeze(-1) > _FORGOTTEN, means, self.codes))
        self.ages += is_step
        self.expected_count.copy_(torch.where(is_step, self.pending_counts.mean(), self.expected_count))
        self.forget_pending()

    def dead_codes(self, threshold: float) -> Tensor:
        """Which codes (K,) have a moving count below `threshold` times the tokens per code of an update (EMA only)."""
        return self.ema_counts < threshold * self.expected_count

    @torch.no_grad()
    def restart_unused(self, threshold: float, limit: int, generator: torch.Generator, grace: int = 0) -> Tensor:
        """Moves the least used codes to latents of the last training batch; a tool for burn-in (EMA only).

        The batch is that of all processes (the last micro-batch, under gradient accumulation), and all of them choose
        alike. Nothing waits for the device.

        Args:
            threshold: Codes count as unused below this share of the expected count, tokens per update over codes:
                never below an absolute one, which restarts healthy codes for ever when there are few tokens per code.
            limit: How many codes may move at once, the least used first.
            generator: Source of the draws, on the CPU; in the same state on all processes.
            grace: Updates for which a code that was fitted or restarted is left alone.

        Returns:
            How many codes moved, as a tensor ().
        """
        if self.config.codebook_update != "ema" or self._last_latents is None or self.is_frozen:
            return torch.zeros((), dtype=torch.long, device=self.codes.device)
        limit = min(limit, self.num_codes)
        candidates = self.dead_codes(threshold) & (self.ages >= grace)
        counts = self.ema_counts.masked_fill(~candidates, float("inf"))
        order = counts.sort(stable=True).indices[:limit]  # stable: equal counts in the same order everywhere
        moves = candidates[order]
        fresh = self._spread_latents(limit, generator).to(self.codes)
        # A full count gives the code time, and the sums must follow, or the next update undoes the move.
        count = self.expected_count.to(self.ema_counts)
        where = moves.unsqueeze(-1)
        self.codes[order] = torch.where(where, fresh, self.codes[order])
        self.ema_sums[order] = torch.where(where, (fresh * count).to(self.ema_sums), self.ema_sums[order])
        self.ema_counts[order] = torch.where(moves, count, self.ema_counts[order])
        self.ages[order] = self.ages[order].masked_fill(moves, 0)
        return moves.sum()

    def _spread_latents(self, number: int, generator: torch.Generator) -> Tensor:
        """Latents (number, C) of the last batch of all processes, one from each of as many equal stretches of it."""
        assert self._last_latents is not None
        latents = self._last_latents
        fine = 1 << 20
        places = torch.randperm(number, generator=generator) * fine + torch.randint(
            fine, (number,), generator=generator
        )
        places = places.to(latents.device)
        if not _several_processes():
            return latents[places * latents.shape[0] // (number * fine)]
        # Processes may hold different numbers of tokens: each contributes the rows that are its own.
        sizes = torch.zeros(dist.get_world_size(), dtype=torch.long, device=latents.device)
        sizes[dist.get_rank()] = latents.shape[0]
        dist.all_reduce(sizes)
        rows = places * sizes.sum() // (number * fine) - sizes[: dist.get_rank()].sum()
        own = (rows >= 0) & (rows < latents.shape[0])
        picked = latents[rows.clamp(0, latents.shape[0] - 1)] * own.unsqueeze(-1)
        dist.all_reduce(picked)
        return picked

    def _learns(self) -> bool:
        return self.training and torch.is_grad_enabled() and not self.is_frozen

    def _remember(self, latents: Tensor, indices: Tensor, counts: Tensor) -> None:
        flat = latents.reshape(-1, latents.shape[-1]).to(self.pending_sums)
        self._last_latents, self.waits_for_update = flat, True
        self.pending_counts += counts.to(self.pending_counts)
        self.pending_sums.index_add_(0, indices.flatten(), flat)

    def _pass_gradient(self, latents: Tensor, codes: Tensor) -> Tensor:
        """The codes (B, N, C), with the configured way back for gradients. In evaluation, just the codes."""
        kind = self.config.quantizer_gradient
        if not self.training:
            return codes
        if kind == "rotation":
            return rotate_to(latents, codes.detach())
        return latents + (codes - latents).detach()

    def _sample(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A hard sample of the gumbel softmax over codes, with the soft sample's gradient to codes and latents.

        The logits are negative squared distances over a running scale of the data: unscaled, the softmax is either
        uniform or already one-hot, depending on the width. What the backward pass keeps of all (tokens, codes) is the
        softmax alone; the rest lives for a chunk of tokens.

        Returns:
            Words (B, N, C), the noiseless nearest indices (B, N), and the share of words that are the nearest code ().
        """
        flat, codes = latents.reshape(-1, latents.shape[-1]), at_least_fp32(self.codes)
        half_norms = codes.square().sum(-1) / 2
        words, indices, sampled, temperature = [], [], [], self.config.gumbel_temperature
        for chunk in _chunks(flat):
            scores = _scores(chunk, codes, half_norms)
            nearest = scores.detach().topk(min(8, self.num_codes), largest=False).values
            # Counted from the nearest, so that codes that are all the same do not overflow at a scale of nearly 0.
            logits = (nearest[:, :1] - scores) * (2 / self._gumbel_scale_of(nearest) / temperature)
            negative_noise = torch.empty_like(logits).exponential_().log_()
            soft = torch.sub(logits, negative_noise, alpha=1 / temperature).softmax(-1)
            indices.append(scores.detach().argmin(-1))
            sampled.append(soft.detach().argmax(-1))
            words.append(_SoftGradient.apply(F.embedding(sampled[-1], codes), soft, codes.detach()))
        nearest_indices = torch.cat(indices)
        share = (torch.cat(sampled) == nearest_indices).to(flat.dtype).mean()
        return torch.cat(words).view_as(latents), nearest_indices.view(latents.shape[:-1]), share

    def _gumbel_scale_of(self, nearest: Tensor) -> Tensor:
        """The scale () at which the choice is open: the running gap between the nearest code and the next few.

        `nearest` (M, 8) are half the squared distances to them, in order, up to a constant per latent.
        """
        gap = 2 * (nearest[:, 1:] - nearest[:, :1]).mean().to(self.gumbel_scale)
        if self._learns():
            self.waits_for_update = True
            self.pending_gap += torch.stack([gap, torch.ones_like(gap)]).to(self.pending_gap)
        # Before the first update there are only these tokens to go by.
        scale = torch.where(self.gumbel_scale > 0, self.gumbel_scale, gap)
        return scale.clamp_min(torch.finfo(scale.dtype).tiny)

    def _update_gumbel_scale(self) -> None:
        total = self.pending_gap
        if _several_processes():
            dist.all_reduce(total)
        gap = (total[0] / total[1].clamp_min(1)).to(self.gumbel_scale)
        moved = torch.where(self.gumbel_scale > 0, self.gumbel_scale.lerp(gap, 0.01), gap)
        self.gumbel_scale.copy_(torch.where(total[1] > 0, moved, self.gumbel_scale))
        total.zero_()


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


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
