"""Errors of commands are one line, from any process, and tell user errors from faults."""

import argparse

import pytest
from torch._utils import ExceptionWrapper

from transformers_cbvila.cli import COMMANDS, main
from transformers_cbvila.cli.errors import OUR_FAULT, USERS_FAULT, in_one_line, option_names
from transformers_cbvila.cli.parsing import Parser
from transformers_cbvila.data.bad_rows import BadRowError


def said(error, capsys):
    with in_one_line("cbvila pretrain") as outcome:
        raise error
    return outcome.status, capsys.readouterr().err


@pytest.mark.parametrize("kind", [ValueError, BadRowError, FileNotFoundError])
def test_command_error_unwraps_data_loader_workers(kind, capsys):
    try:
        raise kind("row 3 of birds.csv: it has no image (None)")
    except kind as error:
        wrapped = ExceptionWrapper(exc_info=(kind, error, error.__traceback__), where="in DataLoader worker process 0")
    with pytest.raises(kind) as raised:
        wrapped.reraise()
    assert "Traceback" in str(raised.value), "what torch makes of it"
    status, text = said(raised.value, capsys)
    assert status == USERS_FAULT
    assert text == "cbvila pretrain: row 3 of birds.csv: it has no image (None)\n"


def test_command_error_asks_to_report_faults(capsys):
    status, text = said(KeyError("captions"), capsys)
    assert status == OUR_FAULT and "please report" in text and len(text.splitlines()) == 1


@pytest.mark.parametrize("option", ["--output", "--data"])
def test_command_error_names_nul_characters(option, capsys):
    argv = ["evaluate", "retrieval", "--model", "cbvila-tiny", "--data", "easy-vqa", option, "figures\0.json"]
    assert main(argv) == USERS_FAULT
    assert "'figures\\x00.json' has a NUL character in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("row 3 is bad; skip_bad_rows leaves it out", "row 3 is bad; --skip_bad_rows leaves it out"),
        ("top_k=0 must be at least 1, so is top_k.", "--top_k=0 must be at least 1, so is --top_k."),
        ("give --top_k, not rerank_k", "give --top_k, not rerank_k"),
        ("'runs/top_k': no file top_k.json", "'runs/top_k': no file top_k.json"),
        (
            "config.top_k, f(x).top_k, 'top_k', top_k(3), my_top_k",
            "config.top_k, f(x).top_k, 'top_k', top_k(3), my_top_k",
        ),
        ("the image and its model", "the image and its model"),
    ],
)
def test_command_error_shows_options_as_the_command_line_has_them(text, shown, capsys):
    parsed = (argparse.Namespace(top_k=3, skip_bad_rows=False, image="a", model="b", _n_gpu=1), "other things")
    with in_one_line("cbvila search") as outcome:
        outcome.options = option_names(parsed)
        raise ValueError(text)
    assert capsys.readouterr().err == f"cbvila search: {shown}\n"


def test_main_shows_options_as_the_command_line_has_them(picture_folder, capsys):
    assert main(["inspect", "cbvila-tiny", "--data", picture_folder, "--label_column", "kind"]) == USERS_FAULT
    assert "cbvila inspect: --label_column=kind: no row" in capsys.readouterr().err


def test_names_of_several_words_are_those_of_options(monkeypatch):
    """So that a message with such a name can only mean the option."""
    parsers = []
    monkeypatch.setattr(Parser, "parse_known_args", lambda self, *_: parsers.append(self) or self.exit())
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, *(["vqa"] if command in ("finetune", "evaluate") else [])])
    assert len(parsers) >= len(COMMANDS)
    names = {(parser.prog, action.dest, *action.option_strings) for parser in parsers for action in parser._actions}
    assert [name for name in names if "_" in name[1] and f"--{name[1]}" not in name and "--help-all" not in name] == []
