"""What `finetune` does where neither a flag nor a recipe or protocol says it: by task, width, tokenizer and data.

Each task's numbers (`tasks/training_defaults.py`) are those of its recipes, which are of two widths: 128
(`cbvila-tiny`, measured in docs/results.md) and 768 (ALBEF's settings, as the paper has them).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from transformers.trainer_utils import SchedulerType

from ..tasks.training_defaults import TrainingDefaults
from .learning_rates import has_warmup

_NARROW, _WIDE = 128, 768  # widths of the two kinds of recipes
_RANDOM_FALL = 10.0  # how much lower the rate of pretraining from random weights is at the greater width
_MOST_PASSES = 40  # over few rows, more of them are learned by heart
_LEAST_BATCHES = 8  # of a pass: fewer are hardly a random order
_LEAST_ROWS = 4  # of a batch
_USUAL = 0.995  # share of texts that are not cut: a few are no measure of the others
_FEW_SIDED = 0.05  # share of texts with left or right up to which images are mirrored; 0.4 % of Flickr8k, 2 % of emoji
_PLACES_STAY = 0.9  # share of an image that crops keep where texts say where things are

Current = Callable[[str], Any]  # the value of an option
Given = Callable[[str], bool]  # whether somebody gave it


class Default(NamedTuple):
    """An option's value where nobody gave it, and why."""

    name: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Situation:
    """What the defaults depend on.

    Args:
        task: What the task's recipes have in common.
        width: Of the text and fusion encoders.
        start: `random` weights, a `pretrained` model, or one `trained` for the task before.
        rows: Examples of a pass.
        text_lengths: Tokens of the training texts, in ascending order.
        text_limit: Tokens that the model takes.
        processes: That train together.
        sided: Share of the training texts that say left or right.
    """

    task: TrainingDefaults
    width: int
    start: str
    rows: int
    text_lengths: Sequence[int]
    text_limit: int
    processes: int = 1
    sided: float = 0.0


def use_defaults(situation: Situation, *parts: Any) -> list[Default]:
    """Sets the task's defaults for the options that nobody gave, and returns those that were set.

    Args:
        situation: What they depend on.
        parts: The job, the task and the training arguments ([`GivenOptions`]).
    """
    by_option = {option.name: part for part in parts for option in fields(part)}

    def current(name: str) -> Any:
        return getattr(by_option[name], name)

    def given(name: str) -> bool:
        return by_option[name].is_given(name)

    used = []
    for make in (_learning_rate, _batch_size, _schedule, _length, _passes, _views):
        for default in make(situation, current, given):
            part = by_option.get(default.name)
            if part is not None and not given(default.name):
                setattr(part, default.name, default.value)
                used.append(default)
    return used


def _learning_rate(situation: Situation, current: Current, given: Given) -> list[Default]:
    task, width = situation.task, max(_NARROW, situation.width)
    if situation.start == "random":
        fall, why = _RANDOM_FALL, "all weights are random, and falls with the width as that of pretraining"
    else:
        fall, why = task.narrow_rate / task.wide_rate, task.new_parts
    rate = task.narrow_rate * (width / _NARROW) ** (-math.log(fall) / math.log(_WIDE / _NARROW))
    if situation.start == "trained":
        rate, why = rate / 2, "half of what a pretrained model gets: this one was trained for the task before"
    return [Default("learning_rate", float(f"{rate:.1e}"), f"width {situation.width}; {why}")]


def _batch_size(situation: Situation, current: Current, given: Given) -> list[Default]:
    wanted = situation.task.batch_size
    few = 2 ** int(math.log2(max(_LEAST_ROWS, situation.rows / _LEAST_BATCHES)))
    total, together = min(wanted, few), current("gradient_accumulation_steps") * situation.processes
    why = f"{total} rows a step"
    why += f"; {situation.rows:,} rows are too few for {wanted}" if few < wanted else ", as in the task's recipes"
    return [Default("per_device_train_batch_size", max(1, total // together), why)]


def _schedule(situation: Situation, current: Current, given: Given) -> list[Default]:
    found = [
        Default("weight_decay", 0.02, "as ALBEF"),
        Default("logging_steps", 0.02, "a share of the run: 50 lines"),
    ]
    if not given("lr_scheduler_kwargs"):  # which belong to the type that was given, or to transformers' own
        found.append(Default("lr_scheduler_type", SchedulerType.COSINE, "the rate ends at 0, however long the run"))
    if not given("lr_scheduler_type") or has_warmup(current("lr_scheduler_type")):
        found.append(Default("warmup_steps", 0.05, "a share of the run; new parts settle before others move far"))
    hardening = situation.task.hardening
    if hardening is not None:
        found.append(
            Default("negative_hardening", hardening, "shares of the run; hard negatives teach nothing at first")
        )
    return found


def _length(situation: Situation, current: Current, given: Given) -> list[Default]:
    lengths, limit = situation.text_lengths, situation.text_limit
    usual = lengths[round(_USUAL * (len(lengths) - 1))] if lengths else 1
    eights = min(limit, 8 * math.ceil(usual / 8))
    cut = sum(length > eights for length in lengths)
    longer = "none is longer" if cut == 0 else f"{cut:,} longer {'one is' if cut == 1 else 'ones are'} cut"
    why = f"of {len(lengths):,} different training texts {longer}; the model takes {limit} tokens"
    return [Default("max_length", eights, why)]


def _passes(situation: Situation, current: Current, given: Given) -> list[Default]:
    if current("max_steps") > 0:
        return []
    task = situation.task
    rows_of_a_step = (
        current("per_device_train_batch_size") * current("gradient_accumulation_steps") * situation.processes
    )
    steps = math.ceil(situation.rows / rows_of_a_step)
    passes = max(task.passes, min(_MOST_PASSES, math.ceil(task.least_steps / steps)))
    return [Default("num_train_epochs", float(passes), f"{passes * steps:,} steps of {rows_of_a_step} rows")]


def _views(situation: Situation, current: Current, given: Given) -> list[Default]:
    views = dict(situation.task.views)
    if views and situation.sided > _FEW_SIDED:
        why = f"{100 * situation.sided:.0f} % of the texts say left or right"
        views |= {"crop_scale": (_PLACES_STAY, f"{why}, so that places matter"), "flip": (False, why)}
    return [Default(name, value, why) for name, (value, why) in views.items()]
