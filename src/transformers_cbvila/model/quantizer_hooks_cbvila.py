"""Hooks that training calls between steps: fitting a quantizer's codes, updating them, and restarting unused ones.

Training uses nothing else of a quantizer. One whose codes are tables only implements `tables`.

Shapes: M latents, C code width, D vision width.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from .code_table_cbvila import CBViLACodeTable
from .quantizer_output_cbvila import CBViLAQuantizerHints


class CBViLAQuantizerHooks(nn.Module):
    """The methods of [`CBViLAQuantizer`] that training calls."""

    def tables(self) -> tuple[CBViLACodeTable, ...]:
        """Returns the tables of codes, one per book; none where codes are not learned."""
        return ()

    def followed(self) -> dict[str, nn.Module]:
        """Returns the modules that an EMA teacher averages together with the image encoder, to encode its tokens."""
        return {}

    def code_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the codes that the optimizer moves: without weight decay, and in turns with `alternate_updates`."""
        return (table.codes for table in self.tables() if isinstance(table.codes, nn.Parameter))

    @property
    def is_frozen(self) -> bool:
        """Whether `requires_grad_(False)` was called on the quantizer or on a module around it; codes then stay fixed.

        Codes that are moving averages have no `requires_grad`, so the quantizer's parameters decide. A quantizer
        without parameters is never frozen.
        """
        own = list(self.code_parameters()) or list(self.parameters())
        return bool(own) and not any(parameter.requires_grad for parameter in own)

    @property
    def learns(self) -> bool:
        """Whether a forward pass now counts in moving averages."""
        return self.training and torch.is_grad_enabled() and not self.is_frozen

    @property
    def is_fitted(self) -> bool:
        """Whether the codes were fitted to features, or need no fit."""
        return all(bool(table.initialized) for table in self.tables())

    @property
    def can_restart(self) -> bool:
        """Whether [`~CBViLAQuantizer.restart`] can move unused codes."""
        return any(table.is_moving_average for table in self.tables())

    @property
    def waits_for_step(self) -> bool:
        """Whether there are assignments since the last [`~CBViLAQuantizer.after_step`]."""
        return any(table.waits_for_step for table in self.tables())

    def fit(
        self, latents: Tensor, generator: torch.Generator, scale: float, hints: CBViLAQuantizerHints | None = None
    ) -> None:
        """Fits the codes to latents.

        Args:
            latents: (M, C), the same on all processes.
            generator: Random generator on the CPU, in the same state on all processes.
            scale: Tokens of an optimizer step divided by M: the factor from cluster sizes to moving counts.
            hints: Additional inputs for the M latents, for quantizers that use any.
        """
        for table in self.tables():
            table.fit(latents, generator, scale)

    def synchronize(self) -> None:
        """Broadcasts the buffers of process 0; steps keep them equal from then on."""
        for table in self.tables():
            table.synchronize()

    def after_step(self) -> None:
        """Updates the codes with the assignments since the last call; once per optimizer step, on all processes."""
        if self.is_frozen:
            self.after_skipped_step()
            return
        for table in self.tables():
            table.ema_step()

    def after_skipped_step(self) -> None:
        """Discards the assignments since the last step; after a skipped step, such as an overflow in fp16."""
        for table in self.tables():
            table.discard_pending()

    def restart(self, threshold: float, share: float, generator: torch.Generator, grace: int = 0) -> Tensor:
        """Moves unused codes to latents of the last batch, see [`CBViLACodeTable.restart_unused`].

        Args:
            threshold: Share of the expected count below which a code is unused.
            share: Largest share of a table's codes that move at once; at least one code.
            generator: Random generator on the CPU, in the same state on all processes.
            grace: Steps after a fit or a restart during which a code does not move.

        Returns:
            The number of codes that moved, ().
        """
        moved = [
            table.restart_unused(threshold, max(1, int(share * table.num_codes)), generator, grace)
            for table in self.tables()
            if table.is_moving_average and not self.is_frozen
        ]
        return torch.stack(moved).sum() if moved else torch.zeros((), dtype=torch.long)

    def training_state(self) -> dict[str, Tensor]:
        """Returns the buffers that a resumed run needs and the model's checkpoint does not contain."""
        return {
            f"tables.{i}.{name}": getattr(table, name)
            for i, table in enumerate(self.tables())
            for name in table.training_buffers()
        }

    def saved_metrics(self) -> dict[str, float]:
        """Returns metrics of training that are saved with the model, for reports about it."""
        return {}

    def metric_alarm(self, metrics: Mapping[str, float]) -> str | None:
        """Returns a warning if means of `metrics` over many steps are out of range, else `None`."""
        return None
