"""Alternating optimiser updates of the codes and of all other weights ("alternately optimizing", Sec. I)."""

from transformers import TrainerCallback


class AlternationCallback(TrainerCallback):
    """Drops, before each optimiser step, the gradients of the weights that are not to be updated.

    Weights without a gradient are not changed, by weight decay and momentum neither. Forward and backward are those
    of a joint step, so that distributed training sees the same graph at every step.

    Args:
        trainer: The trainer; its model must have a codebook that learns by loss.
        turns: Consecutive steps for the codes, and for the rest.
    """

    def __init__(self, trainer, turns: tuple[int, int]):
        update = getattr(trainer.unwrapped_model.config, "codebook_update", None)
        if update != "loss" or not hasattr(trainer.unwrapped_model, "update_codebook"):
            raise ValueError(
                f"alternate_updates={trainer.args.alternate_updates!r} needs a model whose codes learn by loss "
                f"(codebook_update='loss'); here codebook_update={update!r}. Leave it out: a moving average is no "
                "turn of the optimiser."
            )
        self.trainer = trainer
        self.for_codes, self.for_rest = turns

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        codes_turn = state.global_step % (self.for_codes + self.for_rest) < self.for_codes
        codes = self.trainer.unwrapped_model.cbvila.codebook.codes
        for parameter in self.trainer.unwrapped_model.parameters():
            if (parameter is codes) != codes_turn:
                parameter.grad = None
