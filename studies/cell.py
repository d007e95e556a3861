"""Runs one cell of a study: pretrains a model with one arm's options and one seed, and measures it.

Where the study says so, the model is then fine-tuned for a task and measured again.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback

from benchmarks.measuring import count_flops
from transformers_cbvila.data.sources import load_pairs
from transformers_cbvila.inspection.measure import inspect_pretraining
from transformers_cbvila.training.arguments import CBViLATrainingArguments
from transformers_cbvila.training.pretrain import PretrainingJob, build_trainer
from transformers_cbvila.training.schedule import objective_weights, phases
from transformers_cbvila.training.trainer import CBViLATrainer

from .codebook_figures import codebook_figures
from .commands import run_commands
from .fine_tuning import FineTuning


@dataclass(frozen=True)
class Cell:
    """One arm of a study with one seed.

    Args:
        arm: Name of the arm.
        seed: Seed of weights, order, masks and crops: cells of one seed differ only in their arm's options.
        options: Options of `cbvila pretrain`, including `model_config`.
        train_data: Sources with a `train` split.
        test_data: Source to measure on; `None`: the model is not measured.
        rerank_k: How many candidates ITM re-ranks in retrieval.
        result: File of the metrics; the trained model is in the folder of the same name beside it.
        start: The cell whose model this one starts from; random weights by default.
        test_split: Split of `test_data`.
        then: What the model is fine-tuned for afterwards, if anything.
        fewer_codes: Measures the codebook, also with these numbers of codes; `None`: not.
    """

    arm: str
    seed: int
    options: Mapping[str, Any]
    train_data: tuple[str, ...]
    test_data: str | None
    rerank_k: int
    result: Path
    start: "Cell | None" = None
    test_split: str = "test"
    then: FineTuning | None = None
    fewer_codes: list[int] | None = None

    @property
    def folder(self) -> Path:
        """The folder of the trained model."""
        return self.result.with_suffix("")

    @property
    def results(self) -> list[Path]:
        """The file of the metrics, and that of the fine-tuned model's if there is one."""
        if self.then is None:
            return [self.result]
        return [self.result, self.result.with_name(f"{self.result.stem}-{self.then.task}.json")]

    @property
    def is_finished(self) -> bool:
        """Whether everything is measured."""
        return all(result.is_file() for result in self.results)

    def found(self) -> dict[str, Any] | None:
        """Returns what is measured so far, with the fine-tuned model's figures as `then`; `None` if nothing is."""
        pretrained, *fine_tuned = (json.loads(path.read_text()) if path.is_file() else None for path in self.results)
        return pretrained if not fine_tuned or pretrained is None else {**pretrained, "then": fine_tuned[0]}


def run_cell(cell: Cell, threads: int = 1) -> dict[str, Any]:
    """Pretrains, fine-tunes and measures as far as it is not done; writes the results, and returns them."""
    if not cell.result.is_file():
        _pretrain(cell, threads)
    if cell.then is not None and not cell.is_finished:
        result = cell.results[-1]
        run_commands(cell.then.commands(cell.folder, cell.seed, result), result.with_suffix(""))
    return cell.found() or {}


def _pretrain(cell: Cell, threads: int) -> None:
    torch.set_num_threads(threads)
    started = time.process_time()
    datasets.disable_progress_bars()
    trainer = _trainer(cell)
    trainer.train()
    trainer.save_model()
    trained = time.process_time()
    metrics = {} if cell.test_data is None else _measure(trainer, cell, cell.test_data)
    found = {
        "arm": cell.arm,
        "seed": cell.seed,
        "steps": trainer.state.global_step,
        "train_cpu_seconds": round(trained - started, 1),
        "evaluate_cpu_seconds": round(time.process_time() - trained, 1),
        "train_teraflops": round(_train_flops(trainer) / 1e12, 2),
        "figures": metrics,
        "log": trainer.state.log_history,
        "options": dict(cell.options),
    }
    cell.result.parent.mkdir(parents=True, exist_ok=True)
    unfinished = cell.result.with_suffix(".part")
    unfinished.write_text(json.dumps(found, indent=1))
    os.replace(unfinished, cell.result)


def _measure(trainer: CBViLATrainer, cell: Cell, data: str) -> dict[str, Any]:
    """Returns the figures of the trained model on the data."""
    model, processor, rows = trainer.model, trainer.processing_class, load_pairs(data, cell.test_split)
    metrics = inspect_pretraining(model, processor, rows, rerank_k=cell.rerank_k, progress=False)
    if cell.fewer_codes is not None:
        labels = cell.options.get("keyword_columns", ("objects",))
        rows = load_pairs(data, cell.test_split, keyword_columns=labels)
        metrics |= codebook_figures(model, processor, rows, cell.fewer_codes)
    return metrics


def _trainer(cell: Cell) -> CBViLATrainer:
    options = dict(cell.options)
    job_options = {name: options.pop(name) for name in list(options) if name in PretrainingJob.__dataclass_fields__}
    job = PretrainingJob(train_data=list(cell.train_data), **job_options)
    args = CBViLATrainingArguments(
        output_dir=str(cell.folder),
        seed=cell.seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        **options,
    )
    trainer = build_trainer(job, args)
    trainer.remove_callback(PrinterCallback)  # the result has its logs
    return trainer


def _train_flops(trainer: CBViLATrainer) -> int:
    """Returns the FLOPs of forward and backward of all steps, from one batch in each phase of the schedule."""
    args, model = trainer.args, trainer.model.train()
    examples = [trainer.train_dataset[row] for row in range(args.per_device_train_batch_size)]
    batch = {name: value.to(args.device) for name, value in trainer.data_collator(examples).items()}
    steps, (align, burn_in) = args.max_steps, phases(args.align_steps, args.burn_in_steps, args.max_steps)
    total, configured, starts = 0, model.config.loss_weights(), model.config.loss_phases()
    for first, last in ((0, align), (align, burn_in), (burn_in, steps)):
        if last > first:
            weights = objective_weights(configured, starts, first, burn_in, True, args.mlm_from_start, align)
            total += (last - first) * count_flops(partial(_backward, model, batch, weights))
    model.zero_grad()
    return total


def _backward(model: PreTrainedModel, batch: dict[str, Tensor], weights: dict[str, float]) -> None:
    model(**batch, loss_weights=weights).loss.backward()
