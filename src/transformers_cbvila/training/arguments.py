"""Training arguments of CB-ViLA: transformers' own, and those of its objectives and codebook."""

import math
from dataclasses import dataclass, field

from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from ..data.given_options import GivenOptions, refuse_without
from ..model.messages_cbvila import shown
from .inherited_options import check_inherited, check_values
from .learning_rates import check_schedule


@dataclass
class CBViLATrainingArguments(GivenOptions, TrainingArguments):
    """[`~transformers.TrainingArguments`] with the schedule of the objectives and of codebook training.

    Steps are optimizer steps; a number below 1 is a share of all steps, and 1 is one step. In `negative_hardening`
    alone, which has two numbers, an end of 1 is the end of the run if the other number is below 1.
    """

    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Leave on False: the collators build the model's inputs from raw columns."}
    )
    gradient_accumulation_steps: int = field(
        default=1,
        metadata={
            "help": "Batches whose gradients are added up for one step. The negatives of ITC and ITM are those of one "
            "batch (over all processes): they do not grow with this."
        },
    )
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={
            "help": "Leave on False: a loss that is not finite stops the run at the next log or checkpoint, by name; "
            "the filter would wait for the device at every batch."
        },
    )
    align_steps: float = field(
        default=0.0,
        metadata={
            "help": "Steps (below 1: a share of all) with ITC alone, before anything else begins. From random "
            "weights, contrast is learned best without other objectives, and a step costs a third."
        },
    )
    burn_in_steps: float = field(
        default=0.0,
        metadata={
            "help": "Steps (below 1: a share of all) with ITM, ITC and the codebook's own losses only, counted from "
            "the first step, align_steps among them; MIM and MLM follow (Sec. IV-C)."
        },
    )
    mlm_from_start: bool = field(
        default=False,
        metadata={
            "help": "MLM is on from the first step, beside ITC in align_steps too, and does not wait for the end of "
            "burn-in: it needs no codebook. Where captions tell what is where, it is what teaches places."
        },
    )
    alternate_updates: str | None = field(
        default=None,
        metadata={
            "help": "Two numbers 'n,m': in turn n optimizer steps update the codes, and m everything else (Sec. I). "
            "For codes that learn by loss. Without it, each step updates both, and Eq. 3 separates the two."
        },
    )
    codebook_init: bool = field(
        default=True,
        metadata={
            "help": "Fit the codes to features of the training images (k-means): before the first step, unless the "
            "model comes with fitted codes; and, with align_steps, once more when alignment ends, whatever it came "
            "with. A linear MIM head that had learned the codes before is then reset."
        },
    )
    codebook_refit: bool = field(
        default=False,
        metadata={
            "help": "Fit them once more when burn-in ends (which is no sooner than alignment does; where both end at "
            "once, they are fitted once). For image encoders that start from random weights."
        },
    )
    codebook_restart_threshold: float = field(
        default=0.0,
        metadata={
            "help": "Replace codes used less than this share of the average code's use, from the end of align_steps "
            "until shortly before burn-in ends, and after an alarm. 0: never."
        },
    )
    codebook_restart_grace: int = field(
        default=100,
        metadata={"help": "Updates for which a code that was fitted or restarted is not restarted (again)."},
    )
    mim_gate: float | None = field(
        default=None,
        metadata={
            "help": "Code stability from which MIM begins after burn-in, for example 0.8; at the latest when burn-in, "
            "counted from the end of align_steps, has lasted twice as long and a stability_window has passed, or half "
            "of the steps after burn-in have. Without it MIM begins when burn-in ends."
        },
    )
    codebook_target_decay: float | None = field(
        default=None,
        metadata={
            "help": "Take MIM's targets from a moving average of the image encoder with this decay, for example "
            "0.999. The average begins when burn-in ends."
        },
    )
    momentum_distill: float = field(
        default=0.0,
        metadata={
            "help": "Momentum distillation: weight (α) of a momentum encoder's soft targets for ITC and MLM; the hard "
            "ones have the rest. ALBEF: 0.4. 0: off."
        },
    )
    momentum_distill_ramp_steps: float = field(
        default=1 / 30,
        metadata={
            "help": "Steps in which momentum_distill rises linearly from 0. Default: a thirtieth of all, ALBEF's "
            "first of 30 epochs."
        },
    )
    momentum_decay: float = field(
        default=0.995,
        metadata={"help": "Decay of the momentum encoder, if there is one: its share of itself in each update."},
    )
    queue_size: int = field(
        default=0,
        metadata={
            "help": "Number of pairs of earlier batches, as a momentum encoder embedded them, that ITC also compares "
            "with. ALBEF: 65536; at most a quarter of the data, or many would be false negatives. 0: none."
        },
    )
    stability_window: int = field(
        default=100,
        metadata={
            "help": "Code stability is the share of a probe's indices that are the same as this many steps ago."
        },
    )
    stability_every: int = field(
        default=0,
        metadata={
            "help": "Steps between measurements of code stability; each costs an encoder pass of the probe. "
            "0: at every log, and at least 4 times per window."
        },
    )
    codebook_probe_images: int = field(
        default=16, metadata={"help": "Training images that code stability is measured on. 0: do not measure it."}
    )
    codebook_alarm_steps: int = field(
        default=200, metadata={"help": "Steps over which usage and the top share are judged for the collapse alarm."}
    )
    codebook_alarm_usage: float = field(
        default=0.05, metadata={"help": "Share of codes in use below which the codebook counts as collapsed."}
    )
    codebook_alarm_top_share: float = field(
        default=0.5, metadata={"help": "Share of the most frequent code above which the codebook counts as collapsed."}
    )
    vision_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of the image encoder at its peak; default: learning_rate. A tenth of it, on "
            "pretrained weights, keeps the codes' meaning from drifting. The schedule scales all rates alike."
        },
    )
    text_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the text encoder at its peak; default: learning_rate."}
    )
    codebook_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of codes and their projections at its peak; default: learning_rate. With 0 codes "
            "stay as they were fitted, also those that are moving averages."
        },
    )
    muon_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Train the weight matrices of transformer layers by Muon with this learning rate at its peak, and "
            "everything else by AdamW as before, towers with a learning rate of their own included. From random "
            "weights, 2e-3 to 4 times learning_rate learns in half of the steps. Default: AdamW for everything."
        },
    )
    negative_hardening: str | None = field(
        default=None,
        metadata={
            "help": "Two steps 'from,to' between which ITM negatives turn from uniform to drawn by similarity: both "
            "whole numbers, or both shares of all steps, where '0,1' is the whole run. From random towers, hard "
            "negatives from the start keep ITM at its floor."
        },
    )

    def __post_init__(self) -> None:
        check_values(self)
        try:
            super().__post_init__()
        # raised by transformers and torch for wrong types, unknown names and missing devices
        except (TypeError, KeyError, AttributeError, NotImplementedError, RuntimeError) as error:
            raise ValueError(
                f"transformers does not take these training arguments: {shown(str(error), 300)}"
            ) from error
        check_inherited(self)
        check_schedule(self)
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # it does nothing there but warn
        if self.ddp_find_unused_parameters is None:
            # Heads whose loss is off during burn-in get no gradient. (Trainer's default is False with checkpointing.)
            self.ddp_find_unused_parameters = True
        if self.ddp_broadcast_buffers is None:
            # The codebook's buffers are equal by construction; a broadcast before a forward would replace the counts
            # of the other processes.
            self.ddp_broadcast_buffers = False
        for name in ("align_steps", "burn_in_steps", "momentum_distill_ramp_steps"):
            _require_steps(name, getattr(self, name))
        if not 0 <= self.codebook_restart_threshold < 1:
            raise ValueError(f"codebook_restart_threshold={self.codebook_restart_threshold} must be in [0, 1).")
        self._check_codebook_options()
        self._check_momentum()
        for tower, rate in self.tower_learning_rates().items():
            if rate < 0:
                raise ValueError(f"{tower}_learning_rate={rate} is negative; 0 freezes its weights.")
        self._check_muon()
        self.hardening_window()  # raises early
        self.update_turns()

    def update_turns(self) -> tuple[int, int] | None:
        """Returns `alternate_updates` as two numbers of steps, for the codes and for the rest, or None."""
        if self.alternate_updates is None:
            return None
        parts = self.alternate_updates.split(",")
        if len(parts) != 2 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
            raise ValueError(
                f"alternate_updates={shown(self.alternate_updates)}: expected two numbers of steps above 0, like "
                "'1,1'."
            )
        return int(parts[0]), int(parts[1])

    def _check_codebook_options(self) -> None:
        if self.codebook_restart_grace < 0:
            raise ValueError(f"codebook_restart_grace={self.codebook_restart_grace} is negative; 0 is no grace.")
        if self.mim_gate is not None and not 0 < self.mim_gate <= 1:
            raise ValueError(f"mim_gate={self.mim_gate} is a share of indices in (0, 1], such as 0.8.")
        if self.mim_gate is not None and self.codebook_probe_images < 1:
            raise ValueError(f"mim_gate={self.mim_gate} needs codebook_probe_images, such as 16.")
        for name, on in (("codebook_refit", self.codebook_refit), ("mim_gate", self.mim_gate is not None)):
            if on and self.burn_in_steps == self.align_steps == 0:
                raise ValueError(
                    f"{name} is for the end of burn-in, and burn_in_steps=0 leaves that out: set both. (With "
                    "align_steps above 0 burn-in ends when alignment does, or later.)"
                )
        if self.codebook_target_decay is not None and not 0 <= self.codebook_target_decay < 1:
            raise ValueError(f"codebook_target_decay={self.codebook_target_decay} must be in [0, 1), such as 0.999.")
        refuse_without(self, "codebook_probe_images", ("stability_window", "stability_every"))
        for name, least in (
            ("stability_window", 1),
            ("stability_every", 0),
            ("codebook_probe_images", 0),
            ("codebook_alarm_steps", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}.")
        for name in ("codebook_alarm_usage", "codebook_alarm_top_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is a share in [0, 1].")

    @property
    def uses_momentum_encoder(self) -> bool:
        """Whether training needs a momentum encoder."""
        return self.momentum_distill > 0 or self.queue_size > 0

    def _check_momentum(self) -> None:
        if not 0 <= self.momentum_distill < 1:
            raise ValueError(f"momentum_distill={self.momentum_distill} must be in [0, 1), such as 0.4; 0 is off.")
        if not 0 <= self.momentum_decay < 1:
            raise ValueError(f"momentum_decay={self.momentum_decay} must be in [0, 1), such as 0.995.")
        if self.queue_size < 0:
            raise ValueError(f"queue_size={self.queue_size} is negative; 0 leaves it out.")

    def _check_muon(self) -> None:
        if self.muon_learning_rate is None:
            return
        if not 0 < self.muon_learning_rate < math.inf:
            raise ValueError(f"muon_learning_rate={self.muon_learning_rate} must be above 0, such as 2e-3.")
        optimizer = OptimizerNames(self.optim)
        if optimizer not in (OptimizerNames.ADAMW_TORCH, OptimizerNames.ADAMW_TORCH_FUSED):
            raise ValueError(
                f"muon_learning_rate={self.muon_learning_rate} with optim={optimizer.value}: what Muon leaves learns "
                "by adamw_torch or adamw_torch_fused."
            )

    def tower_learning_rates(self) -> dict[str, float]:
        """Returns the learning rates that differ from `learning_rate`, by tower: `vision`, `text`, `codebook`."""
        rates = {
            "vision": self.vision_learning_rate,
            "text": self.text_learning_rate,
            "codebook": self.codebook_learning_rate,
        }
        return {tower: rate for tower, rate in rates.items() if rate is not None}

    def hardening_window(self) -> tuple[float, float] | None:
        """Returns `negative_hardening` as two numbers, or None."""
        if self.negative_hardening is None:
            return None
        try:
            start, end = (float(part) for part in self.negative_hardening.split(","))
        except ValueError:
            raise ValueError(
                f"negative_hardening={shown(self.negative_hardening)}: expected two numbers like '0.25,0.5'."
            ) from None
        if not 0 <= start < end < math.inf:
            raise ValueError(
                f"negative_hardening={shown(self.negative_hardening)}: the first number must be the smaller."
            )
        whole = start == int(start) and end == int(end)
        if end > 1 and not whole:
            raise ValueError(
                f"negative_hardening={shown(self.negative_hardening)}: both must be steps, which are whole numbers "
                "like '500,2000', or shares of all steps up to 1, like '0.25,0.5'."
            )
        return start, end


def _require_steps(name: str, value: float) -> None:
    """Raises a ValueError unless a value is a number of steps or a share of all."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}={value} is no number of steps, nor a share of them; 0 leaves it out.")
    if value >= 1 and value != int(value):
        raise ValueError(
            f"{name}={value}: a number below 1 is a share of all steps (0.5: half of the run), and from 1 on it is a "
            f"number of steps, which is whole (1: one step). Give one of both, such as {int(value)}."
        )


__all__ = ["CBViLATrainingArguments"]
