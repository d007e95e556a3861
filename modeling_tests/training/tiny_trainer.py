"""A CBViLATrainer of a tiny pretraining model, and what its logs hold."""

from tiny import PATCH, pretraining_model, tiny_processor, tiny_rows

from transformers_cbvila.data.collators import CBViLADataCollatorForPreTraining
from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.training.arguments import CBViLATrainingArguments
from transformers_cbvila.training.trainer import CBViLATrainer

BURN_IN_TERMS = {"loss_pixel", "loss_commitment", "loss_itm", "loss_itc"}
ALL_TERMS = BURN_IN_TERMS | {"loss_mim", "loss_mlm"}
HEALTH = {f"codebook_{name}" for name in ("usage", "perplexity", "entropy", "top_share", "dead", "drift", "stability")}


def training_arguments(folder, **options):
    """Arguments of six steps on a CPU with batches of two, logged at every step."""
    defaults = {
        "max_steps": 6,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 0,
    }
    return CBViLATrainingArguments(output_dir=str(folder), **(defaults | options))


def pretrainer(folder, callbacks=(), model=None, rows=8, **options):
    """A trainer of a tiny pretraining model (by default one with dropout) on image-text pairs of colours."""
    pairs = ImageTextPairs(tiny_rows(rows), crop_scale=0.75, flip=True)
    return CBViLATrainer(
        model=pretraining_model(dropout=0.1) if model is None else model,
        args=training_arguments(folder, **options),
        train_dataset=pairs,
        eval_dataset=ImageTextPairs(tiny_rows(rows)),
        data_collator=CBViLADataCollatorForPreTraining(tiny_processor(), PATCH, max_length=16),
        callbacks=list(callbacks),
    )


def step_logs(trainer):
    """Returns the logs of training steps, without those of evaluations and of the whole run."""
    return [log for log in trainer.state.log_history if "loss" in log]


def logged_terms(log):
    """Returns the names of the loss terms and the codebook metrics of a log."""
    return {name for name in log if name.startswith(("loss_", "codebook_"))}
