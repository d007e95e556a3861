"""Options that a model, or the processes that train it, cannot follow: refused before training."""

from typing import Any

from ..data.streams import StreamedImageTextPairs
from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from ..model.modeling_cbvila_visual_entailment import CBViLAForVisualEntailment
from ..model.modeling_cbvila_visual_reasoning import CBViLAForVisualReasoning
from .inherited_options import OF_THE_LOADER, check_optimizer, refuse

_OF_LABELS = (CBViLAForQuestionAnswering, CBViLAForVisualEntailment, CBViLAForVisualReasoning)


def require_one_device(args: Any) -> None:
    """Raises a ValueError for one process with several devices, which transformers would wrap in DataParallel."""
    if args.n_gpu > 1:
        raise ValueError(
            f"One process has {args.n_gpu} devices (DataParallel): copies of the model on these would keep codes and "
            "queues of their own, and lose them. Start a process for each device, with accelerate launch or torchrun; "
            "or show it one device, with CUDA_VISIBLE_DEVICES=0."
        )


def check_options(trainer) -> None:
    """Raises a ValueError that names an option of which nothing would come with the trainer's model."""
    args, model = trainer.args, trainer.unwrapped_model
    of = f"for {type(model).__name__}"
    if not (trainer.is_pretraining and "align" in active_phases(model.config)):
        refuse(args, ["align_steps"], "only pretraining with contrast (ITC) has an objective to begin with alone")
    if not trainer.is_pretraining:
        schedule = ["burn_in_steps", "mlm_from_start", "mim_gate", "codebook_refit", "codebook_target_decay"]
        refuse(args, schedule, f"{of} there is no burn-in, which CBViLAForPreTraining has")
    if not getattr(model, "learns_codes", False):
        refuse(args, ["codebook_restart_threshold"], f"{of} there is no codebook that learns")
    if not trainer.draws_negatives:
        refuse(args, ["negative_hardening"], f"{of} there is no image-text matching to draw them for")
    if not isinstance(model, _OF_LABELS):
        refuse(args, ["label_smoothing_factor"], f"{of} there are no labels to smooth")
    if isinstance(trainer.train_dataset, StreamedImageTextPairs):
        refuse(args, OF_THE_LOADER, "a stream is read as it comes, shuffled by shuffle_buffer and seed")
    check_optimizer(trainer)


def active_phases(config: Any) -> set[str]:
    """The phases of training from which the terms with a weight are on."""
    weights = config.loss_weights()
    return {phase for term, phase in config.loss_phases().items() if weights[term] > 0}


def require_mismatches(trainer) -> None:
    """Raises a ValueError where a batch is a single pair, and contrast and matching have nothing to tell it from."""
    args, config = trainer.args, trainer.unwrapped_model.config
    compares = trainer.draws_negatives and not (trainer.is_pretraining and not config.needs("other_pairs"))
    if trainer.train_dataset is not None and compares and args.per_device_train_batch_size * args.world_size < 2:
        raise ValueError(
            f"per_device_train_batch_size={args.per_device_train_batch_size} on {args.world_size} process: a single "
            "pair has no mismatch, and neither contrast (ITC) nor matching (ITM) would learn. Take 2 pairs or "
            "more at once, on all processes together (gradient_accumulation_steps does not count)"
            + ("; or set the weights of both to 0." if trainer.is_pretraining else ".")
        )
