"""Codebook training beside gradients: k-means initialisation, EMA updates, restarts of unused codes, monitoring."""

import math
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.utils import logging

from ...data.masking import generator_for
from ..fsdp import require_whole_weights
from ..peft import quantizer_of
from ..runs.checkpoints import load_state, save_state
from ..runs.progress import log_main_process
from ..schedule import hardening_steps, latest_mim_step, mim_gate_open, phases, restart_steps
from ..training_images import image_batches, image_latents
from .ema_teacher import EMATeacher
from .mim_heads import forget_codes
from .monitor import CodebookMonitor
from .stability import CodeStability

logger = logging.get_logger(__name__)

_POINTS_PER_CODE = 16
_RESTART_SHARE = 0.01  # of the codes, at most, per step
_STATE_FILE = "codebook_care.pt"


class CodebookCallback(TrainerCallback):
    """Initialises, updates, monitors and, in burn-in, restarts the codes; [`CBViLATrainer`] adds it by itself.

    Attributes:
        monitor: Codebook usage over log windows, and the collapse alarm.
        probe: Code stability on a fixed batch.
        mim_open: Whether MIM may learn the indices; once open it stays open.
        codes_given: Whether the model came with fitted codes, which a MIM head may have learned.
        teacher: The averaged encoder whose indices are MIM's targets, with `codebook_target_decay` and from the end
            of burn-in on; None otherwise.
    """

    def __init__(self, trainer):
        self._check(trainer)
        self.trainer = trainer
        self.monitor = CodebookMonitor(trainer)
        self.probe = CodeStability(trainer, trainer.args.codebook_probe_images, trainer.args.stability_window)
        self.mim_open = False
        self.teacher: EMATeacher | None = None
        self.codes_given = False
        self._resumed = False

    @staticmethod
    def _check(trainer) -> None:
        """Raises a ValueError for options that the model, or how it is trained, cannot follow."""
        args, quantizer = trainer.args, quantizer_of(trainer.unwrapped_model)
        if args.codebook_restart_threshold > 0 and not quantizer.can_restart:
            raise ValueError(
                f"codebook_restart_threshold={args.codebook_restart_threshold} is for codes that are moving averages; "
                f"here they are not ({quantizer.options}). Set it to 0."
            )
        if args.codebook_target_decay is not None:
            require_whole_weights(trainer, "codebook_target_decay keeps a whole copy of the image encoder")

    @property
    def quantizer(self):
        return quantizer_of(self.trainer.unwrapped_model)

    @property
    def is_frozen(self) -> bool:
        """Whether codes do not change: the codebook is frozen, or the whole model but for its heads."""
        return self.quantizer.is_frozen or not any(
            parameter.requires_grad for parameter in self.trainer.unwrapped_model.cbvila.parameters()
        )

    def on_train_begin(self, args, state, control, **kwargs):
        self.quantizer.synchronize()
        self._warn_of_frozen_codes(args, state)
        if self._phases(args, state)[1] >= state.max_steps and state.is_world_process_zero:
            logger.warning(
                f"burn_in_steps={args.burn_in_steps} (after align_steps={args.align_steps}) lasts for all of the "
                f"{state.max_steps} steps: MIM never begins, nor MLM unless mlm_from_start."
            )
        self._warn_of_no_restarts(args, state)
        self._warn_of_hard_negatives(args, state)
        if not self._resumed:
            self.monitor.reset()
            self.probe.reset()
            self.mim_open, self.teacher = False, None
            self.codes_given = self.quantizer.is_fitted
        self._resumed = False
        if args.codebook_init and not self.quantizer.is_fitted and not self.is_frozen:
            self.fit(seed=args.seed)
        self.monitor.remember_codes()
        if not self.probe.history:
            self.probe.measure(state.global_step)

    def on_step_begin(self, args, state, control, **kwargs):
        step, (align, burn_in) = state.global_step, self._phases(args, state)
        # When alignment ends, features differ from those of the first step, and the pixel loss begins to use codes.
        fits = (args.codebook_init and 0 < step == align) or (args.codebook_refit and 0 < step == burn_in)
        if fits and not self.is_frozen:
            self._refit(args, step)
            self.monitor.remember_codes()
            self.probe.forget()
            self.probe.measure(step)
        stability = self.probe.stability if self.probe.is_settled else None
        latest = latest_mim_step(align, burn_in, args.stability_window, state.max_steps)
        self.mim_open = self.mim_open or mim_gate_open(step, burn_in, args.mim_gate, stability, latest)
        follows = args.codebook_target_decay is not None and self.trainer.is_pretraining
        if follows and self.teacher is None and step >= burn_in:
            self.teacher = EMATeacher(self.trainer, args.codebook_target_decay)

    def _refit(self, args, step: int) -> None:
        """Fits the codes anew during a run; a linear MIM head trained on the old codes is reinitialised."""
        self.fit(seed=args.seed + 1)
        if not self.codes_given:
            return  # the head has learned nothing yet: MIM waits for the end of burn-in
        begun = forget_codes(self.trainer.unwrapped_model, args.seed, step)
        if self.trainer.is_world_process_zero():
            what = f"{' and '.join(begun)} scored these and begins anew" if begun else "its MIM head goes on with them"
            logger.warning(
                f"The model came with fitted codes, and at step {step} they were fitted anew, as its features have "
                f"moved: {what}. To keep the codes that it came with, set codebook_refit to False and, with "
                "align_steps, codebook_init."
            )

    def on_optimizer_step(self, args, state, control, **kwargs):
        if self.trainer.accelerator.optimizer_step_was_skipped:
            # The gradient scaler of fp16 found an overflow, which may have begun in what these averages would take in.
            self.quantizer.after_skipped_step()
            return
        if self.is_frozen:
            self.quantizer.after_skipped_step()
        else:
            self.quantizer.after_step()
        if self.teacher is not None:
            self.teacher.update()
        if args.codebook_restart_threshold > 0 and not self.is_frozen and self._may_restart(args, state):
            moved = self.quantizer.restart(
                args.codebook_restart_threshold,
                _RESTART_SHARE,
                generator=generator_for(args.seed, state.global_step),
                grace=args.codebook_restart_grace,
            )
            self.monitor.count_restarts(moved)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self._stability_every(args, state) == 0:
            self.probe.measure(state.global_step)
        if state.global_step % args.codebook_alarm_steps == 0:
            self.monitor.check()

    def logs(self) -> dict[str, float]:
        """Codebook metrics for the training log, over all processes."""
        logs = self.monitor.logs()
        if self.probe.stability is not None:
            logs["stability"] = self.probe.stability
        return {f"codebook_{name}": value for name, value in logs.items()}

    def save(self, folder: str) -> None:
        """Writes the state beside model weights into a checkpoint; call it on all processes."""
        state: dict[str, Any] = {
            "watch": self.monitor.state_dict(),
            "probe": self.probe.state_dict(),
            "mim_open": self.mim_open,
            "codes_given": self.codes_given,
            "targets": None if self.teacher is None else self.teacher.state_dict(),
            "buffers": self.quantizer.training_state(),
        }
        save_state(self.trainer.args, folder, _STATE_FILE, state)

    def load(self, folder: str) -> None:
        """Restores the state from a checkpoint; without one in it, everything starts anew."""
        state = load_state(self.trainer.args, folder, _STATE_FILE)
        if state is None:
            return
        self.monitor.load_state_dict(state["watch"])
        self.probe.load_state_dict(state["probe"])
        self.mim_open = state["mim_open"]
        self.codes_given = state.get("codes_given", False)  # older checkpoints do not say
        self.teacher = None
        if state["targets"] is not None and self.trainer.args.codebook_target_decay is not None:
            self.teacher = EMATeacher(self.trainer, self.trainer.args.codebook_target_decay)
            self.teacher.load_state_dict(state["targets"])
        buffers = self.quantizer.training_state()
        for name, value in state["buffers"].items():
            name = name if name in buffers else f"tables.0.{name}"  # version 0.1 had one table
            if value is not None and name in buffers:
                buffers[name].copy_(value)
        self._resumed = True

    def _phases(self, args, state) -> tuple[int, int]:
        """Steps before there is more than contrast, and before indices are targets; only pretraining has either."""
        return phases(args.align_steps, args.burn_in_steps, state.max_steps) if self.trainer.is_pretraining else (0, 0)

    def _may_restart(self, args, state) -> bool:
        align, burn_in = self._phases(args, state)
        alarmed = self.monitor.alarmed and state.global_step >= align
        return alarmed or state.global_step in restart_steps(align, burn_in)

    def _warn_of_frozen_codes(self, args, state) -> None:
        """Warns of options that have no effect on a frozen codebook."""
        if not self.is_frozen or not state.is_world_process_zero:
            return
        asked = {
            "codebook_refit": args.codebook_refit,
            "codebook_restart_threshold": args.codebook_restart_threshold > 0,
            "codebook_init": args.codebook_init and not self.quantizer.is_fitted,
        }
        idle = [name for name, on in asked.items() if on]
        if idle:
            logger.warning(
                f"The codebook is frozen (requires_grad_(False)): its codes stay, and nothing comes of "
                f"{', '.join(idle)}."
                + ("" if self.quantizer.is_fitted else " It was never fitted: these codes are random.")
            )

    def _warn_of_no_restarts(self, args, state) -> None:
        """Warns if codes can restart only after an alarm."""
        if args.codebook_restart_threshold == 0 or not state.is_world_process_zero:
            return
        align, burn_in = self._phases(args, state)
        window = restart_steps(align, burn_in)
        # Codes are new at the first step and, with codebook_init, when alignment ends.
        grace = args.codebook_restart_grace if align == 0 or args.codebook_init else 0
        if len(window) < max(1, grace):
            logger.warning(
                f"codebook_restart_threshold={args.codebook_restart_threshold} restarts codes from the end of "
                f"alignment until shortly before burn-in ends; here these are {len(window)} steps (alignment ends at "
                f"step {align}, burn-in at {burn_in}), and new codes have {grace} steps of grace "
                "(codebook_restart_grace). Only after an alarm will codes restart: raise burn_in_steps, or lower "
                "codebook_restart_grace."
            )

    def _warn_of_hard_negatives(self, args, state) -> None:
        """Warns if negatives have fully hardened before ITM begins."""
        window, (align, _) = args.hardening_window(), self._phases(args, state)
        if (
            window is None
            or not state.is_world_process_zero
            or not self.trainer.unwrapped_model.needs("hard_negatives")
        ):
            return
        end = hardening_steps(window, state.max_steps)[1]
        if end <= align < state.max_steps:
            logger.warning(
                f"negative_hardening={args.negative_hardening!r} ends at step {end}, and ITM begins at step {align}, "
                f"when alignment ends (align_steps={args.align_steps:g}): its negatives are hard from the first one "
                "on. Let it end later."
            )

    @staticmethod
    def _stability_every(args, state) -> int:
        often = max(1, args.stability_window // 4)
        return args.stability_every or min(state.logging_steps or often, often)

    @torch.no_grad()
    def fit(self, seed: int) -> None:
        """Sets the codes by k-means over latents of training images; leaves the global random state unchanged.

        Every process encodes the same images; process 0 clusters and broadcasts the result.
        """
        quantizer, args = self.quantizer, self.trainer.args
        if not quantizer.tables():
            return  # there is nothing to fit
        log_main_process(args, f"Fitting {quantizer.num_codes} codes to features of training images (k-means) ...")
        latents = self._collect_latents(seed)
        images_per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        quantizer.fit(latents.flatten(0, 1), generator_for(seed), images_per_step / latents.shape[0])
        self.monitor.forget_alarm()  # it was about other codes
        self._forget_moments()

    def _forget_moments(self) -> None:
        """Drops the optimizer's moments of the codes' gradients: they belong to other codes."""
        optimizer = self.trainer.optimizer
        for codes in self.quantizer.code_parameters() if optimizer is not None else ():
            optimizer.state.pop(codes, None)

    def _collect_latents(self, seed: int) -> Tensor:
        """Latents (images, N, C) of as many training images as k-means needs, or of all."""
        wanted, latents, seen = _POINTS_PER_CODE * max(self.quantizer.book_sizes), [], 0
        for images in image_batches(self.trainer, seed):
            latents.append(image_latents(self.trainer, images))
            seen += math.prod(latents[-1].shape[:2])
            if seen >= wanted:
                break
        return torch.cat(latents)
