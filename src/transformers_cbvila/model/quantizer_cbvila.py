"""The contract of a quantizer: visual tokens in, quantized visual tokens and their code indices out (Sec. III-A).

A quantizer is one file with one subclass and its options; `quantizers_cbvila.py` names those that there are. The model
calls `forward`; training calls the hooks at the end of the class, which do nothing unless a subclass says otherwise,
and knows nothing else about it.

Shapes: B batch, N visual tokens, D vision width, C code width, R books, K codes of a book.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .code_table_cbvila import CBViLACodeTable
from .losses_cbvila import at_least_fp32
from .options_cbvila import CBViLAOptions, options
from .quantizer_output_cbvila import DEFAULT_GRADIENTS, CBViLAGradients, CBViLAQuantizerHints, CBViLAQuantizerOutput


@options
class CBViLAQuantizerOptions(CBViLAOptions):
    """Options that every quantizer has.

    Args:
        type: Name of the quantizer; filled in.
    """

    type: str = ""


class CBViLAQuantizer(nn.Module):
    """Base class of quantizers. Indices never have noise in them: the same in training and evaluation.

    A subclass sets `name` and `options_class`, and implements `sizes`, `forward`, `encode`, `lookup`,
    `indices_to_quantized` and `head_codes`.

    Args:
        options: An `options_class`.
        width: D, of the tokens.
        gradients: Which outputs train the image encoder.

    Attributes:
        book_sizes (`tuple[int, ...]`): K of each book. One for most quantizers; then indices are (B, N).
        takes_hints: Names of the hints that it uses; others are refused.
        collapse_advice: What helps against few codes in use, as the end of a sentence.
        keys_of_0_1: Patterns of keys in checkpoints of version 0.1, with what they are called now.
    """

    name: ClassVar[str]
    options_class: ClassVar[type[CBViLAQuantizerOptions]]
    takes_hints: ClassVar[frozenset[str]] = frozenset()
    keys_of_0_1: ClassVar[dict[str, str]] = {}
    collapse_advice: ClassVar[str] = "fewer codes"
    book_sizes: tuple[int, ...]

    def __init__(self, options: Any, width: int, gradients: CBViLAGradients = DEFAULT_GRADIENTS):
        super().__init__()
        self.options = options
        self.width = width
        self.gradients = gradients

    @classmethod
    def sizes(cls, options: Any) -> tuple[int, ...]:
        """`book_sizes` of a quantizer with these options."""
        raise NotImplementedError

    @property
    def num_codes(self) -> int:
        """Codes of all books together."""
        return sum(self.book_sizes)

    def forward(
        self, tokens: Tensor, remember: bool = True, hints: CBViLAQuantizerHints | None = None
    ) -> CBViLAQuantizerOutput:
        """Quantizes visual tokens (B, N, D), [CLS] not among them.

        Args:
            remember: Whether the tokens count in moving averages: once per image, not for another view of it.
            hints: What is known of the tokens.
        """
        raise NotImplementedError

    def encode(self, tokens: Tensor, modules: Mapping[str, nn.Module] | None = None) -> Tensor:
        """Visual tokens (…, D) to latents (…, C), which are compared with codes.

        Args:
            modules: Take the place of those of [`~CBViLAQuantizer.followed`], for example their moving averages.
        """
        raise NotImplementedError

    def lookup(self, latents: Tensor, hints: CBViLAQuantizerHints | None = None) -> Tensor:
        """Latents (B, N, C) to indices (B, N) or (B, N, R)."""
        raise NotImplementedError

    def indices_to_quantized(self, indices: Tensor) -> Tensor:
        """Indices (…) or (…, R) to quantized tokens (…, D)."""
        raise NotImplementedError

    def head_codes(self) -> tuple[Tensor, ...]:
        """The codes (K, C) of each book, which a tied MIM head compares its predictions with; without gradient."""
        raise NotImplementedError

    def check_hints(self, hints: CBViLAQuantizerHints | None) -> None:
        """Raises a ValueError for hints that this quantizer does not use."""
        given = {name for name, value in (hints or CBViLAQuantizerHints())._asdict().items() if value is not None}
        if given - self.takes_hints:
            raise ValueError(
                f"{', '.join(sorted(given - self.takes_hints))} given to the quantizer {self.name!r}, which does not "
                "use it: leave it out, or choose another quantizer_config."
            )

    # Hooks of training. `tables` is enough for quantizers whose codes are tables.

    def tables(self) -> tuple[CBViLACodeTable, ...]:
        """The tables of codes, one per book; empty for a quantizer whose codes are not learned."""
        return ()

    def followed(self) -> dict[str, nn.Module]:
        """What a slower copy of the image encoder must copy too, so that its tokens can be encoded."""
        return {}

    def code_parameters(self) -> Iterator[nn.Parameter]:
        """Codes that the optimizer moves: no weight decay, and turns of their own with `alternate_updates`."""
        return (table.codes for table in self.tables() if isinstance(table.codes, nn.Parameter))

    @property
    def is_frozen(self) -> bool:
        """Whether `requires_grad_(False)` was called on the quantizer, or on what it is part of; its codes then stay.

        Codes that are moving averages have no gradient to switch off: they follow the parameters around them.
        (Without any, nothing here shows it.)
        """
        own = list(self.code_parameters()) or list(self.parameters())
        return bool(own) and not any(parameter.requires_grad for parameter in own)

    @property
    def learns(self) -> bool:
        """Whether a forward pass now is one that moving averages take in."""
        return self.training and torch.is_grad_enabled() and not self.is_frozen

    @property
    def is_fitted(self) -> bool:
        """Whether the codes were fitted to features once, or need no fit."""
        return all(bool(table.initialized) for table in self.tables())

    @property
    def can_restart(self) -> bool:
        """Whether unused codes can be moved by [`~CBViLAQuantizer.restart`]."""
        return any(table.is_moving_average for table in self.tables())

    @property
    def waits_for_step(self) -> bool:
        """Whether a training forward added up what no [`~CBViLAQuantizer.after_step`] has taken in yet."""
        return any(table.waits_for_step for table in self.tables())

    def fit(self, latents: Tensor, generator: torch.Generator, scale: float) -> None:
        """Starts the codes at latents (M, C), the same on all processes; the generator is in the same state on all.

        Args:
            scale: Tokens of an optimizer step over M: what a cluster's size is in moving counts.
        """
        for table in self.tables():
            table.fit(latents, generator, scale)

    def synchronize(self) -> None:
        """Gives every process the buffers of process 0. Steps keep them equal from then on."""
        for table in self.tables():
            table.synchronize()

    def after_step(self) -> None:
        """Takes in what was assigned since the last call; once per optimizer step, on all processes."""
        if self.is_frozen:
            self.after_skipped_step()
            return
        for table in self.tables():
            table.ema_step()

    def after_skipped_step(self) -> None:
        """Drops what was assigned since the last step, as after an overflow in fp16."""
        for table in self.tables():
            table.forget_pending()

    def restart(self, threshold: float, share: float, generator: torch.Generator, grace: int = 0) -> Tensor:
        """Moves unused codes to latents of the last batch, see [`CBViLACodeTable.restart_unused`].

        Args:
            share: Of the codes of a table, how many may move at once; at least one.

        Returns:
            How many codes moved, as a tensor ().
        """
        moved = [
            table.restart_unused(threshold, max(1, int(share * table.num_codes)), generator, grace)
            for table in self.tables()
            if table.is_moving_average and not self.is_frozen
        ]
        return torch.stack(moved).sum() if moved else torch.zeros((), dtype=torch.long)

    def training_state(self) -> dict[str, Tensor]:
        """Buffers that a resumed run needs and weights do not hold."""
        return {
            f"tables.{i}.{name}": getattr(table, name)
            for i, table in enumerate(self.tables())
            for name in table.training_buffers()
        }

    def metric_alarm(self, metrics: Mapping[str, float]) -> str | None:
        """What is wrong with the mean of `metrics` over many steps, as a sentence for a warning."""
        return None


def project(projection: nn.Module, x: Tensor) -> Tensor:
    """A projection of `x` in the precision of its weights: fp32, unless the whole model was cast to another."""
    weight = next(projection.parameters(), x)
    return projection(x.to(weight.dtype))


def projections(width: int, dim: int) -> tuple[nn.Module, nn.Linear]:
    """What turns tokens (…, D) into latents (…, C), and codes (…, C) into quantized tokens (…, D)."""
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, dim)), nn.Linear(dim, width)


def token_codes(indices: Tensor, codes: Tensor) -> Tensor:
    """Rows (…, C) of codes (K, C) in at least fp32."""
    return F.embedding(indices, at_least_fp32(codes))
