"""Alternating optimizer updates of the codes and of all other weights ("alternately optimizing", Sec. I)."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..context import TrainingContext
from ..peft import ids_of_codes, quantizer_of


class AlternationCallback(TrainerCallback):
    """Drops, before each optimizer step, the gradients of the weights that are not to be updated.

    Weights without a gradient do not change, not even by weight decay or the optimizer's momentum. Forward and
    backward are those of a joint step, so that distributed training sees the same graph at every step.

    Args:
        context: The context of the run; its model must have a codebook that learns by loss.
        turns: Consecutive steps for the codes, and for the rest.
    """

    def __init__(self, context: TrainingContext, turns: tuple[int, int]) -> None:
        quantizer = quantizer_of(context.model)
        if quantizer is None or not list(quantizer.code_parameters()):
            found = "the model has none" if quantizer is None else f"here they are not ({quantizer.options})"
            raise ValueError(
                f"alternate_updates={context.args.alternate_updates!r} needs codes that are learned by loss, such as "
                f"quantizer_config={{'update': 'loss'}}; {found}. Leave it out: a moving average is not updated by "
                "the optimizer."
            )
        self.context = context
        self.for_codes, self.for_rest = turns

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Drops the gradients of the codes or of all other weights."""
        codes_turn = state.global_step % (self.for_codes + self.for_rest) < self.for_codes
        model = self.context.model
        codes = ids_of_codes(model)
        for parameter in model.parameters():
            if (id(parameter) in codes) != codes_turn:
                parameter.grad = None
