"""An adapter (PEFT) of the language model of [`CBViLAForConditionalGeneration`]: where it lies, saved and loaded.

It lies in a folder of the checkpoint, as PEFT saves an adapter of that causal language model. In the checkpoint's own
folder transformers would take it for one of the whole model, and load the language model in its place.
"""

import os
from importlib import import_module
from types import ModuleType
from typing import Any

from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME

ADAPTER_FOLDER = "language_model_adapter"
_NAME = "default"  # as PEFT calls the only adapter of a model
_PREFIX = "base_model.model."  # of its weights in PEFT's files
# Options of `from_pretrained` that say where the files of a repository come from.
_DOWNLOAD_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")


def add_adapter(language_model: PreTrainedModel, adapter_config: Any) -> None:
    """Adds a new adapter to a causal language model, in place: it alone is trained.

    Raises:
        ImportError: If PEFT is not installed.
        ValueError: If it has one already.
    """
    if hasattr(language_model, "peft_config"):
        raise ValueError(
            f"The {type(language_model).__name__} has an adapter already ({', '.join(language_model.peft_config)}): "
            "train that one, or attach a language model without."
        )
    _peft().inject_adapter_in_model(adapter_config, language_model, _NAME)


def load_adapter(language_model: PreTrainedModel, source: Any, folder: str, options: dict[str, Any]) -> None:
    """Loads the adapter of a checkpoint into its language model, in place; it is not trained.

    Args:
        language_model: The causal language model.
        source: Folder or Hub id of the checkpoint.
        folder: Folder of the adapter in it.
        options: Options of `from_pretrained` of the checkpoint.

    Raises:
        ImportError: If PEFT is not installed.
        ValueError: If it is not there, or does not fit the language model.
    """
    if source is None:
        raise ValueError(
            f"The configuration names an adapter of the language model, language_model_adapter={folder!r}, which is "
            "loaded from a checkpoint: pass its folder or Hub id."
        )
    peft, where = _peft(), os.path.join(options.get("subfolder") or "", folder)
    if os.path.isdir(source):
        _check_complete(source, where)
    download = {name: options[name] for name in _DOWNLOAD_OPTIONS if options.get(name) is not None}
    adapter_config = peft.PeftConfig.from_pretrained(str(source), subfolder=where, **download)
    adapter_config.inference_mode = True
    add_adapter(language_model, adapter_config)
    inside = os.path.join(source, where) if os.path.isdir(source) else str(source)
    subfolder = {} if os.path.isdir(source) else {"subfolder": where}
    set_adapter_weights(language_model, peft.utils.load_peft_weights(inside, device="cpu", **subfolder, **download))


def _check_complete(checkpoint: Any, folder: str) -> None:
    """Raises a ValueError unless an adapter's files are in the folder of a checkpoint."""
    for name in (ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME):
        if not os.path.isfile(os.path.join(checkpoint, folder, name)):
            raise ValueError(
                f"{checkpoint} has no {folder}/{name}, and its config.json names that adapter of the language model: "
                "copy the folder, too, or pass language_model_adapter=None to load the model without it."
            )


def set_adapter_weights(language_model: PreTrainedModel, weights: dict[str, Tensor]) -> None:
    """Gives the adapter of a causal language model the weights of a file of PEFT.

    Raises:
        ValueError: If they are not those of its adapter.
    """
    found = _peft().set_peft_model_state_dict(
        language_model, {name.removeprefix(_PREFIX): value for name, value in weights.items()}
    )
    expected = {name for name in language_model.state_dict() if f".{_NAME}." in name}
    wrong = {*found.unexpected_keys, *(expected & set(found.missing_keys))}
    if wrong:
        raise ValueError(
            f"The adapter's weights do not fit its configuration and the {type(language_model).__name__}: "
            f"{min(wrong)}, one of {len(wrong)}. Load the language model that it was trained with."
        )


def train_adapter(language_model: PreTrainedModel) -> None:
    """Makes the adapter of a causal language model trainable.

    Raises:
        ValueError: If it has none.
    """
    if not hasattr(language_model, "peft_config"):
        raise ValueError(f"The {type(language_model).__name__} has no adapter: call add_language_model_adapter.")
    for module in language_model.modules():
        if isinstance(module, import_module("peft.tuners.tuners_utils").BaseTunerLayer):
            module.set_adapter(module.active_adapters)


def save_adapter(
    language_model: PreTrainedModel, folder: str, name: str | None, state_dict: dict[str, Tensor] | None = None
) -> None:
    """Saves the adapter of a language model as PEFT does: adapter_config.json and adapter_model.safetensors.

    Args:
        language_model: The causal language model.
        folder: Where to.
        name: Folder or Hub id of the language model, which the adapter's configuration gets.
        state_dict: Weights by the language model's own names, in place of its own.
    """
    weights = _peft().get_peft_model_state_dict(language_model, state_dict, adapter_name=_NAME)
    os.makedirs(folder, exist_ok=True)
    save_torch_state_dict(
        {_PREFIX + key: value.contiguous() for key, value in weights.items()},
        folder,
        filename_pattern=ADAPTER_SAFE_WEIGHTS_NAME.replace(".", "{suffix}."),
        max_shard_size="1TB",  # PEFT reads one file
    )
    adapter_config: Any = language_model.peft_config[_NAME]
    adapter_config.base_model_name_or_path = name
    adapter_config.save_pretrained(folder)


def weights_of(language_model: PreTrainedModel, state_dict: dict[str, Tensor], layers: str) -> dict[str, Tensor]:
    """Returns the weights of a causal language model's layers by its own names.

    Args:
        language_model: The causal language model.
        state_dict: Of the whole model.
        layers: What the names of these layers' weights begin with in it.
    """
    own = f"{language_model.base_model_prefix}."
    return {own + name.removeprefix(layers): value for name, value in state_dict.items() if name.startswith(layers)}


def _peft() -> ModuleType:
    """Imports PEFT. By name: transformers asks for whatever published code has import statements of."""
    try:
        return import_module("peft")
    except ModuleNotFoundError as error:
        raise ImportError(
            "An adapter of the language model needs PEFT, which is not installed: pip install peft"
        ) from error


__all__ = ["ADAPTER_FOLDER"]
