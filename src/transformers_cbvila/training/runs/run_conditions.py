"""Conditions under which a resumed run ends with the same weights, bit for bit, as an uninterrupted one."""

import json
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ...data.streams import StreamedImageTextPairs
from ..context import TrainingContext

logger = logging.get_logger(__name__)

CONDITIONS_FILE = "run_conditions.json"
_POSITION = "the position in the data is counted in batches, so that rows come twice or are left out in this pass"
_ORDER = "rows come in another order, so that some come twice or are left out in this pass"
_MEANING = {
    "processes": f"batches and negatives differ; {_POSITION}",
    "batch_size_per_process": f"batches and negatives differ; {_POSITION}",
    "gradient_accumulation_steps": f"a step sees another number of pairs; {_POSITION}",
    "dataloader_num_workers": f"the stream is split among other readers: {_ORDER}",
    "rows": f"the training data differ: {_ORDER}",
    "shards": f"the stream is split differently: {_ORDER}",
    "shuffle_buffer": _ORDER,
    "seed": f"crops, captions, masks and negatives differ, and {_ORDER}",
    "length": "learning rates, and every option that is a share of all steps, follow another schedule",
    "precision": "results are rounded differently",
    "device": "results are rounded differently, and dropout draws other numbers",
}


def run_conditions(context: TrainingContext) -> dict[str, Any]:
    """Returns the conditions that the weights of a run depend on besides its other options, for JSON."""
    args, dataset = context.args, context.train_dataset
    conditions = {
        "processes": args.world_size,
        "batch_size_per_process": args.train_batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "seed": args.seed,
        "length": f"{args.max_steps} steps" if args.max_steps > 0 else f"{args.num_train_epochs:g} epochs",
        "precision": context.accelerator.mixed_precision,
        "device": args.device.type,
    }
    if isinstance(dataset, StreamedImageTextPairs):
        readers = {"dataloader_num_workers": args.dataloader_num_workers}  # elsewhere workers change nothing
        return {**conditions, **readers, "shards": dataset.rows.num_shards, "shuffle_buffer": dataset.shuffle_buffer}
    return {**conditions, "rows": len(dataset) if hasattr(dataset, "__len__") else None}


def save_conditions(context: TrainingContext, checkpoint: str) -> None:
    """Writes a run's conditions into a checkpoint."""
    if context.args.should_save:
        Path(checkpoint).mkdir(parents=True, exist_ok=True)
        (Path(checkpoint) / CONDITIONS_FILE).write_text(json.dumps(run_conditions(context), indent=1))


def warn_of_other_conditions(context: TrainingContext, checkpoint: str) -> None:
    """Warns of each condition that differs from when the checkpoint was written, if known.

    It is no error: a run may be resumed on another machine.
    """
    path = Path(checkpoint) / CONDITIONS_FILE
    if not path.is_file() or not context.is_main_process:
        return
    was, now = json.loads(path.read_text()), run_conditions(context)
    names = [name for name in _MEANING if was.get(name) != now.get(name)]
    if names:
        lines = [f"\n  {name} was {was.get(name)}, is {now.get(name)}: {_MEANING[name]}." for name in names]
        logger.warning(
            f"Going on from {checkpoint} under other conditions. The run will not end with the weights, bit for bit, "
            f"that it would have had without a break:{''.join(lines)}"
        )
