"""Parses a command's job: its options override the recipe of `--config`, which overrides a protocol and defaults.

`HfArgumentParser` creates options from dataclasses, as in transformers' own examples, so that the 120 options of
`TrainingArguments` have their known names and follow the installed version. typer would need every option written out;
TRL's parser and jsonargparse would be another dependency and do not suggest the nearest option.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser, TrainingArguments

from ..data.given_options import GivenOptions
from ..model.messages_cbvila import one_line, shown
from ..nearest import nearest
from .parsing import Parser
from .recipe_files import applicable_options, differences, merge_mappings, recipe_path, with_nested_options

# Inherited options that --help shows among ours.
_SHOWN_INHERITED = {"output_dir", "max_steps"}
_HELP_ALL = (
    "Show all options, with transformers' of training: learning_rate, num_train_epochs, per_device_train_batch_size, …"
)

_CONFIG = "Recipe, a file or the name of a bundled one: defaults for any of these options."


class JobParser(Parser, HfArgumentParser):
    """A parser of the options of dataclasses; those inherited from `TrainingArguments` are shown by `--help-all`.

    Args:
        dataclasses: The dataclasses.
        command: The command, such as `"pretrain"`.
        left_out: Fields of the dataclasses that are not options of this command.
        **kwargs: Passed to `ArgumentParser`.
    """

    def __init__(
        self, dataclasses: list[Any], command: str, left_out: frozenset[str] = frozenset(), **kwargs: Any
    ) -> None:
        self.command, self.left_out = command, left_out
        self.trains = any(issubclass(part, TrainingArguments) for part in dataclasses)
        if self.trains:
            self._help_all_text = _HELP_ALL
        resume = "[--resume] " if self.trains else ""
        usage = f"cbvila {command} [--config RECIPE.yaml] {resume}[OPTION VALUE ...]"
        super().__init__(dataclasses, prog=f"cbvila {command}", usage=usage, **kwargs)
        for action in self._actions:  # the spelling with dashes is accepted but not shown
            names = [name for name in action.option_strings if "-" not in name.lstrip("-")]
            action.option_strings = names or action.option_strings
        if self.trains:
            self._move_inherited_options()
            self._require_output_dir()
            self.add_argument("--resume", action="store_true", help="Go on from the last complete checkpoint, if any.")
        self.add_argument("--config", metavar="RECIPE.yaml", help=_CONFIG)

    def _unknown(self, word: str) -> str:
        option = word.partition("=")[0]
        if option.removeprefix("--") in self.left_out:
            kind = "pretraining" if self.trains else "training"
            return f"{option} is an option of {kind}, and would change nothing here: leave it out"
        return super()._unknown(word)

    @staticmethod
    def _parse_dataclass_field(parser: Any, field: Any) -> None:
        if field.name in parser.left_out:
            default = field.default if field.default_factory is MISSING else field.default_factory()
            parser.set_defaults(**{field.name: default})
        else:
            HfArgumentParser._parse_dataclass_field(parser, field)

    def kinds(self, option: str) -> set[Any]:
        """Returns the types that the dataclasses' hints allow for an option, such as `dict` and `str`."""
        hints = (get_type_hints(part).get(option) for part in self.dataclass_types)
        return {get_origin(kind) or kind for hint in hints for kind in (hint, *get_args(hint))}

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if action.dest.endswith("_kwargs") and dict in self.kinds(action.dest):
            try:
                is_mapping = isinstance(json.loads(arg_string), dict)
            except json.JSONDecodeError:
                is_mapping = False
            if not is_mapping:  # transformers would keep the string and fail later
                message = f"""{shown(arg_string)} is no JSON of names and values, such as '{{"power": 2}}'"""
                raise argparse.ArgumentError(action, message)
        return super()._get_value(action, arg_string)

    def _require_output_dir(self) -> None:
        """Makes --output_dir required: transformers would write into `trainer_output`, or go on with what is there."""
        (action,) = (action for action in self._actions if action.dest == "output_dir")
        action.required = True

    def error(self, message: str) -> NoReturn:
        """Has an example of the folder that is asked for, as its name alone does not say what it is."""
        if message.startswith("the following arguments are required") and "--output_dir" in message:
            message += ", such as --output_dir runs/mine"
        super().error(message)

    def _move_inherited_options(self) -> None:
        """Moves the options of `TrainingArguments` into a group that only `--help-all` shows."""
        inherited = {field.name for field in fields(TrainingArguments)} - _SHOWN_INHERITED
        section = self.add_argument_group("options of transformers' TrainingArguments")
        options = self._optionals._group_actions
        section._group_actions += [action for action in options if action.dest in inherited]
        options[:] = [action for action in options if action.dest not in inherited]
        self.advanced.append(section)


def parse_job(
    command: str,
    description: str,
    example: str,
    dataclasses: list[Any],
    argv: list[str],
    preset: Callable[[str | None], dict[str, Any]] | None = None,
    left_out: frozenset[str] = frozenset(),
) -> tuple:
    """Parses a command's options into dataclasses.

    Args:
        command: The command, such as `"pretrain"`.
        description: What it does, for the help.
        example: Examples, for the help.
        dataclasses: The dataclasses.
        argv: The arguments.
        preset: Returns the options that a `--protocol` sets; the recipe overrides them.
        left_out: Fields of the dataclasses that are not options of this command.

    Returns:
        Instances of the dataclasses, and a namespace with the options of the parser itself, such as `resume`.

    Raises:
        SystemExit: With a message, for unknown options, unknown recipe entries and missing required options.
    """
    parser = JobParser(dataclasses, command, left_out, description=description, epilog=example)
    try:
        recipe, given = map(with_nested_options, (_read_recipe(parser, argv), _given_options(parser, argv)))
    except ValueError as error:
        parser.error(f"model_config: {error}")
    kept = applicable_options(recipe, given)
    protocol = {} if preset is None else _preset(parser, preset, kept, argv)
    parser.set_defaults(**protocol)
    for action in parser._actions:
        if action.dest in kept:
            action.required = False
    parser.set_defaults(**kept)
    for name, value in merge_mappings(kept, given).items():
        argv = [*argv, f"--{name}", json.dumps(value)]
    *instances, rest = parser.parse_args_into_dataclasses(argv, args_filename=None, look_for_args_file=False)
    for instance in instances:
        if isinstance(instance, GivenOptions):
            instance.set_given({*protocol, *kept, *given})
    _print_differences(differences(recipe, given) if recipe else [])
    return (*instances, rest)


def _given_options(parser: JobParser, argv: list[str]) -> dict[str, Any]:
    """Returns the options in the arguments, with their values; none if help is requested."""
    if {"-h", "--help", "--help-all"} & set(argv):
        return {}
    actions = [action for action in parser._actions if action.default != argparse.SUPPRESS]
    before = [(action, action.default, action.required) for action in actions]
    for action in actions:
        action.default, action.required = argparse.SUPPRESS, False
    given = vars(parser.parse_known_args(argv)[0])
    for action, default, required in before:
        action.default, action.required = default, required
    return {name: value for name, value in given.items() if name != "repeated_options"}


def _print_differences(lines: list[str]) -> None:
    if lines and os.environ.get("RANK", "0") == "0":  # only one of several processes
        print("Other than the recipe:\n  " + "\n  ".join(lines), file=sys.stderr)


def _early(option: str, argv: list[str], default: Any = None) -> Any:
    """Returns the value of an option on which the defaults of others depend."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument(f"--{option}", default=default)
    try:
        return getattr(first.parse_known_args(argv)[0], option)
    except argparse.ArgumentError:  # it has no value: the parser of all options reports it
        return default


def _preset(
    parser: JobParser, preset: Callable[[str | None], dict[str, Any]], recipe: dict[str, Any], argv: list[str]
) -> dict[str, Any]:
    """Returns the options that the protocol of the command line, or of the recipe, sets."""
    try:
        return preset(_early("protocol", argv, recipe.get("protocol")))
    except ValueError as error:
        parser.error(str(error))


def _read_recipe(parser: JobParser, argv: list[str]) -> dict[str, Any]:
    """Returns the recipe's values by the names of dataclass fields, converted as their options would be."""
    path = _early("config", argv)
    if path is None:
        return {}
    try:
        recipe = yaml.safe_load(recipe_path(path, parser.command).read_text(encoding="utf-8"))
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
    # null for a required option leaves it to the command line.
    values = [(actions[name], value) for name, value in recipe.items()]
    try:
        return {
            action.dest: _recipe_value(parser, action, value)
            for action, value in values
            if value is not None or not action.required
        }
    except argparse.ArgumentError as error:
        parser.error(f"the recipe {shown(path)}: {error}")


def _recipe_actions(parser: JobParser) -> dict[str, argparse.Action]:
    """Returns the options that a recipe can have, by all their names."""
    own = {"help", "help_all", "config"}
    options = parser._option_string_actions.items()
    return {option.lstrip("-"): action for option, action in options if action.dest not in own}


def _recipe_value(parser: JobParser, action: argparse.Action, value: Any) -> Any:
    """Converts and checks a value of YAML as its option would."""
    if value is None:
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
