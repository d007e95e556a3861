"""Sets the epoch of the training data, and the position of a stream when a run is resumed."""

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...data.streams import StreamedImageTextPairs
from ..context import TrainingContext
from .progress import log_main_process


class DataCallback(TrainerCallback):
    """Sets the epoch of the training set, and replays a stream; [`CBViLATrainer`] adds it by itself.

    Args:
        context: The context of the run.

    Attributes:
        resumed_from: Global step at which this part of the run began.
        replay_seconds: Seconds from the start of the loader to the first batch that is trained on: in a resumed run,
            the cost of returning to its position.
    """

    def __init__(self, context: TrainingContext) -> None:
        self.context = context
        self.resumed_from = 0
        self.replay_seconds: float | None = None
        self._begin = time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Moves a stream to the position of the run."""
        self.resumed_from, self.replay_seconds = state.global_step, None
        dataset = self.context.train_dataset
        if not isinstance(dataset, StreamedImageTextPairs):
            return
        if not dataset.readers_share_shards(args.dataloader_num_workers):
            log_main_process(
                args,
                f"The stream has {dataset.rows.num_shards} shard(s), which {args.world_size} process(es) with "
                f"{args.dataloader_num_workers} loader worker(s) cannot share evenly: each reads all rows and keeps "
                "its part. With a number of files that divides evenly, each reads its own only.",
            )
        batches = 0 if args.ignore_data_skip else state.global_step * args.gradient_accumulation_steps
        dataset.start_after(batches, args.train_batch_size)
        if batches:
            rows = batches * args.train_batch_size * args.world_size
            log_main_process(args, f"Replaying the stream to step {state.global_step}: reading past {rows} rows ...")

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Sets the epoch of the training set."""
        self._begin = time.perf_counter()
        dataset = self.context.train_dataset
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int(state.epoch or 0))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measures how long the first batch took."""
        if self.replay_seconds is None:
            self.replay_seconds = time.perf_counter() - self._begin
            if self.resumed_from:
                log_main_process(
                    args, f"Resumed at step {self.resumed_from}: its data were there in {self.replay_seconds:.1f} s."
                )
