"""Updates of objectives between steps."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .context import TrainingContext


class ObjectiveCallback(TrainerCallback):
    """Calls `after_step` of every objective after an optimizer step; [`CBViLATrainer`] adds it by itself.

    Args:
        context: The context of the run.
    """

    def __init__(self, context: TrainingContext) -> None:
        self.context = context

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Updates the objectives, unless an overflow in fp16 made the optimizer skip its step."""
        if not self.context.accelerator.optimizer_step_was_skipped:
            self.context.model.step_objectives()
