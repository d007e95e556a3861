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


def test_bundled_checkpoint_returns_its_folder(checkpoints):
    tiny_model().save_pretrained(checkpoints / "cbvila-b")
    tiny_processor().save_pretrained(checkpoints / "cbvila-b")
    folder = bundled_checkpoint("cbvila-b")
    assert isinstance(folder, str) and Path(folder) == checkpoints / "cbvila-b"
    assert AutoConfig.from_pretrained(folder).model_type == "cbvila"
    answers = pipeline("visual-question-answering", model=folder)(picture(), "red", answers=["yes", "no"])
    assert {answer["answer"] for answer in answers} == {"yes", "no"}


def test_bundled_checkpoints_are_folders_with_a_config(checkpoints):
    for name in ("cbvila-b", "cbvila-a", "not-a-checkpoint"):
        (checkpoints / name).mkdir()
    for name in ("cbvila-b", "cbvila-a"):
        (checkpoints / name / "config.json").write_text("{}")
    (checkpoints / "README.md").write_text("")
    assert bundled_checkpoints() == ["cbvila-a", "cbvila-b"]


@pytest.mark.parametrize("name", ["cbvila-huge", "", "..", "cbvila-a/../cbvila-a"])
def test_bundled_checkpoint_rejects_unknown_names(checkpoints, name):
    (checkpoints / "cbvila-a").mkdir()
    (checkpoints / "cbvila-a" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"choose one of cbvila-a$") as caught:
        bundled_checkpoint(name)
    assert repr(name) in str(caught.value)


def test_bundled_checkpoint_without_any(checkpoints):
    assert bundled_checkpoints() == []
    with pytest.raises(ValueError, match="none"):
        bundled_checkpoint("cbvila-tiny")


def test_bundled_folder_is_inside_the_package():
    assert Path(bundled.__file__).parent / "checkpoints" == bundled.CHECKPOINTS


def test_checkpoint_source_of_bundled_names_folders_and_others(checkpoints, tmp_path):
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
def test_checkpoint_source_asks_no_hub_for_invalid_ids(name, look_up, monkeypatch):
    monkeypatch.setattr(hub, "cached_file", None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    with pytest.raises(FileNotFoundError, match=r"is no folder and no bundled checkpoint \(cbvila-scenes,") as caught:
        look_up(name)
    assert len(str(caught.value)) < 300
    assert str(caught.value).endswith("; did you mean cbvila-tiny?") == (name == "cbvila-tinny")


def test_checkpoint_source_rejects_a_file():
    with pytest.raises(FileNotFoundError, match="is a file, no folder"):
        checkpoint_source(__file__)
