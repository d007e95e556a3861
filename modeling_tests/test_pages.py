"""The README and the pages of docs/: their code runs, their commands parse, and their links lead somewhere."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from bundled_models import CAPTIONING, LANGUAGE_MODEL, needs_language_model
from code_blocks import code_blocks

from transformers_cbvila import _MODULE_OF_LAZY_NAME
from transformers_cbvila.cli import COMMANDS, own_files

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
# Pages whose code needs nothing but the package; each page's blocks follow on each other.
RUNNABLE = [
    "README.md",
    "docs/drawing.md",
    "docs/explanations.md",
    "docs/finetuning.md",
    "docs/models.md",
    "docs/pretraining.md",
]
# Commands that test_shown_commands.py has.
_ELSEWHERE = ("pretrain", "finetune", "evaluate")


def blocks(page, language):
    return code_blocks(page.read_text(), language)


def commands(page):
    """Arguments of every `cbvila …` in a page's blocks of a shell, and in the cells of its tables."""
    text = "\n".join([*blocks(page, "bash"), *re.findall(r"^\|.*?`(cbvila [^`]*)`", page.read_text(), re.MULTILINE)])
    lines = text.replace("\\\n", " ").splitlines()
    started = (line.partition("-m transformers_cbvila ")[2] or line.removeprefix("cbvila ") for line in lines)
    found = [
        shlex.split(words, comments=True)
        for words, line in zip(started, lines, strict=True)
        if line.startswith("cbvila ") or "-m transformers_cbvila " in line
    ]
    return [argv for argv in found if len(argv) > 1 and argv[0] not in _ELSEWHERE]


def anchors(page):
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


SHOWN = [(str(page.relative_to(ROOT)), argv) for page in PAGES for argv in commands(page)]
LINKS = [
    (page, target)
    for page in PAGES
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
    if not target.startswith(("http:", "https:"))
]


@pytest.mark.parametrize("name", RUNNABLE)
def test_code_of_a_page_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(ROOT / name, "python"):
        if CAPTIONING not in block:
            exec(block, names)


@needs_language_model
def test_readme_captions_a_scene(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".cache").symlink_to(LANGUAGE_MODEL.parent)
    names: dict[str, object] = {}
    for block in blocks(ROOT / "README.md", "python"):
        exec(block, names)
        if CAPTIONING in block:
            assert re.search(r"# … ('.*')", block)[1] in capsys.readouterr().out
            return
    raise AssertionError("no block captions a scene")


@pytest.mark.parametrize(("page", "argv"), SHOWN, ids=[f"{page}-{argv[0]}" for page, argv in SHOWN])
def test_shown_command_parses(page, argv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    assert argv[0] in COMMANDS
    monkeypatch.setattr(own_files, "_import_file", lambda file: None)
    import_module(f"transformers_cbvila.cli.{argv[0].replace('-', '_')}").parse(own_files.import_own_files(argv[1:]))


def test_links_lead_somewhere():
    lost = []
    for page, target in LINKS:
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            lost.append(f"{page.relative_to(ROOT)}: {target}")
    assert LINKS and not lost


def test_readme_takes_a_minute():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    first_answer = blocks(ROOT / "README.md", "python")[0].splitlines()
    assert len(first_answer) <= 15 and "'answer': 'blue'" in first_answer[-1]


def test_reference_has_every_public_name():
    listed = re.findall(
        r"^::: transformers_cbvila\.(\S+)$", "".join(p.read_text() for p in (ROOT / "docs/api").glob("*.md")), re.M
    )
    assert sorted(listed) == sorted(f"{module}.{name}" for name, module in _MODULE_OF_LAZY_NAME.items())
    assert len(listed) == len(set(listed))


def test_workflows_and_hooks_call_what_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    files = [*(ROOT / ".github/workflows").glob("*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "mkdocs.yml"]
    for file in files:
        yaml.safe_load(file.read_text())
    called = {word for file in files for word in re.findall(r"run: make ([a-z-]+)", file.read_text())}
    assert called and called | {"test-oldest", "test-newest"} <= targets
