"""Every `cbvila pretrain`, `finetune` and `evaluate` in the README, the pages, the recipes and the Makefile parses."""

import re
import shlex
from pathlib import Path

import pytest
from code_blocks import code_blocks

import transformers_cbvila.data.scenes.source as scenes
import transformers_cbvila.tasks.evaluate as task_evaluation
import transformers_cbvila.training.finetune as finetuning
import transformers_cbvila.training.pretrain as pretraining
from transformers_cbvila import cli
from transformers_cbvila.cli import own_files
from transformers_cbvila.cli.recipe_files import FOLDER
from transformers_cbvila.data.builtin_sources import find_builtin
from transformers_cbvila.data.training_texts import training_texts

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted(FOLDER.glob("*.yaml"))
MAKEFILE = ROOT / "Makefile"
_COMMAND = re.compile(r"(?:-m transformers_cbvila|cbvila) ((?:pretrain|finetune|evaluate) .*)")


def commands(text):
    """Arguments of the commands among lines of a shell; of a loop over tasks, of each."""
    for line in text.replace("\\\n", " ").splitlines():
        found = _COMMAND.search(line)
        if found:
            for task in ("vqa", "entailment", "reasoning") if "$task" in line else ("",):
                yield shlex.split(found[1].replace("$task", task), comments=True)


def shown_in(path):
    if path == MAKEFILE:
        return list(commands(path.read_text().replace("$(PRETRAIN)", "cbvila pretrain")))
    if path.suffix == ".yaml":
        head = path.read_text().partition("\n\n")[0]
        return list(commands("\n".join(line.lstrip("#") for line in head.splitlines())))
    blocks = code_blocks(path.read_text(), "bash")
    cells = re.findall(r"^\|.*?`(cbvila [^`]*)`", path.read_text(), flags=re.MULTILINE)
    return list(commands("\n".join([*blocks, *(cell for cell in cells if len(cell.split()) > 3)])))


SHOWN = [(path.name, command) for path in [*PAGES, *RECIPES, MAKEFILE] for command in shown_in(path)]
PRETRAINED_ON = sorted(
    {word for _, command in SHOWN if command[0] == "pretrain" for word in command if find_builtin(word)}
)


def test_shown_commands_cover_every_task():
    assert {tuple(command[:2]) for _, command in SHOWN if command[0] != "pretrain"} == {
        (verb, task)
        for verb in ("finetune", "evaluate")
        for task in ("vqa", "retrieval", "entailment", "reasoning", "captioning", "generation")
    }
    assert {name for name, _ in SHOWN} >= {
        "README.md",
        "finetuning.md",
        "results.md",
        *(p.name for p in RECIPES),
        MAKEFILE.name,
    }


@pytest.mark.parametrize("source", PRETRAINED_ON)
def test_sources_of_shown_pretraining_have_texts_for_a_vocabulary(source, monkeypatch):
    monkeypatch.setattr(scenes, "_ROWS_FOR_WORDS", 3)
    assert all(training_texts([], [source]))


@pytest.mark.parametrize(
    ("page", "command"), SHOWN, ids=[f"{page}-{number}" for number, (page, _) in enumerate(SHOWN)]
)
def test_shown_command_parses(page, command, monkeypatch, tmp_path, capsys):
    called = []
    monkeypatch.setattr(finetuning, "finetune", lambda *call: called.append(call))
    monkeypatch.setattr(task_evaluation, "evaluate_task", lambda *call: called.append(call) or {})
    monkeypatch.setattr(pretraining, "pretrain", lambda *call: called.append(call))
    monkeypatch.setattr(own_files, "_import_file", lambda file: None)  # it would register names for all tests
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    for path in RECIPES:  # without what a CPU may lack
        (tmp_path / "recipes" / path.name).write_text(path.read_text().replace("bf16: true", "bf16: false"))
    assert cli.main([*command, *(["--use_cpu"] if command[0] == "pretrain" else [])]) == 0
    (job, *_) = called[0]
    assert job.name == command[1] if command[0] != "pretrain" else job.train_data
