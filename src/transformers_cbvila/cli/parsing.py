"""An option parser with one-line errors and suggestions, and without abbreviations."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from ..model.messages_cbvila import SHOWN_CHARACTERS, shown
from ..nearest import nearest

USAGE_ERROR = 2  # exit status, as argparse has it


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of examples, and appends each option's default (the recipe's, with `--config`)."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False) or action.default == [] or "default" in (action.help or "").lower():
            return action.help  # a default of None would not be informative
        return super()._get_help_string(action)


class _HelpAll(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        assert isinstance(parser, Parser)
        print(parser.format_help_all(), end="")
        parser.exit()


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` with errors of one line that suggest the nearest known word.

    Attributes:
        advanced: Groups of options that only `--help-all` shows.
        given: Names of the options in the arguments that were parsed last.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.advanced: list[Any] = []
        self.given: set[str] = set()
        options: dict[str, Any] = {"formatter_class": _Help, "allow_abbrev": False} | kwargs
        super().__init__(*args, **options)
        self.add_argument("--help-all", nargs=0, action=_HelpAll, default=argparse.SUPPRESS, help=self._help_all_text)

    _help_all_text = argparse.SUPPRESS  # help of --help-all, which is hidden where --help shows everything

    def format_help(self) -> str:
        """Returns the help without the advanced options."""
        groups = self._action_groups
        self._action_groups = [group for group in groups if group not in self.advanced]
        try:
            return super().format_help()
        finally:
            self._action_groups = groups

    def format_help_all(self) -> str:
        """Returns the help with all options."""
        return super().format_help()

    def parse_known_args(  # type: ignore[override]  # argparse's has overloads
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parses as argparse does, but unknown options are errors, reported before missing ones."""
        args = sys.argv[1:] if args is None else list(args)
        self.given = set()
        for word in args[: args.index("--") if "--" in args else None]:
            action = self._option_string_actions.get(word.partition("=")[0])
            if action is not None:
                self.given.add(action.dest)
            elif word.startswith("--") and " " not in word:
                self.error(self._unknown(word))
            if word.endswith("=--"):  # argparse would take it for an empty list of values
                self.error(f"{shown(word)}: expected a value")
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(self._unknown(unknown[0]))
        return parsed, unknown

    def refuse(self, names: Iterable[str], why: str, way_out: str = "leave it out") -> None:
        """Ends with an error if one of the options was given, which other options leave without effect."""
        for name in names:
            if name in self.given:
                self.error(f"--{name} changes nothing here: {why}; {way_out}")

    def _unknown(self, word: str) -> str:
        option = word.partition("=")[0]
        if option.startswith("-"):
            return f"there is no option {shown(option)}{nearest(option, self._option_string_actions)}"
        return f"{shown(word)} stands where an option (--…) is expected; put a text of several words in quotes"

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            message = error.message.replace(repr(arg_string), shown(arg_string))
            if len(message) > len(arg_string) > SHOWN_CHARACTERS:  # the message has it without quotes
                message = message.replace(arg_string, shown(arg_string))
            raise argparse.ArgumentError(action, message) from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            message = f"{shown(value)} is none of {', '.join(choices)}{nearest(str(value), choices)}"
            raise argparse.ArgumentError(action, message)

    def error(self, message: str) -> NoReturn:
        """Prints the message as one line, and exits."""
        way_out = "" if message.endswith("?") else f" ({self.prog} --help says more)"
        print(f"{self.prog}: error: {message}{way_out}", file=sys.stderr)
        raise SystemExit(USAGE_ERROR)
