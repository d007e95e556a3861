"""The model and processor that pretraining starts from: those of a checkpoint, or random weights and a vocabulary."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from ..bundled import bundled_or_same, checkpoint_source
from ..data.training_texts import training_texts
from ..data.vocabulary import train_wordpiece
from ..model.configuration_cbvila import CBViLAConfig
from ..model.image_processing_pil_cbvila import CBViLAImageProcessorPil
from ..model.messages_cbvila import shown
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.nested_options_cbvila import NESTED, merge, with_current_names
from ..model.processing_cbvila import CBViLAProcessor
from ..model.quantizers_cbvila import build_quantizer
from .arguments import CBViLATrainingArguments
from .codebook.another import has_another_codebook, weights_without_codes
from .codebook.restarts import check_restarts
from .pretraining_job import PretrainingJob
from .runs.progress import log_main_process

_OF_TOKENIZER = ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")


def starting_model(
    job: PretrainingJob, args: CBViLATrainingArguments, sources: Sequence[Any], checkpoint: str | None
) -> tuple[CBViLAForPreTraining, CBViLAProcessor]:
    """Returns the model and the processor that a job starts from.

    Args:
        job: The job.
        args: Arguments of the training.
        sources: Pairs of the training data, of which a vocabulary is made if the job names no tokenizer.
        checkpoint: A checkpoint of the same job, whose tokenizer is used.
    """
    if job.model is not None:
        if job.tokenizer:
            log_main_process(args, f"{job.model} brings its tokenizer: {job.tokenizer} is not used.")
        _name_unused_size(job, args, job.model)
        source = checkpoint_source(job.model)
        own = CBViLAConfig.from_pretrained(source)
        config = _changed(own, job.model_config or {})
        if job.preset not in ("recommended", config.preset):
            log_main_process(
                args,
                f"{job.model} keeps its configuration, which model_config changes: the preset {job.preset} is for "
                "random weights.",
            )
        weights = None
        if has_another_codebook(own, config):
            log_main_process(
                args,
                f"{job.model} has another codebook than model_config: codes and heads that predict them are new.",
            )
            weights = weights_without_codes(CBViLAForPreTraining.from_pretrained(source), config)
        return _with_weights(source, config, job, weights), CBViLAProcessor.from_pretrained(source)
    given: Any = job.model_config or {}  # a mapping: the job has read strings
    fields = dict(given)
    text = dict(fields.pop("text_config", None) or {})
    _refuse_ids(text)
    _check_configuration(CBViLAConfig.from_preset(job.preset, text_config=text, **fields), args)
    if checkpoint is not None:
        tokenizer = CBViLAProcessor.from_pretrained(checkpoint).tokenizer
    else:
        tokenizer = _tokenizer(job, args, sources, text.get("max_position_embeddings", 512))
    text |= {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    config = CBViLAConfig.from_preset(job.preset, text_config=text, **fields)
    side = config.vision_config.image_size
    image_processor = CBViLAImageProcessorPil(size={"height": side, "width": side})
    return CBViLAForPreTraining(config), CBViLAProcessor(image_processor, tokenizer)


def _refuse_ids(text_config: dict[str, Any]) -> None:
    """Raises a ValueError for what the tokenizer decides of a text encoder with random weights."""
    for name in _OF_TOKENIZER:
        if name in text_config:
            raise ValueError(
                f"model_config: text_config has {name}={shown(text_config[name])}, which is the tokenizer's; leave it "
                "out, and set vocab_size or tokenizer."
            )


def _check_configuration(config: CBViLAConfig, args: CBViLATrainingArguments) -> None:
    """Raises a ValueError for a model that cannot be built or trained, before a vocabulary takes its time."""
    config.check()
    if config.has_quantizer:
        with torch.random.fork_rng(devices=[]):  # the weights of the model are to be drawn as without this check
            check_restarts(args, build_quantizer(config))


def _with_weights(
    source: str, config: CBViLAConfig, job: PretrainingJob, weights: dict[str, Tensor] | None
) -> CBViLAForPreTraining:
    """Returns the model with a checkpoint's weights, or with those given; what they lack is new.

    Raises:
        ValueError: If a weight has another size.
    """
    try:
        return CBViLAForPreTraining.from_pretrained(
            source if weights is None else None, config=config, state_dict=weights
        )
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ValueError(
            f"model_config: the weights of {job.model} have other sizes, which the report above lists; leave these "
            "options as they are in its config.json, or start from random weights, without model."
        ) from error


def _changed(config: CBViLAConfig, changes: Any) -> CBViLAConfig:
    """Returns a checkpoint's configuration with other options."""
    fields = config.to_dict()
    for name, value in with_current_names(changes).items():
        if name in NESTED:
            fields[name] = merge(name, fields[name], value)
        else:
            fields[name] = {**fields[name], **value} if name in CBViLAConfig.sub_configs else value
    return CBViLAConfig.from_dict(fields)


def _name_unused_size(job: PretrainingJob, args: CBViLATrainingArguments, source: str) -> None:
    if job.is_given("vocab_size"):
        log_main_process(args, f"{source} brings its vocabulary: vocab_size={job.vocab_size} is not used.")


def _tokenizer(job: PretrainingJob, args: CBViLATrainingArguments, sources: Sequence[Any], max_length: int) -> Any:
    if job.tokenizer is not None:
        _name_unused_size(job, args, job.tokenizer)
        return AutoTokenizer.from_pretrained(bundled_or_same(job.tokenizer), model_max_length=max_length)
    begin = time.perf_counter()
    log_main_process(args, f"Training a vocabulary of {job.vocab_size} pieces on the captions ...")
    texts = training_texts(sources, job.train_data, split=job.train_split)
    tokenizer = train_wordpiece(texts, job.vocab_size, max_length)
    log_main_process(args, f"... which has {len(tokenizer)} pieces ({time.perf_counter() - begin:.1f} s).")
    return tokenizer
