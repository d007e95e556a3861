"""Recipes: files with options, some of which come with this package; what is given beside one is merged into it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..model.messages_cbvila import shown
from ..model.nested_options_cbvila import with_current_names

FOLDER = Path(__file__).parents[1] / "recipes"
_ENDING = ".yaml"
# What an option means depends on another: where that is given, the recipe's is of something else.
_DEPENDENT = {"lr_scheduler_kwargs": "lr_scheduler_type", "optim_args": "optim"}
# Said of a run and not of how it trains: no difference from a recipe, which can hardly name them.
_OF_A_RUN = {
    *("config", "resume", "model", "train_data", "train_data_weights", "eval_data", "data", "image_data"),
    *("answer_list", "folder", "output", "output_dir", "run_name", "report_to", "disable_tqdm", "use_cpu", "seed"),
}


def recipe_names() -> list[str]:
    """Names of the recipes of this package."""
    return sorted(path.stem for path in FOLDER.glob(f"*{_ENDING}"))


def recipe_path(name: str) -> Path:
    """The file of a recipe: a path that exists, else one of this package's by name (`recipes/` and `.yaml` or not).

    Raises:
        FileNotFoundError: If there is neither; the message names those that there are.
    """
    if os.path.isfile(name):  # false, where Path.is_file raises an error: of names that no file can have
        return Path(name)
    stem = name.replace("\\", "/").removeprefix("recipes/").removesuffix(_ENDING)
    if stem in recipe_names():
        return FOLDER / f"{stem}{_ENDING}"
    raise FileNotFoundError(
        f"--config {shown(name)}: there is no such file, nor a recipe of that name; there are "
        f"{', '.join(recipe_names())}."
    )


def with_nested_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options whose `model_config` has the names of today, nested, so that a recipe's and a command's can be merged.

    Raises:
        ValueError: If a part of it, such as `quantizer_config`, is no mapping.
    """
    fields = _mapping(options.get("model_config"))
    return {**options} if fields is None else {**options, "model_config": with_current_names(fields)}


def beside(recipe: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """What of a recipe holds beside the options that were said: all but what belongs to another choice."""
    return {
        name: value
        for name, value in recipe.items()
        if not (name in _DEPENDENT and said.get(_DEPENDENT[name], (same := recipe.get(_DEPENDENT[name]))) != same)
    }


def merged(recipe: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Of options that are mappings in both, what the two give together.

    As a JSON merge patch (RFC 7386): entries that were said take the recipe's place one by one, at any depth, and null
    removes one.
    """
    found = {}
    for name, value in said.items():
        patch = _mapping(value)
        if patch is not None and isinstance(recipe.get(name), Mapping):
            found[name] = _patched(recipe[name], patch)
    return found


def differences(recipe: Mapping[str, Any], said: Mapping[str, Any]) -> list[str]:
    """A line for each option that differs from a recipe, or that the recipe leaves to its default, entry by entry."""
    lines = []
    for name in sorted(set(said) - _OF_A_RUN):
        patch = _mapping(said[name])
        both = patch is not None and isinstance(recipe.get(name), Mapping)
        new, old = (_flat(name, patch), _flat(name, recipe[name])) if both else ({name: said[name]}, recipe)
        for entry, value in new.items():
            if entry not in old:
                lines.append(f"{entry} {shown(value)} (not in the recipe)")
            elif old[entry] != value:
                lines.append(f"{entry} {shown(value)} (recipe: {shown(old[entry])})")
    dropped = set(recipe) - set(beside(recipe, said)) - set(said)
    return lines + [f"{name} left out, which belongs to the recipe's {_DEPENDENT[name]}" for name in sorted(dropped)]


def _mapping(value: Any) -> dict | None:
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _patched(value: Any, patch: Mapping[str, Any]) -> dict:
    result = dict(value) if isinstance(value, Mapping) else {}
    for name, new in patch.items():
        if new is None:
            result.pop(name, None)
        else:
            result[name] = _patched(result.get(name), new) if isinstance(new, Mapping) else new
    return result


def _flat(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    return {key: inner for part, below in value.items() for key, inner in _flat(f"{name}.{part}", below).items()}
