"""The examples of docs/extending.md run, and what the page shows of them is what they say."""

import json
import re
import sys

import pytest
import torch
from code_blocks import code_blocks
from extending import EXAMPLES, load_module, registered_for_now

import transformers_cbvila
from transformers_cbvila import CBViLAForPreTraining
from transformers_cbvila.hub.kinds import kinds
from transformers_cbvila.hub.verifying import example_inputs
from transformers_cbvila.tasks.registry import TASKS, register_task

PAGE = EXAMPLES.parent / "docs" / "extending.md"
BLOCKS = code_blocks(PAGE.read_text())
SCRIPTS = {"write_a_quantizer": "codebook_perplexity", "write_an_objective": "loss_caption_length"}


@pytest.fixture(autouse=True)
def registries():
    with registered_for_now():
        yield


@pytest.mark.parametrize("name", SCRIPTS)
def test_example_script_trains_saves_and_loads(name, tmp_path, capsys):
    script = load_module(EXAMPLES / f"{name}.py")
    models = []
    script.build = lambda processor, build=script.build: models.append(build(processor)) or models[-1]
    script.main(["--max_steps", "3", "--output_dir", str(tmp_path)])
    last = capsys.readouterr().out.splitlines()[-1]
    losses = dict(part.split("=") for part in last.split())
    assert {"loss", "loss_pixel", "loss_mim", SCRIPTS[name]} <= losses.keys()
    assert all(float(value) > 0 for value in losses.values())
    trained, loaded = models[0].eval().cpu(), CBViLAForPreTraining.from_pretrained(tmp_path)
    inputs = example_inputs(kinds()["CBViLAForPreTraining"], loaded.config)
    with torch.no_grad():
        before, after = trained(**inputs), loaded(**inputs)
    assert before.losses.keys() == after.losses.keys()
    for found in ("mim_logits", "pixel_predictions", "codebook_indices", "loss"):
        assert torch.equal(before[found], after[found])


def test_task_example_finetunes_and_evaluates(tmp_path, capsys):
    script = load_module(EXAMPLES / "write_a_task.py")
    assert script.main(["--images", "24", "--max_steps", "2", "--output_dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"task +image-classification\n", said) and re.search(r"accuracy +0\.\d+ \[0\.\d+, ", said)
    record = json.loads((tmp_path / "model" / "finetuning.json").read_text())
    assert record["task"] == "image-classification" and record["settings"]["class_names"] == [
        "circle",
        "rectangle",
        "triangle",
    ]
    assert kinds()["CBViLAForImageClassification"].task == "image-classification"


def test_register_task_rejects_a_known_name_and_other_classes():
    known = TASKS["vqa"]
    assert register_task(known) is known
    with pytest.raises(ValueError, match="name='vqa' is the name of the task VisualQuestionAnswering"):
        register_task(type("Other", (known,), {}))
    with pytest.raises(ValueError, match="must be a subclass of Task"):
        register_task(dict)


SHOWN = [re.fullmatch(r"# (examples/\S+)\n(.*)", block, flags=re.DOTALL) for block in BLOCKS]
OTHERS = [block for block, shown in zip(BLOCKS, SHOWN, strict=True) if shown is None]


@pytest.mark.parametrize("file, code", [shown.groups() for shown in SHOWN if shown is not None])
def test_extending_page_code_equals_the_scripts(file, code):
    """Part by part: `...` stands for what is left out."""
    text = (EXAMPLES.parent / file).read_text()
    for part in re.split(r"^ *\.\.\.\n", code, flags=re.MULTILINE):
        assert part.strip() in text, part


def test_extending_page_other_code_runs(monkeypatch, capsys):
    """In order, beside the scripts, and with nothing sent anywhere."""
    published = []
    for name in ("publish", "stage_repository"):
        monkeypatch.setattr(transformers_cbvila, name, lambda *given, **options: published.append(given))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    names = {}
    for code in OTHERS:
        exec(code, names)
    for name in SCRIPTS:
        sys.modules.pop(name, None)
    names = ("runs/random-projection", "my-org/cbvila-random-projection")
    assert published == [(*names, "staged"), names]


def test_extending_page_has_at_most_250_lines():
    assert len(PAGE.read_text().splitlines()) <= 250
