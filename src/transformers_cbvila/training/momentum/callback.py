"""Momentum distillation and its queue during training (ALBEF, arXiv 2107.07651; not in the paper)."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from ...model.momentum_cbvila import MomentumPairs, MomentumTargets
from ...model.pair_ids_cbvila import gather_pair_ids
from ..context import TrainingContext
from ..fsdp import require_whole_weights
from ..runs.checkpoints import StateFile
from ..schedule import distillation_alpha
from .encoder import MomentumEncoder
from .queue import PairQueue

logger = logging.get_logger(__name__)

_LARGEST_QUEUE = 1 / 4  # of the data set
_IDS = ("image_ids", "text_ids", "known_text_ids")


class MomentumCallback(TrainerCallback):
    """Computes soft targets of every training batch with a momentum encoder, and updates it after every step.

    [`CBViLATrainer`] adds it by itself, with `momentum_distill` or `queue_size`. The encoder is updated after an
    optimizer step, which is ALBEF's update before the next forward, but not after a step that was skipped. Every
    micro-batch enters the queue after its loss, with the pairs of all processes in the order of ranks, so that all
    processes have the same queue.

    Args:
        context: The context of the run.

    Attributes:
        queue: Embedded pairs of earlier batches.
        state_file: The file in checkpoints.
    """

    state_file = StateFile("momentum.pt", "momentum encoder and queue start again", {"copies": "encoder"})

    def __init__(self, context: TrainingContext) -> None:
        _check(context)
        _warn_of_a_large_queue(context)
        self.context = context
        self._encoder: MomentumEncoder | None = None
        self.queue = PairQueue(context.args.queue_size)
        self._batch: MomentumPairs | None = None  # enters the queue once its loss is computed
        self._resumed = False

    @property
    def encoder(self) -> MomentumEncoder:
        """The momentum encoder, a copy of the model as it is when training begins."""
        return self._encoder or self._begin()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Starts a new momentum encoder and queue, unless a checkpoint was loaded."""
        if not self._resumed:
            self._begin()
        self._resumed = False

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Updates the momentum encoder."""
        if not self.context.accelerator.optimizer_step_was_skipped:
            self.encoder.update()

    def targets(self, inputs: dict[str, Any], state: TrainerState) -> MomentumTargets:
        """Computes the model's argument `momentum` for a batch with its `loss_weights`."""
        args, model, weights = self.context.args, self.context.model, inputs["loss_weights"]
        alpha = distillation_alpha(
            state.global_step, state.max_steps, args.momentum_distill, args.momentum_distill_ramp_steps
        )
        contrasts = model.needs("momentum_pairs", weights)
        predicts = alpha > 0 and model.needs("momentum_tokens", weights) and inputs.get("input_ids_masked") is not None
        ids = pairs = mlm_logits = texts = None
        other = inputs.get("other_pixel_values") if model.needs("teacher_view", weights) else None
        if predicts or (contrasts and other is None):
            images, image_embeds = self.encoder.encode_images(inputs)
        if contrasts and other is not None:
            _, image_embeds = self.encoder.encode_images({**inputs, "pixel_values": other})
        if contrasts:
            text_embeds = self.encoder.embed_texts(inputs)
            contents = inputs["pixel_values"], inputs["input_ids"], inputs.get("attention_mask")
            ids = gather_pair_ids(True, *contents, *(inputs.get(name) for name in _IDS))
            self._batch = MomentumPairs.of_batch(ids, image_embeds, text_embeds)
            earlier = self.queue.read()
            pairs = self._batch if earlier is None else self._batch.followed_by(earlier)
        if predicts:
            mlm_logits = self.encoder.predict_tokens(images, inputs)
        if model.needs("text_features", weights):
            texts = self.encoder.encode_texts(inputs)
        return MomentumTargets(alpha, pairs, mlm_logits, ids, texts)

    def enqueue(self) -> None:
        """Writes the batch last passed to `targets` into the queue, if gradients are on."""
        if self._batch is not None and torch.is_grad_enabled():
            self.queue.write(self._batch)
        self._batch = None

    def save(self, folder: str) -> None:
        """Writes the momentum encoder and the queue into a checkpoint."""
        state = {"encoder": self.encoder.state_dict(), "queue": self.queue.state_dict()}
        self.state_file.save(self.context.args, folder, state)

    def load(self, folder: str) -> None:
        """Restores both from a checkpoint; without a state in it, both start again."""
        state = self.state_file.load(self.context.args, folder)
        if state is None:
            return
        self._begin().load_state_dict(state["encoder"])
        self.queue.load_state_dict(state["queue"])
        self._resumed = True

    def _begin(self) -> MomentumEncoder:
        args = self.context.args
        predicts = args.momentum_distill > 0 and self.context.model.needs("momentum_tokens")
        self._encoder = MomentumEncoder(self.context, args.momentum_decay, predicts)
        self.queue = PairQueue(args.queue_size)
        return self._encoder


def _check(context: TrainingContext) -> None:
    """Raises a ValueError if no loss uses a momentum encoder, or weights are sharded."""
    args, model = context.args, context.model
    given = f"momentum_distill={args.momentum_distill}, queue_size={args.queue_size}"
    if not context.is_pretraining:
        raise ValueError(
            f"{given}: a momentum encoder is for CBViLAForPreTraining, not for {type(model).__name__}. Leave both out."
        )
    require_whole_weights(context, f"{given} needs a whole copy of the encoders")
    if args.queue_size > 0 and not model.needs("momentum_pairs"):
        raise ValueError(
            f"queue_size={args.queue_size} is for ITC or CODIS, and their weights are 0 (as in the preset "
            "'paper'): set queue_size to 0, or one of their weights to another value."
        )
    if not any(model.needs(what) for what in ("momentum_pairs", "momentum_tokens", "text_features")):
        raise ValueError(
            f"momentum_distill={args.momentum_distill} is for ITC, CODIS and MLM, whose weights are 0: leave it out."
        )


def _warn_of_a_large_queue(context: TrainingContext) -> None:
    size, dataset = context.args.queue_size, context.train_dataset
    if hasattr(dataset, "__len__") and size > _LARGEST_QUEUE * len(dataset) and context.is_main_process:
        logger.warning(
            f"queue_size={size} is more than a quarter of the {len(dataset)} training pairs: the queue will hold many "
            "images and texts like those of the batch, and ITC treats pairs as mismatches unless they are known to "
            f"match. {len(dataset) // 4} or less is better."
        )
