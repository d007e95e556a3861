"""What training asks of a quantizer, between steps: to fit its codes, to move them, to revive those that are unused.

Training calls these hooks and knows nothing else about a quantizer. `tables` is enough for one whose codes are tables.

Shapes: M latents, C code width, D vision width.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from .code_table_cbvila import CBViLACodeTable


class CBViLAQuantizerHooks(nn.Module):
    """The part of [`CBViLAQuantizer`] that training calls."""

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
            table.discard_pending()

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
