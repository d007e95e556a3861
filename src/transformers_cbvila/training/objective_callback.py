"""What objectives do between steps."""

from transformers import TrainerCallback


class ObjectiveCallback(TrainerCallback):
    """Calls `after_step` of every objective after an optimizer step; [`CBViLATrainer`] adds it by itself."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_optimizer_step(self, args, state, control, **kwargs):
        if self.trainer.accelerator.optimizer_step_was_skipped:  # after an overflow in fp16
            return
        self.trainer.unwrapped_model.step_objectives()
