"""The frozen language model of [`CBViLAForConditionalGeneration`]: how it is loaded, checked and taken apart.

It is kept outside the checkpoint, whose configuration names it.
"""

from inspect import signature
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from .caching_cbvila import CACHE_NAME
from .messages_cbvila import shown, shown_error

# Options of `from_pretrained` that hold for the language model as well.
SHARED_OPTIONS = (
    "attn_implementation",
    "cache_dir",
    "device_map",
    "dtype",
    "force_download",
    "local_files_only",
    "proxies",
    "token",
    "trust_remote_code",
)
_WAY_OUT = "pass language_model=, a folder, a Hub id, or a causal language model of transformers"


def load_language_model(source: Any, options: dict[str, Any]) -> PreTrainedModel:
    """Loads a causal language model.

    Args:
        source: A folder, a Hub id, or a model that is loaded already.
        options: Options of `from_pretrained` of the model that it belongs to.

    Raises:
        ValueError: If it is not there, or no causal language model.
    """
    if isinstance(source, PreTrainedModel):
        return source
    if source is None:
        raise ValueError(
            f"The configuration names no language model, which is kept outside the checkpoint: {_WAY_OUT}."
        )
    if not isinstance(source, str):
        raise ValueError(f"language_model is a {type(source).__name__}; {_WAY_OUT}.")
    shared = {name: value for name, value in options.items() if name in SHARED_OPTIONS}
    try:
        return AutoModelForCausalLM.from_pretrained(source, **shared)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"The language model {shown(source)} cannot be loaded ({shown_error(error)}). It is kept outside the "
            f"checkpoint: {_WAY_OUT}."
        ) from error


def check_sizes(language_model: PreTrainedModel, text_config: Any) -> None:
    """Raises a ValueError unless a language model has the width and the vocabulary of a configuration."""
    given = language_model.config.get_text_config()
    for field, what in (("hidden_size", "wide"), ("vocab_size", "tokens in its vocabulary")):
        expected, found = getattr(text_config, field), getattr(given, field)
        if expected != found:
            raise ValueError(
                f"The {type(language_model).__name__} has {field}={found}, and this model was made for one with "
                f"{field}={expected} ({what}): attach the language model that it was trained with."
            )


def split_language_model(language_model: PreTrainedModel) -> tuple[PreTrainedModel, nn.Module]:
    """Returns the layers of a causal language model, and the linear layer that scores tokens.

    Raises:
        ValueError: If it takes no embeddings or has no cache of keys and values, if its embeddings are not as wide as
            its states, or if its scores are more than those of the linear layer.
    """
    decoder: Any = language_model.base_model
    head = language_model.get_output_embeddings()
    taken = signature(decoder.forward).parameters
    if decoder is language_model or head is None or not {"inputs_embeds", "attention_mask", CACHE_NAME} <= set(taken):
        raise ValueError(
            f"{type(language_model).__name__} is no causal language model that takes embeddings and has a cache of "
            "keys and values, such as LlamaForCausalLM."
        )
    _check_embeddings(language_model, decoder)
    if next(language_model.parameters()).device.type != "meta":
        _check_scores(language_model, decoder, head)
    return decoder, head


def _check_embeddings(language_model: PreTrainedModel, decoder: Any) -> None:
    """Raises a ValueError unless token embeddings, in whose place images stand, have the width of the states."""
    width = decoder.get_input_embeddings().weight.shape[-1]
    expected = language_model.config.get_text_config().hidden_size
    if width != expected:
        raise ValueError(
            f"{type(language_model).__name__} has token embeddings {width} wide and hidden_size={expected}, which is "
            "not supported, as projectors write rows of hidden_size: use another language model."
        )


@torch.no_grad()
def _check_scores(language_model: PreTrainedModel, decoder: Any, head: nn.Module) -> None:
    """Raises a ValueError if a language model does something to scores, such as capping them."""
    device = decoder.get_input_embeddings().weight.device
    ids = torch.arange(2, device=device).unsqueeze(0)
    expected = language_model.eval()(input_ids=ids, use_cache=False).logits
    given = head(decoder(input_ids=ids, use_cache=False).last_hidden_state)
    if not torch.allclose(given.float(), expected.float().to(given.device), rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"{type(language_model).__name__} changes the scores of its linear layer (it caps or scales them), which "
            "is not supported: use another language model."
        )
