"""`export_towers.py` writes encoders as plain models of transformers."""

import pytest
import tiny
import torch
from command import run
from export_towers import check, main
from transformers import AutoImageProcessor, AutoTokenizer, BertModel, ViTModel

from transformers_cbvila import CBViLAForVisualEntailment, CBViLAModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tiny.build(CBViLAForVisualEntailment, text={"vocab_size": len(tiny.WORDS)}).save_pretrained(path)
    tiny.tiny_processor().save_pretrained(path)
    return path


def converted(*arguments):
    return run(main, "export_towers", [str(argument) for argument in arguments])


@torch.no_grad()
def test_export_text_tower_as_bert(folder, tmp_path, capsys):
    assert converted("--model", folder, "--tower", "text", "--output_dir", tmp_path / "bert") == 0
    assert "states within " in capsys.readouterr().out
    bert, tokenizer = BertModel.from_pretrained(tmp_path / "bert"), AutoTokenizer.from_pretrained(tmp_path / "bert")
    batch = tokenizer(["red half", "blue"], padding=True, return_tensors="pt")
    ours = CBViLAModel.from_pretrained(folder).text_model(batch["input_ids"], batch["attention_mask"])
    theirs, real = bert(**batch), batch["attention_mask"].bool()
    torch.testing.assert_close(theirs.last_hidden_state[real], ours.last_hidden_state[real], atol=1e-5, rtol=0)


@torch.no_grad()
def test_export_vision_tower_as_vit(folder, tmp_path):
    assert converted("--model", folder, "--tower", "vision", "--output_dir", tmp_path / "vit") == 0
    vit, processor = ViTModel.from_pretrained(tmp_path / "vit"), AutoImageProcessor.from_pretrained(tmp_path / "vit")
    image = tiny.half_image("red", "left", size=50)
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    # With torchvision, where it is installed, within one of 255 levels, as everywhere in transformers.
    own = tiny.tiny_processor()(images=image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels, own, atol=1.01 / 255 / 0.26, rtol=0)
    ours = CBViLAModel.from_pretrained(folder).vision_model(pixels).last_hidden_state
    torch.testing.assert_close(vit(pixels).last_hidden_state, ours, atol=1e-5, rtol=0)


def test_export_check_finds_another_tower(folder, tmp_path):
    assert converted("--model", folder, "--tower", "text", "--output_dir", tmp_path / "bert") == 0
    tower = CBViLAModel.from_pretrained(folder).text_model.eval()
    with torch.no_grad():
        tower.embeddings.layernorm.bias[0] += 1e-3
    with pytest.raises(ValueError, match="The text encoder's states differ"):
        check(tower, tmp_path / "bert")


def test_export_rejects_other_models_and_options(folder, tmp_path, capfd):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    options = "--tower", "text", "--output_dir", tmp_path / "out"
    assert converted("--model", tmp_path, *options) == 1
    error = capfd.readouterr().err
    assert "is no folder of a CB-ViLA model" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
