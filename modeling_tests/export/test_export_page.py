"""The code of docs/export.md runs, and its tables are those of the code."""

import re
from pathlib import Path

import pytest
from code_blocks import code_blocks

from transformers_cbvila.export.graphs import GRAPHS, Graph

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text()


def test_export_page_runs(answering_export, searching_export, capsys, monkeypatch, tmp_path):
    (code,) = code_blocks(PAGE)
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/easyvqa-onnx").symlink_to(answering_export)
    Path("runs/tiny-onnx").symlink_to(searching_export)
    exec(code.replace("a green picture", "green half"), {})  # words of the tiny vocabulary
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("name", sorted({graph.name for graphs in GRAPHS.values() for graph in graphs}))
def test_export_page_describes_every_graph(name):
    assert re.search(rf"^\| `{name}` \| ", PAGE, flags=re.MULTILINE)
    (kind,) = (kind for kind in Graph.__subclasses__() if kind.name == name)
    for argument in list(kind.forward.__annotations__)[:-1]:
        assert f"`{argument}`" in PAGE
