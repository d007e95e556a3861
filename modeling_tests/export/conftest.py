"""Exports that a file's tests share: half a minute for each on a core."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import tiny_vqa

from transformers_cbvila import CBViLAForPreTraining, export_onnx


def saved(model, processor, folder):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def searching_model(tmp_path_factory):
    """The folder of a pretrained model whose searches re-rank by matching and similarity."""
    config = tiny.tiny_config(rerank_k=4, similarity_weight=0.5)
    model = tiny.build(CBViLAForPreTraining, config)
    return saved(model, tiny.tiny_processor(), tmp_path_factory.mktemp("searching"))


@pytest.fixture(scope="session")
def answering_model(tmp_path_factory):
    return saved(tiny_vqa.tiny_model(), tiny_vqa.tiny_processor(), tmp_path_factory.mktemp("answering"))


@pytest.fixture(scope="session")
def searching_export(searching_model):
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    return export_onnx(searching_model, searching_model / "onnx", int8=True)


@pytest.fixture(scope="session")
def answering_export(answering_model):
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    return export_onnx(answering_model, answering_model / "onnx", int8=True)


@pytest.fixture
def without_torch():
    """Runs a script in a process where torch and transformers cannot be imported; returns what it prints as JSON."""

    def run(script):
        begin = 'import sys, json\nsys.modules["torch"] = sys.modules["transformers"] = None\n'
        done = subprocess.run([sys.executable, "-c", begin + script], capture_output=True, text=True, cwd=Path.cwd())
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
