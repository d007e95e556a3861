"""Masked image modelling (MIM, Eq. 4): predicts the codes of masked patches from visible ones and the caption.

Shapes: b images, N patches, M masked patches, D hidden, R books, K codes of a book, ΣK those of all books.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .autocast_cbvila import without_autocast
from .losses_cbvila import at_least_fp32, books_loss, by_book, masked_rows, take_rows
from .mim_head_sequential_cbvila import CBViLASequentialMIMHead, Choose
from .objective_cbvila import Answer, CBViLAObjective, CBViLAObjectiveOptions, CBViLAStep, Scored, VisualQuery
from .options_cbvila import options
from .quantizer_cbvila import CBViLAQuantizer

_LN_10 = 2.3026


@options
class CBViLAMIMOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLAMIM`].

    Args:
        weight: Weight of the term.
        head: A linear classifier over codes (`"linear"`), the cosine with the codes themselves (`"tied"`), or, for
            quantizers with several books, classifiers that know a patch's codes of the books before
            (`"sequential"`): what to take for drawing.
        grad_to_vit: Whether the term trains the image encoder through the visible tokens. More codes are then in use,
            but indices are less stable, and recall does not improve (docs/study.md).
        mask_stage: Whether patches are masked after the image encoder (`"post"`, Sec. III-B), or before it (`"pre"`).
            With `"pre"`, a second pass of the image encoder, with a mask embedding in place of masked patches, gives
            the visible tokens; the targets still come from the unmasked image.
    """

    head: Literal["linear", "tied", "sequential"] = "linear"
    grad_to_vit: bool = False
    mask_stage: Literal["post", "pre"] = "post"

    flat_names = {
        "mim_weight": "weight",
        "mim_head": "head",
        "mim_grad_to_vit": "grad_to_vit",
        "mim_mask_stage": "mask_stage",
    }
    presets = {"paper": {"grad_to_vit": True}, "albef": {"weight": 0.0}, "codis": {"weight": 0.0}}


class CBViLATiedMIMHead(nn.Module):
    """Scores codes by their cosine similarity with a prediction, which stays meaningful when codes move.

    Args:
        hidden_size: D.
        dims: Code width of each book.
    """

    def __init__(self, hidden_size: int, dims: Sequence[int]) -> None:
        super().__init__()
        self.dims = list(dims)
        self.dense = nn.Linear(hidden_size, sum(dims))
        self.scale = nn.Parameter(torch.tensor(_LN_10))

    def init_own_weights(self, std: float) -> None:
        """Initializes the scale."""
        init.constant_(self.scale, _LN_10)

    @without_autocast
    def forward(self, hidden_states: Tensor, books: Sequence[Tensor]) -> Tensor:
        """Returns logits (M, ΣK) from states (M, D) and the codes (K, C) of each book."""
        dense = at_least_fp32(self.dense(hidden_states.to(self.dense.weight.dtype)))
        scale = self.scale.exp().clamp(max=100)
        logits = []
        for predictions, codes in zip(dense.split(self.dims, dim=-1), books, strict=True):
            predictions, targets = F.normalize(predictions, dim=-1), F.normalize(at_least_fp32(codes.detach()), dim=-1)
            logits.append(scale * predictions @ targets.to(predictions).T)
        return torch.cat(logits, dim=-1)


class CBViLAMIM(CBViLAObjective):
    """Predicts the codes of every book at masked patches."""

    name = "mim"
    options_class = CBViLAMIMOptions
    keys_of_0_1 = {r"^mim_head\.": "objectives.mim.head."}
    phase = "stable"
    needs = frozenset({"quantizer", "visual_queries", "code_targets"})
    is_default = True
    reads = "detached"

    def __init__(self, options: CBViLAMIMOptions, config: Any, quantizer: CBViLAQuantizer | None = None) -> None:
        super().__init__(options, config, quantizer)
        self.book_sizes = quantizer.book_sizes
        self.head = _head(options.head, config.multimodal_config.hidden_size, quantizer)

    @property
    def is_sequential(self) -> bool:
        """Whether the codes of a book are predicted knowing those of the books before."""
        return self.options.head == "sequential"

    @classmethod
    def check_with(cls, options: Any, config: Any) -> None:
        """Raises a ValueError for a head that does not fit the quantizer."""
        if options.weight > 0 and options.head == "tied" and not config.codes_differ_in_direction():
            raise ValueError(
                f"objectives[{cls.name!r}]: head='tied' compares directions, and codes of the quantizer "
                f"{config.quantizer_config.type!r} differ in length only, some of them: choose head='linear'."
            )
        if options.weight > 0 and options.head == "sequential" and len(config.book_sizes()) == 1:
            raise ValueError(
                f"objectives[{cls.name!r}]: head='sequential' predicts one book after the other, and the quantizer "
                f"{config.quantizer_config.type!r} has one: choose head='linear'."
            )

    @classmethod
    def hides_patches(cls, options: Any) -> bool:
        """Returns True: its query masks patches."""
        return True

    def visual_queries(self, step: CBViLAStep) -> list[VisualQuery]:
        """Returns the query with masked patches."""
        return mim_queries(step, self.options.grad_to_vit)

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Computes the cross-entropy of codes at masked patches."""
        if not answers:
            return {}
        (answer,), rows = answers, masked_rows(step.bool_masked_pos)
        targets = take_rows(mim_targets(step), rows)
        if answer.logits is None or self.is_sequential:  # whose logits depend on the codes before
            logits = self.scores(take_rows(answer.states, rows), step.quantized.codes, targets)
        else:
            logits = take_rows(answer.logits, rows)
        loss = books_loss(logits, targets, self.book_sizes)
        return {self.name: Scored(loss, step.bool_masked_pos, {"mim_logits": logits})}

    def scores(self, states: Tensor, books: Sequence[Tensor], indices: Tensor) -> Tensor:
        """Returns logits (…, ΣK), with the head `"sequential"` those of a book given the codes of the books before.

        Args:
            states: (…, D) states of visual queries.
            books: The codes (K, C) of each book.
            indices: (…) or (…, R) codes of the patches.
        """
        given = by_book(indices, self.book_sizes)
        return self.decode(states, books, lambda logits, book: given[book])[1]

    def decode(self, states: Tensor, books: Sequence[Tensor], choose: Choose) -> tuple[Tensor, Tensor]:
        """Chooses codes, one book after the other; returns them, (…) or (…, R), and the logits (…, ΣK).

        Args:
            states: (…, D) states of visual queries.
            books: The codes (K, C) of each book.
            choose: Chooses codes (…) of a book from its logits (…, K) and its number.
        """
        if self.is_sequential:
            return self.head(states, choose)
        if self.options.head == "tied":  # scores any codes, also more or fewer than the quantizer's
            logits, sizes = self.head(states, books), [len(codes) for codes in books]
        else:
            logits, sizes = self.head(states), list(self.book_sizes)
        chosen = [choose(part, book) for book, part in enumerate(logits.split(sizes, dim=-1))]
        return chosen[0] if len(chosen) == 1 else torch.stack(chosen, dim=-1), logits

    def code_weights(self) -> list[nn.Module]:
        """Returns the head, unless it is tied and has no weights per code."""
        return [] if self.options.head == "tied" else [self.head]


def _head(kind: str, hidden_size: int, quantizer: CBViLAQuantizer) -> nn.Module:
    """Returns a new head of the option `head`."""
    if kind == "tied":
        return CBViLATiedMIMHead(hidden_size, [codes.shape[1] for codes in quantizer.head_codes()])
    if kind == "sequential":
        return CBViLASequentialMIMHead(hidden_size, quantizer.book_sizes)
    return nn.Linear(hidden_size, sum(quantizer.book_sizes))


def mim_queries(step: CBViLAStep, grad_to_vit: bool) -> list[VisualQuery]:
    """Returns the query with masked patches, if the batch has a mask."""
    if step.bool_masked_pos is None:
        return []
    return [VisualQuery("detached", step.bool_masked_pos, grad_to_vit)]


def mim_targets(step: CBViLAStep) -> Tensor:
    """Returns the target indices (b, N) or (b, N, R): those of the batch, or else the quantizer's."""
    return step.quantized.indices if step.mim_targets is None else step.mim_targets
