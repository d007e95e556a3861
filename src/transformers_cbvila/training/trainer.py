"""The Trainer of CB-ViLA: transformers' own, with the schedule of the objectives and their logs."""

import math
from collections import defaultdict
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from ..data.masking import generator_for
from ..model.modeling_cbvila_codebook import codebook_statistics
from ..model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from .arguments import CBViLATrainingArguments
from .codebook_care import CodebookCallback
from .schedule import as_steps, negative_hardness, objective_weights
from .sharding import local_part, scalars_again, scalars_as_vectors


class CBViLATrainer(Trainer):
    """Trains any CB-ViLA model.

    Pretraining ([`CBViLAForPreTraining`]) gets its objectives by global step, k-means and EMA for the codebook, and
    every loss term, codebook usage and perplexity in the log. [`CBViLAForMaskedImageModeling`] gets the same but for
    the schedule. A loss that is not finite stops the run, named, before a checkpoint is written.

    Contrast and mismatches (ITC, ITM; of [`CBViLAForImageTextRetrieval`], too) know the pairs of all processes, and
    every term is a mean over what all processes have to score: so many processes train as one with a batch as large
    as theirs together. With gradient accumulation neither holds across micro-batches: negatives are of one, means are
    taken within each and then averaged, as everywhere in transformers. Evaluation compares within a batch of
    `per_device_eval_batch_size`, on any number of processes.
    """

    args: CBViLATrainingArguments

    def __init__(self, model=None, args: CBViLATrainingArguments | None = None, **kwargs):
        if args is not None and not isinstance(args, CBViLATrainingArguments):
            raise ValueError(f"args is a {type(args).__name__}; CBViLATrainer takes CBViLATrainingArguments.")
        super().__init__(model=model, args=args or CBViLATrainingArguments(), **kwargs)
        self._sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=self.args.device))
        self._times: dict[str, int] = defaultdict(int)
        self._code_counts: torch.Tensor | None = None
        self._micro_step = (0, 0)  # an optimiser step and the number of its next micro-batch
        self.is_pretraining = isinstance(self.unwrapped_model, CBViLAForPreTraining)
        self.draws_negatives = self.is_pretraining or isinstance(self.unwrapped_model, CBViLAForImageTextRetrieval)
        self._scalars = scalars_as_vectors(self.unwrapped_model) if self.accelerator.is_fsdp2 else []
        if hasattr(self.unwrapped_model, "update_codebook"):
            self.add_callback(CodebookCallback(self))
        self.add_callback(_EpochCallback(self.train_dataset))

    @property
    def unwrapped_model(self):
        return self.accelerator.unwrap_model(self.model)

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch=None):
        if self.is_pretraining and model.training:
            inputs = {**inputs, **self._objectives()}
        if self.draws_negatives and model.training:
            inputs = {**inputs, "negative_seed": self._negative_seed()}
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if model.training:
            self._remember(loss, outputs)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._times:
            logs = {**logs, **self._component_logs()}
        super().log(logs, start_time)

    def get_decay_parameter_names(self, model) -> list[str]:
        """Weight decay would pull codes, positions, single tokens and the temperature to 0: it is for matrices."""
        spared = ("codebook.codes", "position_embeddings", "cls_token", "mask_token", "logit_scale", "mim_head.scale")
        names = super().get_decay_parameter_names(model)
        return [name for name in names if not any(part in name for part in spared)]

    def save_model(self, *args, **kwargs):
        self._require_finite_weights()
        return super().save_model(*args, **kwargs)

    def _save_checkpoint(self, *args, **kwargs):
        self._require_finite()
        return super()._save_checkpoint(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict and scalars_again(state_dict, self._scalars))

    def _objectives(self) -> dict[str, Any]:
        """Loss weights and hardness of negatives at the current global step, as keyword arguments of the model."""
        step, max_steps = self.state.global_step, self.state.max_steps
        burn_in = as_steps(self.args.burn_in_steps, max_steps)
        return {
            "loss_weights": objective_weights(self.unwrapped_model.config.loss_weights(), step, burn_in),
            "negative_hardness": negative_hardness(step, max_steps, self.args.hardening_window()),
        }

    def _negative_seed(self) -> torch.Tensor:
        """A new seed for every micro-batch, the same on all processes and in a resumed run."""
        step = self.state.global_step
        micro_step = self._micro_step[1] if self._micro_step[0] == step else 0
        self._micro_step = (step, micro_step + 1)
        seed = generator_for(self.args.seed, step, micro_step).initial_seed() >> 1
        # One for each device, as DataParallel deals out the first dimension; filled there, so that nothing waits.
        return torch.full((max(1, self.args.n_gpu),), seed, device=self.args.device)

    def _remember(self, loss: torch.Tensor, outputs) -> None:
        """Adds up on the device what the next log needs: no synchronisation per step."""
        for name, value in {"total": loss, **(outputs.get("losses") or {})}.items():
            self._sums[name] += value.detach()
            self._times[name] += 1  # a term that is on for part of the window is averaged over that part
        counts = outputs.get("codebook_counts")
        if counts is not None:
            self._code_counts = counts if self._code_counts is None else self._code_counts + counts

    def _component_logs(self) -> dict[str, float]:
        self._require_finite()
        means = self._mean_sums()
        logs = {f"loss_{name}": value / self._times[name] for name, value in means.items() if name != "total"}
        if self._code_counts is not None:
            counts = self.accelerator.reduce(self._code_counts, reduction="sum")
            logs |= {f"codebook_{name}": float(value) for name, value in codebook_statistics(counts).items()}
        self._sums.clear()
        self._times.clear()
        self._code_counts = None
        return logs

    def _mean_sums(self) -> dict[str, float]:
        """What was added up since the last log, as means over processes: each scaled its terms for that."""
        if not self._sums:
            return {}
        means = self.accelerator.reduce(torch.stack(list(self._sums.values())), reduction="mean").tolist()
        return dict(zip(self._sums, means, strict=True))

    def _require_finite(self) -> None:
        # Means over processes, so that all of them stop, not one while the others wait for it.
        broken = [name for name, value in self._mean_sums().items() if not math.isfinite(value)]
        if broken:
            components = [name for name in broken if name != "total"] or broken
            raise FloatingPointError(
                f"Loss {', '.join(components)} became NaN or infinite by step {self.state.global_step}. No checkpoint "
                "was written since. Lower the learning rate, look at the batch, or use bf16 in place of fp16; then "
                "resume from the last checkpoint."
            )

    def _require_finite_weights(self) -> None:
        """A gradient that is not finite, of a loss that is, shows in the weights a step before it shows in a loss."""
        tensors = {
            name: tensor
            for name, tensor in self.unwrapped_model.state_dict(keep_vars=True).items()
            if tensor.is_floating_point()
        }
        finite = torch.stack([local_part(tensor).isfinite().all() for tensor in tensors.values()]).long()
        if self.accelerator.is_fsdp2:  # each process has a part; elsewhere all have the same, and one may save alone
            finite = self.accelerator.reduce(finite, reduction="sum") // self.accelerator.num_processes
        broken = [name for name, fine in zip(tensors, finite.tolist(), strict=True) if not fine]
        if broken:
            raise FloatingPointError(
                f"{len(broken)} weights are NaN or infinite at step {self.state.global_step}, {broken[0]} among them, "
                "and were not saved. Lower the learning rate and resume from the last checkpoint."
            )


class _EpochCallback(TrainerCallback):
    """Tells the training set which epoch it is, for draws that depend on (seed, epoch, row)."""

    def __init__(self, dataset):
        self.dataset = dataset

    def on_epoch_begin(self, args, state, control, **kwargs):
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(int(state.epoch or 0))


__all__ = ["CBViLATrainer"]
