"""Checks of configurations, which raise a ValueError for invalid values."""

from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from math import inf, isfinite
from typing import Any

from transformers import PreTrainedConfig

from .messages_cbvila import listed, shown
from .objectives_cbvila import OBJECTIVES

_CHOICES = {
    "fusion_visual_pos": ("learned", "none"),
    "fusion_visual_cls": ("learned", "vit", "none"),
    "itm_kv": ("continuous", "quantized", "both"),
    "reasoning_fusion": ("separate", "twin"),
}


def check_spelling(options: Any, config_class: Any, other_names: Iterable[str] = ()) -> None:
    """Raises a ValueError for a name that is close to a field, or to one of `other_names`.

    Other unknown names are allowed, as transformers keeps them as attributes. All names of a file (recognized by its
    `model_type`) are allowed, as it may have been saved by a later version.
    """
    known = [*(field.name for field in fields(config_class)), *other_names]
    for name in () if "model_type" in options else options:
        nearest = [] if hasattr(config_class, name) else get_close_matches(name, known, n=1, cutoff=0.85)
        if nearest and name not in known:
            prefix = f"{config_class.base_config_key}: " if config_class.base_config_key else ""
            raise ValueError(f"{prefix}there is no option {shown(name)}; did you mean {nearest[0]!r}?")


def check_model_type(options: Any, config_class: Any) -> None:
    """Raises a ValueError for the configuration of another type of model.

    The layers of the encoders have the same names: weights of one would load into another.
    """
    kind = options.get("model_type", config_class.model_type)
    if kind != config_class.model_type:
        raise ValueError(
            f"This is the configuration of a {shown(kind)}; a {config_class.__name__} is that of a "
            f"{config_class.model_type!r}. Load the class that config.json names under architectures."
        )


def check_encoder(config: Any) -> None:
    """Raises a ValueError for sizes and probabilities that an encoder cannot have."""
    where = config.base_config_key
    for name in ("hidden_size", "num_attention_heads", "intermediate_size"):
        if getattr(config, name) < 1:
            raise ValueError(f"{where}: {name}={getattr(config, name)} must be positive.")
    if config.num_hidden_layers < 0:
        raise ValueError(f"{where}: num_hidden_layers={config.num_hidden_layers} is negative.")
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"{where}: hidden_size {config.hidden_size} is not a multiple of num_attention_heads "
            f"{config.num_attention_heads}."
        )
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{where}: {name}={getattr(config, name)} must be in [0, 1).")
    for name in ("layer_norm_eps", "initializer_range"):
        if not getattr(config, name) >= 0:
            raise ValueError(f"{where}: {name}={getattr(config, name)} must be 0 or more.")


def check_sub_config(name: str, value: Any, config_class: Any) -> None:
    """Raises a ValueError unless `value` is the configuration of an encoder or a dictionary."""
    if not isinstance(value, dict | PreTrainedConfig):
        expected = f"a {config_class.__name__} or a dictionary of its fields"
        raise ValueError(f"{name} is {shown(value)}; expected {expected}.")


def check_choices(config: Any) -> None:
    """Raises a ValueError for options that do not exist."""
    for field, allowed in _CHOICES.items():
        value = getattr(config, field)
        if value not in allowed:
            raise ValueError(f"{field}={shown(value)} is not one of {', '.join(map(repr, allowed))}.")


def check_widths(config: Any) -> None:
    """Raises a ValueError if the widths of the encoders do not fit together."""
    fusion, text, vision = config.multimodal_config, config.text_config, config.vision_config
    if fusion.hidden_size != text.hidden_size:
        raise ValueError(
            f"multimodal_config.hidden_size ({fusion.hidden_size}) must equal text_config.hidden_size "
            f"({text.hidden_size}); leave it out to have it follow."
        )
    if fusion.encoder_hidden_size != vision.hidden_size:
        raise ValueError(
            f"multimodal_config.encoder_hidden_size ({fusion.encoder_hidden_size}) must equal "
            f"vision_config.hidden_size ({vision.hidden_size}); leave it out to have it follow."
        )


def check_numbers(config: Any) -> None:
    """Raises a ValueError for numbers outside their range."""
    if not isfinite(config.logit_scale_init_value):
        raise ValueError(f"logit_scale_init_value={config.logit_scale_init_value} must be a finite number.")
    if config.num_images < 1:
        raise ValueError(f"num_images={config.num_images} must be positive.")
    if config.rerank_k < 0:
        raise ValueError(f"rerank_k={config.rerank_k} must be 0 (similarity alone) or more.")
    if not 0 <= config.similarity_weight < inf:
        raise ValueError(f"similarity_weight={config.similarity_weight} must be at least 0 and finite.")
    calibration = config.match_calibration
    if calibration is not None and (
        len(calibration) != 2 or not all(map(isfinite, calibration)) or calibration[0] < 0
    ):
        raise ValueError(
            f"match_calibration={shown(calibration)} must be a slope of at least 0 and an offset, both finite."
        )
    if config.projection_dim < 1:
        raise ValueError(f"projection_dim={config.projection_dim} must be positive.")


def check_combinations(config: Any) -> None:
    """Raises a ValueError for options that contradict each other."""
    for name, options in config.objectives.items():
        OBJECTIVES[name].check_with(options, config)
    contrasts = [name for name in config.active_objectives() if "momentum_pairs" in OBJECTIVES[name].needs]
    if len(contrasts) > 1:
        raise ValueError(
            f"objectives {listed(contrasts)} are both contrast: give one of them a weight of 0, such as "
            f"objectives={{{contrasts[0]!r}: {{'weight': 0}}}}, or start from CBViLAConfig.from_preset."
        )
    layers, depth = config.feature_layers(), config.vision_config.num_hidden_layers
    if not all(0 <= layer <= depth for layer in layers):
        raise ValueError(
            f"quantizer_config: feature_layers={list(layers)} must be layers of the image encoder, from 1 to {depth}, "
            "or 0 for its embeddings."
        )
    if layers and config.itm_kv != "continuous":
        raise ValueError(
            f"itm_kv={config.itm_kv!r} quantizes the image encoder's output, and feature_layers={list(layers)} of "
            "quantizer_config other states: leave one of both at its default."
        )
    if config.reasoning_fusion == "twin" and config.num_images != 2:
        raise ValueError(
            f"reasoning_fusion='twin' takes two images and num_images={config.num_images}: choose 'separate' for "
            "other numbers of images."
        )
    if config.itm_kv != "continuous" and not config.trains_encoder("quantized"):
        raise ValueError(
            f"itm_kv={config.itm_kv!r} has texts attend to quantized tokens, whose gradients to the image encoder "
            "grad_to_vit=False of the pixel objective cuts: leave one of both at its default."
        )
