"""Classes registered outside the package are published with the weights, or rejected with a reason."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from extending import EXAMPLES, load_module, registered_for_now
from publishable import run_offline
from safetensors.torch import load_file, save_file

import transformers_cbvila.hub.publishing as publishing
from transformers_cbvila import CBViLAForPreTraining, CBViLAObjective, publish, register_objective
from transformers_cbvila.hub.checking import find_checkpoint
from transformers_cbvila.hub.kinds import kinds
from transformers_cbvila.hub.outside_classes import outside_code
from transformers_cbvila.hub.staging import stage
from transformers_cbvila.hub.verifying import example_inputs
from transformers_cbvila.model.remote_code_cbvila import code_files

MINE = '''
"""A file with more in it than what is published."""

from __future__ import annotations

import argparse
import math as maths
from typing import TYPE_CHECKING

import torch
from torch import nn

from transformers_cbvila import CBViLAObjective as Objective, CBViLAObjectiveOptions, CBViLATrainer, register_objective
from transformers_cbvila.model.objective_cbvila import Answer, Scored
from transformers_cbvila.model.options_cbvila import options

if TYPE_CHECKING:
    from transformers_cbvila.model.objective_cbvila import CBViLAStep

# Why it is two.
FACTOR = 2.0
UNUSED = CBViLATrainer


@options
class MineOptions(CBViLAObjectiveOptions):
    power: float | int = FACTOR


def helper(x):
    from transformers_cbvila.model.losses_cbvila import at_least_fp32

    return at_least_fp32(x).abs().mean() / maths.pi


def unused():
    return argparse.ArgumentParser()


class Mine(Objective):
    options_class = MineOptions
    needs = frozenset({"quantizer"})

    def __init__(self, options, config, quantizer=None):
        super().__init__(options, config, quantizer)
        self.head = nn.Linear(config.projection_dim, 1)

    def forward(self, step: "CBViLAStep", answers: "list[Answer]") -> dict[str, Scored]:
        argparse = helper(self.head(step.image_embeds))
        return {self.name: Scored(argparse.pow(self.options.power))}


register_objective("mine", Mine)
'''


@pytest.fixture(autouse=True)
def registries():
    with registered_for_now():
        yield


def checkpoint(folder, **fields):
    """A tiny checkpoint with what was registered."""
    config = tiny.tiny_config()
    for name, value in fields.items():
        setattr(config, name, value)
    tiny.build(CBViLAForPreTraining, config).save_pretrained(folder)
    tiny.tiny_processor().save_pretrained(folder)
    return find_checkpoint(folder)


def written(folder, text, name="written_for_now"):
    path = Path(folder) / f"{name}.py"
    path.write_text(text)
    return load_module(path)


def test_outside_code_holds_what_the_class_needs(tmp_path):
    written(tmp_path, MINE)
    code = outside_code({"objectives": {"itc": {}, "mine": {"weight": 1.0}}})
    assert list(code) == ["objective_mine_cbvila.py", "objectives_cbvila.py"]
    text = code["objective_mine_cbvila.py"]
    for line in (
        "from __future__ import annotations",
        "import math as maths",
        "from .objective_cbvila import CBViLAObjective as Objective, CBViLAObjectiveOptions",
        "from .objective_cbvila import Answer, Scored",
        "from .options_cbvila import options",
        "    from .objective_cbvila import CBViLAStep",
        "    from .losses_cbvila import at_least_fp32",
        "# Why it is two.\nFACTOR = 2.0",
        "@options\nclass MineOptions(CBViLAObjectiveOptions):",
    ):
        assert f"{line}\n" in text, line
    for other in ("transformers_cbvila", "Trainer", "argparse\n", "import torch\n", "unused", "UNUSED"):
        assert other not in text, other
    (registry,) = (path for path in code_files() if path.name == "objectives_cbvila.py")
    assert code["objectives_cbvila.py"].startswith(registry.read_text())
    assert code["objectives_cbvila.py"].endswith('register_objective("mine", Mine)\n')


def test_outside_code_is_empty_for_own_classes(tmp_path):
    assert outside_code(tiny.tiny_config().to_dict()) == {}
    assert outside_code({}) == {}  # of version 0.1, which had no nested options


def test_stage_writes_outside_code(tmp_path):
    written(tmp_path, MINE)
    found = checkpoint(tmp_path / "model", objectives={"mine": {"power": 3.0}})
    target = tmp_path / "published"
    target.mkdir()
    stage(found, "# card\n", target)
    names = {path.name for path in target.glob("*.py")}
    assert names == {path.name for path in code_files()} | {"objective_mine_cbvila.py"}
    assert json.loads((target / "config.json").read_text())["objectives"]["mine"] == {"weight": 1.0, "power": 3.0}


REFUSED = [
    ("from . import other", "other", "uses `from . import other`, a file that is not published with it; copy"),
    ("from .other import thing", "thing", "uses `from .other import thing`, a file that is not published with it"),
    ("import transformers_cbvila", "transformers_cbvila.CBViLAConfig", "import the names themselves"),
    ("from transformers_cbvila import model", "model", "only names of transformers_cbvila.model.* are published"),
    ("from transformers_cbvila import load_pairs", "load_pairs", "are published with weights; do without load_pairs"),
    ("from transformers_cbvila.data.sources import concatenate", "concatenate", "do without concatenate"),
    (
        "import written_beside_it",
        "written_beside_it",
        "uses `import written_beside_it`, which is not an installed package",
    ),
    ("from math import *", "pi", "its file has `from math import *`; name what it imports"),
]


@pytest.mark.parametrize("line, used, message", REFUSED)
def test_outside_code_rejects_imports_that_cannot_travel(line, used, message, tmp_path, monkeypatch):
    # The import is added once the file was run: what it names need not be there.
    result = "    return at_least_fp32(x)"
    text = MINE.replace(result, f"    if x is None:\n        return {used}\n{result}")
    module = written(tmp_path, text)
    Path(module.__file__).write_text(text.replace("import math as maths", f"import math as maths\n{line}"))
    found = checkpoint(tmp_path / "model", objectives={"mine": {}})
    monkeypatch.setattr(publishing, "check_access", lambda api: pytest.fail("it asked the Hub"))
    card = tmp_path / "card.md"
    card.write_text("# card\n")
    with pytest.raises(ValueError) as error:
        publish(found.folder, "org/name", card=card)
    sentence = str(error.value)
    assert sentence.startswith("The objective 'mine' (Mine of written_for_now) cannot be published: ")
    assert message in sentence
    target = tmp_path / "published"
    target.mkdir()
    with pytest.raises(ValueError, match="cannot be published"):
        stage(found, "# card\n", target)
    assert not list(target.iterdir())


def test_outside_code_rejects_classes_without_a_file(tmp_path):
    module = written(tmp_path, MINE)
    Path(module.__file__).unlink()
    with pytest.raises(ValueError, match="its source was not found, as in a notebook; write it into a .py file"):
        outside_code({"objectives": {"mine": {}}})


def test_outside_code_rejects_local_classes():
    class Local(CBViLAObjective):
        def forward(self, step, answers):
            return {}

    register_objective("local", Local)
    with pytest.raises(ValueError, match="it is defined inside a function or another class; define it at the top"):
        outside_code({"objectives": {"local": {}}})


def test_outside_code_rejects_names_of_package_files(tmp_path):
    script = load_module(EXAMPLES / "write_a_quantizer.py")
    script.register_quantizer("output", script.RandomProjectionQuantizer)
    with pytest.raises(ValueError, match="would be quantizer_output_cbvila.py, which the package has; register it"):
        outside_code({"quantizer_config": {"type": "output"}})


def test_outside_code_rejects_unregistered_types(tmp_path):
    for config in ({"quantizer_config": {"type": "mine"}}, {"objectives": {"mine": {}}}):
        with pytest.raises(ValueError, match="'mine' is not one of .* has to be registered before"):
            outside_code(config)


# Loads, saves, loads what it saved, and gives the outputs of both.
AGAIN = """
import sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForPreTraining
published, again, inputs, outputs = sys.argv[1:]
given = {}
for name, folder in (("first", published), ("again", again)):
    model = AutoModelForPreTraining.from_pretrained(folder, trust_remote_code=True).eval()
    with torch.no_grad():
        output = model(**load_file(inputs))
    given |= {f"{name}.{key}": output[key] for key in ("loss", "mim_logits", "pixel_predictions")}
    given |= {f"{name}.losses.{key}": value for key, value in output.losses.items()}
    model.save_pretrained(again)
save_file(given, outputs)
"""


@pytest.mark.slow
def test_outside_quantizer_and_objective_load_without_the_package(tmp_path):
    load_module(EXAMPLES / "write_a_quantizer.py")
    written(tmp_path, MINE)
    fields = {"quantizer_config": {"type": "random_projection", "size": 8}, "objectives": {"mine": {"power": 3.0}}}
    found = checkpoint(tmp_path / "model", **fields)
    published = tmp_path / "published"
    published.mkdir()
    stage(found, "# card\n", published)
    model = CBViLAForPreTraining.from_pretrained(found.folder)
    inputs = example_inputs(kinds()["CBViLAForPreTraining"], model.config)
    save_file(inputs, tmp_path / "inputs")
    run_offline(AGAIN, tmp_path, published, tmp_path / "again", tmp_path / "inputs", tmp_path / "outputs")
    given = load_file(tmp_path / "outputs")
    with torch.no_grad():
        expected = model(**inputs)
    assert "mine" in expected.losses
    for name in ("first", "again"):
        for key in ("loss", "mim_logits", "pixel_predictions"):
            torch.testing.assert_close(given[f"{name}.{key}"], expected[key])
        torch.testing.assert_close(given[f"{name}.losses.mine"], expected.losses["mine"])
    for file in ("objective_mine_cbvila.py", "objectives_cbvila.py", "quantizers_cbvila.py"):
        assert (tmp_path / "again" / file).read_text() == (published / file).read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "script, fields",
    [
        ("write_a_quantizer", {"quantizer_config": {"type": "random_projection", "size": 8}}),
        ("write_an_objective", {"objectives": {"caption_length": {}}}),
    ],
)
def test_outside_code_of_examples_passes_verify(script, fields, tmp_path, facts):
    load_module(EXAMPLES / f"{script}.py")
    found = checkpoint(tmp_path / "model", **fields)
    published = publishing.stage_repository(found.folder, "org/name", tmp_path / "published", facts=facts)
    assert (published / "README.md").is_file()
