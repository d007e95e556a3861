"""Options of a pretraining that its model, or another option, leaves without effect: they are named, and no error.

A recipe has options of masks and negatives for all objectives, and studies set weights of some of these to 0. Where
the command line turns off what a recipe has, the recipe says more of it.
"""

from collections.abc import Iterator
from typing import Any

from ..data.given_options import default_of
from ..model.messages_cbvila import shown
from .arguments import CBViLATrainingArguments
from .option_checks import active_phases
from .runs.progress import log_main_process

_OF_MLM = ("mlm_probability", "mlm_replace", "mlm_words", "mlm_words_share", "mlm_from_start")
_OF_MIM = ("mim_mask_ratio", "mim_mask_schedule")


def name_idle_options(model: Any, args: CBViLATrainingArguments, options: Any) -> None:
    """Logs the options that were changed and do nothing for a model, with the reason of each.

    Args:
        model: A [`CBViLAForPreTraining`].
        args: Arguments of the training, which say what is logged.
        options: These arguments, or the job: a dataclass.
    """
    lines = [*_of_parts(model.config)] if hasattr(options, "model_config") else []
    lines += [
        f"\n  {name}={shown(getattr(options, name))}: {why}"
        for names, why in (*_unused(model), *_alone(options))
        for name in names
        if hasattr(options, name) and getattr(options, name) != default_of(options, name)
    ]
    if lines:
        log_main_process(args, f"Options without effect on this model:{''.join(lines)}")


def _of_parts(config: Any) -> Iterator[str]:
    """Yields lines about options of the quantizer and of objectives that others of theirs leave without effect."""
    parts = {f"objectives.{name}": options for name, options in config.objectives.items()}
    for part, options in ({"quantizer_config": config.quantizer_config} | parts).items():
        for name, why in options.unused().items():
            if (value := getattr(options, name)) != default_of(options, name):
                yield f"\n  {part}.{name}={shown(value)}: {why}"


def _alone(options: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields names of options that say more of what is off, and why."""
    if getattr(options, "streaming", True) is False:
        yield ("shuffle_buffer",), "train_data are not streamed"
    if getattr(options, "codebook_restart_threshold", 1) == 0:
        yield ("codebook_restart_grace",), "no code restarts (codebook_restart_threshold=0)"
    if getattr(options, "codebook_learning_rate", None) == 0:
        yield ("codebook_restart_threshold", "codebook_restart_grace"), "codes rest (codebook_learning_rate=0)"


def _unused(model: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields names of options that a model does not use, and why."""
    if not model.needs("masked_text"):
        yield _OF_MLM, "no objective predicts words (MLM has weight 0)"
    if not model.config.hides_patches:
        yield _OF_MIM, "no objective hides patches (MIM has weight 0)"
    if not model.needs("visual_queries"):
        yield ("text_drop_prob",), "no objective predicts codes or pixels (MIM and pixel have weight 0)"
    if not model.needs("hard_negatives"):
        yield ("negative_hardening", "eval_rerank_k"), "there is no image-text matching (ITM has weight 0)"
    if not model.learns_codes and not active_phases(model.config) & {"burn_in", "stable"}:
        yield ("burn_in_steps",), "there are no codes, and no objective waits for the end of burn-in"
