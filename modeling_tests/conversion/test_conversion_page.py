"""Commands in docs/conversion.md and in the scripts' help parse."""

import re
import shlex
from pathlib import Path

import attach_language_model
import convert_albef
import convert_blip2
import export_blip2
import export_towers
import init_from_pretrained
import pytest
from code_blocks import code_blocks

PAGE = (Path(__file__).parents[2] / "docs" / "conversion.md").read_text()
SECTION = code_blocks(PAGE, "bash")[0]
MODULES = (convert_albef, init_from_pretrained, export_towers, convert_blip2, export_blip2, attach_language_model)
SCRIPTS = {module.__name__: module for module in MODULES}


def commands(text):
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("python conversion/")]


def test_page_shows_every_script():
    assert {re.search(r"conversion/(\w+)\.py", line)[1] for line in commands(SECTION)} == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_page_and_help_commands_parse(name):
    shown = [line for line in commands(SECTION + SCRIPTS[name].EXAMPLE) if f"/{name}.py " in line]
    assert len(shown) >= 3
    for line in shown:
        SCRIPTS[name].parser().parse_args(shlex.split(line)[2:])
    assert SCRIPTS[name].EXAMPLE in SCRIPTS[name].parser().format_help()
