"""Every option of transformers' TrainingArguments works or is rejected by name; each is in one of these tables."""

from dataclasses import dataclass, fields

import pytest
import torch
from tiny import build
from tiny_finetuning import TINY_TASKS, finetuning_arguments
from tiny_heads import batch_for
from tiny_trainer import pretrainer
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from transformers_cbvila import (
    CBViLAForQuestionAnswering,
    CBViLAForVisualEntailment,
    CBViLATrainer,
    CBViLATrainingArguments,
)
from transformers_cbvila.model.losses_cbvila import answer_loss
from transformers_cbvila.tasks.retrieval import ImageTextRetrieval
from transformers_cbvila.training.finetune import FinetuningJob, build_trainer, finetune
from transformers_cbvila.training.inherited_options import BOUNDS, CHOICES, NEEDS, NEVER, NEVER_AS, OF_EVALUATION
from transformers_cbvila.training.pretrain import PretrainingJob, pretrain

# What one run on a CPU can take together, not at its default: a run of a task, measured and saved at every step.
TOGETHER = {
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 3,
    "max_steps": 2,
    "num_train_epochs": 1.5,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "warmup_stable_decay",
    "lr_scheduler_kwargs": {"num_decay_steps": 0.5},
    "warmup_steps": 0.5,
    "optim": "adamw_torch",
    "weight_decay": 0.1,
    "adam_beta1": 0.8,
    "adam_beta2": 0.9,
    "adam_epsilon": 1e-6,
    "gradient_accumulation_steps": 2,
    "average_tokens_across_devices": False,
    "max_grad_norm": 0.5,
    "label_smoothing_factor": 0.1,
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "use_cache": True,
    "neftune_noise_alpha": 5.0,
    "torch_empty_cache_steps": 1,
    "logging_strategy": "steps",
    "logging_steps": 1,
    "logging_first_step": True,
    "logging_nan_inf_filter": True,
    "log_on_each_node": False,
    "include_num_input_tokens_seen": "non_padding",
    "log_level": "error",
    "log_level_replica": "error",
    "disable_tqdm": True,
    "report_to": "none",
    "run_name": "a-run",
    "project": "a-project",
    "eval_strategy": "steps",
    "eval_steps": 1,
    "eval_delay": 1,
    "eval_on_start": True,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 1,
    "save_on_each_node": True,
    "load_best_model_at_end": True,
    "metric_for_best_model": "accuracy",
    "greater_is_better": True,
    "ignore_data_skip": True,
    "restore_callback_states_from_checkpoint": True,
    "full_determinism": False,
    "seed": 3,
    "data_seed": 4,
    "use_cpu": True,
    "accelerator_config": {"even_batches": False},
    "dataloader_drop_last": True,
    "dataloader_num_workers": 1,
    "dataloader_persistent_workers": True,
    "dataloader_prefetch_factor": 2,
    "dataloader_pin_memory": False,
    "dataloader_in_order": False,
    "dataloader_multiprocessing_context": "fork",
    "train_sampling_strategy": "sequential",
    "skip_memory_metrics": False,
    "do_train": True,
    "do_eval": True,
}
# These, one by one: they exclude each other or some above.
ALONE = {
    "auto_find_batch_size": True,
    "save_only_model": True,
    "debug": "underflow_overflow",
    "bf16": True,
    "resume_from_checkpoint": "no-such-folder",
}
ALIASES = {"activation_checkpointing", "activation_checkpointing_kwargs"}  # of gradient_checkpointing, since 5.24
# What this machine has no device, package, process or account for, and what only their options are.
ELSEWHERE = {
    *("fp16", "tf32", "torch_compile", "torch_compile_backend", "torch_compile_mode", "enable_jit_checkpoint"),
    *("fsdp", "fsdp_config", "deepspeed", "parallelism_config", "local_rank", "optim_target_modules", "optim_args"),
    *("ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph", "ddp_backend"),
    *("ddp_timeout", "push_to_hub", "hub_token", "hub_strategy"),
    *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
}
REFUSED = {*NEVER, *OF_EVALUATION, *(name for name in NEEDS if name.startswith("hub_"))}
KNOWN = {"output_dir", *TOGETHER, *ALONE, *ALIASES, *ELSEWHERE, *REFUSED}
# Values that are not at their default, of the options that are refused.
OTHER = {
    "remove_unused_columns": True,
    "use_liger_kernel": True,
    "liger_kernel_config": {"rope": True},
    "length_column_name": "words",
    "do_predict": True,
    "prediction_loss_only": True,
    "include_for_metrics": ["inputs"],
    "batch_eval_metrics": True,
    "eval_do_concat_batches": False,
    "eval_use_gather_object": True,
    "eval_accumulation_steps": 2,
    "label_names": ["labels"],
    "bf16_full_eval": True,
    "fp16_full_eval": True,
    "hub_model_id": "me/mine",
    "hub_private_repo": True,
    "hub_always_push": True,
    "hub_revision": "main",
}
HERE = {option.name for option in fields(TrainingArguments)}


def test_inherited_options_are_all_classified():
    """One that a later version adds must be tried and put into a table; users of that version are not kept from it."""
    assert sorted(HERE - KNOWN) == []
    assert set(OTHER) == REFUSED


def task_trainer(folder, model, rows, task="vqa", **options):
    job = FinetuningJob(model, [rows], eval_data=[rows])
    return build_trainer(TINY_TASKS[task][0], job, finetuning_arguments(folder, **options))


def test_inherited_options_work_together(pretrained, data, tmp_path):
    options = {name: value for name, value in TOGETHER.items() if name in HERE}
    trainer = task_trainer(tmp_path, pretrained, data, **options)
    for name, value in options.items():
        kept = getattr(trainer.args, name)
        assert getattr(kept, "value", kept) == value or name in ("accelerator_config", "report_to", "use_cache"), name
    trainer.train()
    logs = trainer.state.log_history
    assert trainer.state.global_step == 2 and [log["learning_rate"] for log in logs if "loss" in log] == [0, 1e-3]
    assert sum("eval_accuracy" in log for log in logs) >= 2 and "train_mem_cpu_alloc_delta" in logs[-1] | logs[-2]


@pytest.mark.parametrize("name", [name for name in ALONE if name != "resume_from_checkpoint"])
def test_inherited_options_work_alone(name, pretrained, data, tmp_path):
    trainer = task_trainer(tmp_path, pretrained, data, **{name: ALONE[name]})
    trainer.train()
    assert trainer.state.global_step == 2


@pytest.mark.parametrize("name", sorted(OTHER))
@pytest.mark.parametrize("task", ["vqa", "retrieval"])
def test_inherited_options_without_effect_are_rejected(name, task, pretrained, data, tmp_path):
    with pytest.raises(ValueError, match=f"^{name}="):
        task_trainer(tmp_path, pretrained, data, task, **{name: OTHER[name]})


@pytest.mark.parametrize("name", sorted(NEVER_AS))
def test_inherited_option_values_without_effect_are_rejected(name, tmp_path):
    with pytest.raises(ValueError, match=f"^{name}="):
        finetuning_arguments(tmp_path, **{name: NEVER_AS[name][0]})


@pytest.mark.parametrize("name", sorted({*BOUNDS} & HERE))
def test_inherited_options_out_of_bounds_are_rejected(name, tmp_path):
    for value in (-1, float("nan"), float("inf"), "many"):
        with pytest.raises(ValueError, match=f"^{name}="):
            finetuning_arguments(tmp_path, **{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "^max_steps=0 must be"),
        ({"report_to": "pigeon"}, "^report_to='pigeon' is none of"),
        ({"report_to": "codecarbon"}, "^report_to=codecarbon: its package is not installed"),
        ({"torch_compile_backend": "pigeon"}, "^torch_compile_backend='pigeon' is none of"),
        ({"accelerator_config": "no.json"}, "^accelerator_config='no.json': there is no such file"),
        ({"fsdp": True, "fsdp_config": "no.json"}, "^fsdp_config='no.json': there is no such file"),
        ({"deepspeed": "no.json"}, "^deepspeed='no.json': there is no such file"),
        ({"accelerator_config": {"pigeon": 1}}, "pigeon"),
        ({"lr_scheduler_kwargs": "[1]"}, "^lr_scheduler_kwargs=.* is no JSON mapping"),
        ({"lr_scheduler_kwargs": "{pigeon"}, "^lr_scheduler_kwargs=.* is no JSON mapping"),
        ({"lr_scheduler_kwargs": {"num_cycles": 2, "power": 1}}, "lr_scheduler_type=linear .*num_cycles.* takes none"),
        ({"lr_scheduler_kwargs": {"pigeon": 1}}, "lr_scheduler_type=linear .*pigeon.* takes none"),
        ({"lr_scheduler_type": "constant_with_warmup", "lr_scheduler_kwargs": {"num_cycles": 1}}, "takes none"),
        ({"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": "x"}}, "min_lr_rate"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "num_decay_steps"),
        ({"lr_scheduler_type": "constant", "warmup_steps": 2}, "^warmup_steps=2: .* has no warm-up"),
        (
            {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 100.0, "max_steps": 20},
            "^warmup_steps=100: the run has 20 steps. Give a share of the run, such as --warmup_steps 0.2",
        ),
        (
            {"lr_scheduler_type": "constant_with_warmup", "lr_scheduler_kwargs": {"pigeon": 1}},
            "^lr_scheduler_type=constant_with_warmup with lr_scheduler_kwargs=.*pigeon",
        ),
        (
            {
                "lr_scheduler_type": "warmup_stable_decay",
                "lr_scheduler_kwargs": {"num_decay_steps": 15},
                "warmup_steps": 8,
                "max_steps": 20,
            },
            "warmup_steps 8, num_decay_steps 15 are 23 together, and the run has 20 steps",
        ),
        ({"dataloader_persistent_workers": True}, "^dataloader_persistent_workers=True is for dataloader_num_workers"),
        ({"eval_steps": 5}, "^eval_steps=5 is for eval_strategy=steps"),
        ({"eval_steps": 5, "eval_strategy": "epoch"}, "^eval_steps=5 is for eval_strategy=steps"),
        ({"eval_delay": 5}, "^eval_delay=5 is for eval_strategy, which is not given"),
        ({"greater_is_better": True}, "^greater_is_better=True is for metric_for_best_model, which is off"),
        ({"gradient_checkpointing_kwargs": {"use_reentrant": True}}, "^gradient_checkpointing_kwargs="),
        *(({name: "pigeon"}, f"^{name}='pigeon' is none of") for name in CHOICES if name in HERE),
    ],
)
def test_inherited_options_reject_impossible_values(options, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        finetuning_arguments(tmp_path, **options)
    assert len(str(caught.value)) < 2000


@dataclass
class OfTomorrow(CBViLATrainingArguments):
    """Arguments with an option that a later transformers might add."""

    pigeon: int = 0


def test_inherited_options_of_later_transformers_are_accepted(tmp_path):
    args = OfTomorrow(str(tmp_path), pigeon=3, use_cpu=True, report_to="none")
    assert CBViLATrainer(build(CBViLAForVisualEntailment), args).args.pigeon == 3


@pytest.mark.parametrize("optim", [optim.value for optim in OptimizerNames])
def test_optim_choices_are_made_or_rejected(optim, tmp_path):
    try:
        pretrainer(tmp_path, optim=optim)
    except (ValueError, ImportError) as error:
        assert len(str(error)) < 500


def test_optim_args_without_effect_are_rejected(tmp_path):
    betas = [(name, 0.5) for name in ("adam_beta1", "adam_beta2", "adam_epsilon")]
    for name, value in (("optim_args", "momentum=1"), ("optim_target_modules", ["query"]), *betas):
        with pytest.raises(ValueError, match=f"^{name}=.* does not look at it"):
            pretrainer(tmp_path, optim="adafactor", **{name: value})
    with pytest.raises(ValueError, match="optim_args='eps'"):
        pretrainer(tmp_path, optim_args="eps")


@pytest.mark.parametrize("metric", ["pigeon", "eval_loss", "consistency"])
def test_metric_for_best_model_rejects_unknown_metrics(metric, pretrained, data, tmp_path):
    options = {"eval_strategy": "steps", "load_best_model_at_end": True, "metric_for_best_model": metric}
    with pytest.raises(ValueError, match="metric_for_best_model=.* is none of accuracy, "):
        task_trainer(tmp_path, pretrained, data, **options)


def test_metric_for_best_model_defaults_to_that_of_the_task(pretrained, data, tmp_path):
    trainer = task_trainer(tmp_path, pretrained, data, "retrieval", eval_strategy="steps", load_best_model_at_end=True)
    assert (trainer.args.metric_for_best_model, trainer.args.greater_is_better) == ("mean_recall", True)


@pytest.mark.parametrize(
    "options", [{"eval_strategy": "steps"}, {"per_device_eval_batch_size": 3}, {"metric_for_best_model": "loss"}]
)
def test_pretrain_rejects_evaluation_options(options, tmp_path):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}=.*pretraining evaluates nothing"):
        pretrain(PretrainingJob(["nowhere"]), finetuning_arguments(tmp_path, **options))


def test_eval_strategy_without_eval_data_is_off_and_named(pretrained, data, tmp_path, capsys):
    args = finetuning_arguments(tmp_path, eval_strategy="steps", eval_on_start=True, save_strategy="no")
    finetune(TINY_TASKS["vqa"][0], FinetuningJob(pretrained, [data]), args)
    assert "Without eval_data, eval_strategy, eval_on_start can do nothing" in capsys.readouterr().err


def test_options_of_evaluation_without_eval_data_are_named(pretrained, data, tmp_path, capsys):
    options = {"metric_for_best_model": "mean_recall", "per_device_eval_batch_size": 3}
    build_trainer(
        ImageTextRetrieval(rerank_k=2), FinetuningJob(pretrained, [data]), finetuning_arguments(tmp_path, **options)
    )
    named = "metric_for_best_model, per_device_eval_batch_size, rerank_k"
    assert f"Without eval_data, {named} can do nothing." in capsys.readouterr().err


def smoothed(logits, labels, epsilon):
    """Cross-entropy with a share of the target spread over all classes, by hand."""
    logs = logits.log_softmax(-1)
    return -((1 - epsilon) * logs.gather(-1, labels.unsqueeze(-1)).squeeze(-1) + epsilon * logs.mean(-1))


@pytest.mark.parametrize("head", [CBViLAForQuestionAnswering, CBViLAForVisualEntailment])
def test_label_smoothing_factor_of_classification_heads(head, tmp_path):
    model, batch = build(head), batch_for(head)
    trainer = CBViLATrainer(model, finetuning_arguments(tmp_path, label_smoothing_factor=0.2))
    model.train()
    loss = trainer.compute_loss(model, dict(batch))
    logits, labels = model(**batch).logits, batch["labels"]
    kept = labels != -100
    per_target = smoothed(logits, labels.clamp_min(0), 0.2) * kept
    expected = per_target.sum(-1).mean() if labels.dim() == 2 else per_target.mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    plain = CBViLATrainer(model, finetuning_arguments(tmp_path)).compute_loss(model, dict(batch))
    assert abs(plain.item() - loss.item()) > 1e-3


def test_label_smoothing_keeps_answer_weights():
    logits, labels = torch.randn(2, 3, 5), torch.tensor([[1, 2, -100], [3, 4, 0]])
    first, second = (answer_loss(logits[i : i + 1], labels[i : i + 1], None, 0.3) for i in range(2))
    weighted = answer_loss(logits, labels, torch.tensor([3.0, 1.0]), 0.3)
    assert weighted.item() == pytest.approx((0.75 * first + 0.25 * second).item(), rel=1e-5)


@pytest.mark.parametrize("task", ["retrieval", "pretrain"])
def test_label_smoothing_factor_without_labels_is_rejected(task, pretrained, data, tmp_path):
    with pytest.raises(ValueError, match="label_smoothing_factor=0.1: .* no labels to smooth"):
        if task == "pretrain":
            pretrainer(tmp_path, label_smoothing_factor=0.1)
        else:
            task_trainer(tmp_path, pretrained, data, task, label_smoothing_factor=0.1)
