"""Conditions under which a resumed run ends with the same weights, bit for bit, as an uninterrupted one."""

import json
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ...data.streams import StreamedImageTextPairs

logger = logging.get_logger(__name__)

_FILE = "run_conditions.json"
_POSITION = "the position in the data is counted in batches, so that rows come twice or are left out in this pass"
_ORDER = "rows come in another order, so that some come twice or are left out in this pass"
_MEANING = {
    "processes": f"batches and negatives are others; {_POSITION}",
    "batch_size_per_process": f"batches and negatives are others; {_POSITION}",
    "gradient_accumulation_steps": f"a step sees another number of pairs; {_POSITION}",
    "dataloader_num_workers": f"the stream is shared out among other readers: {_ORDER}",
    "rows": f"the training data are others: {_ORDER}",
    "shards": f"the stream is shared out otherwise: {_ORDER}",
    "shuffle_buffer": _ORDER,
    "seed": f"crops, captions, masks and negatives are others, and {_ORDER}",
    "length": "learning rates, and every option that is a share of all steps, follow another schedule",
    "precision": "results are rounded otherwise",
    "device": "results are rounded otherwise, and dropout draws others",
}


def run_conditions(trainer) -> dict[str, Any]:
    """The conditions of a run that its weights depend on beside its other options, as JSON takes them."""
    args, dataset = trainer.args, trainer.train_dataset
    conditions = {
        "processes": args.world_size,
        "batch_size_per_process": args.train_batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "seed": args.seed,
        "length": f"{args.max_steps} steps" if args.max_steps > 0 else f"{args.num_train_epochs:g} epochs",
        "precision": trainer.accelerator.mixed_precision,
        "device": args.device.type,
    }
    if isinstance(dataset, StreamedImageTextPairs):
        readers = {"dataloader_num_workers": args.dataloader_num_workers}  # elsewhere workers change nothing
        return {**conditions, **readers, "shards": dataset.rows.num_shards, "shuffle_buffer": dataset.shuffle_buffer}
    return {**conditions, "rows": len(dataset) if hasattr(dataset, "__len__") else None}


def save_conditions(trainer, checkpoint: str) -> None:
    """Writes a run's conditions into a checkpoint."""
    if trainer.args.should_save:
        Path(checkpoint).mkdir(parents=True, exist_ok=True)
        (Path(checkpoint) / _FILE).write_text(json.dumps(run_conditions(trainer), indent=1))


def warn_of_other_conditions(trainer, checkpoint: str) -> None:
    """Warns of each condition that differs from when the checkpoint was written, if known.

    It is no error: a run may be resumed on another machine.
    """
    path = Path(checkpoint) / _FILE
    if not path.is_file() or not trainer.is_world_process_zero():
        return
    was, now = json.loads(path.read_text()), run_conditions(trainer)
    names = [name for name in _MEANING if was.get(name) != now.get(name)]
    if names:
        lines = [f"\n  {name} was {was.get(name)}, is {now.get(name)}: {_MEANING[name]}." for name in names]
        logger.warning(
            f"Going on from {checkpoint} under other conditions. The run will not end with the weights, bit for bit, "
            f"that it would have had without a break:{''.join(lines)}"
        )
