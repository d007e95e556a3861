"""Errors of commands are one line, from any process, and tell user errors from faults."""

import pytest
from torch._utils import ExceptionWrapper

from transformers_cbvila.cli import main
from transformers_cbvila.cli.errors import OUR_FAULT, USERS_FAULT, in_one_line
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
