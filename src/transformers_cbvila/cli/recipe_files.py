"""Finds recipes, which are YAML files of options, and merges the options of a command line into them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..model.messages_cbvila import shown
from ..model.nested_options_cbvila import DEFAULT_QUANTIZER, with_current_names
from ..nearest import nearest

FOLDER = Path(__file__).parents[1] / "recipes"
_ENDING = ".yaml"
# Options whose meaning depends on another one: a recipe's value is dropped if the command line changes that one.
_DEPENDENT = {"lr_scheduler_kwargs": "lr_scheduler_type", "optim_args": "optim"}
# Options of a run that do not change how it trains, and are not reported as differences from the recipe.
_OF_A_RUN = {
    *("config", "resume", "model", "train_data", "train_data_weights", "eval_data", "data", "image_data"),
    *("answer_list", "folder", "output", "output_dir", "run_name", "report_to", "disable_tqdm", "use_cpu", "seed"),
}


def recipe_names(command: str | None = None) -> list[str]:
    """Returns the names of the bundled recipes, or of those for a command such as `"finetune vqa"`."""
    start = "" if command is None else f"{command.replace(' ', '-')}-"
    return sorted(path.stem for path in FOLDER.glob(f"{start}*{_ENDING}"))


def recipe_path(name: str, command: str | None = None) -> Path:
    """Returns the path of a recipe: an existing file, or a bundled one by name (with or without `recipes/`, `.yaml`).

    Args:
        name: The file or the name.
        command: The command that the recipe is for; its recipes are those that the error lists.

    Raises:
        FileNotFoundError: If there is neither; the message lists the bundled ones.
    """
    if os.path.isfile(name):  # Path.is_file would raise an error for invalid file names
        return Path(name)
    stem = name.replace("\\", "/").removeprefix("recipes/").removesuffix(_ENDING)
    if stem in recipe_names():
        return FOLDER / f"{stem}{_ENDING}"
    names = recipe_names(command)
    raise FileNotFoundError(
        f"--config {shown(name)}: there is no such file, nor a recipe of that name; there are "
        f"{', '.join(names) or f'none for {command}'}{nearest(stem, names) or '.'}"
    )


def with_nested_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options with the current, nested names in `model_config`, so that they can be merged.

    Raises:
        ValueError: If a part of it, such as `quantizer_config`, is not a mapping.
    """
    fields = _mapping(options.get("model_config"))
    return {**options} if fields is None else {**options, "model_config": with_current_names(fields)}


def applicable_options(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recipe's options without those that depend on an option which the command line changes."""
    return {
        name: value
        for name, value in recipe.items()
        if not (name in _DEPENDENT and given.get(_DEPENDENT[name], (same := recipe.get(_DEPENDENT[name]))) != same)
    }


def merge_mappings(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Merges options that are mappings in both the recipe and the command line.

    As a JSON merge patch (RFC 7386): entries of the command line override the recipe's one by one, at any depth, and
    null removes one. Options of a quantizer of another type than the command line's are left out.

    Returns:
        The merged options only.
    """
    found = {}
    for name, value in given.items():
        patch = _mapping(value)
        if patch is not None and isinstance(recipe.get(name), Mapping):
            found[name] = _patched(_of_same_quantizer(recipe[name], patch), patch)
    return found


def differences(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Returns a line for each option, and each entry of a mapping, that differs from the recipe or is not in it."""
    lines = []
    for name in sorted(set(given) - _OF_A_RUN):
        patch = _mapping(given[name])
        both = patch is not None and isinstance(recipe.get(name), Mapping)
        new, old = (_flat(name, patch), _flat(name, recipe[name])) if both else ({name: given[name]}, recipe)
        for entry, value in new.items():
            if entry not in old:
                lines.append(f"{entry} {shown(value)} (not in the recipe)")
            elif old[entry] != value:
                lines.append(f"{entry} {shown(value)} (recipe: {shown(old[entry])})")
    dropped = set(recipe) - set(applicable_options(recipe, given)) - set(given)
    return lines + [f"{name} left out, which belongs to the recipe's {_DEPENDENT[name]}" for name in sorted(dropped)]


def _mapping(value: Any) -> dict[str, Any] | None:
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _of_same_quantizer(value: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a mapping without its `quantizer_config` if that of the patch is of another type."""
    name = "quantizer_config"
    old, new = _mapping(value.get(name)) or {}, _mapping(patch.get(name)) or {}
    kind = old.get("type", DEFAULT_QUANTIZER)
    is_same = new.get("type", kind) == kind
    return {key: part for key, part in value.items() if key != name or is_same}


def _patched(value: Any, patch: Mapping[str, Any]) -> dict[str, Any]:
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
