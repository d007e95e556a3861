"""Codebook training besides gradients: k-means initialisation, EMA updates, restarts of unused codes, monitoring."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from ...data.masking import generator_for
from ..context import TrainingContext
from ..fsdp import require_whole_weights
from ..peft import quantizer_of
from ..runs.checkpoints import StateFile
from ..schedule import latest_mim_step, mim_gate_open, phases, restart_steps
from .ema_teacher import EMATeacher
from .initialization import fit_codes
from .mim_heads import reset_heads
from .monitor import CodebookMonitor
from .option_warnings import (
    warn_of_endless_burn_in,
    warn_of_frozen_codes,
    warn_of_hard_negatives,
    warn_of_no_restarts,
)
from .restarts import check_restarts
from .stability import CodeStability

logger = logging.get_logger(__name__)

_RESTART_SHARE = 0.01  # of the codes, at most, per step


class CodebookCallback(TrainerCallback):
    """Initialises, updates, monitors and, in burn-in, restarts the codes; [`CBViLATrainer`] adds it by itself.

    Args:
        context: The context of the run.

    Attributes:
        monitor: Codebook usage over log windows, and the collapse alarm.
        probe: Code stability on a fixed batch.
        mim_open: Whether MIM may learn the indices; once open it stays open.
        codes_given: Whether the model came with fitted codes, which a MIM head may have learned.
        teacher: The averaged encoder whose indices are MIM's targets, with `codebook_target_decay` and from the end
            of burn-in on; None otherwise.
        state_file: The file in checkpoints.
    """

    state_file = StateFile(
        "codebook_state.pt",
        "ages of codes, the probe, the gate and the alarm start again",
        renamed_keys={"watch": "monitor", "targets": "teacher"},
        name_before="codebook_care.pt",
    )

    def __init__(self, context: TrainingContext) -> None:
        self._check(context)
        self.context = context
        self.monitor = CodebookMonitor(context)
        self.probe = CodeStability(context, context.args.codebook_probe_images, context.args.stability_window)
        self.mim_open = False
        self.teacher: EMATeacher | None = None
        self.codes_given = False
        self._resumed = False

    @staticmethod
    def _check(context: TrainingContext) -> None:
        """Raises a ValueError for options that the model, or how it is trained, cannot follow."""
        args = context.args
        check_restarts(args, quantizer_of(context.model))
        if args.codebook_target_decay is not None:
            require_whole_weights(context, "codebook_target_decay needs a whole copy of the image encoder")

    @property
    def quantizer(self) -> Any:
        """The quantizer of the model."""
        return quantizer_of(self.context.model)

    @property
    def is_frozen(self) -> bool:
        """Whether codes do not change: the codebook is frozen, or the whole model but for its heads."""
        return self.quantizer.is_frozen or not any(
            parameter.requires_grad for parameter in self.context.model.cbvila.parameters()
        )

    @property
    def codes_rest(self) -> bool:
        """Whether codes stay as they were fitted: they are frozen, or their learning rate is 0, averages or not."""
        return self.is_frozen or self.context.args.codebook_learning_rate == 0

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: torch.optim.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """Fits the codes, unless they are fitted already, and measures them for the first time."""
        self.quantizer.synchronize()
        if self.context.is_main_process:
            self._warn_of_options(state)
        if not self._resumed:
            self.monitor.reset()
            self.probe.reset()
            self.mim_open, self.teacher = False, None
            self.codes_given = self.quantizer.is_fitted
        self._resumed = False
        if self.context.args.codebook_init and not self.quantizer.is_fitted and not self.is_frozen:
            self.fit(args.seed, optimizer)
        self.monitor.remember_codes()
        if not self.probe.history:
            self.probe.measure(state.global_step)

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: torch.optim.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """Fits the codes again where a phase ends, opens the gate of MIM, and starts the teacher."""
        options, step, (align, burn_in) = self.context.args, state.global_step, self._phases(state)
        # When alignment ends, features differ from those of the first step, and the pixel loss begins to use codes.
        fits = (options.codebook_init and 0 < step == align) or (options.codebook_refit and 0 < step == burn_in)
        if fits and self.quantizer.tables() and not self.is_frozen:  # without tables codes and their meaning stay
            self._refit(step, optimizer)
            self.monitor.remember_codes()
            self.probe.forget()
            self.probe.measure(step)
        stability = self.probe.stability if self.probe.is_settled else None
        latest = latest_mim_step(align, burn_in, options.stability_window, state.max_steps)
        self.mim_open = self.mim_open or mim_gate_open(step, burn_in, options.mim_gate, stability, latest)
        decay = options.codebook_target_decay
        if decay is not None and self.context.is_pretraining and self.teacher is None and step >= burn_in:
            self.teacher = EMATeacher(self.context, decay)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Updates codes and teacher, and restarts unused codes."""
        if self.context.accelerator.optimizer_step_was_skipped:
            # The gradient scaler of fp16 found an overflow, which may be in the features that would be averaged.
            self.quantizer.after_skipped_step()
            return
        codes_rest = self.codes_rest
        if codes_rest:
            self.quantizer.after_skipped_step()
        else:
            self.quantizer.after_step()
        if self.teacher is not None:
            self.teacher.update()
        if not codes_rest and self._may_restart(state):
            self._restart(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measures code stability and checks for a collapse, each at its interval."""
        if state.global_step % self._stability_interval(state) == 0:
            self.probe.measure(state.global_step)
        if state.global_step % self.context.args.codebook_alarm_steps == 0:
            self.monitor.check()

    def logs(self) -> dict[str, float]:
        """Returns codebook metrics for the training log, over all processes."""
        logs = self.monitor.logs()
        if self.probe.stability is not None:
            logs["stability"] = self.probe.stability
        return {f"codebook_{name}": value for name, value in logs.items()}

    def save(self, folder: str) -> None:
        """Writes the state besides model weights into a checkpoint; call it on all processes."""
        state: dict[str, Any] = {
            "monitor": self.monitor.state_dict(),
            "probe": self.probe.state_dict(),
            "mim_open": self.mim_open,
            "codes_given": self.codes_given,
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
            "buffers": self.quantizer.training_state(),
        }
        self.state_file.save(self.context.args, folder, state)

    def load(self, folder: str) -> None:
        """Restores the state from a checkpoint; without one in it, everything starts again."""
        args = self.context.args
        state = self.state_file.load(args, folder)
        if state is None:
            return
        self.monitor.load_state_dict(state["monitor"])
        self.probe.load_state_dict(state["probe"])
        self.mim_open = state["mim_open"]
        self.codes_given = state.get("codes_given", False)  # missing in older checkpoints
        self.teacher = None
        if state["teacher"] is not None and args.codebook_target_decay is not None:
            self.teacher = EMATeacher(self.context, args.codebook_target_decay)
            self.teacher.load_state_dict(state["teacher"])
        buffers = self.quantizer.training_state()
        for name, value in state["buffers"].items():
            name = name if name in buffers else f"tables.0.{name}"  # version 0.1 had one table
            if value is not None and name in buffers:
                buffers[name].copy_(value)
        self._resumed = True

    def fit(self, seed: int, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Sets the codes by k-means over latents of training images; leaves the global random state unchanged.

        Args:
            seed: Seed of the choice of images and of k-means.
            optimizer: The optimizer, if it exists; its moments of the codes' gradients are dropped.
        """
        if not self.quantizer.tables():
            return  # there is nothing to fit
        fit_codes(self.context, seed)
        self.monitor.forget_alarm()  # it was about other codes
        if optimizer is not None:
            for codes in self.quantizer.code_parameters():
                optimizer.state.pop(codes, None)

    def _refit(self, step: int, optimizer: torch.optim.Optimizer | None) -> None:
        """Fits the codes again during a run; a linear MIM head trained on the old codes is reinitialised."""
        seed = self.context.args.seed
        self.fit(seed + 1, optimizer)
        if not self.codes_given:
            return  # the head has learned nothing yet: MIM waits for the end of burn-in
        reset = reset_heads(self.context.model, seed, step)
        if self.context.is_main_process:
            what = f"{' and '.join(reset)} scored them and was reset" if reset else "its MIM head was kept"
            logger.warning(
                f"The model came with fitted codes, and at step {step} they were fitted again, as its features have "
                f"moved: {what}. To keep the codes that it came with, set codebook_refit to False and, with "
                "align_steps, codebook_init."
            )

    def _restart(self, step: int) -> None:
        args = self.context.args
        restarted = self.quantizer.restart(
            args.codebook_restart_threshold,
            _RESTART_SHARE,
            generator=generator_for(args.seed, step),
            grace=args.codebook_restart_grace,
        )
        self.monitor.count_restarts(restarted)

    def _may_restart(self, state: TrainerState) -> bool:
        align, burn_in = self._phases(state)
        alarmed = self.monitor.alarmed and state.global_step >= align
        in_window = state.global_step in restart_steps(align, burn_in)
        return self.context.args.codebook_restart_threshold > 0 and (alarmed or in_window)

    def _phases(self, state: TrainerState) -> tuple[int, int]:
        """Returns the steps at which alignment and burn-in end; only pretraining has either."""
        args = self.context.args
        return phases(args.align_steps, args.burn_in_steps, state.max_steps) if self.context.is_pretraining else (0, 0)

    def _stability_interval(self, state: TrainerState) -> int:
        args = self.context.args
        longest = max(1, args.stability_window // 4)
        return args.stability_every or min(state.logging_steps or longest, longest)

    def _warn_of_options(self, state: TrainerState) -> None:
        args, (align, burn_in) = self.context.args, self._phases(state)
        if self.is_frozen:
            warn_of_frozen_codes(args, self.quantizer)
        warn_of_endless_burn_in(args, state, burn_in)
        if not self.codes_rest:
            warn_of_no_restarts(args, align, burn_in)
        if self.context.model.needs("hard_negatives"):
            warn_of_hard_negatives(args, state, align)
