from pathlib import Path

import pytest
from tiny_vqa import picture, tiny_model, tiny_processor
from transformers import AutoConfig, pipeline

from transformers_cbvila import bundled, bundled_checkpoint, bundled_checkpoints
from transformers_cbvila.bundled import checkpoint_source


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "CHECKPOINTS", tmp_path)
    return tmp_path


def test_folder_of_a_checkpoint(checkpoints):
    tiny_model().save_pretrained(checkpoints / "cbvila-b")
    tiny_processor().save_pretrained(checkpoints / "cbvila-b")
    folder = bundled_checkpoint("cbvila-b")
    assert isinstance(folder, str) and Path(folder) == checkpoints / "cbvila-b"
    assert AutoConfig.from_pretrained(folder).model_type == "cbvila"
    answers = pipeline("visual-question-answering", model=folder)(picture(), "red", answers=["yes", "no"])
    assert {answer["answer"] for answer in answers} == {"yes", "no"}


def test_names_are_the_folders_with_a_configuration(checkpoints):
    for name in ("cbvila-b", "cbvila-a", "not-a-checkpoint"):
        (checkpoints / name).mkdir()
    for name in ("cbvila-b", "cbvila-a"):
        (checkpoints / name / "config.json").write_text("{}")
    (checkpoints / "README.md").write_text("")
    assert bundled_checkpoints() == ["cbvila-a", "cbvila-b"]


@pytest.mark.parametrize("name", ["cbvila-huge", "", "..", "cbvila-a/../cbvila-a"])
def test_unknown_name(checkpoints, name):
    (checkpoints / "cbvila-a").mkdir()
    (checkpoints / "cbvila-a" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"choose one of cbvila-a$") as caught:
        bundled_checkpoint(name)
    assert repr(name) in str(caught.value)


def test_none_there(checkpoints):
    assert bundled_checkpoints() == []
    with pytest.raises(ValueError, match="none"):
        bundled_checkpoint("cbvila-tiny")


def test_folder_is_inside_the_package():
    assert Path(bundled.__file__).parent / "checkpoints" == bundled.CHECKPOINTS


def test_a_checkpoint_is_bundled_or_a_folder_or_told_to_be_neither(checkpoints, tmp_path):
    for folder in ("cbvila-b", "mine"):
        tiny_model().save_pretrained(checkpoints / folder)
    assert checkpoint_source("cbvila-b") == str(checkpoints / "cbvila-b")
    assert checkpoint_source(str(tmp_path / "mine")) == str(tmp_path / "mine")
    for name in ("nowhere", "nobody/nothing", "./nowhere"):
        with pytest.raises(
            OSError, match=rf"^{name} is no folder and no bundled checkpoint \(cbvila-b, .*from the Hub: "
        ):
            checkpoint_source(name)
