"""Checkpoints that an interrupted run resumes from, and the state files in them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import CONFIG_NAME, logging

from ..context import TrainingContext
from .progress import log_main_process
from .run_conditions import CONDITIONS_FILE

logger = logging.get_logger(__name__)


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """Returns the newest complete checkpoint in a Trainer's output folder, or None.

    Trainer writes `trainer_state.json` last ([`CBViLATrainer`] has it wait for every process's part): a folder without
    it, or with half of it, was being written when the run was killed, and is skipped.
    """
    folders = [path for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _number(path) is not None]
    for folder in sorted(folders, key=lambda path: _number(path) or 0, reverse=True):
        if _state(folder) is not None:
            return str(folder)
    return None


def checkpoint_to_resume(args: TrainingArguments, output_dir: str | Path) -> str | None:
    """Returns the checkpoint that `resume_from_checkpoint` means: `True` is the last complete one, if there is any.

    Raises:
        ValueError: If there is a run in the folder already, and none is to be resumed: it would be overwritten, and
            its checkpoints mixed with new ones.
    """
    if not args.resume_from_checkpoint and (found := _files_of_a_run(Path(output_dir))):
        raise ValueError(
            f"{output_dir} has a model or a run in it ({', '.join(found)}), which this one would overwrite: go on "
            "with it by --resume (resume_from_checkpoint=True), choose another output_dir, or delete this one."
        )
    if args.resume_from_checkpoint in ("True", "true", True):
        checkpoint = last_complete_checkpoint(output_dir)
        log_main_process(
            args, f"Resuming from {checkpoint}." if checkpoint else "No complete checkpoint yet: starting from step 0."
        )
        return checkpoint
    return args.resume_from_checkpoint


def _files_of_a_run(folder: Path) -> list[str]:
    """Returns the names of what an earlier run left in a folder."""
    checkpoints = [path.name for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _number(path) is not None]
    return [name for name in (CONFIG_NAME, TRAINER_STATE_NAME) if (folder / name).is_file()] + sorted(checkpoints)[:3]


def step_of(checkpoint: str | Path) -> int:
    """Returns the global step at which a complete checkpoint was written."""
    state = _state(Path(checkpoint))
    if state is None:
        raise ValueError(f"{checkpoint} is no complete checkpoint: it has no readable trainer_state.json.")
    return int(state["global_step"])


@dataclass(frozen=True)
class StateFile:
    """A file of a checkpoint with tensors that a resumed run needs, beside weights, optimizer and scheduler.

    Args:
        name: Name of the file.
        if_missing: What happens to a run that is resumed without it.
        renamed_keys: Names of its entries in files of earlier versions, with the current ones.
        name_before: Name of the file in earlier versions.
    """

    name: str
    if_missing: str
    renamed_keys: Mapping[str, str] = field(default_factory=dict)
    name_before: str | None = None

    def find(self, folder: str | Path) -> Path | None:
        """Returns the file in a checkpoint, by its current or former name; None without one."""
        paths = (Path(folder) / name for name in (self.name, self.name_before) if name is not None)
        return next((path for path in paths if path.is_file()), None)

    def save(self, args: TrainingArguments, folder: str | Path, state: dict[str, Any]) -> None:
        """Writes the file, on the process that saves."""
        if args.should_save:
            Path(folder).mkdir(parents=True, exist_ok=True)
            torch.save(state, Path(folder) / self.name)

    def load(self, args: TrainingArguments, folder: str | Path) -> dict[str, Any] | None:
        """Loads the file onto this process's device; None without one."""
        path = self.find(folder)
        if path is None:
            return None
        # "cpu:1", as a process on the CPU may be told to use, is nothing that torch.load knows.
        location = "cpu" if args.device.type == "cpu" else args.device
        state = torch.load(path, map_location=location, weights_only=True)
        return {self.renamed_keys.get(name, name): value for name, value in state.items()}


_NO_RUN = {
    OPTIMIZER_NAME: "moments of the gradients start again",
    SCHEDULER_NAME: "learning rates start again, in the middle of the run",
}


def check_complete(context: TrainingContext, checkpoint: str | Path, state_files: Iterable[StateFile]) -> None:
    """Checks that a checkpoint holds the whole state of a run.

    Without optimizer or scheduler (`save_only_model`) the run cannot be resumed: an error. Without the rest it is, but
    not bit for bit: a warning.

    Args:
        context: The context of the run.
        checkpoint: Folder of the checkpoint.
        state_files: The files that the callbacks of the run expect.

    Raises:
        FileNotFoundError: If `optimizer.pt` or `scheduler.pt` is missing.
    """
    folder = Path(checkpoint)
    # Sharded, optimizer and scheduler are in files of their own.
    missing = {} if context.has_sharded_weights else _absent(folder, _NO_RUN)
    others = _absent(folder, _expected_files(context.args))
    others |= {file.name: file.if_missing for file in state_files if file.find(folder) is None}
    if missing:
        raise FileNotFoundError(
            f"{folder} is no checkpoint to go on from: it has no {_listed(missing | others)}. Give it as the model "
            "that a new run starts from; save_only_model leaves these files out."
        )
    if others and context.is_main_process:
        logger.warning(f"{folder} is not all of a run's state, which will not go on as it would: {_listed(others)}.")


def _expected_files(args: TrainingArguments) -> dict[str, str]:
    """Returns files of any run beside optimizer and scheduler, each with what its absence means."""
    rank = f"_{args.process_index}" if args.world_size > 1 else ""
    return {
        f"rng_state{rank}.pth": "dropout and other noise differ",
        CONDITIONS_FILE: "whether seed, data and batches are the same is not known",
    }


def _absent(folder: Path, files: dict[str, str]) -> dict[str, str]:
    return {name: why for name, why in files.items() if not (folder / name).is_file()}


def _listed(files: dict[str, str]) -> str:
    return ", ".join(f"{name} ({why})" for name, why in files.items())


def _number(folder: Path) -> int | None:
    number = folder.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
    return int(number) if number.isdigit() else None


def _state(folder: Path) -> dict | None:
    try:
        state = json.loads((folder / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and "global_step" in state else None
