"""The Trainer of CB-ViLA: transformers' own, with a schedule of the objectives and a log of their losses."""

import math
import os
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from ..data.masking import generator_for
from ..data.streams import ReplayCollator, StreamedImageTextPairs
from ..model.losses_cbvila import answer_loss
from ..model.modeling_cbvila_objectives import CBViLAModelWithObjectives
from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from ..model.quantizer_output_cbvila import CBViLAQuantizerHints
from .arguments import CBViLATrainingArguments
from .codebook.alternating_updates import AlternationCallback
from .codebook.callback import CodebookCallback
from .context import TrainingContext
from .fsdp import complete_optimizer_state, local_part, require_whole_weights, scalars_again, scalars_as_vectors
from .idle_options import name_idle_options
from .learning_rates import check_schedule, entries_in_steps
from .momentum.callback import MomentumCallback
from .muon import MuonWithAdamW
from .objective_callback import ObjectiveCallback
from .optimizer_groups import groups_by_tower, groups_for_muon
from .option_checks import check_optimizer, check_options, require_mismatches, require_one_device
from .peft import (
    check_adapters,
    has_language_model_adapter,
    ids_of_codes,
    own_name,
    restore_language_model_adapter,
)
from .runs.checkpoints import StateFile, check_complete, last_complete_checkpoint, step_of
from .runs.data_callback import DataCallback
from .runs.progress import log_main_process
from .runs.run_conditions import save_conditions, warn_of_other_conditions
from .schedule import negative_hardness, objective_weights, phases

_TOTAL = "total"  # key of the sum of all terms


class CBViLATrainer(Trainer):
    """Trains any CB-ViLA model.

    Pretraining ([`CBViLAForPreTraining`]) has objectives by global step, k-means and EMA for the codebook, and every
    loss term, codebook usage and perplexity in the log. [`CBViLAForMaskedImageModeling`] has the same except for the
    schedule. A loss that is not finite stops the run with an error that names it, before a checkpoint is written. A
    stream ([`StreamedImageTextPairs`]) is split among processes and, when a run is resumed, replayed to its position.

    ITC and ITM (also those of [`CBViLAForImageTextRetrieval`]) use the pairs of all processes, and every term is a
    mean over all of them: several processes train like one with their batches together. This does not extend to
    gradient accumulation: negatives come from one micro-batch, and means are taken within each and then averaged, as
    everywhere in transformers. Evaluation compares within a batch of `per_device_eval_batch_size`, on any number of
    processes.

    A model with adapters (PEFT) is trained like the model inside. Its codes can move if the adapter's
    `modules_to_save` names the codebook.

    Args:
        model: A CB-ViLA model, wrapped by PEFT or not; may be left out with `model_init`.
        args: The training arguments.
        kwargs: As of [`~transformers.Trainer`].
    """

    args: CBViLATrainingArguments

    def __init__(
        self, model: nn.Module | None = None, args: CBViLATrainingArguments | None = None, **kwargs: Any
    ) -> None:
        if args is not None and not isinstance(args, CBViLATrainingArguments):
            raise ValueError(f"args is a {type(args).__name__}; CBViLATrainer takes CBViLATrainingArguments.")
        super().__init__(model=model, args=args or CBViLATrainingArguments(), **kwargs)
        require_one_device(self.args)  # after Trainer has changed them for a model laid out over several devices
        self.context = TrainingContext(self)
        self._sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=self.args.device))
        self._times: dict[str, int] = defaultdict(int)
        self._micro_step = (0, 0)  # an optimizer step and the number of its next micro-batch
        self.codebook_callback: CodebookCallback | None = None
        check_options(self.context)
        check_optimizer(self)
        require_mismatches(self.context)
        if self.context.is_pretraining:
            name_idle_options(self.unwrapped_model, self.args, self.args)
        self._smoothing = 0.0
        if isinstance(self.unwrapped_model, CBViLAForQuestionAnswering):  # Trainer's own would take the labels away
            self._smoothing, self.label_smoother = self.args.label_smoothing_factor, None
        check_adapters(self.accelerator.unwrap_model(self.model), self.args)
        if has_language_model_adapter(self.unwrapped_model):
            require_whole_weights(self.context, "An adapter of the language model (lora) is saved by itself")
        self._scalars = scalars_as_vectors(self.unwrapped_model) if self.accelerator.is_fsdp2 else []
        self.data_callback = DataCallback(self.context)
        self.add_callback(self.data_callback)
        if getattr(self.unwrapped_model, "learns_codes", False):
            self.codebook_callback = CodebookCallback(self.context)
            self.add_callback(self.codebook_callback)
        if isinstance(self.unwrapped_model, CBViLAModelWithObjectives):
            self.add_callback(ObjectiveCallback(self.context))
        self.momentum: MomentumCallback | None = None
        if self.args.uses_momentum_encoder or self.context.needs_momentum_encoder:
            self.momentum = MomentumCallback(self.context)
            self.add_callback(self.momentum)
        turns = self.args.update_turns()
        if turns is not None:
            self.add_callback(AlternationCallback(self.context, turns))

    @property
    def unwrapped_model(self) -> Any:
        """The CB-ViLA model, without what distribution and adapters wrap around it."""
        return self.context.model

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Trains as [`~transformers.Trainer`] does; `True` resumes from the last complete checkpoint."""
        self._forget_sums()
        self._micro_step = (0, 0)
        if resume_from_checkpoint is True:  # Trainer would take the newest folder, though half-written
            resume_from_checkpoint = last_complete_checkpoint(self.args.output_dir or "") or True
        if isinstance(resume_from_checkpoint, str) and not self.is_fsdp_enabled:
            step = step_of(resume_from_checkpoint)
            if step >= self.args.max_steps > 0:  # Trainer would take one more
                log_main_process(self.args, f"{resume_from_checkpoint} is at the last step: nothing is left to train.")
                self._load_from_checkpoint(resume_from_checkpoint)
                self.state = TrainerState.load_from_json(os.path.join(resume_from_checkpoint, TRAINER_STATE_NAME))
                return TrainOutput(step, math.nan, {})
        if isinstance(resume_from_checkpoint, str):
            check_complete(self.context, resume_from_checkpoint, self._state_files())
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Computes the loss with the schedule's weights, targets and negatives, and records its terms for the log."""
        if self.context.is_pretraining and model.training:
            inputs = {**inputs, "loss_weights": self._loss_weights()}
            teacher = None if self.codebook_callback is None else self.codebook_callback.teacher
            if teacher is not None and self.unwrapped_model.needs("code_targets", inputs["loss_weights"]):
                hints = CBViLAQuantizerHints.of(inputs.get("token_classes"))
                inputs["mim_targets"] = teacher.indices(inputs["pixel_values"], hints)
            if self.momentum is not None:
                inputs["momentum"] = self.momentum.targets(inputs, self.state)
        if self.context.draws_negatives and model.training:
            hardness = negative_hardness(self.state.global_step, self.state.max_steps, self.args.hardening_window())
            inputs = {"negative_hardness": hardness, **inputs, "negative_seed": self._negative_seed()}
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if self._smoothing and model.training:
            weights = inputs.get("answer_weights")
            loss = answer_loss(outputs["logits"], inputs["labels"], weights, self._smoothing)
        if model.training:
            self._remember(loss, outputs)
            if self.momentum is not None:
                self.momentum.enqueue()
        return (loss, outputs) if return_outputs else loss

    def get_train_dataloader(self) -> DataLoader:
        """Returns the loader of training batches. Every process reads its own part of a stream."""
        if not isinstance(self.train_dataset, StreamedImageTextPairs):
            return super().get_train_dataloader()
        self.train_dataset.assign(self.args.process_index, self.args.world_size)
        loader = DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            collate_fn=ReplayCollator(self.data_collator),
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            multiprocessing_context=self.args.dataloader_multiprocessing_context,
        )
        # as for a single process, since the stream is split already
        return prepare_data_loader(
            loader,
            self.args.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            dispatch_batches=False,
            non_blocking=self.accelerator.non_blocking,
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Creates the optimizer, with a group for each tower that has its own learning rate, or with Muon's."""
        rates, muon_rate = self.args.tower_learning_rates(), self.args.muon_learning_rate
        if self.optimizer is not None or not (rates or muon_rate is not None):
            return super().create_optimizer(model)
        model = self.model if model is None else model
        optimizer_class, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, model)
        parameters, decayed = model.named_parameters(), self.get_decay_parameter_names(model)
        if muon_rate is not None:
            require_whole_weights(self.context, f"muon_learning_rate={muon_rate} needs whole matrices")
            groups = groups_for_muon(parameters, decayed, self.args.weight_decay, muon_rate, rates)
            if not any(group["muon"] for group in groups):
                raise ValueError(
                    f"muon_learning_rate={muon_rate}: no matrix of a transformer layer is left for Muon, as they are "
                    "frozen or have learning rates of their own; leave it out."
                )
            self.optimizer = MuonWithAdamW(groups, **options)
            return self.optimizer
        if not isinstance(optimizer_class, type) or {"params", "model", "optimizer_dict"} & set(options):
            raise ValueError(
                f"optim={self.args.optim} makes its own parameter groups; leave {', '.join(rates)} learning rates out."
            )
        groups = groups_by_tower(parameters, decayed, self.args.weight_decay, rates)
        self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Creates the schedule of the learning rate; `num_decay_steps` below 1 is a share of the run."""
        given = self.args.lr_scheduler_kwargs
        check_schedule(self.args, num_training_steps)
        try:
            self.args.lr_scheduler_kwargs = given and entries_in_steps(given, num_training_steps)
            return super().create_scheduler(num_training_steps, optimizer)
        finally:
            self.args.lr_scheduler_kwargs = given  # as it was given, for the run's record

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs the loss with its terms and the metrics of the codebook."""
        if "loss" in logs and self._times:
            logs = {**logs, **self._component_logs()}
        super().log(logs, start_time)

    def report_evaluation(self, found: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        """Logs an evaluation's metrics that are numbers, tells callbacks, and returns all, named `PREFIX_NAME`."""
        metrics = {f"{prefix}_{name}": value for name, value in found.items()}
        self.log({name: value for name, value in metrics.items() if isinstance(value, int | float)})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Returns the names of weight matrices: decay would pull codes, positions and temperatures to 0."""
        spared = ("position_embeddings", "cls_token", "mask_token")
        codes = ids_of_codes(self.unwrapped_model)
        alone = {name for name, p in model.named_parameters() if p.numel() == 1 or id(p) in codes}
        names = super().get_decay_parameter_names(model)
        return [name for name in names if name not in alone and not any(part in own_name(name) for part in spared)]

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Saves the model, unless a weight is not finite."""
        self._require_finite_weights()
        super().save_model(*args, **kwargs)

    def _state_files(self) -> list[StateFile]:
        """Returns the files that callbacks write into a checkpoint."""
        return [c.state_file for c in (self.codebook_callback, self.momentum) if c is not None]

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # The main process writes trainer_state.json next, which marks the checkpoint as complete: every process's part
        # must be there by then.
        self.accelerator.wait_for_everyone()

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self._require_finite()
        super()._save_checkpoint(*args, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.accelerator.is_fsdp2 and self.optimizer is not None:
            complete_optimizer_state(self.optimizer)
        super()._save_optimizer_and_scheduler(output_dir)
        save_conditions(self.context, output_dir)
        if self.codebook_callback is not None:
            self.codebook_callback.save(output_dir)
        if self.momentum is not None:
            self.momentum.save(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if has_language_model_adapter(self.unwrapped_model):
            restore_language_model_adapter(self.unwrapped_model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if has_language_model_adapter(self.unwrapped_model):
            restore_language_model_adapter(self.unwrapped_model, self.state.best_model_checkpoint or "")

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        tied = getattr(self.unwrapped_model, "all_tied_weights_keys", {})  # a checkpoint holds what they are tied to
        missing = [name for name in load_result.missing_keys if own_name(name) not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        warn_of_other_conditions(self.context, checkpoint)
        if self.codebook_callback is not None:
            self.codebook_callback.load(checkpoint)
        if self.momentum is not None:
            self.momentum.load(checkpoint)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict and scalars_again(state_dict, self._scalars))

    def _loss_weights(self) -> dict[str, float]:
        """Returns the weight of each loss term at the current global step."""
        config, step, max_steps = self.unwrapped_model.config, self.state.global_step, self.state.max_steps
        align, burn_in = phases(self.args.align_steps, self.args.burn_in_steps, max_steps)
        mim_open = self.codebook_callback is None or self.codebook_callback.mim_open
        return objective_weights(
            config.loss_weights(), config.loss_phases(), step, burn_in, mim_open, self.args.mlm_from_start, align
        )

    def _negative_seed(self) -> torch.Tensor:
        """Returns a new seed for every micro-batch, the same on all processes and in a resumed run."""
        step = self.state.global_step
        micro_step = self._micro_step[1] if self._micro_step[0] == step else 0
        self._micro_step = (step, micro_step + 1)
        seed = generator_for(self.args.seed, step, micro_step).initial_seed() >> 1
        return torch.full((1,), seed, device=self.args.device)  # filled on the device, so that nothing waits

    def _remember(self, loss: torch.Tensor, outputs: Any) -> None:
        """Adds the loss terms to the sums of the next log, on the device, so that steps need no synchronisation."""
        terms = {f"loss_{name}": value for name, value in (outputs.get("losses") or {}).items()}
        for name, value in {_TOTAL: loss, **terms, **(outputs.get("metrics") or {})}.items():
            self._sums[name] += value.detach()
            self._times[name] += 1  # a term that is on for part of the window is averaged over that part
        if self.codebook_callback is not None:
            self.codebook_callback.monitor.observe(outputs)

    def _component_logs(self) -> dict[str, float]:
        self._require_finite()
        means = self._mean_sums()
        logs = {name: value / self._times[name] for name, value in means.items() if name != _TOTAL}
        if self.codebook_callback is not None:
            logs |= self.codebook_callback.logs()
        self._forget_sums()
        return logs

    def _forget_sums(self) -> None:
        self._sums.clear()
        self._times.clear()

    def _mean_sums(self) -> dict[str, float]:
        """Returns the sums since the last log as means over processes, for which the model has scaled its terms."""
        if not self._sums:
            return {}
        means = self.accelerator.reduce(torch.stack(list(self._sums.values())), reduction="mean").tolist()
        return dict(zip(self._sums, means, strict=True))

    def _require_finite(self) -> None:
        # Means over processes, so that all of them stop, not one while the others wait for it.
        broken = [name for name, value in self._mean_sums().items() if not math.isfinite(value)]
        if broken:
            components = [name.removeprefix("loss_") for name in broken if name != _TOTAL] or broken
            raise FloatingPointError(
                f"Loss {', '.join(components)} became NaN or infinite by step {self.state.global_step}. No checkpoint "
                "was written since. Lower the learning rate, look at the batch, or use bf16 in place of fp16; then "
                "resume from the last checkpoint."
            )

    def _require_finite_weights(self) -> None:
        """Raises a FloatingPointError for weights that are not finite.

        If a gradient is not finite and its loss is, weights show it one step before a loss does.
        """
        left_out = self.unwrapped_model._keys_to_ignore_on_save or ()  # weights that are not trained
        tensors = {
            name: tensor
            for name, tensor in self.unwrapped_model.state_dict(keep_vars=True).items()
            if tensor.is_floating_point() and name not in left_out
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


__all__ = ["CBViLATrainer"]
