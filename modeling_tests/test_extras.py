"""require() imports optional packages."""

import configparser
import re
import shlex
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from transformers_cbvila import extras
from transformers_cbvila.extras import require, require_installed


def test_require_returns_an_installed_module():
    import matplotlib.figure

    assert require("matplotlib.figure") is matplotlib.figure


@pytest.mark.parametrize(
    ("module", "packages"),
    [
        ("faiss", ["faiss-cpu"]),
        ("peft", ["peft"]),
        ("gradio", ["gradio"]),
        ("timm", ["timm", "torchvision"]),
        ("onnxruntime", ["onnx", "onnxscript", "onnxruntime"]),
        ("datasets", ["datasets", "evaluate", "easy-vqa", "matplotlib"]),
    ],
)
def test_require_names_the_install_command(monkeypatch, module, packages):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"'{module}' is not installed.*: pip install ") as caught:
        require(module)
    with pytest.raises(ImportError, match=re.escape(str(caught.value))):
        require_installed(module)
    named = [Requirement(word).name for word in shlex.split(str(caught.value).partition("pip install ")[2])]
    assert named == packages


def test_require_uses_requirements_of_setup_cfg():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    for extra in set(extras._EXTRA_OF_MODULE.values()):
        lines = setup["options.extras_require"][extra].split()
        assert [Requirement(line) for line in lines] == [Requirement(text) for text in extras._requirements(extra)]


def test_require_without_distribution_names_the_package(monkeypatch):
    monkeypatch.setattr(extras, "_DISTRIBUTION", "no-such-distribution")
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(ImportError, match='pip install "easy-vqa"$'):
        require("easy_vqa")


def test_require_does_not_hide_failures_inside_a_package(monkeypatch, tmp_path):
    (tmp_path / "timm.py").write_text("import a_module_that_is_nowhere")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_nowhere"):
        require("timm")


def test_require_rejects_packages_of_no_extra():
    with pytest.raises(ValueError, match="'pandas'"):
        require("pandas")
