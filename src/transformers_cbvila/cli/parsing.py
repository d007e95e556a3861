"""A parser of options that answers in one line, guesses what was meant, and takes no abbreviations."""

import argparse
import sys
from typing import Any, NoReturn

from ..model.messages_cbvila import shown
from ..nearest import nearest

USAGE_ERROR = 2  # exit status, as argparse has it


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Examples as they are written, and each option's default, which is the recipe's where `--config` names one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False) or action.default == [] or "default" in (action.help or "").lower():
            return action.help  # "None" tells nobody what happens; the text does, where there is something to say
        return super()._get_help_string(action)


class _HelpAll(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        print(parser.format_help_all(), end="")
        parser.exit()


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line with the nearest word that it knows.

    Attributes:
        seldom: Groups of options that `--help` leaves to `--help-all`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.seldom: list[Any] = []
        options: dict[str, Any] = {"formatter_class": _Help, "allow_abbrev": False} | kwargs
        super().__init__(*args, **options)
        self.add_argument("--help-all", nargs=0, action=_HelpAll, default=argparse.SUPPRESS, help=self._help_all_text)

    _help_all_text = argparse.SUPPRESS  # of --help-all itself: nothing to say where --help shows everything

    def format_help(self) -> str:
        groups = self._action_groups
        self._action_groups = [group for group in groups if group not in self.seldom]
        try:
            return super().format_help()
        finally:
            self._action_groups = groups

    def format_help_all(self) -> str:
        """The help with all groups of options."""
        return super().format_help()

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[override]
        """As argparse's, but nothing may remain: what nobody knows is an error, before anything that is missing."""
        args = sys.argv[1:] if args is None else list(args)
        for word in args[: args.index("--") if "--" in args else None]:
            if word.startswith("--") and " " not in word and word.partition("=")[0] not in self._option_string_actions:
                self.error(self._unknown(word))
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(self._unknown(unknown[0]))
        return parsed, unknown

    def _unknown(self, word: str) -> str:
        option = word.partition("=")[0]
        if option.startswith("-"):
            return f"there is no option {shown(option)}{nearest(option, self._option_string_actions)}"
        return f"{shown(word)} stands where an option (--…) is expected"

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            message = error.message.replace(repr(arg_string), arg_string).replace(arg_string, shown(arg_string))
            raise argparse.ArgumentError(action, message) from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            message = f"{shown(value)} is none of {', '.join(choices)}{nearest(str(value), choices)}"
            raise argparse.ArgumentError(action, message)

    def error(self, message: str) -> NoReturn:
        way_out = "" if message.endswith("?") else f" ({self.prog} --help says more)"
        print(f"{self.prog}: error: {message}{way_out}", file=sys.stderr)
        raise SystemExit(USAGE_ERROR)
