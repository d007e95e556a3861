"""The helper that imports optional packages."""

import sys

import pytest

from transformers_cbvila.extras import require


def test_installed_module_is_returned():
    import matplotlib.figure

    assert require("matplotlib.figure") is matplotlib.figure


def test_missing_package_names_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r'pip install "transformers-cbvila\[faiss\]"'):
        require("faiss")


def test_failure_inside_an_installed_package_is_not_hidden(monkeypatch, tmp_path):
    (tmp_path / "timm.py").write_text("import a_module_that_is_nowhere")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_nowhere"):
        require("timm")


def test_package_of_no_extra_is_an_error():
    with pytest.raises(ValueError, match="'pandas'"):
        require("pandas")
