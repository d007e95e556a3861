"""A table of K codes that are learned: the way to them and back, look-up (Eq. 1), moving averages, restarts.

The look-up is in at least fp32 and never has noise in it. `forward` of a quantizer changes nothing here but what was
assigned since the last step; [`CBViLACodeTable.ema_step`], called once per optimizer step, moves the codes.

Shapes: M latents, C code width, K codes.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .autocast_cbvila import without_autocast
from .kmeans_cbvila import kmeans, require_points
from .losses_cbvila import at_least_fp32
from .nearest_codes_cbvila import nearest_codes
from .projections_cbvila import project, projections

_FORGOTTEN = 1e-5  # moving count below which a moving average means nothing any more


class CBViLACodeTable(nn.Module):
    """K codes of width C.

    Args:
        size, dim: K and C.
        width: D, of tokens; with it the table has projections from and to them, unless codes live where tokens do (C
            is D, and codes have any length).
        unit_norm: Whether codes are unit vectors.
        decay: Of the moving average, per step; `None` makes the codes a parameter, which a loss moves.

    Attributes:
        codes (K, C): a buffer, or a parameter.
        initialized (): whether the codes were fitted to features once; stored, so that resuming and loading skip it.
        ema_counts (K,), ema_sums (K, C): the moving averages.
        ages (K,): steps since each code was fitted or restarted; no checkpoint of the model holds them.
        expected_count (): latents per code in the last step, over all processes.
        waits_for_step: whether a training forward added up what no step has taken in yet.
    """

    codes: Tensor
    initialized: Tensor
    ema_counts: Tensor
    ema_sums: Tensor
    pending_counts: Tensor
    pending_sums: Tensor
    ages: Tensor
    expected_count: Tensor

    def __init__(
        self, size: int, dim: int, width: int | None = None, unit_norm: bool = False, decay: float | None = 0.99
    ):
        super().__init__()
        self.in_proj: nn.Module = nn.Identity()
        self.out_proj: nn.Module = nn.Identity()
        if width is not None and (dim != width or unit_norm):
            self.in_proj, self.out_proj = projections(width, dim)
        self.unit_norm = unit_norm
        self.decay = decay
        codes = torch.zeros(size, dim)
        if decay is None:
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
        self.waits_for_step = False
        self.register_buffer("initialized", torch.tensor(False))

    def init_own_weights(self, std: float) -> None:
        # Random directions. The trainer replaces them by k-means; without it they still do not start all at 0, where
        # the first winners would take everything.
        init.normal_(self.codes, std=self.codes.shape[-1] ** -0.5)
        if self.unit_norm:
            init.copy_(self.codes, F.normalize(self.codes, dim=-1))
        init.zeros_(self.initialized)
        if self.is_moving_average:
            init.ones_(self.ema_counts)
            init.copy_(self.ema_sums, self.codes)
            init.zeros_(self.pending_counts)
            init.zeros_(self.pending_sums)
            init.zeros_(self.ages)
            init.zeros_(self.expected_count)

    @property
    def is_moving_average(self) -> bool:
        """Whether codes move by [`~CBViLACodeTable.ema_step`], and not by a gradient."""
        return self.decay is not None

    @property
    def num_codes(self) -> int:
        return self.codes.shape[0]

    def training_buffers(self) -> tuple[str, ...]:
        """Names of buffers that a resumed run needs and weights do not hold."""
        return ("ages", "expected_count") if self.is_moving_average else ()

    def forward(self) -> Tensor:
        """The codes (K, C) in at least fp32. A call, so that codes which are offloaded come back for it."""
        return at_least_fp32(self.codes)

    def whole_codes(self) -> Tensor:
        """The codes (K, C) in at least fp32; outside the model's forward, FSDP2 has sharded a parameter."""
        codes = self()
        return codes.full_tensor() if hasattr(codes, "full_tensor") else codes

    @without_autocast
    def encode(self, tokens: Tensor, in_proj: nn.Module | None = None) -> Tensor:
        """Tokens (…, D) to latents (…, C), which are compared with codes; by another projection, if it is given."""
        latents = at_least_fp32(project(self.in_proj if in_proj is None else in_proj, tokens))
        return F.normalize(latents, dim=-1) if self.unit_norm else latents

    @without_autocast
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (…, C) to quantized tokens (…, D)."""
        return project(self.out_proj, codes)

    @without_autocast
    def lookup(self, latents: Tensor) -> Tensor:
        """Eq. 1: latents (…, C) to the indices (…) of their nearest codes."""
        with torch.no_grad():
            flat = latents.reshape(-1, latents.shape[-1])
            return nearest_codes(flat, self.whole_codes()).view(latents.shape[:-1])

    def remember(self, latents: Tensor, indices: Tensor, counts: Tensor) -> None:
        """Adds latents (…, C), assigned to indices (…) with counts (K,), to what the next step takes in."""
        flat = latents.reshape(-1, latents.shape[-1]).to(self.pending_sums)
        self._last_latents, self.waits_for_step = flat, True
        self.pending_counts += counts.to(self.pending_counts)
        self.pending_sums.index_add_(0, indices.flatten(), flat)

    @torch.no_grad()
    def forget_pending(self) -> None:
        """Drops what was assigned since the last step."""
        self.waits_for_step = False
        if self.is_moving_average:
            self.pending_counts.zero_()
            self.pending_sums.zero_()

    @torch.no_grad()
    def ema_step(self) -> None:
        """Moves the codes to the moving average of what was assigned to them, on all processes.

        All micro-batches since the last step count. Does nothing for codes that a loss moves, or when there was no
        training forward.
        """
        self.waits_for_step = False
        if self.decay is None:
            return
        if several_processes():
            packed = torch.cat([self.pending_counts.unsqueeze(-1), self.pending_sums], dim=-1)
            dist.all_reduce(packed)
            self.pending_counts.copy_(packed[:, 0])
            self.pending_sums.copy_(packed[:, 1:])
        # A step that assigned nothing is no step: averages that decayed all the same would forget every code.
        is_step = self.pending_counts.any()
        rate = (1 - self.decay) * is_step.to(self.ema_counts.dtype)
        self.ema_counts.lerp_(self.pending_counts.to(self.ema_counts), rate)
        self.ema_sums.lerp_(self.pending_sums.to(self.ema_sums), rate)
        means = self.ema_sums / self.ema_counts.clamp_min(_FORGOTTEN).unsqueeze(-1)
        if self.unit_norm:
            means = F.normalize(means, dim=-1)
        # The mean of a code that nothing chooses stays the same while both averages decay, until they underflow.
        # Laplace smoothing of the counts, the usual guard, would instead pull such a code to the origin.
        self.codes.copy_(torch.where(self.ema_counts.unsqueeze(-1) > _FORGOTTEN, means, self.codes))
        self.ages += is_step
        self.expected_count.copy_(torch.where(is_step, self.pending_counts.mean(), self.expected_count))
        self.forget_pending()

    @torch.no_grad()
    def fit(self, latents: Tensor, generator: torch.Generator, scale: float) -> None:
        """Places the codes by k-means over latents (M, C), which all processes have; process 0 clusters.

        Args:
            generator: Source of the draws, on the CPU.
            scale: What a moving count is of the number of latents in a cluster.

        Raises:
            ValueError: If there are fewer latents than codes.
        """
        require_points(latents, self.num_codes)  # here, so that no process waits for one that gave up
        centres = torch.empty(self.codes.shape, dtype=latents.dtype, device=latents.device)
        counts = torch.empty(self.num_codes, dtype=torch.long, device=latents.device)
        if not several_processes() or dist.get_rank() == 0:
            centres, counts = kmeans(latents, self.num_codes, generator, nearest_codes, unit_norm=self.unit_norm)
        if several_processes():
            dist.broadcast(centres, src=0)
            dist.broadcast(counts, src=0)
        self.set_codes(centres, counts * scale)

    @torch.no_grad()
    def set_codes(self, codes: Tensor, counts: Tensor | None = None) -> None:
        """Replaces the codes by others (K, C), as k-means does; `counts` (K,) is the weight of each in the average.

        What was measured of the codes before is forgotten.
        """
        if codes.shape != self.codes.shape:
            raise ValueError(f"codes have shape {tuple(codes.shape)}; this table's is {tuple(self.codes.shape)}.")
        codes = codes.to(self.codes.device, self.codes.dtype)
        codes = F.normalize(codes, dim=-1) if self.unit_norm else codes
        if dist.is_available() and dist.is_initialized():
            from torch.distributed.tensor import DTensor, distribute_tensor

            if isinstance(self.codes, DTensor):  # a parameter that FSDP2 has sharded
                codes = distribute_tensor(codes, self.codes.device_mesh, self.codes.placements)
        self.codes.copy_(codes)
        if self.is_moving_average:
            self.ema_counts.copy_(torch.ones_like(self.ema_counts) if counts is None else counts)
            self.ema_sums.copy_(self.codes * self.ema_counts.unsqueeze(-1))
            self.ages.zero_()
        self.forget_pending()
        self.initialized.fill_(True)

    @torch.no_grad()
    def synchronize(self) -> None:
        """Gives every process the buffers of process 0. Steps keep them equal from then on."""
        if several_processes():
            for buffer in self.buffers():
                dist.broadcast(buffer, src=0)

    def dead_codes(self, threshold: float) -> Tensor:
        """Which codes (K,) have a moving count below `threshold` times the latents per code of a step."""
        return self.ema_counts < threshold * self.expected_count

    @torch.no_grad()
    def restart_unused(self, threshold: float, limit: int, generator: torch.Generator, grace: int = 0) -> Tensor:
        """Moves the least used codes to latents of the last training batch; a tool for burn-in.

        The batch is that of all processes (the last micro-batch, under gradient accumulation), and all of them choose
        alike. Nothing waits for the device. Does nothing for codes that a loss moves.

        Args:
            threshold: Codes count as unused below this share of the expected count, latents per step over codes:
                never below an absolute one, which restarts healthy codes for ever when there are few tokens per code.
            limit: How many codes may move at once, the least used first.
            generator: Source of the draws, on the CPU; in the same state on all processes.
            grace: Steps for which a code that was fitted or restarted is left alone.

        Returns:
            How many codes moved, as a tensor ().
        """
        if not self.is_moving_average or self._last_latents is None:
            return torch.zeros((), dtype=torch.long, device=self.codes.device)
        limit = min(limit, self.num_codes)
        candidates = self.dead_codes(threshold) & (self.ages >= grace)
        counts = self.ema_counts.masked_fill(~candidates, float("inf"))
        order = counts.sort(stable=True).indices[:limit]  # stable: equal counts in the same order everywhere
        moves = candidates[order]
        fresh = self._spread_latents(limit, generator).to(self.codes)
        # A full count gives the code time, and the sums must follow, or the next step undoes the move.
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
        if not several_processes():
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


def several_processes() -> bool:
    """Whether there are processes that buffers must agree with."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
