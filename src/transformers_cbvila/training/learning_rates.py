"""Schedules of the learning rate: those of transformers, whose decay may also be a share of the run."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainingArguments, get_scheduler
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from transformers.trainer_utils import SchedulerType

from ..model.messages_cbvila import shown
from .schedule import as_steps

_IN_STEPS = ("num_decay_steps", "num_stable_steps")  # entries of lr_scheduler_kwargs that a share may stand for
_SET_BY_TRAINER = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
_A_RUN = 1000  # steps, where the number of a run is not known yet


def entries_in_steps(options: Any, max_steps: int) -> dict[str, Any]:
    """Returns `lr_scheduler_kwargs` (a mapping or None) with shares below 1 of all steps as numbers of steps."""
    return {
        name: as_steps(value, max_steps) if name in _IN_STEPS and isinstance(value, int | float) else value
        for name, value in (options or {}).items()
    }


def check_schedule(args: TrainingArguments, max_steps: int | None = None) -> None:
    """Raises a ValueError for a schedule that cannot be built, or that is longer than the run.

    Args:
        args: The training arguments.
        max_steps: Steps of the run; by default those of the arguments, if these say.
    """
    known = max_steps or (args.max_steps if args.max_steps > 0 else None)
    steps = known or _A_RUN
    options, warmup = entries_in_steps(args.lr_scheduler_kwargs, steps), args.get_warmup_steps(steps)
    kind = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    said = f"lr_scheduler_type={kind}"
    if args.lr_scheduler_kwargs:
        said += f" with lr_scheduler_kwargs={shown(args.lr_scheduler_kwargs)}"
    takes = _takes(args.lr_scheduler_type)
    strange = sorted(set(options) - set(takes)) if takes is not None else []
    if strange:
        raise ValueError(f"{said}: it takes {', '.join(takes or []) or 'none'}.")
    if warmup and not has_warmup(args.lr_scheduler_type):
        raise ValueError(f"warmup_steps={args.warmup_steps}: lr_scheduler_type={kind} has no warm-up; leave it out.")
    try:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = get_scheduler(
            args.lr_scheduler_type, optimizer, warmup, steps, scheduler_specific_kwargs=options or None
        )
        for step in (0, steps // 2, steps):
            for rate in getattr(schedule, "lr_lambdas", []):
                float(rate(step))
    except (ValueError, TypeError, ArithmeticError, AttributeError, KeyError) as error:
        raise ValueError(f"{said}: {shown(str(error), 300)}") from None
    if known:
        _check_lengths(said, args.warmup_steps, warmup, options, known)


def _check_lengths(said: str, given: float, warmup: int, options: Mapping[str, Any], steps: int) -> None:
    lengths = {name: options[name] for name in _IN_STEPS if options.get(name)}
    if warmup + sum(lengths.values()) <= steps:
        return
    if not lengths:
        raise ValueError(
            f"warmup_steps={given:g}: the run has {steps} steps. Give a share of the run, such as --warmup_steps 0.2, "
            "or fewer steps."
        )
    named = ", ".join(f"{name} {value}" for name, value in {"warmup_steps": warmup, **lengths}.items())
    raise ValueError(
        f"{said}: {named} are {warmup + sum(lengths.values())} together, and the run has {steps} steps. Give "
        "shares of the run, such as 0.2, or fewer steps."
    )


def _takes(kind: SchedulerType | str) -> list[str] | None:
    """Returns the entries of `lr_scheduler_kwargs` that a schedule uses; None if only building it tells."""
    if kind in (SchedulerType.CONSTANT, SchedulerType.CONSTANT_WITH_WARMUP):
        return []
    parameters = _parameters(kind).values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters if parameter.name not in _SET_BY_TRAINER]


def has_warmup(kind: SchedulerType | str) -> bool:
    """Returns whether a schedule uses `warmup_steps`."""
    return "num_warmup_steps" in _parameters(kind)


def _parameters(kind: SchedulerType | str) -> Mapping[str, inspect.Parameter]:
    make: Any = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(kind)]
    return inspect.signature(make).parameters
