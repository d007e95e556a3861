"""Checkpoints that an interrupted run resumes from, and the state files in them."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from .progress import log_main_process

logger = logging.get_logger(__name__)


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """The newest complete checkpoint in a Trainer's output folder, or None.

    Trainer writes `trainer_state.json` last ([`CBViLATrainer`] has it wait for every process's part): a folder without
    it, or with half of it, was being written when the run was killed, and is skipped.
    """
    folders = [path for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _number(path) is not None]
    for folder in sorted(folders, key=lambda path: _number(path) or 0, reverse=True):
        if _state(folder) is not None:
            return str(folder)
    return None


def checkpoint_to_resume(args: TrainingArguments, output_dir: str | Path) -> str | None:
    """The checkpoint that `resume_from_checkpoint` means: `True` is the last complete one, if there is any."""
    if args.resume_from_checkpoint in ("True", "true", True):
        checkpoint = last_complete_checkpoint(output_dir)
        log_main_process(
            args, f"Resuming from {checkpoint}." if checkpoint else "No complete checkpoint yet: starting anew."
        )
        return checkpoint
    return args.resume_from_checkpoint


def step_of(checkpoint: str | Path) -> int:
    """The global step at which a complete checkpoint was written."""
    state = _state(Path(checkpoint))
    if state is None:
        raise ValueError(f"{checkpoint} is no complete checkpoint: it has no readable trainer_state.json.")
    return int(state["global_step"])


_NO_RUN = {
    OPTIMIZER_NAME: "moments of the gradients begin anew",
    SCHEDULER_NAME: "learning rates begin anew, in the middle of the run",
}
_OTHERWISE = {
    "run_conditions.json": "whether seed, data and batches are the same is not known",
    "codebook_care.pt": "ages of codes, the probe, the gate and the alarm begin anew",
    "momentum.pt": "copies and queue begin anew",
}


def check_complete(trainer: Any, checkpoint: str | Path) -> None:
    """Checks that a checkpoint holds the whole state of a run.

    Without optimizer or scheduler (`save_only_model`) the run cannot be resumed: an error. Without the rest it is, but
    not bit for bit: a warning.

    Raises:
        FileNotFoundError: If `optimizer.pt` or `scheduler.pt` is not there.
    """
    folder = Path(checkpoint)
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled  # which keep them in files of their own
    missing = _absent(folder, {} if sharded else _NO_RUN)
    of_others = _absent(folder, _expected_beside(trainer))
    if missing:
        raise FileNotFoundError(
            f"{folder} is no checkpoint to go on from: it has no {_listed(missing | of_others)}. Give it as the model "
            "that a new run starts from; save_only_model leaves these files out."
        )
    if of_others and trainer.is_world_process_zero():
        logger.warning(
            f"{folder} is not all of a run's state, which will not go on as it would: {_listed(of_others)}."
        )


def _expected_beside(trainer: Any) -> dict[str, str]:
    """Files of a checkpoint beside optimizer and scheduler, each with what its absence means."""
    rank = f"_{trainer.args.process_index}" if trainer.args.world_size > 1 else ""
    expected = {f"rng_state{rank}.pth": "dropout and other noise are others", **_OTHERWISE}
    if trainer.codebook_callback is None:
        del expected["codebook_care.pt"]
    if trainer.momentum is None:
        del expected["momentum.pt"]
    return expected


def _absent(folder: Path, files: dict[str, str]) -> dict[str, str]:
    return {name: why for name, why in files.items() if not (folder / name).is_file()}


def _listed(files: dict[str, str]) -> str:
    return ", ".join(f"{name} ({why})" for name, why in files.items())


def save_state(args: TrainingArguments, folder: str | Path, name: str, state: dict[str, Any]) -> None:
    """Writes a state that a resumed run needs into a checkpoint, on the process that saves."""
    if args.should_save:
        Path(folder).mkdir(parents=True, exist_ok=True)
        torch.save(state, Path(folder) / name)


def load_state(args: TrainingArguments, folder: str | Path, name: str) -> dict[str, Any] | None:
    """Loads what `save_state` wrote onto this process's device; None without such a file."""
    path = Path(folder) / name
    if not path.is_file():
        return None
    # "cpu:1", as a process on the CPU may be told to use, is nothing that torch.load knows.
    location = "cpu" if args.device.type == "cpu" else args.device
    return torch.load(path, map_location=location, weights_only=True)


def _number(folder: Path) -> int | None:
    number = folder.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
    return int(number) if number.isdigit() else None


def _state(folder: Path) -> dict | None:
    try:
        state = json.loads((folder / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and "global_step" in state else None
