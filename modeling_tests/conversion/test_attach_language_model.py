"""A checkpoint without its language model and tokenizer becomes a folder that the pipeline takes."""

import json

import attach_language_model
import command
import pytest
import torch
from PIL import Image
from tiny_language import language_tokenizer, prompts, save_language_model, save_vision_model
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

from transformers_cbvila import CBViLAForConditionalGeneration, CBViLAImageProcessorPil


@pytest.fixture
def bare(tmp_path):
    """A model, and its folder with weights and image processor alone, whose language model is nowhere."""
    folders = save_vision_model(tmp_path / "vision"), save_language_model(tmp_path / "language")
    model = CBViLAForConditionalGeneration.from_vision_language_pretrained(*folders)
    model.save_pretrained(tmp_path / "bare")
    CBViLAImageProcessorPil.from_pretrained(folders[0]).save_pretrained(tmp_path / "bare")
    file = tmp_path / "bare" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"language_model": "nobody/nothing"}))
    return model, tmp_path


def run(folder, *more):
    arguments = ["--model", str(folder / "bare"), "--language_model", str(folder / "language")]
    return command.run(
        attach_language_model.main, "attach", [*arguments, "--output_dir", str(folder / "whole"), *more]
    )


def test_folder_computes_the_same_and_loads_by_auto_classes_and_pipeline(bare, monkeypatch):
    model, folder = bare
    monkeypatch.chdir(folder)
    arguments = ["--model", "bare", "--language_model", "language", "--output_dir", "whole"]
    assert command.run(attach_language_model.main, "attach", arguments) == 0
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    loaded, processor = (auto.from_pretrained("../whole") for auto in (AutoModelForImageTextToText, AutoProcessor))
    torch.testing.assert_close(loaded(**prompts()).logits, model(**prompts()).logits)
    assert processor.num_image_tokens == 2 and processor.image_token_id == model.config.image_token_id
    picture = Image.new("RGB", (20, 20), "red")
    describe = pipeline("image-text-to-text", model="../whole")
    assert describe(picture, "<image> this is", max_new_tokens=3)[0]["generated_text"].startswith("<image> this is")


def test_another_language_model_is_an_error(bare, capsys):
    _, folder = bare
    longer = language_tokenizer()
    longer.add_tokens(["more"])
    longer.save_pretrained(folder / "language")
    assert run(folder) == 1 and "trained for another language model" in capsys.readouterr().err
    assert not (folder / "whole").exists()


def test_existing_folder_is_kept(bare, capsys):
    _, folder = bare
    (folder / "whole").mkdir()
    (folder / "whole" / "config.json").write_text("{}")
    assert run(folder) == 1 and "--overwrite" in capsys.readouterr().err
    assert run(folder, "--overwrite") == 0
