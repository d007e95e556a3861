"""Class-guided quantization: codes belong to classes, such as those of a segmentation (after SGC-VQGAN, 2409.06105).

Each class has a quota of codes, by its frequency. In training, a token of a known class prefers codes of its class.
Without classes, as at inference, a token takes its nearest code (Eq. 1), and `label_agreement` says how often that is
the same one. The paper has no public code or formulas; details are our reading.

Shapes: B batch, N visual tokens, D vision width, C code width, K codes, M latents, S classes.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import initialization as init
from transformers.utils import logging

from .autocast_cbvila import without_autocast
from .code_gradients_cbvila import straight_through
from .code_table_cbvila import CBViLACodeTable
from .distributed_cbvila import several_processes
from .losses_cbvila import codebook_loss, commitment_loss
from .nearest_codes_cbvila import count_codes, distance_scores, latent_chunks
from .options_cbvila import options, require_range
from .quantizer_cbvila import CBViLAQuantizerOptions, token_codes, unused_decay
from .quantizer_one_table_cbvila import CBViLAOneTableQuantizer
from .quantizer_output_cbvila import DEFAULT_GRADIENTS, CBViLAGradients, CBViLAQuantizerHints, CBViLAQuantizerOutput

logger = logging.get_logger(__name__)

_NO_CLASS = -1  # of codes that belong to none, and of tokens whose class is not known
_LEAST_AGREEMENT = 0.9
_JITTER = 0.01  # of the deviation of latents, for copies of a class with fewer latents than codes
_AGREEMENT_DECAY = 0.99  # per step


@options
class CBViLAClassGuidedQuantizerOptions(CBViLAQuantizerOptions):
    """Options of [`CBViLAClassGuidedQuantizer`].

    Args:
        size: Number of codes K of all classes together.
        dim: Code width C. `None` is the width of the vision encoder.
        norm: Whether latents and codes are scaled to length 1 (`"l2"`).
        update: How codes learn: as moving averages of the latents assigned to them (`"ema"`), or by the second term of
            Eq. 3 (`"loss"`).
        decay: Decay of the moving average per optimizer step.
        penalty: What is added to the squared distance of codes of another class. Between codes of length 1 that
            distance is at most 4.
        hard: Whether tokens of a class take codes of this class only, instead of the penalty.
        least_codes: Codes that each class has at least. The others are shared out by the square root of the classes'
            frequencies.
    """

    size: int = 3000
    dim: int | None = 32
    norm: Literal["l2", "none"] = "l2"
    update: Literal["ema", "loss"] = "ema"
    decay: float = 0.99
    penalty: float | int = 1.0
    hard: bool = False
    least_codes: int = 1

    def check(self, where: str) -> None:
        """Raises a ValueError for values out of range."""
        require_range(where, "size", self.size, 2)
        if self.dim is not None:
            require_range(where, "dim", self.dim, 1)
        require_range(where, "decay", self.decay, 0, 1)
        require_range(where, "penalty", self.penalty, 0)
        require_range(where, "least_codes", self.least_codes, 0)

    def unused(self) -> dict[str, str]:
        """Returns the options that others leave without effect."""
        found = {"penalty": "hard=True takes codes of the class only"} if self.hard else {}
        return found | unused_decay(self.update)


class CBViLAClassGuidedQuantizer(CBViLAOneTableQuantizer):
    """Replaces each token by the nearest code, preferably of its class.

    Attributes:
        code_labels (K,): Class of each code; -1 for none.
        label_counts (2,): Moving averages, per step, of how many tokens of a known class have the same code without
            it, and of how many there are.
    """

    name = "class_guided"
    options_class = CBViLAClassGuidedQuantizerOptions
    takes_hints = frozenset({"token_classes"})
    collapse_advice = "update='ema', or norm='l2' with a small dim, in quantizer_config; fewer codes"
    code_labels: Tensor
    label_counts: Tensor
    pending_label_counts: Tensor

    def __init__(
        self,
        options: CBViLAClassGuidedQuantizerOptions,
        width: int,
        gradients: CBViLAGradients = DEFAULT_GRADIENTS,
    ) -> None:
        super().__init__(options, width, gradients)
        decay = options.decay if options.update == "ema" else None
        self.table = CBViLACodeTable(options.size, options.dim or width, width, options.norm == "l2", decay)
        self.register_buffer("code_labels", torch.full((options.size,), _NO_CLASS))
        self.register_buffer("label_counts", torch.zeros(2))
        self.register_buffer("pending_label_counts", torch.zeros(2), persistent=False)
        self._last_classes: Tensor | None = None  # of the latents that are candidates for restarts
        # Always in fp32 at least (see CBViLAModel), also in a model that is made in half precision.
        self.to(torch.promote_types(torch.get_default_dtype(), torch.float32))

    def init_own_weights(self, std: float) -> None:
        """Makes all codes belong to no class."""
        init.constant_(self.code_labels, _NO_CLASS)
        init.zeros_(self.label_counts)
        init.zeros_(self.pending_label_counts)

    @classmethod
    def sizes(cls, options: Any) -> tuple[int, ...]:
        """Returns K."""
        return (options.size,)

    @property
    def label_agreement(self) -> float | None:
        """Share of tokens of a known class whose nearest code is the same without it; `None` before training."""
        same, labelled = self.label_counts.tolist()
        return same / labelled if labelled > 0 else None

    @without_autocast
    @torch.no_grad()
    def lookup(self, latents: Tensor, hints: CBViLAQuantizerHints | None = None) -> Tensor:
        """Returns the indices (…) of the codes for latents (…, C): the nearest ones, with a penalty on other classes.

        The penalty is for tokens whose class is known and has codes.
        """
        classes = self._classes(latents, hints)
        if classes is None:
            return self.table.lookup(latents)
        codes = self.table.whole_codes()
        half_norms = codes.square().sum(-1) / 2
        half_penalty = float("inf") if self.options.hard else self.options.penalty / 2
        indices = []
        chunks = latent_chunks(latents.reshape(-1, latents.shape[-1])), latent_chunks(classes.flatten())
        for chunk, chunk_classes in zip(*chunks, strict=True):
            scores = distance_scores(chunk, codes, half_norms)
            matches = self.code_labels == chunk_classes.unsqueeze(-1)
            known = (matches.any(-1) & (chunk_classes >= 0)).unsqueeze(-1)
            indices.append(torch.where(known & ~matches, scores + half_penalty, scores).argmin(-1))
        return torch.cat(indices).view(latents.shape[:-1])

    @without_autocast
    def forward(
        self, tokens: Tensor, remember: bool = True, hints: CBViLAQuantizerHints | None = None
    ) -> CBViLAQuantizerOutput:
        """Quantizes visual tokens (B, N, D), see [`CBViLAQuantizer.forward`]."""
        self.check_hints(hints)
        latents = self.encode(tokens)
        indices, classes = self.lookup(latents, hints), self._classes(latents, hints)
        codes, counts = token_codes(indices, self.table()), count_codes(indices, self.num_codes)
        metrics = {}
        if classes is not None:
            label_counts = self._count_labels(latents, indices, classes)
            same, labelled = label_counts.unbind()
            metrics["label_agreement"] = torch.where(labelled > 0, same / labelled.clamp_min(1), 1.0)
            if remember and self.learns:
                self.pending_label_counts += label_counts.to(self.pending_label_counts)
        if remember and self.learns and self.table.is_moving_average:
            self.table.remember(latents.detach(), indices, counts)
            self._last_classes = None if classes is None else classes.flatten()
        terms = {"commitment": commitment_loss(latents, codes)}
        if not self.table.is_moving_average:
            terms["codebook"] = codebook_loss(latents, codes)
        source = self.source_of(latents)
        return CBViLAQuantizerOutput(
            quantized=self.table.decode(straight_through(source, codes) if self.training else codes),
            detached=self.table.decode(self.detached_codes(latents, codes)),
            indices=indices,
            counts=counts,
            latents=latents,
            codes=self.head_codes(),
            terms=terms,
            metrics=metrics,
        )

    def fit(
        self, latents: Tensor, generator: torch.Generator, scale: float, hints: CBViLAQuantizerHints | None = None
    ) -> None:
        """Shares out the codes to the classes of latents (M, C), and fits them class by class.

        Without classes, codes belong to none, and the quantizer does what `"nearest"` does.
        """
        classes = self._classes(latents, hints)
        known = latents.new_empty(0) if classes is None else classes[classes >= 0]
        self.label_counts.zero_()
        if not len(known):
            logger.warning(
                f"The quantizer {self.name!r} is fitted without classes of tokens: its codes belong to no class, and "
                "it does what 'nearest' does. Classes come from label maps or a segmentation model."
            )
            self.code_labels.fill_(_NO_CLASS)
            super().fit(latents, generator, scale, hints)
            return
        found, frequencies = known.unique(return_counts=True)
        quotas = class_quotas(frequencies, self.num_codes, self.options.least_codes)
        self.code_labels.copy_(found.repeat_interleave(quotas))
        cluster = partial(
            self._cluster, classes=classes, quotas=dict(zip(found.tolist(), quotas.tolist(), strict=True))
        )
        self.table.fit(latents, generator, scale, cluster)

    def restart(self, threshold: float, share: float, generator: torch.Generator, grace: int = 0) -> Tensor:
        """Moves unused codes to latents of their class in the last batch; without any there, a code stays."""
        if not self.table.is_moving_average or self.is_frozen:
            return torch.zeros((), dtype=torch.long)
        sample = None if self._last_classes is None else self._sample_by_class
        return self.table.restart_unused(threshold, max(1, int(share * self.num_codes)), generator, grace, sample)

    @torch.no_grad()
    def after_step(self) -> None:
        """Updates the codes, and how far indices without classes agree."""
        if not self.is_frozen:
            if several_processes():
                dist.all_reduce(self.pending_label_counts)
            rate = (1 - _AGREEMENT_DECAY) * (self.pending_label_counts[1] > 0).to(self.label_counts)
            self.label_counts.lerp_(self.pending_label_counts, rate)
        self.pending_label_counts.zero_()
        super().after_step()

    def after_skipped_step(self) -> None:
        """Discards the assignments since the last step."""
        super().after_skipped_step()
        self.pending_label_counts.zero_()

    @torch.no_grad()
    def synchronize(self) -> None:
        """Broadcasts the buffers of process 0."""
        super().synchronize()
        if several_processes():
            for buffer in (self.code_labels, self.label_counts):
                dist.broadcast(buffer, src=0)

    def saved_metrics(self) -> dict[str, float]:
        """Returns how far codes agreed that were looked up without classes, as they are at inference."""
        return {} if self.label_agreement is None else {"label_agreement": self.label_agreement}

    def metric_alarm(self, metrics: Mapping[str, float]) -> str | None:
        """Returns a warning if many tokens would have another code without their class."""
        agreement = metrics.get("label_agreement", 1.0)
        if agreement >= _LEAST_AGREEMENT:
            return None
        return (
            f"only {agreement:.1%} of the tokens of a known class have the same code without it (warning below "
            f"{_LEAST_AGREEMENT:.0%}), and without it codes are looked up at inference: a smaller penalty in "
            "quantizer_config, or hard=False, brings both closer."
        )

    def _classes(self, latents: Tensor, hints: CBViLAQuantizerHints | None) -> Tensor | None:
        """Returns the class of each of latents (…, C), if the hints have any. ValueError for another shape."""
        classes = None if hints is None else hints.token_classes
        if classes is not None and classes.shape != latents.shape[:-1]:
            raise ValueError(
                f"token_classes has shape {tuple(classes.shape)}; expected {tuple(latents.shape[:-1])}, one class per "
                "patch, and -1 where none is known."
            )
        return classes

    @torch.no_grad()
    def _count_labels(self, latents: Tensor, indices: Tensor, classes: Tensor) -> Tensor:
        """Counts the tokens (…) of a known class that have the same code without it, and all of them, as (2,)."""
        known = classes >= 0
        same = known & (self.table.lookup(latents) == indices)
        return torch.stack([same.sum(), known.sum()])

    def _cluster(
        self, latents: Tensor, generator: torch.Generator, classes: Tensor, quotas: Mapping[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Returns centres (K, C) and counts (K,) of the k-means of each class, as many as its quota."""
        unknown, parts = latents[classes < 0], []
        for label, quota in quotas.items():
            if quota > 0:
                points = _at_least(quota, latents[classes == label], unknown, generator)
                parts.append(self.table.cluster(points, generator, quota))
        centres, counts = zip(*parts, strict=True)
        return torch.cat(centres), torch.cat(counts)

    def _sample_by_class(self, order: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws a latent (n, C) of its class for each of n codes, see [`CBViLACodeTable.sample_latents`].

        Codes of one class draw from different parts of its latents; those of no class from all latents.
        """
        latents, labels = self.table.last_latents, self.code_labels[order].unsqueeze(-1)
        assert latents is not None and self._last_classes is not None
        fits = (self._last_classes == labels) | (labels < 0)
        equal = labels == labels.T
        draws = torch.rand(order.shape, dtype=torch.float64, generator=generator).to(latents.device)
        share = (equal.tril(-1).sum(1) + draws) / equal.sum(1)
        rank, processes = (dist.get_rank(), dist.get_world_size()) if several_processes() else (0, 1)
        counts = torch.zeros(processes, *order.shape, dtype=torch.long, device=latents.device)
        counts[rank] = fits.sum(1)
        if processes > 1:
            dist.all_reduce(counts)
        total = counts.sum(0)
        # The place among the fitting latents of all processes; each process contributes its own rows, and else zeros.
        place = (share * total).long() - counts[:rank].sum(0)
        own = (place >= 0) & (place < counts[rank])
        rows = (fits & (fits.cumsum(1) == place.unsqueeze(-1) + 1)).int().argmax(1)
        picked = latents[rows] * own.unsqueeze(-1)
        if processes > 1:
            dist.all_reduce(picked)
        return picked, total > 0


def class_quotas(frequencies: Tensor, size: int, least: int) -> Tensor:
    """Shares out codes to classes: `least` to each, the others by the square root of their frequencies.

    Remaining codes go to the largest remainders, of equal ones to the first class. With more classes than codes, the
    most frequent classes have one each.

    Args:
        frequencies: (S,) numbers of tokens, above 0.
        size: K.
        least: Codes of each class, as far as there are enough.

    Returns:
        (S,), which add up to K.
    """
    least = min(least, size // len(frequencies))
    roots = frequencies.double().sqrt()
    shares = roots / roots.sum() * (size - least * len(frequencies))
    quotas = shares.floor().long()
    order = (shares - quotas).sort(descending=True, stable=True).indices
    quotas[order[: size - least * len(frequencies) - int(quotas.sum())]] += 1
    return quotas + least


def _at_least(number: int, points: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """Returns points (M, C), filled up to `number` by other points (M', C) and then by copies with some noise."""
    missing = number - len(points)
    if missing <= 0:
        return points
    chosen = others[torch.randperm(len(others), generator=generator)[:missing].to(others.device)]
    points = torch.cat([points, chosen])
    copied = points[torch.randint(len(points), (number - len(points),), generator=generator).to(points.device)]
    noise = torch.randn(copied.shape, generator=generator).to(copied)
    return torch.cat([points, copied + _JITTER * points.std(unbiased=False) * noise])
