from pathlib import Path

import huggingface_hub
import pytest
from tiny_vqa import picture, tiny_model, tiny_processor
from transformers import AutoConfig, pipeline
from transformers.utils import hub

from transformers_cbvila import CBViLARetriever, bundled, bundled_checkpoint, bundled_checkpoints
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
    with pytest.raises(OSError, match=r"'nobody/nothing' is no folder .*\(cbvila-b, .*loaded from the Hub: "):
        checkpoint_source("nobody/nothing")


@pytest.mark.parametrize(
    "name", ["cbvila-tinny", "./nowhere", "/no/where", "a/b/c", "bert", "", "\0", "x" * 5000, "~/model"]
)
@pytest.mark.parametrize("look_up", [checkpoint_source, CBViLARetriever.from_pretrained])
def test_a_name_that_can_be_no_hub_id_asks_nobody(name, look_up, monkeypatch):
    monkeypatch.setattr(hub, "cached_file", None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    with pytest.raises(FileNotFoundError, match=r"is no folder and no bundled checkpoint \(cbvila-tiny,") as caught:
        look_up(name)
    assert len(str(caught.value)) < 300
    assert str(caught.value).endswith("; did you mean cbvila-tiny?") == (name == "cbvila-tinny")


def test_a_file_is_no_checkpoint():
    with pytest.raises(FileNotFoundError, match="is a file, no folder"):
        checkpoint_source(__file__)
