"""The record of a finished run: everything needed to repeat it."""

import platform
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from ... import __version__
from ..trainer import CBViLATrainer

_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy", "pillow")
# Folders of the machine that trained mean nothing elsewhere; tokens are private.
_LEFT_OUT = ("output_dir", "logging_dir", "resume_from_checkpoint", "run_name", "hub_token", "push_to_hub_token")


def run_record(job: Any, trainer: CBViLATrainer) -> dict[str, Any]:
    """Returns the record of a run, for JSON.

    Args:
        job: The [`PretrainingJob`] or [`FinetuningJob`].
        trainer: Its trainer, after training.

    Returns:
        `job`, `preset`, `config` (of the model), `arguments` (those that are not at their defaults, and all of
        CB-ViLA's own), `versions`, `world_size`, `speed` and `logs`; the most important of these also at the top.
    """
    args, state, dataset = trainer.args, trainer.state, trainer.context.train_dataset
    config = trainer.unwrapped_model.config
    return {
        "job": _job(job),
        "preset": getattr(config, "preset", None),
        "config": _config(config),
        "arguments": _arguments(args),
        "versions": _versions(),
        "world_size": args.world_size,
        "device": torch.cuda.get_device_name() if args.device.type == "cuda" else args.device.type,
        "pairs": None if getattr(job, "streaming", False) else len(dataset),
        "steps": state.global_step,
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "learning_rate": args.learning_rate,
        "weight_decay": args.weight_decay,
        "seed": args.seed,
        "speed": _speed(trainer),
        "logs": state.log_history,
    }


def recorded_options(job: Any, args: Any) -> dict[str, Any]:
    """Returns the options of a run as its record holds them, those of the job and of training together."""
    return _job(job) | _arguments(args)


def _job(job: Any) -> dict[str, Any]:
    return {**asdict(job), "train_data": [Path(name).name for name in job.train_data]}


def _config(config: Any) -> dict[str, Any]:
    """Returns the fields of a model's configuration; of a language model in a folder only the folder's name."""
    fields = config.to_dict()
    name = fields.get("language_model")
    return {**fields, "language_model": Path(name).name} if name and Path(name).is_dir() else fields


def _arguments(args: Any) -> dict[str, Any]:
    given = args.to_dict()  # tokens are masked in it
    inherited = {field.name for field in fields(TrainingArguments)}
    defaults = type(args)(output_dir=args.output_dir, use_cpu=args.use_cpu).to_dict()
    return {
        name: value
        for name, value in given.items()
        if name not in _LEFT_OUT and (name not in inherited or value != defaults[name])
    }


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "transformers-cbvila": __version__,
        **{name: version(name) for name in _PACKAGES},
    }


def _speed(trainer: CBViLATrainer) -> dict[str, float | int | None]:
    """Returns the speed of the run, or of its last part if it was resumed."""
    last: dict[str, Any] = next((log for log in reversed(trainer.state.log_history) if "train_runtime" in log), {})
    callback = trainer.data_callback
    return {
        "train_runtime": last.get("train_runtime"),
        "pairs_per_second": last.get("train_samples_per_second"),
        "resumed_from_step": callback.resumed_from,
        "replay_seconds": callback.replay_seconds if callback.resumed_from else None,
    }
