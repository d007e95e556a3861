"""Tables and checks of transformers' TrainingArguments that have no effect here: each is an error that names it.

Options in no table work as in transformers; `modeling_tests/training/test_inherited_options.py` covers all.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import fields
from importlib.util import find_spec
from multiprocessing import get_all_start_methods
from pathlib import Path
from typing import Any, NamedTuple

from transformers import TrainingArguments
from transformers.utils import logging

from ..data.given_options import default_of
from ..model.messages_cbvila import shown

_RAW = "the collators build the model's inputs from raw columns"
_LIGER = "Liger has no kernels for these models"
_LENGTHS = "rows are pictures and texts that have no length before they are collated"
NEVER = {
    "remove_unused_columns": f"{_RAW}, which Trainer would take away",
    "use_liger_kernel": _LIGER,
    "liger_kernel_config": _LIGER,
    "length_column_name": _LENGTHS,
    "do_predict": "training predicts nothing; `cbvila evaluate` measures a trained model",
}
# Some values of an option only.
NEVER_AS = {
    "train_sampling_strategy": ("group_by_length", _LENGTHS),
    "include_num_input_tokens_seen": ("all", "it would count pixels; non_padding counts the texts' tokens"),
}
# Options that only configure another one.
NEEDS = {
    "hub_model_id": "push_to_hub",
    "hub_private_repo": "push_to_hub",
    "hub_always_push": "push_to_hub",
    "hub_revision": "push_to_hub",
    "dataloader_persistent_workers": "dataloader_num_workers",
    "gradient_checkpointing_kwargs": "gradient_checkpointing",
    "fsdp_config": "fsdp",
    "greater_is_better": "metric_for_best_model",
}
# Of Trainer's own evaluation loop, which tasks and pretraining replace.
OF_EVALUATION = (
    "prediction_loss_only",
    "include_for_metrics",
    "batch_eval_metrics",
    "eval_do_concat_batches",
    "eval_use_gather_object",
    "eval_accumulation_steps",
    "label_names",
    "bf16_full_eval",
    "fp16_full_eval",
)
# Only for runs that evaluate.
WITH_EVALUATION = ("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "do_eval", "load_best_model_at_end")
# Of the loader of examples; a stream has its own.
OF_THE_LOADER = (
    "dataloader_drop_last",
    "dataloader_persistent_workers",
    "dataloader_in_order",
    "train_sampling_strategy",
    "data_seed",
)


class Bounds(NamedTuple):
    """The numbers that an option may be."""

    least: float
    below: float = math.inf
    whole: bool = False
    above: bool = False  # more than `least`, not from it on

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        least = f"{'above' if self.above else 'from'} {self.least:g}{'' if self.above else ' on'}"
        return f"{kind} {least}" + (f", below {self.below:g}" if self.below < math.inf else "")

    def hold(self, value: Any) -> bool:
        """Whether the value is one of these numbers."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not math.isfinite(value) or (self.whole and value != int(value)):
            return False
        return value < self.below and (value > self.least if self.above else value >= self.least)


_LOG_LEVELS = ("passive", *logging.log_levels)
CHOICES = {
    "log_level": _LOG_LEVELS,
    "log_level_replica": _LOG_LEVELS,
    "train_sampling_strategy": ("random", "sequential", "group_by_length"),
    "include_num_input_tokens_seen": ("no", "non_padding", "all"),
    "torch_compile_mode": ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    "dataloader_multiprocessing_context": tuple(get_all_start_methods()),
}
_FILES = ("accelerator_config", "fsdp_config", "deepspeed")  # may be a mapping's file


_COUNT, _SHARE = Bounds(1, whole=True), Bounds(0, below=1)
_STEPS = Bounds(0, above=True)
BOUNDS = {
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), _COUNT),
    **dict.fromkeys(("gradient_accumulation_steps", "eval_accumulation_steps", "save_total_limit"), _COUNT),
    **dict.fromkeys(("dataloader_prefetch_factor", "ddp_timeout", "ddp_bucket_cap_mb"), _COUNT),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor"), _SHARE),
    **dict.fromkeys(
        ("learning_rate", "weight_decay", "adam_epsilon", "max_grad_norm", "eval_delay", "eval_steps"), Bounds(0)
    ),
    **dict.fromkeys(("warmup_steps", "neftune_noise_alpha"), Bounds(0)),
    **dict.fromkeys(("logging_steps", "save_steps", "num_train_epochs"), _STEPS),
    **dict.fromkeys(("seed", "data_seed"), Bounds(0, below=2**32, whole=True)),
    "dataloader_num_workers": Bounds(0, whole=True),
}


def check_values(args: TrainingArguments) -> None:
    """Raises a ValueError for a value out of an option's range, before transformers computes with it.

    Raises:
        FileNotFoundError: If an option names a file that does not exist.
        ValueError: If a value is out of range.
    """
    for name, bounds in BOUNDS.items():
        value = getattr(args, name, None)
        if value is not None and not bounds.hold(value):
            raise ValueError(f"{name}={shown(value)} must be {bounds}.")
    if args.max_steps != -1 and not _COUNT.hold(args.max_steps):
        raise ValueError(f"max_steps={shown(args.max_steps)} must be {_COUNT}, or -1 for num_train_epochs.")
    for name, choices in CHOICES.items():
        if isinstance(value := getattr(args, name, None), str) and value not in choices:
            raise ValueError(f"{name}={shown(value)} is none of {', '.join(choices)}.")
    for name in args._VALID_DICT_FIELDS:
        if isinstance(value := getattr(args, name, None), str):
            _check_mapping(name, value)


def check_inherited(args: TrainingArguments) -> None:
    """Raises a ValueError that names an option without effect, whatever is trained."""
    for name, why in NEVER.items():
        refuse(args, [name], why)
    for name, (value, why) in NEVER_AS.items():
        given = getattr(args, name, None)
        if getattr(given, "value", given) == value:
            raise ValueError(f"{name}={value}: {why}. Leave it out.")
    for name, other in NEEDS.items():
        if _is_set(args, name) and not getattr(args, other, None):
            raise ValueError(
                f"{name}={shown(getattr(args, name))} is for {other}, which is off. Set both, or neither."
            )
    if _is_set(args, "eval_steps") and args.eval_strategy != "steps":
        raise ValueError(f"eval_steps={shown(args.eval_steps)} is for eval_strategy=steps, which is not given.")
    if args.eval_delay and args.eval_strategy == "no":
        raise ValueError(f"eval_delay={shown(args.eval_delay)} is for eval_strategy, which is not given.")
    _check_reports(args.report_to)
    if args.torch_compile:
        from torch._dynamo import list_backends

        known = list_backends(exclude_tags=())
        if args.torch_compile_backend not in known:
            raise ValueError(
                f"torch_compile_backend={shown(args.torch_compile_backend)} is none of {', '.join(sorted(known))}."
            )


def _check_mapping(name: str, text: str) -> None:
    """Raises an error unless the text is a JSON mapping, or the file of one where transformers reads such a file."""
    if name in _FILES and not text.startswith("{"):
        if not Path(text).is_file():
            raise FileNotFoundError(f"{name}={shown(text)}: there is no such file.")
        return
    try:
        if isinstance(json.loads(text), dict):
            return
    except ValueError:
        pass
    raise ValueError(f"{name}={shown(text)} is no JSON mapping; expected something like '{{\"key\": 0.1}}'.")


def refuse(args: TrainingArguments, names: Iterable[str], why: str) -> None:
    """Raises a ValueError for the first of the options that is not at its default; unknown ones are skipped."""
    for name in names:
        if _is_set(args, name):
            off = default_of(args, name)
            raise ValueError(f"{name}={shown(getattr(args, name))}: {why}; set it to {off} or leave it out.")


def _check_reports(names: str | list[str] | None) -> None:
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    usable = {*get_available_reporting_integrations(), *(["flyte"] if find_spec("flytekit") else []), "kubeflow"}
    for name in names or ():  # transformers has made a list of them
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ValueError(f"report_to={shown(name)} is none of {known}, all, none.")
        if name not in usable:
            raise ValueError(f"report_to={name}: its package is not installed. Install it, or leave report_to out.")


def _is_set(args: TrainingArguments, name: str) -> bool:
    value = getattr(args, name, None)
    return name in _names(args) and value != default_of(args, name)


def _names(args: TrainingArguments) -> set[str]:
    return {option.name for option in fields(args)}
