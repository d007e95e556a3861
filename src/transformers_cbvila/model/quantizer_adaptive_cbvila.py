"""Adaptive dynamic quantization: several tables of equal capacity, of which a router chooses one for each image.

The tables trade the number of codes against their width at a constant product. Chen et al., "Balance of number of
embedding and their dimensions in vector quantization" (arXiv 2407.04939); what its abstract leaves open is our choice.

Shapes: B batch, N visual tokens, D vision width, m tables, N_i codes of width D_i in table i, ΣN codes of all tables.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .autocast_cbvila import without_autocast
from .code_gradients_cbvila import straight_through
from .code_table_cbvila import CBViLACodeTable
from .distributed_cbvila import Processes, several_processes
from .known_matches_cbvila import scramble
from .losses_cbvila import at_least_fp32
from .nearest_codes_cbvila import count_codes
from .negatives_cbvila import gumbel_noise
from .options_cbvila import options, require_range
from .quantizer_cbvila import CBViLAQuantizer, CBViLAQuantizerOptions, token_codes
from .quantizer_output_cbvila import DEFAULT_GRADIENTS, CBViLAGradients, CBViLAQuantizerHints, CBViLAQuantizerOutput

_BALANCE = "adq_balance"
_UNUSED_BELOW = 0.01  # share of images below which a table counts as unused


@options
class CBViLAAdaptiveQuantizerOptions(CBViLAQuantizerOptions):
    """Options of [`CBViLAAdaptiveQuantizer`].

    Args:
        tables: Number of codes and code width `[N_i, D_i]` of each table, at least two tables of the same product.
        norm: Whether latents and codes are scaled to length 1 (`"l2"`).
        decay: Decay of the moving averages per optimizer step.
        router_heads: Number of attention heads of the router, a divisor of the width of the vision encoder.
        temperature: Temperature of the router's gumbel softmax at the first step.
        final_temperature: Its temperature after `anneal_steps`; it falls linearly.
        balance: Weight at the first step of the term that keeps all tables in use; it falls linearly to 0.
        anneal_steps: Optimizer steps after the codes were fitted, until both have reached their last value; usually
            those of burn-in.
        seed: Seed of the router's noise, which depends on it, the step and the row of the batch.
    """

    tables: list[list[int]] = field(default_factory=lambda: [[1024, 64], [2048, 32], [4096, 16], [8192, 8]])
    norm: Literal["l2", "none"] = "l2"
    decay: float = 0.99
    router_heads: int = 4
    temperature: float | int = 2.0
    final_temperature: float | int = 0.5
    balance: float | int = 0.01
    anneal_steps: int = 1000
    seed: int = 0

    def check(self, where: str) -> None:
        """Raises a ValueError for values out of range."""
        require_range(where, "len(tables)", len(self.tables), 2)
        for number, table in enumerate(self.tables):
            if len(table) != 2:
                raise ValueError(f"{where}: tables[{number}]={table} must be [number of codes, code width].")
            require_range(where, f"tables[{number}][0]", table[0], 2)
            require_range(where, f"tables[{number}][1]", table[1], 1)
        if len({math.prod(table) for table in self.tables}) > 1:
            products = ", ".join(f"{codes} x {dim} = {codes * dim}" for codes, dim in self.tables)
            raise ValueError(f"{where}: tables must have the same product of codes and width, not {products}.")
        require_range(where, "decay", self.decay, 0, 1)
        require_range(where, "router_heads", self.router_heads, 1)
        require_range(where, "temperature", self.temperature, 0, above=True)
        require_range(where, "final_temperature", self.final_temperature, 0, above=True)
        require_range(where, "balance", self.balance, 0)
        require_range(where, "anneal_steps", self.anneal_steps, 1)
        require_range(where, "seed", self.seed, 0, 2**63)


class CBViLATableRouter(nn.Module):
    """Scores tables for an image by attention of one learned query to its tokens.

    Args:
        width: Width D of tokens.
        heads: Number of attention heads.
        tables: Number of tables m.
    """

    def __init__(self, width: int, heads: int, tables: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(
                f"quantizer_config: router_heads={heads} does not divide the width {width} of the vision encoder."
            )
        self.query = nn.Parameter(torch.zeros(heads, width // heads))
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, tables)

    def init_own_weights(self, std: float) -> None:
        """Initializes the query."""
        init.normal_(self.query)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns logits (…, m) of tokens (…, N, D), without gradient to the tokens, in at least fp32."""
        # Routing does not shape features: the tables would compete for them.
        tokens = tokens.detach().to(self.key.weight.dtype)
        keys, values = (layer(tokens).unflatten(-1, self.query.shape) for layer in (self.key, self.value))
        scores = (keys * self.query).sum(-1) * self.query.shape[-1] ** -0.5
        pooled = (scores.softmax(-2).unsqueeze(-1) * values).sum(-3)
        return at_least_fp32(self.out(pooled.flatten(-2)))


class CBViLAAdaptiveQuantizer(CBViLAQuantizer):
    """Replaces the tokens of an image by codes of one of m tables, which a router chooses.

    In training the choice is a sample for `quantized`, the commitment and the moving averages, and its gradient is
    that of the gumbel softmax. Indices, counts, metrics and `detached` follow the highest logit, without noise.

    Indices are numbered through all tables, so that there is one book of ΣN codes. Latents hold those of every table,
    followed by the router's logits. The codes that a tied MIM head predicts are projected to the width of tokens, the
    only one that all tables have in common.
    """

    name = "adaptive"
    options_class = CBViLAAdaptiveQuantizerOptions
    collapse_advice = "a higher balance over more anneal_steps, or tables of fewer codes, in quantizer_config"
    steps: Tensor
    draws: Tensor

    def __init__(
        self, options: CBViLAAdaptiveQuantizerOptions, width: int, gradients: CBViLAGradients = DEFAULT_GRADIENTS
    ) -> None:
        super().__init__(options, width, gradients)
        unit_norm = options.norm == "l2"
        self.code_tables = nn.ModuleList(
            CBViLACodeTable(size, dim, width, unit_norm, options.decay) for size, dim in options.tables
        )
        self.router = CBViLATableRouter(width, options.router_heads, len(options.tables))
        self.table_sizes = [size for size, _ in options.tables]
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("draws", torch.zeros((), dtype=torch.long), persistent=False)
        # Always in fp32 at least (see CBViLAModel), also in a model that is made in half precision.
        self.to(torch.promote_types(torch.get_default_dtype(), torch.float32))

    def init_own_weights(self, std: float) -> None:
        """Initializes the counters."""
        init.zeros_(self.steps)
        init.zeros_(self.draws)

    @classmethod
    def sizes(cls, options: Any) -> tuple[int, ...]:
        """Returns ΣN."""
        return (sum(size for size, _ in options.tables),)

    @classmethod
    def loss_weights(cls, options: Any) -> dict[str, float]:
        """Returns the weight of the balance of tables."""
        return {_BALANCE: float(options.balance)}

    def tables(self) -> tuple[CBViLACodeTable, ...]:
        """Returns the tables."""
        return cast("tuple[CBViLACodeTable, ...]", tuple(self.code_tables))

    def followed(self) -> dict[str, nn.Module]:
        """Returns the projections to latents, and the router."""
        return {**{f"in_proj_{i}": table.in_proj for i, table in enumerate(self.tables())}, "router": self.router}

    def head_codes(self) -> tuple[Tensor, ...]:
        """Returns the codes of all tables (ΣN, D), projected to tokens, without gradient."""
        with torch.no_grad():
            return (torch.cat([at_least_fp32(table.decode(table())) for table in self.tables()]),)

    @without_autocast
    def encode(self, tokens: Tensor, modules: Mapping[str, nn.Module] | None = None) -> Tensor:
        """Projects visual tokens (…, N, D) to latents (…, N, ΣD_i + m) of all tables, and the router's logits."""
        modules = self.followed() if modules is None else modules
        latents = [table.encode(tokens, modules[f"in_proj_{i}"]) for i, table in enumerate(self.tables())]
        logits = modules["router"](tokens).unsqueeze(-2)
        return torch.cat([*latents, logits.expand(*tokens.shape[:-1], -1)], dim=-1)

    def lookup(self, latents: Tensor, hints: CBViLAQuantizerHints | None = None) -> Tensor:
        """Returns the indices (…) of latents (…, ΣD_i + m), in the table with the highest logit."""
        *by_table, logits = self._split(latents)
        found = [table.lookup(part) for table, part in zip(self.tables(), by_table, strict=True)]
        return self._numbered(found, logits.argmax(-1))

    @without_autocast
    def unquantized(self, tokens: Tensor) -> Tensor:
        """Returns tokens (B, N, D) after the projections of their image's table, without a look-up."""
        *by_table, logits = self._split(self.encode(tokens))
        route = F.one_hot(logits[:, 0].argmax(-1), len(by_table))
        return self._mix(by_table, by_table, route, lambda latents, _: latents)

    def indices_to_quantized(self, indices: Tensor) -> Tensor:
        """Returns the quantized tokens (…, D) of code indices (…)."""
        tables, first, tokens = self.tables(), 0, []
        for table, size in zip(tables, self.table_sizes, strict=True):
            own = (indices >= first) & (indices < first + size)
            codes = token_codes((indices - first).clamp(0, size - 1), table())
            tokens.append(own.unsqueeze(-1) * table.decode(codes))
            first += size
        return _sum_in_order(tokens)

    @without_autocast
    def forward(
        self, tokens: Tensor, remember: bool = True, hints: CBViLAQuantizerHints | None = None
    ) -> CBViLAQuantizerOutput:
        """Quantizes visual tokens (B, N, D), see [`CBViLAQuantizer.forward`]."""
        self.check_hints(hints)
        *by_table, token_logits = self._split(self.encode(tokens))
        logits = token_logits[:, 0]
        found = [table.lookup(latents) for table, latents in zip(self.tables(), by_table, strict=True)]
        codes = [token_codes(indices, table()) for table, indices in zip(self.tables(), found, strict=True)]
        route = F.one_hot(logits.argmax(-1), len(found)).to(logits.dtype)
        sampled, terms = route, {}
        if self.training:
            sampled, terms[_BALANCE] = self._sample(logits, remember)
        terms["commitment"] = _commitment(by_table, codes, sampled)
        if remember and self.learns:
            self._remember(by_table, found, sampled)
        indices = self._numbered(found, logits.argmax(-1).unsqueeze(-1))
        return CBViLAQuantizerOutput(
            quantized=self._mix(by_table, codes, sampled, self._for_pixels),
            detached=self._mix(by_table, codes, route, self.detached_codes),
            indices=indices,
            counts=count_codes(indices, self.num_codes),
            codes=self.head_codes(),
            terms=terms,
            metrics=self._metrics(route, sampled),
        )

    def temperature(self) -> Tensor:
        """Returns the temperature () of the gumbel softmax at the current step."""
        start, end = self.options.temperature, self.options.final_temperature
        return start + (end - start) * self._progress()

    def _progress(self) -> Tensor:
        return (self.steps / self.options.anneal_steps).clamp(max=1)

    def _split(self, latents: Tensor) -> tuple[Tensor, ...]:
        """Splits latents (…, ΣD_i + m) into those of each table and the router's logits."""
        return latents.split([*(dim for _, dim in self.options.tables), len(self.table_sizes)], dim=-1)

    def _numbered(self, found: Sequence[Tensor], route: Tensor) -> Tensor:
        """Returns indices (…) numbered through all tables, from those in each table and the chosen tables (…)."""
        first = [sum(self.table_sizes[:i]) for i in range(len(found))]
        numbered = torch.stack([indices + start for indices, start in zip(found, first, strict=True)], dim=-1)
        return numbered.gather(-1, route.expand(numbered.shape[:-1]).unsqueeze(-1)).squeeze(-1)

    def _sample(self, logits: Tensor, remember: bool) -> tuple[Tensor, Tensor]:
        """Samples tables, as one-hot rows (B, m) with the gradient of the gumbel softmax; returns also their balance.

        The noise depends on the seed, the step and the image's row in the batch of all processes.
        """
        processes = Processes.gather_sizes(torch.is_grad_enabled(), logits)
        self.draws += int(remember and torch.is_grad_enabled())
        seed = scramble(self.steps * 0 + self.options.seed) + (self.steps << 12) + self.draws
        noise = gumbel_noise(seed, 0 if processes is None else processes.first, logits)
        soft = ((logits + noise) / self.temperature()).softmax(-1)
        hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
        balance = balance_loss(soft if processes is None or not remember else processes.gather(soft))
        return hard + (soft - soft.detach()), balance * (1 - self._progress())

    def _mix(self, by_table: Sequence[Tensor], codes: Sequence[Tensor], route: Tensor, passed: Any) -> Tensor:
        """Returns quantized tokens (B, N, D): those of each table, weighted by the chosen tables (B, m)."""
        parts = zip(self.tables(), by_table, codes, route.unbind(-1), strict=True)
        tokens = [(table.decode(passed(latents, found)), weight) for table, latents, found, weight in parts]
        return _sum_in_order([weight.to(token.dtype).view(-1, 1, 1) * token for token, weight in tokens])

    def _for_pixels(self, latents: Tensor, codes: Tensor) -> Tensor:
        return straight_through(self.source_of(latents), codes) if self.training else codes

    def _remember(self, by_table: Sequence[Tensor], found: Sequence[Tensor], sampled: Tensor) -> None:
        """Adds each image's latents to the moving averages of the table that was sampled for it."""
        chosen = sampled.detach().bool().unsqueeze(1).expand(-1, found[0].shape[1], -1)
        for i, (table, latents, indices) in enumerate(zip(self.tables(), by_table, found, strict=True)):
            own = chosen[..., i]
            counts = count_codes(torch.where(own, indices, table.num_codes), table.num_codes + 1)[:-1]
            table.remember(latents.detach(), indices, counts, own)

    def bits_per_token(self, indices: Tensor) -> float:
        """Returns the mean over indices (…) of log2 of the number of codes of their table."""
        sizes = torch.tensor(self.table_sizes, device=indices.device)
        tables = torch.bucketize(indices, sizes.cumsum(0)[:-1], right=True)
        return float(sizes.double().log2()[tables].mean())

    @torch.no_grad()
    def _metrics(self, route: Tensor, sampled: Tensor) -> dict[str, Tensor]:
        """Returns bits per token and the share of each table, without noise, and how often sampling agrees with it."""
        images = max(1, route.shape[0])
        shares = route.sum(0) / images
        bits = torch.tensor([math.log2(size) for size in self.table_sizes]).to(shares)
        return {
            "bits_per_token": (shares * bits).sum(),
            "route_argmax_share": (route * sampled).sum() / images,
            **{f"share_table_{i}": share for i, share in enumerate(shares, 1)},
        }

    @torch.no_grad()
    def fit(
        self, latents: Tensor, generator: torch.Generator, scale: float, hints: CBViLAQuantizerHints | None = None
    ) -> None:
        """Fits every table to all latents (M, ΣD_i + m), whatever the router would choose; annealing starts again."""
        for table, part in zip(self.tables(), self._split(latents), strict=False):
            table.fit(part.contiguous(), generator, scale)
        self.steps.zero_()

    @torch.no_grad()
    def after_step(self) -> None:
        """Updates the codes, and counts a step of annealing if there was one."""
        if self.waits_for_step and not self.is_frozen:
            self.steps += 1
        super().after_step()
        self.draws.zero_()

    @torch.no_grad()
    def after_skipped_step(self) -> None:
        """Discards the assignments since the last step."""
        super().after_skipped_step()
        self.draws.zero_()

    @torch.no_grad()
    def synchronize(self) -> None:
        """Broadcasts the buffers of process 0."""
        super().synchronize()
        if several_processes():
            dist.broadcast(self.steps, src=0)

    def metric_alarm(self, metrics: Mapping[str, float]) -> str | None:
        """Returns a warning if a table is hardly ever chosen."""
        shares = [metrics.get(f"share_table_{i}", 1.0) for i in range(1, len(self.table_sizes) + 1)]
        pairs = zip(self.options.tables, shares, strict=True)
        unused = [f"{codes} x {dim}" for (codes, dim), share in pairs if share < _UNUSED_BELOW]
        if not unused:
            return None
        return (
            f"the router chose the table(s) {', '.join(unused)} for less than {_UNUSED_BELOW:.0%} of the images; "
            "their codes hardly learn. Raise balance or anneal_steps in quantizer_config, or leave these tables out."
        )


def balance_loss(soft: Tensor) -> Tensor:
    """Returns KL(mean choice ‖ uniform) () of soft choices (B, m); 0 below two images, of which it says nothing."""
    if soft.shape[0] < 2:
        return soft.sum() * 0
    mean = soft.mean(0)
    return (mean * (mean.clamp_min(torch.finfo(mean.dtype).tiny).log() + math.log(len(mean)))).sum()


def _commitment(by_table: Sequence[Tensor], codes: Sequence[Tensor], route: Tensor) -> Tensor:
    """Returns the mean over images of ‖v - sg[c]‖² in the table that was chosen.

    Without gradient to the choice: errors of different widths are not comparable, and would favour wide codes.
    """
    errors = [(v - c.detach()).square().mean((1, 2)) for v, c in zip(by_table, codes, strict=True)]
    return (route.detach() * torch.stack(errors, dim=-1)).sum() / max(1, route.shape[0])


def _sum_in_order(parts: Sequence[Tensor]) -> Tensor:
    """Adds up tensors, always in the same order, so that results are equal bit for bit."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
