"""Checks whether a folder can be published."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open
from transformers.utils import (
    CHAT_TEMPLATE_FILE,
    CONFIG_NAME,
    GENERATION_CONFIG_NAME,
    PROCESSOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
)

from ..bundled import bundled_or_same, no_checkpoint
from ..model.messages_cbvila import listed, one_line, shown
from ..weights_digest import weights_digest
from .adapters import adapter_files
from .exports import exported_files
from .kinds import Kind, kinds
from .local_paths import check_names_no_folder

FACTS_NAME = "facts.yaml"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_REMEDY = "save model and processor there with save_pretrained(folder)"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Checkpoint:
    """A model folder that can be published.

    Attributes:
        folder: Its folder.
        run: The folder of the run that made it, with the run's records; often the same.
        config: Content of config.json.
        weights: Names of its safetensors files, and of their index if there are several.
    """

    folder: Path
    run: Path
    config: dict[str, Any]
    weights: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        """Its kind, by its architecture."""
        return kinds()[self.config["architectures"][0]]

    @property
    def files(self) -> list[str]:
        """Names of the files that are published unchanged: weights, tokenizer, export, and what else there is."""
        return [*self.weights, *self._beside_weights, *exported_files(self.folder)]

    @property
    def files_to_load(self) -> list[str]:
        """Names of the files that this package loads model and processor from."""
        return [CONFIG_NAME, PROCESSOR_NAME, *self.weights, *self._beside_weights]

    @property
    def _beside_weights(self) -> list[str]:
        optional = [name for name in (GENERATION_CONFIG_NAME, CHAT_TEMPLATE_FILE) if (self.folder / name).is_file()]
        return [*_TOKENIZER_FILES, *optional, *adapter_files(self.folder, self.config)]

    @property
    def facts_file(self) -> Path | None:
        """The facts.yaml of the checkpoint or its run, if any."""
        paths = (self.folder / FACTS_NAME, self.run / FACTS_NAME)
        return next((path for path in paths if path.is_file()), None)

    @cached_property
    def digest(self) -> str | None:
        """The digest of its weights that evaluations record."""
        return weights_digest(self.folder)

    @cached_property
    def num_parameters(self) -> int:
        """The number of parameters."""
        total = 0
        for name in self.weights:
            if name.endswith(".safetensors"):
                with safe_open(self.folder / name, "pt") as file:
                    keys = file.keys()  # the file itself is not iterable
                    total += sum(math.prod(file.get_slice(key).get_shape()) for key in keys)
        return total


def check_repo_id(repo_id: str) -> None:
    """Checks that a string is an `owner/name` of the Hub.

    Raises:
        ValueError: If it is not.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{shown(repo_id)} is no name of a repository: {one_line(str(error))}") from None
    if repo_id.count("/") != 1:
        raise ValueError(
            f"{shown(repo_id)} does not name the repository's owner; expected owner/name, e.g. my-org/{repo_id}"
        )


def find_checkpoint(source: str | Path) -> Checkpoint:
    """Finds and checks the model in a folder, which stays unchanged.

    Args:
        source: A folder that `save_pretrained` of model and processor wrote, the output folder of `cbvila pretrain`
            or `cbvila demo`, or the name of a bundled checkpoint.

    Raises:
        ValueError: If it is not the folder of a CB-ViLA model, a file is missing or broken, weights are pickled, or
            its options name a folder of this machine.
    """
    run = Path(bundled_or_same(str(source)))
    folder = _model_folder(run)
    config = _read_config(folder)
    for name in (PROCESSOR_NAME, *_TOKENIZER_FILES):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}, which is needed to prepare the model's inputs; {_REMEDY}")
    if not isinstance(_read_json(folder / PROCESSOR_NAME).get("image_processor"), dict):
        raise ValueError(f"{folder / PROCESSOR_NAME} describes no image processor; {_REMEDY}")
    return Checkpoint(folder, run, config, _weights(folder))


def _model_folder(run: Path) -> Path:
    if not run.is_dir():
        raise ValueError(no_checkpoint(str(run)))
    for folder in (run, run / "model"):
        if (folder / CONFIG_NAME).is_file():
            return folder
    checkpoints = sorted(run.glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
    if checkpoints:
        raise ValueError(
            f"the run in {run} is not finished; finish it, or publish its last checkpoint: {checkpoints[-1]}"
        )
    raise ValueError(f"{run} is no model folder: it has no {CONFIG_NAME}; {_REMEDY}")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    config = _read_json(path)
    found = config.get("model_type")
    known = {kind.model_class.config_class.model_type: None for kind in kinds().values()}
    if found not in known:
        raise ValueError(
            f"{path} is of a model of type {shown(found)}; this publishes {listed(map(repr, known))} only"
        )
    architecture = (config.get("architectures") or [None])[0]
    if architecture not in kinds():
        raise ValueError(f"{path} names the architecture {shown(architecture)}; expected one of {', '.join(kinds())}")
    check_names_no_folder(config, path)
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}; expected an object of names and values; {_REMEDY}")
    return content


def _weights(folder: Path) -> tuple[str, ...]:
    names = _names_of_weights(folder)
    for name in names:
        try:
            with safe_open(folder / name, "pt"):
                pass
        except FileNotFoundError:
            raise ValueError(f"{folder} has no {name}, which its {SAFE_WEIGHTS_INDEX_NAME} names; {_REMEDY}") from None
        except SafetensorError as error:
            raise ValueError(f"{folder / name} is truncated or no safetensors file: {one_line(str(error))}") from None
    return names if SAFE_WEIGHTS_NAME in names else (SAFE_WEIGHTS_INDEX_NAME, *names)


def _names_of_weights(folder: Path) -> tuple[str, ...]:
    """Returns the names that transformers would load: one file, else the shards in the index."""
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        return (SAFE_WEIGHTS_NAME,)
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            names = []
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise ValueError(f"{index} is no index of weights; {_REMEDY}")
        return tuple(names)
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise ValueError(
            f"{folder} has pickled files only ({', '.join(pickles)}), and loading those can run any code; load weights"
            f" that you trust and {_REMEDY}, which writes {SAFE_WEIGHTS_NAME}"
        )
    raise ValueError(f"{folder} has no {SAFE_WEIGHTS_NAME}; {_REMEDY}")
