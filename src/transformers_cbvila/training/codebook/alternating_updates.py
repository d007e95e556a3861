"""Alternating optimiser updates of the codes and of all other weights ("alternately optimizing", Sec. I)."""

from transformers import TrainerCallback

from ..peft import ids_of_codes, quantizer_of


class AlternationCallback(TrainerCallback):
    """Drops, before each optimiser step, the gradients of the weights that are not to be updated.

    Weights without a gradient are not changed, by weight decay and momentum neither. Forward and backward are those
    of a joint step, so that distributed training sees the same graph at every step.

    Args:
        trainer: The trainer; its model must have a codebook that learns by loss.
        turns: Consecutive steps for the codes, and for the rest.
    """

    def __init__(self, trainer, turns: tuple[int, int]):
        quantizer = quantizer_of(trainer.unwrapped_model)
        if quantizer is None or not list(quantizer.code_parameters()):
            found = "the model has none" if quantizer is None else f"here they are not ({quantizer.options})"
            raise ValueError(
                f"alternate_updates={trainer.args.alternate_updates!r} needs codes that are learned by loss, such as "
                f"quantizer_config={{'update': 'loss'}}; {found}. Leave it out: a moving average is no turn of the "
                "optimizer."
            )
        self.trainer = trainer
        self.for_codes, self.for_rest = turns

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        codes_turn = state.global_step % (self.for_codes + self.for_rest) < self.for_codes
        codes = ids_of_codes(self.trainer.unwrapped_model)
        for parameter in self.trainer.unwrapped_model.parameters():
            if (id(parameter) in codes) != codes_turn:
                parameter.grad = None
