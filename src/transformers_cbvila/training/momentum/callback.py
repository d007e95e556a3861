"""Momentum distillation and its queue during training (ALBEF, arXiv 2107.07651; not in the paper)."""

from typing import Any

import torch
from transformers import TrainerCallback
from transformers.utils import logging

from ...model.distributed_cbvila import Processes
from ...model.momentum_cbvila import MomentumPairs, MomentumTargets
from ...model.pair_similarity_cbvila import pair_ids
from ..fsdp import require_whole_weights
from ..runs.checkpoints import load_state, save_state
from ..schedule import distillation_alpha
from .encoder import MomentumEncoder
from .queue import PairQueue

logger = logging.get_logger(__name__)

_STATE_FILE = "momentum.pt"
_LARGEST_QUEUE = 1 / 4  # of the data set


class MomentumCallback(TrainerCallback):
    """Computes soft targets of every training batch with a momentum encoder, and updates it after every step.

    [`CBViLATrainer`] adds it by itself, with `momentum_distill` or `queue_size`. The encoder is updated after an
    optimiser step, which is ALBEF's update before the next forward, but not after a step that was skipped. Every
    micro-batch enters the queue after its loss, with the pairs of all processes in the order of ranks, so that all
    processes have the same queue.

    Attributes:
        queue: Embedded pairs of earlier batches.
    """

    def __init__(self, trainer):
        _check(trainer)
        _warn_of_a_large_queue(trainer)
        self.trainer = trainer
        self._encoder: MomentumEncoder | None = None
        self.queue = PairQueue(trainer.args.queue_size)
        self._batch: MomentumPairs | None = None  # enters the queue once its loss is computed
        self._resumed = False

    @property
    def encoder(self) -> MomentumEncoder:
        """The momentum encoder, a copy of the model as it is when training begins."""
        return self._encoder or self._begin()

    def on_train_begin(self, args, state, control, **kwargs):
        if not self._resumed:
            self._begin()
        self._resumed = False

    def on_optimizer_step(self, args, state, control, **kwargs):
        if not self.trainer.accelerator.optimizer_step_was_skipped:
            self.encoder.update()

    def teach(self, inputs: dict[str, Any]) -> MomentumTargets:
        """Soft targets of a batch with its `loss_weights`, as the model's argument `momentum`."""
        args, state, weights = self.trainer.args, self.trainer.state, inputs["loss_weights"]
        alpha = distillation_alpha(
            state.global_step, state.max_steps, args.momentum_distill, args.momentum_distill_ramp_steps
        )
        model = self.trainer.unwrapped_model
        contrasts = model.needs("momentum_pairs", weights)
        predicts = alpha > 0 and model.needs("momentum_tokens", weights) and inputs.get("input_ids_masked") is not None
        pairs = mlm_logits = None
        if contrasts or predicts:
            images, image_embeds = self.encoder.encode_images(inputs)
        if contrasts:
            self._batch = _of_all(image_embeds, self.encoder.embed_texts(inputs), inputs)
            earlier = self.queue.read()
            pairs = self._batch if earlier is None else self._batch.followed_by(earlier)
        if predicts:
            mlm_logits = self.encoder.predict_tokens(images, inputs)
        return MomentumTargets(alpha, pairs, mlm_logits)

    def enqueue(self) -> None:
        """Writes the batch last passed to `teach` into the queue, if gradients are on."""
        if self._batch is not None and torch.is_grad_enabled():
            self.queue.write(self._batch)
        self._batch = None

    def save(self, folder: str) -> None:
        """Writes the momentum encoder and the queue into a checkpoint."""
        state = {"copies": self.encoder.state_dict(), "queue": self.queue.state_dict()}
        save_state(self.trainer.args, folder, _STATE_FILE, state)

    def load(self, folder: str) -> None:
        """Restores both from a checkpoint; without a state in it, both start anew."""
        state = load_state(self.trainer.args, folder, _STATE_FILE)
        if state is None:
            return
        self._begin().load_state_dict(state["copies"])
        self.queue.load_state_dict(state["queue"])
        self._resumed = True

    def _begin(self) -> MomentumEncoder:
        args = self.trainer.args
        predicts = args.momentum_distill > 0 and self.trainer.unwrapped_model.needs("momentum_tokens")
        self._encoder = MomentumEncoder(self.trainer, args.momentum_decay, predicts)
        self.queue = PairQueue(args.queue_size)
        return self._encoder


def _of_all(image_embeds, text_embeds, inputs: dict[str, Any]) -> MomentumPairs:
    """The pairs of a batch, gathered from all processes."""
    words, known = inputs["input_ids"], inputs.get("known_text_ids")
    image_ids, text_ids = pair_ids(
        inputs["pixel_values"], words, inputs.get("attention_mask"), inputs.get("image_ids"), inputs.get("text_ids")
    )
    processes = Processes.gather_sizes(True, words, known)
    known = text_ids.new_empty(text_ids.shape[0], 0) if known is None else known
    pairs = MomentumPairs(image_embeds, text_embeds, image_ids, text_ids, known)
    return pairs if processes is None else pairs.of_all(processes)


def _check(trainer) -> None:
    """Raises a ValueError if no loss uses a momentum encoder, or weights are sharded."""
    args = trainer.args
    asked = f"momentum_distill={args.momentum_distill}, queue_size={args.queue_size}"
    if not trainer.is_pretraining:
        raise ValueError(
            f"{asked}: momentum copies are for CBViLAForPreTraining, not for "
            f"{type(trainer.unwrapped_model).__name__}. Leave both out."
        )
    require_whole_weights(trainer, f"{asked} keeps whole copies of the encoders")
    model = trainer.unwrapped_model
    if args.queue_size > 0 and not model.needs("momentum_pairs"):
        raise ValueError(
            f"queue_size={args.queue_size} is for ITC, which a weight of 0 (as in the preset 'paper') leaves out: set "
            "one of both to another value."
        )
    if not (model.needs("momentum_pairs") or model.needs("momentum_tokens")):
        raise ValueError(
            f"momentum_distill={args.momentum_distill} is for ITC and MLM, whose weights are 0: leave it out."
        )


def _warn_of_a_large_queue(trainer) -> None:
    size, dataset = trainer.args.queue_size, trainer.train_dataset
    if hasattr(dataset, "__len__") and size > _LARGEST_QUEUE * len(dataset) and trainer.is_world_process_zero():
        logger.warning(
            f"queue_size={size} is more than a quarter of the {len(dataset)} training pairs: the queue will hold many "
            "images and texts like those of the batch, and ITC takes for mismatches what is not known to match. "
            f"{len(dataset) // 4} or less is better."
        )
