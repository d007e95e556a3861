"""The notebooks of examples/ run from a clone's first day: with what is bundled, and without a network."""

import json

import matplotlib.pyplot as plt
import pytest
from extending import EXAMPLES

NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("Agg")
    notebook = json.loads(path.read_text())
    names: dict[str, object] = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None, "outputs are not committed"
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
    plt.close("all")


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 3
