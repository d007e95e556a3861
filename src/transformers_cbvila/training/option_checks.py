"""Checks, before training, of options that the model or the processes do not support."""

import copy
from typing import Any

from transformers import Trainer, TrainingArguments

from ..data.given_options import default_of
from ..data.streams import StreamedImageTextPairs
from ..model.messages_cbvila import shown
from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from ..model.modeling_cbvila_visual_entailment import CBViLAForVisualEntailment
from ..model.modeling_cbvila_visual_reasoning import CBViLAForVisualReasoning
from .context import TrainingContext
from .inherited_options import OF_THE_LOADER, refuse
from .optimizer_groups import TOWERS

# What only pretraining has: a schedule, codes that learn, and a momentum encoder.
_ALIGNMENT = ("align_steps",)
_SCHEDULE = ("burn_in_steps", "mlm_from_start", "mim_gate", "codebook_refit", "codebook_target_decay")
_CODES = (
    "codebook_refit",
    "alternate_updates",
    "codebook_learning_rate",
    "codebook_restart_threshold",
    "codebook_restart_grace",
    "stability_window",
    "stability_every",
    "codebook_probe_images",
    "codebook_alarm_steps",
    "codebook_alarm_usage",
    "codebook_alarm_top_share",
)
_MOMENTUM = ("momentum_distill", "queue_size", "momentum_decay", "momentum_distill_ramp_steps")
# `codebook_init=False` turns off what is not there, which is no mistake: recipes without a codebook say so.
OF_PRETRAINING = frozenset((*_ALIGNMENT, *_SCHEDULE, "codebook_init", *_CODES, *_MOMENTUM))
_RATES = ("vision_learning_rate", "text_learning_rate", "codebook_learning_rate")
_OF_LABELS = (CBViLAForQuestionAnswering, CBViLAForVisualEntailment, CBViLAForVisualReasoning)


def require_one_device(args: TrainingArguments) -> None:
    """Raises a ValueError for one process with several devices, which transformers would wrap in DataParallel."""
    if args.n_gpu > 1:
        raise ValueError(
            f"One process has {args.n_gpu} devices (DataParallel): copies of the model on these would have their own "
            "codes and queues, and lose them. Start a process for each device, with accelerate launch or torchrun; "
            "or show it one device, with CUDA_VISIBLE_DEVICES=0."
        )


def check_options(context: TrainingContext) -> None:
    """Raises a ValueError that names an option without effect on the model."""
    args, model = context.args, context.model
    of = f"for {type(model).__name__}"
    if not (context.is_pretraining and "align" in active_phases(model.config)):
        refuse(args, _ALIGNMENT, "only pretraining with contrast (ITC) has an alignment phase")
    if not context.is_pretraining:
        refuse(args, _SCHEDULE, f"{of} there is no burn-in, which CBViLAForPreTraining has")
    if not getattr(model, "learns_codes", False):
        refuse(args, _CODES, f"{of} there is no codebook that learns")
    if not (args.uses_momentum_encoder or context.needs_momentum_encoder):
        refuse(args, _MOMENTUM, "there is no momentum encoder, which momentum_distill or queue_size asks for")
    if args.momentum_distill == 0:
        refuse(args, ["momentum_distill_ramp_steps"], "momentum_distill=0 does not rise")
    if context.is_pretraining and "stable" not in active_phases(model.config):
        refuse(args, ["mim_gate"], f"{of} there is no objective that waits for stable codes (MIM has weight 0)")
    if context.is_pretraining and not model.needs("code_targets"):
        refuse(args, ["codebook_target_decay"], f"{of} there is no objective that predicts codes (MIM has weight 0)")
    if not context.draws_negatives:
        refuse(args, ["negative_hardening"], f"{of} there is no image-text matching to draw them for")
    if not isinstance(model, _OF_LABELS):
        refuse(args, ["label_smoothing_factor"], f"{of} there are no labels to smooth")
    if isinstance(context.train_dataset, StreamedImageTextPairs):
        refuse(args, OF_THE_LOADER, "a stream is read as it comes, shuffled by shuffle_buffer and seed")
    _check_rates(args, [name for name, weights in model.named_parameters() if weights.requires_grad])


def _check_rates(args: Any, trained: list[str]) -> None:
    """Raises a ValueError for the learning rate of a tower without a parameter in `trained`; 0 would freeze it."""
    for tower, rate in args.tower_learning_rates().items():
        if rate > 0 and not any(part in name for name in trained for part in TOWERS[tower]):
            raise ValueError(
                f"{tower}_learning_rate={rate}: nothing of that is trained here (it is frozen, or there is none); "
                "leave it out."
            )


def check_optimizer(trainer: Trainer) -> None:
    """Raises a ValueError or an ImportError if the optimizer cannot be built, or ignores an option."""
    if trainer.optimizer is not None or trainer.optimizer_cls_and_kwargs is not None:
        refuse(trainer.args, ["muon_learning_rate"], "an optimizer is given, and would be in Muon's place")
        if trainer.optimizer is not None:
            refuse(trainer.args, _RATES, "an optimizer is given, which has its own groups of parameters")
        return
    model: Any = trainer.model
    args, said = trainer.args, f"optim={getattr(trainer.args.optim, 'value', trainer.args.optim)}"
    try:
        made = repr(trainer.get_optimizer_cls_and_kwargs(args, model))
    except ImportError:
        raise
    except Exception as error:  # each optimizer fails in its own way, where a package or an option is missing
        said += f" with optim_args={shown(args.optim_args)}" if args.optim_args else ""
        raise ValueError(f"{said}: {shown(str(error) or type(error).__name__, 300)}") from error
    for name in ("optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon"):
        without, off = copy.copy(args), default_of(args, name)
        setattr(without, name, off)
        is_set = getattr(args, name) not in (off, "")
        if is_set and made == repr(trainer.get_optimizer_cls_and_kwargs(without, model)):
            raise ValueError(f"{name}={shown(getattr(args, name))}: {said} does not look at it; leave it out.")


def active_phases(config: Any) -> set[str]:
    """Returns the phases of training from which the terms with a weight are on."""
    weights = config.loss_weights()
    return {phase for term, phase in config.loss_phases().items() if weights[term] > 0}


def require_mismatches(context: TrainingContext) -> None:
    """Raises a ValueError if a batch is a single pair, which leaves contrast and matching without negatives."""
    args, config = context.args, context.model.config
    compares = context.draws_negatives and not (context.is_pretraining and not config.needs("other_pairs"))
    if context.train_dataset is not None and compares and args.per_device_train_batch_size * args.world_size < 2:
        raise ValueError(
            f"per_device_train_batch_size={args.per_device_train_batch_size} on {args.world_size} process: a single "
            "pair has no mismatch, and neither contrast (ITC) nor matching (ITM) would learn. Take 2 pairs or "
            "more at once, on all processes together (gradient_accumulation_steps does not count)"
            + ("; or set the weights of both to 0." if context.is_pretraining else ".")
        )
