"""What a Space is to hold is found and checked before anything is written."""

import re

import pytest
from space_models import SAID, save_model, save_pictures, save_run

from transformers_cbvila import CBViLAForVisualEntailment
from transformers_cbvila.app import models as app_models
from transformers_cbvila.hub import outside_classes
from transformers_cbvila.space import contents
from transformers_cbvila.space.contents import find_contents


def test_models_are_called_what_the_space_calls_them(tmp_path):
    first = save_model(tmp_path / "a" / "model")
    found = find_contents([first, str(save_run(tmp_path / "model"))]).models
    assert [model.name for model in found] == ["models/model", "models/model-2"]
    assert [model.use for model in found] == ["searches", "answers questions"]
    assert [model.checkpoint.folder for model in found] == [first, tmp_path / "model" / "model"]
    assert {model.facts.limits for model in found} == {"It knows nothing."}


def test_a_folder_is_called_by_its_name_wherever_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(save_model(tmp_path / "birds"))
    assert [model.name for model in find_contents(["."]).models] == ["models/birds"]


def test_bundled_checkpoints_keep_their_names():
    found = find_contents(["cbvila-tiny", "cbvila-tiny-easyvqa"]).models
    assert [model.name for model in found] == ["cbvila-tiny", "cbvila-tiny-easyvqa"]
    assert all(model.is_bundled and model.facts.license == "apache-2.0" for model in found)


def test_models_on_the_hub_stay_there(tmp_path, monkeypatch):
    folder = str(save_model(tmp_path / "cached"))
    monkeypatch.setattr(app_models, "checkpoint_source", {"org/birds": folder}.__getitem__)
    (found,) = find_contents(["org/birds"]).models
    assert (found.name, found.use, found.checkpoint, found.facts) == ("org/birds", "searches", None, None)


def test_pictures_that_cannot_be_read_are_left_out(tmp_path):
    pictures = find_contents(["cbvila-tiny"], save_pictures(tmp_path / "pictures")).pictures
    assert [item.name for item in pictures.items] == ["deep/red again.png", "red.png"]
    assert pictures.left_out == ["broken.png"]
    assert find_contents(["cbvila-tiny"]).pictures is None


@pytest.mark.parametrize("missing", [{"license"}, {"limits"}, {"license", "limits"}])
def test_a_model_in_a_folder_needs_licence_and_limits(missing, tmp_path):
    folder = save_model(tmp_path / "model", said={key: value for key, value in SAID.items() if key not in missing})
    said = f"has to say {' and '.join(sorted(missing))} of {folder}, .*write them to {folder / 'facts.yaml'}"
    with pytest.raises(ValueError, match=said):
        find_contents([folder])


@pytest.mark.parametrize(
    "models, images, error, complaint",
    [
        (["cbvila-tinny"], None, FileNotFoundError, "did you mean cbvila-tiny"),
        (["cbvila-tiny", "cbvila-scenes"], None, ValueError, "cbvila-scenes: another model that was named before"),
        (["entailment"], None, ValueError, "CBViLAForVisualEntailment, which the app has no use for"),
        (["empty"], None, ValueError, "empty is no model folder: it has no config.json"),
        (["cbvila-tiny"], "nowhere", ValueError, "--images 'nowhere' is no folder"),
        (["cbvila-tiny"], "empty", ValueError, "The folder 'empty' has no image"),
        (["cbvila-tiny"], "broken", ValueError, "None of the 1 pictures in 'broken' can be read"),
    ],
)
def test_what_cannot_be_on_a_space_is_refused(models, images, error, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "broken.png").write_bytes(b"no picture")
    if "entailment" in models:
        save_model(tmp_path / "entailment", CBViLAForVisualEntailment)
    with pytest.raises(error, match=re.escape(complaint)):
        find_contents(models, images)


def test_classes_from_outside_the_package_are_refused(tmp_path, monkeypatch):
    mine = outside_classes.OutsideClass("quantizer", "mine", type("Mine", (), {}))
    monkeypatch.setattr(contents, "outside_classes", lambda config: [mine])
    with pytest.raises(ValueError, match="The quantizer 'mine' .* cannot be published: a Space has the classes"):
        find_contents([save_model(tmp_path / "model")])
