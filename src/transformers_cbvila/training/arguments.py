"""Training arguments of CB-ViLA: transformers' own, and what its objectives and codebook need."""

from dataclasses import dataclass, field

from transformers import TrainingArguments


@dataclass
class CBViLATrainingArguments(TrainingArguments):
    """[`~transformers.TrainingArguments`] with the schedule of the objectives and the care of the codebook.

    Steps are optimiser steps; a number below 1 is a share of all steps.
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
    burn_in_steps: float = field(
        default=0.0,
        metadata={"help": "Steps with ITM, ITC and the codebook's own losses only; MIM and MLM follow (Sec. IV-C)."},
    )
    codebook_init: bool = field(
        default=True, metadata={"help": "Fit the codes to features of the training images before the first step."}
    )
    codebook_refit: bool = field(
        default=False,
        metadata={"help": "Fit them once more when burn-in ends. For image encoders that start from random weights."},
    )
    codebook_restart_threshold: float = field(
        default=0.0,
        metadata={
            "help": "During burn-in, replace codes used less than this share of what an average code is. 0: never."
        },
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
        metadata={"help": "Learning rate of codes and their projections at its peak; default: learning_rate."},
    )
    negative_hardening: str | None = field(
        default=None,
        metadata={
            "help": "Two steps 'from,to' (shares of all steps) between which ITM negatives turn from uniform to "
            "drawn by similarity. From random towers, hard negatives from the start keep ITM at its floor."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # it does nothing there but warn
        if self.ddp_find_unused_parameters is None:
            # Heads whose loss is off during burn-in get no gradient. (Trainer's default is False with checkpointing.)
            self.ddp_find_unused_parameters = True
        if self.burn_in_steps < 0:
            raise ValueError(f"burn_in_steps={self.burn_in_steps} is negative.")
        if not 0 <= self.codebook_restart_threshold < 1:
            raise ValueError(f"codebook_restart_threshold={self.codebook_restart_threshold} must be in [0, 1).")
        for tower, rate in self.tower_learning_rates().items():
            if rate < 0:
                raise ValueError(f"{tower}_learning_rate={rate} is negative; 0 freezes what it is for.")
        self.hardening_window()  # raises early

    def tower_learning_rates(self) -> dict[str, float]:
        """The learning rates that differ from `learning_rate`, by tower: `vision`, `text`, `codebook`."""
        rates = {
            "vision": self.vision_learning_rate,
            "text": self.text_learning_rate,
            "codebook": self.codebook_learning_rate,
        }
        return {tower: rate for tower, rate in rates.items() if rate is not None}

    def hardening_window(self) -> tuple[float, float] | None:
        """`negative_hardening` as two numbers, or None."""
        if self.negative_hardening is None:
            return None
        try:
            start, end = (float(part) for part in self.negative_hardening.split(","))
        except ValueError:
            raise ValueError(
                f"negative_hardening={self.negative_hardening!r}: expected two numbers like '0.25,0.5'."
            ) from None
        if not 0 <= start < end:
            raise ValueError(f"negative_hardening={self.negative_hardening!r}: the first number must be the smaller.")
        if 0 < start < 1 < end:
            raise ValueError(f"negative_hardening={self.negative_hardening!r}: both must be steps, or shares up to 1.")
        return start, end


__all__ = ["CBViLATrainingArguments"]
