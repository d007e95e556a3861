"""A table of K learned codes: projections, look-up (Eq. 1), moving averages and restarts.

The look-up runs in at least fp32 and without noise. The forward pass of a quantizer only adds to the assignments since
the last step; [`CBViLACodeTable.ema_step`], called once per optimizer step, moves the codes.

Shapes: M latents, C code width, K codes.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .autocast_cbvila import without_autocast
from .distributed_cbvila import several_processes
from .kmeans_cbvila import kmeans, require_points
from .losses_cbvila import at_least_fp32
from .nearest_codes_cbvila import nearest_codes
from .projections_cbvila import project, projections

Clustering = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
Sampling = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]

_MIN_COUNT = 1e-5  # moving count below which the moving average of a code is no longer used


class CBViLACodeTable(nn.Module):
    """K codes of width C.

    Args:
        size: K.
        dim: C.
        width: Width D of tokens. The table then has projections between tokens and codes, unless C is D and codes may
            have any length.
        unit_norm: Whether codes have length 1.
        decay: Decay of the moving average per step. `None` makes the codes a parameter that a loss moves.

    Attributes:
        codes (K, C): A buffer, or a parameter.
        initialized (): Whether the codes were fitted to features; stored, so that a loaded or resumed model is not
            fitted again.
        ema_counts (K,), ema_sums (K, C): The moving averages.
        ages (K,): Steps since each code was fitted or restarted; not in checkpoints of the model.
        expected_count (): Latents per code in the last step, over all processes.
        waits_for_step: Whether there are assignments since the last step.
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
    ) -> None:
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
        """Initializes codes at random, and resets the moving averages."""
        # The trainer replaces the random directions by k-means. Without it they still differ: from equal codes, the
        # first ones chosen would win all tokens.
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
        """Whether codes move by [`~CBViLACodeTable.ema_step`], rather than by a gradient."""
        return self.decay is not None

    @property
    def num_codes(self) -> int:
        """K."""
        return self.codes.shape[0]

    def training_buffers(self) -> tuple[str, ...]:
        """Returns the names of buffers that a resumed run needs and the model's checkpoint does not contain."""
        return ("ages", "expected_count") if self.is_moving_average else ()

    def forward(self) -> Tensor:
        """Returns the codes (K, C) in at least fp32. As a module's call, it also loads codes that are offloaded."""
        return at_least_fp32(self.codes)

    def whole_codes(self) -> Tensor:
        """Returns all codes (K, C) in at least fp32, also where FSDP2 shards them outside the model's forward."""
        codes = self()
        return codes.full_tensor() if hasattr(codes, "full_tensor") else codes

    @without_autocast
    def encode(self, tokens: Tensor, in_proj: nn.Module | None = None) -> Tensor:
        """Projects tokens (…, D) to latents (…, C), with `in_proj` in place of its own projection where given."""
        latents = at_least_fp32(project(self.in_proj if in_proj is None else in_proj, tokens))
        return F.normalize(latents, dim=-1) if self.unit_norm else latents

    @without_autocast
    def decode(self, codes: Tensor) -> Tensor:
        """Projects codes (…, C) to quantized tokens (…, D)."""
        return project(self.out_proj, codes)

    @without_autocast
    def lookup(self, latents: Tensor, codes: Tensor | None = None) -> Tensor:
        """Returns the indices (…) of the codes nearest to latents (…, C), Eq. 1; among `codes` (K', C) if given."""
        with torch.no_grad():
            flat = latents.reshape(-1, latents.shape[-1])
            codes = self.whole_codes() if codes is None else codes.to(latents)
            return nearest_codes(flat, codes).view(latents.shape[:-1])

    def remember(self, latents: Tensor, indices: Tensor, counts: Tensor, chosen: Tensor | None = None) -> None:
        """Adds the assignments of latents to codes to those of the next step.

        Args:
            latents: (…, C).
            indices: (…) their codes.
            counts: (K,) how often each code was chosen.
            chosen: (…) bool, which latents count; all when absent.
        """
        flat = latents.reshape(-1, latents.shape[-1]).to(self.pending_sums)
        self._last_latents, self.waits_for_step = flat, True
        if chosen is not None:
            self._last_latents, flat = _repeat_chosen(flat, chosen.flatten()), flat * chosen.flatten().unsqueeze(-1)
        self.pending_counts += counts.to(self.pending_counts)
        self.pending_sums.index_add_(0, indices.flatten(), flat)

    @torch.no_grad()
    def discard_pending(self) -> None:
        """Discards the assignments since the last step."""
        self.waits_for_step = False
        if self.is_moving_average:
            self.pending_counts.zero_()
            self.pending_sums.zero_()

    @torch.no_grad()
    def ema_step(self) -> None:
        """Moves the codes to the moving averages of the latents assigned to them, on all processes.

        All micro-batches since the last step count. Does nothing for codes that a loss moves, or without assignments.
        """
        self.waits_for_step = False
        if self.decay is None:
            return
        if several_processes():
            packed = torch.cat([self.pending_counts.unsqueeze(-1), self.pending_sums], dim=-1)
            dist.all_reduce(packed)
            self.pending_counts.copy_(packed[:, 0])
            self.pending_sums.copy_(packed[:, 1:])
        # Without assignments the averages must not decay.
        is_step = self.pending_counts.any()
        rate = (1 - self.decay) * is_step.to(self.ema_counts.dtype)
        self.ema_counts.lerp_(self.pending_counts.to(self.ema_counts), rate)
        self.ema_sums.lerp_(self.pending_sums.to(self.ema_sums), rate)
        means = self.ema_sums / self.ema_counts.clamp_min(_MIN_COUNT).unsqueeze(-1)
        if self.unit_norm:
            means = F.normalize(means, dim=-1)
        # While both averages of an unused code decay, their ratio stays the same until they underflow. Laplace
        # smoothing of the counts, the usual guard, would instead pull such a code to the origin.
        self.codes.copy_(torch.where(self.ema_counts.unsqueeze(-1) > _MIN_COUNT, means, self.codes))
        self.ages += is_step
        self.expected_count.copy_(torch.where(is_step, self.pending_counts.mean(), self.expected_count))
        self.discard_pending()

    @torch.no_grad()
    def fit(
        self, latents: Tensor, generator: torch.Generator, scale: float, cluster: Clustering | None = None
    ) -> None:
        """Sets the codes to the centres of k-means, which process 0 computes and broadcasts.

        Args:
            latents: (M, C), the same on all processes.
            generator: Random generator, on the CPU.
            scale: Factor from the number of latents in a cluster to its moving count.
            cluster: Returns the centres (K, C) and their numbers of latents (K,); by default k-means of all latents.

        Raises:
            ValueError: If there are fewer latents than codes.
        """
        require_points(latents, self.num_codes)  # on all processes, so that none waits for one that raised
        centres = torch.empty(self.codes.shape, dtype=latents.dtype, device=latents.device)
        counts = torch.empty(self.num_codes, dtype=torch.long, device=latents.device)
        if not several_processes() or dist.get_rank() == 0:
            centres, counts = (cluster or self.cluster)(latents, generator)
        if several_processes():
            dist.broadcast(centres, src=0)
            dist.broadcast(counts, src=0)
        self.set_codes(centres, counts * scale)

    def cluster(
        self, latents: Tensor, generator: torch.Generator, num_clusters: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the centres (K, C) and counts (K,) of k-means of latents (M, C); as many as codes by default."""
        number = self.num_codes if num_clusters is None else num_clusters
        return kmeans(latents, number, generator, nearest_codes, unit_norm=self.unit_norm)

    @torch.no_grad()
    def set_codes(self, codes: Tensor, counts: Tensor | None = None) -> None:
        """Replaces the codes, and resets everything that was measured of the previous ones.

        Args:
            codes: (K, C).
            counts: (K,) weight of each code in its moving average; 1 when absent.

        Raises:
            ValueError: If the codes have another shape.
        """
        if codes.shape != self.codes.shape:
            raise ValueError(f"codes have shape {tuple(codes.shape)}; expected {tuple(self.codes.shape)}.")
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
        self.discard_pending()
        self.initialized.fill_(True)

    @torch.no_grad()
    def synchronize(self) -> None:
        """Broadcasts the buffers of process 0; steps keep them equal from then on."""
        if several_processes():
            for buffer in self.buffers():
                dist.broadcast(buffer, src=0)

    def dead_codes(self, threshold: float) -> Tensor:
        """Returns which codes (K,) have a moving count below `threshold` times the expected count."""
        return self.ema_counts < threshold * self.expected_count

    @torch.no_grad()
    def restart_unused(
        self, threshold: float, limit: int, generator: torch.Generator, grace: int = 0, sample: Sampling | None = None
    ) -> Tensor:
        """Moves unused codes to latents of the last training batch of all processes, in the same way on all of them.

        With gradient accumulation the batch is the last micro-batch. The host does not wait for the device. Does
        nothing for codes that a loss moves.

        Args:
            threshold: Share of the expected count below which a code is unused. (An absolute count would restart
                healthy codes again and again when there are few tokens per code.)
            limit: Largest number of codes that move at once, the least used first.
            generator: Random generator, on the CPU; in the same state on all processes.
            grace: Steps after a fit or a restart during which a code does not move.
            sample: Draws a latent for each of the given codes, and says for which there is one, see
                [`~CBViLACodeTable.sample_latents`], the default.

        Returns:
            The number of codes that moved, ().
        """
        if not self.is_moving_average or self._last_latents is None:
            return torch.zeros((), dtype=torch.long, device=self.codes.device)
        limit = min(limit, self.num_codes)
        candidates = self.dead_codes(threshold) & (self.ages >= grace)
        counts = self.ema_counts.masked_fill(~candidates, float("inf"))
        order = counts.sort(stable=True).indices[:limit]  # stable: equal counts in the same order everywhere
        latents, found = (sample or self.sample_latents)(order, generator)
        latents, moves = latents.to(self.codes), candidates[order] & found
        # The full count keeps the code in use for a while; without the new sums the next step would undo the move.
        count = self.expected_count.to(self.ema_counts)
        where = moves.unsqueeze(-1)
        self.codes[order] = torch.where(where, latents, self.codes[order])
        self.ema_sums[order] = torch.where(where, (latents * count).to(self.ema_sums), self.ema_sums[order])
        self.ema_counts[order] = torch.where(moves, count, self.ema_counts[order])
        self.ages[order] = self.ages[order].masked_fill(moves, 0)
        return moves.sum()

    @property
    def last_latents(self) -> Tensor | None:
        """The latents (M, C) of the last training forward on this process."""
        return self._last_latents

    def sample_latents(self, order: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws a latent (n, C) for each of n codes from the last batch of all processes; says that all exist (n,).

        Each comes from another one of n equal parts of the batch.

        Args:
            order: (n,) indices of the codes.
            generator: Random generator, on the CPU; in the same state on all processes.
        """
        assert self._last_latents is not None
        latents, number = self._last_latents, order.shape[0]
        found = torch.ones_like(order, dtype=torch.bool)
        fine = 1 << 20
        positions = torch.randperm(number, generator=generator) * fine + torch.randint(
            fine, (number,), generator=generator
        )
        positions = positions.to(latents.device)
        if not several_processes():
            return latents[positions * latents.shape[0] // (number * fine)], found
        # Processes may hold different numbers of latents: each contributes its own rows, and zeros for the others.
        sizes = torch.zeros(dist.get_world_size(), dtype=torch.long, device=latents.device)
        sizes[dist.get_rank()] = latents.shape[0]
        dist.all_reduce(sizes)
        rows = positions * sizes.sum() // (number * fine) - sizes[: dist.get_rank()].sum()
        own = (rows >= 0) & (rows < latents.shape[0])
        picked = latents[rows.clamp(0, latents.shape[0] - 1)] * own.unsqueeze(-1)
        dist.all_reduce(picked)
        return picked, found


def _repeat_chosen(latents: Tensor, chosen: Tensor) -> Tensor:
    """Returns M latents (M, C), each of the chosen ones (M,) about as often; all of them if none is chosen.

    Their order stays, so that draws from equal parts differ. A shape that depends on data would make the host wait,
    and break compiled graphs.
    """
    places = torch.arange(len(chosen), device=chosen.device)
    first = (~chosen).to(torch.uint8).argsort(stable=True)  # indices of the chosen ones first
    number = chosen.sum()
    return latents[torch.where(number > 0, first[places * number // max(1, len(places))], places)]
