"""A command's job from its options, over the recipe of `--config`, over what a protocol sets, over defaults.

`HfArgumentParser` makes the options of dataclasses, as in transformers' own examples: the 120 of `TrainingArguments`
are then what users know, and what a version of transformers adds is there at once. No other parser takes its place:
typer wants a function's signature, so that these options would be written out; TRL's and jsonargparse would be a
further package for what is below, and guess no misspelt option.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser, TrainingArguments

from ..data.given_options import GivenOptions
from ..model.messages_cbvila import one_line, shown
from ..nearest import nearest
from .parsing import Parser
from .recipe_files import beside, differences, merged, recipe_path, with_nested_options

# Shown by --help among ours; a run needs them.
_TOLD_WITH_OURS = {"output_dir", "max_steps"}
_HELP_ALL = (
    "Show transformers' options of training, too: learning_rate, num_train_epochs, per_device_train_batch_size, …"
)

_CONFIG = "Recipe, a file or the name of a bundled one: defaults for any of these options."


class JobParser(Parser, HfArgumentParser):
    """Options of dataclasses; those that every training with transformers has are told by `--help-all` only."""

    def __init__(
        self, dataclasses: list[Any], command: str, left_out: frozenset[str] = frozenset(), **kwargs: Any
    ) -> None:
        self.left_out = left_out
        self.trains = any(issubclass(part, TrainingArguments) for part in dataclasses)
        if self.trains:
            self._help_all_text = _HELP_ALL
        resume = "[--resume] " if self.trains else ""
        usage = f"cbvila {command} [--config RECIPE.yaml] {resume}[OPTION VALUE ...]"
        super().__init__(dataclasses, prog=f"cbvila {command}", usage=usage, **kwargs)
        for action in self._actions:  # the second spelling, with dashes between words, is taken and not told
            told = [name for name in action.option_strings if "-" not in name.lstrip("-")]
            action.option_strings = told or action.option_strings
        if self.trains:
            self._tell_inherited_options_seldom()
            self.add_argument("--resume", action="store_true", help="Go on from the last complete checkpoint, if any.")
        self.add_argument("--config", metavar="RECIPE.yaml", help=_CONFIG)

    @staticmethod
    def _parse_dataclass_field(parser: Any, field: Any) -> None:
        if field.name in parser.left_out:
            parser.set_defaults(**{field.name: field.default})
        else:
            HfArgumentParser._parse_dataclass_field(parser, field)

    def kinds(self, option: str) -> set[Any]:
        """The types that the dataclasses' hints allow for an option, such as `dict` beside `str`."""
        hints = (get_type_hints(part).get(option) for part in self.dataclass_types)
        return {get_origin(kind) or kind for hint in hints for kind in (hint, *get_args(hint))}

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if action.dest.endswith("_kwargs") and dict in self.kinds(action.dest):
            try:
                is_mapping = isinstance(json.loads(arg_string), dict)
            except json.JSONDecodeError:
                is_mapping = False
            if not is_mapping:  # transformers would keep the text, and fail where it is used
                message = f"""{shown(arg_string)} is no JSON of names and values, such as '{{"power": 2}}'"""
                raise argparse.ArgumentError(action, message)
        return super()._get_value(action, arg_string)

    def _tell_inherited_options_seldom(self) -> None:
        inherited = {field.name for field in fields(TrainingArguments)} - _TOLD_WITH_OURS
        section = self.add_argument_group("options of transformers' TrainingArguments")
        options = self._optionals._group_actions
        section._group_actions += [action for action in options if action.dest in inherited]
        options[:] = [action for action in options if action.dest not in inherited]
        self.seldom.append(section)


def parse_job(
    command: str,
    description: str,
    example: str,
    dataclasses: list[Any],
    argv: list[str],
    preset: Callable[[str | None], dict[str, Any]] | None = None,
    left_out: frozenset[str] = frozenset(),
) -> tuple:
    """Instances of the dataclasses, and a namespace with the options of the parser itself, such as `resume`.

    Args:
        command: The command, without `cbvila`.
        description: What it does.
        example: The end of its help.
        dataclasses: Parts of the command line.
        argv: Its arguments.
        preset: Gives the options that a `--protocol` sets, below those of the recipe.
        left_out: Fields of the dataclasses that are no options of this command.

    Raises:
        SystemExit: With a message, for unknown flags, unknown recipe entries and missing required options.
    """
    parser = JobParser(dataclasses, command, left_out, description=description, epilog=example)
    try:
        recipe, said = map(with_nested_options, (_read_recipe(parser, argv), _said(parser, argv)))
    except ValueError as error:
        parser.error(f"model_config: {error}")
    kept = beside(recipe, said)
    protocol = {} if preset is None else _preset(parser, preset, kept, argv)
    parser.set_defaults(**protocol)
    for action in parser._actions:
        if action.dest in kept:
            action.required = False
    parser.set_defaults(**kept)
    for name, value in merged(kept, said).items():
        argv = [*argv, f"--{name}", json.dumps(value)]
    *instances, rest = parser.parse_args_into_dataclasses(argv, args_filename=None, look_for_args_file=False)
    for instance in instances:
        if isinstance(instance, GivenOptions):
            instance.set_given({*protocol, *kept, *said})
    _tell_differences(differences(recipe, said) if recipe else [])
    return (*instances, rest)


def _said(parser: JobParser, argv: list[str]) -> dict[str, Any]:
    """The options that are among the flags, with their values; none where help is asked for."""
    if {"-h", "--help", "--help-all"} & set(argv):
        return {}
    actions = [action for action in parser._actions if action.default != argparse.SUPPRESS]
    before = [(action, action.default, action.required) for action in actions]
    for action in actions:
        action.default, action.required = argparse.SUPPRESS, False
    said = vars(parser.parse_known_args(argv)[0])
    for action, default, required in before:
        action.default, action.required = default, required
    return {name: value for name, value in said.items() if name != "repeated_options"}


def _tell_differences(lines: list[str]) -> None:
    if lines and os.environ.get("RANK", "0") == "0":  # of several processes one
        print("Other than the recipe:\n  " + "\n  ".join(lines), file=sys.stderr)


def _early(option: str, argv: list[str], default: Any = None) -> Any:
    """The value of an option that decides what the others' defaults are."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument(f"--{option}", default=default)
    try:
        return getattr(first.parse_known_args(argv)[0], option)
    except argparse.ArgumentError:  # it has no value: the parser of all options says so
        return default


def _preset(parser: JobParser, preset: Callable, recipe: dict[str, Any], argv: list[str]) -> dict:
    """The options that the protocol of the flags, or of the recipe, sets."""
    try:
        return preset(_early("protocol", argv, recipe.get("protocol")))
    except ValueError as error:
        parser.error(str(error))


def _read_recipe(parser: JobParser, argv: list[str]) -> dict[str, Any]:
    """The recipe's values by the names of dataclass fields, each as its option would have it."""
    path = _early("config", argv)
    if path is None:
        return {}
    try:
        recipe = yaml.safe_load(recipe_path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        parser.error(str(error))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        parser.error(f"--config {shown(path)} is no YAML: {one_line(str(error))}")
    if not isinstance(recipe, dict):
        parser.error(f"--config {shown(path)}: expected 'option: value' lines")
    actions = _recipe_actions(parser)
    unknown = [name for name in recipe if name not in actions]
    if unknown:
        hint = nearest(str(unknown[0]), actions)
        names = ", ".join(shown(str(name)) for name in unknown[:8])
        parser.error(f"the recipe {shown(path)} has entries that are no option: {names}{hint}")
    try:
        return {actions[name].dest: _recipe_value(parser, actions[name], value) for name, value in recipe.items()}
    except argparse.ArgumentError as error:
        parser.error(f"the recipe {shown(path)}: {error}")


def _recipe_actions(parser: JobParser) -> dict[str, argparse.Action]:
    """The options that may stand in a recipe, by all their names."""
    own = {"help", "help_all", "config"}
    options = parser._option_string_actions.items()
    return {option.lstrip("-"): action for option, action in options if action.dest not in own}


def _recipe_value(parser: JobParser, action: argparse.Action, value: Any) -> Any:
    """A value of YAML, of the type that the flag would give it and checked in the same way."""
    if value is None and not action.required:
        return None
    if action.nargs == "+":
        return [_recipe_scalar(parser, action, each) for each in (value if isinstance(value, list) else [value])]
    if isinstance(value, dict | list) and type(value) in parser.kinds(action.dest):
        return value
    return _recipe_scalar(parser, action, value)


def _recipe_scalar(parser: JobParser, action: argparse.Action, value: Any) -> Any:
    if value is None or isinstance(value, dict | list):
        raise argparse.ArgumentError(action, f"{shown(value)} stands where one value is expected")
    if action.nargs == 0:  # a flag without a value, such as resume
        if not isinstance(value, bool):
            raise argparse.ArgumentError(action, f"{shown(value)} is neither true nor false")
        return value == action.const
    converted = parser._get_value(action, str(value))
    parser._check_value(action, converted)
    return converted
