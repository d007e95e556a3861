"""The code and the commands of docs/search.md run."""

import shlex
from pathlib import Path

import huggingface_hub.constants
import pytest
from code_blocks import code_blocks
from PIL import Image, ImageDraw

from transformers_cbvila import cli

PAGE = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
PYTHON = code_blocks(PAGE)
COMMANDS = [line for block in code_blocks(PAGE, "bash") for line in block.splitlines()]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(tmp_path / "cache"))
    (tmp_path / "my_pictures" / "sub").mkdir(parents=True)
    for name in ("red", "green", "sub/blue"):
        image = Image.new("RGB", (64, 64), (240, 246, 252))
        ImageDraw.Draw(image).ellipse((20, 24, 44, 48), fill=name.rpartition("/")[2])
        image.save(tmp_path / "my_pictures" / f"{name}.png")


def test_code_of_the_page_runs(capsys):
    values = {}
    for block in PYTHON:
        if "sentence_transformers" not in block:
            exec(block, values)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("tensor([1, 2])")
    assert "my_pictures/sub/blue.png {}" in printed
    assert printed[-2] == "tensor([2])", "the only picture of the subfolder passes"
    assert printed[-1].endswith("tensor([0, 0, 0])")


def test_code_for_sentence_transformers_runs():
    pytest.importorskip("sentence_transformers")
    values = {"pictures": [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]}
    blocks = [block for block in PYTHON if "sentence_transformers" in block]
    for block in blocks:
        exec(block, values)
    assert len(blocks) == 2 and values["similarity"].shape == (1, 2)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_page_run(command, capsys):
    assert command.startswith("cbvila ")
    assert cli.main(shlex.split(command)[1:]) == 0
    printed = capsys.readouterr().out
    assert ("blue.png" if "a blue circle" in command else "red") in printed
