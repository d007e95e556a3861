"""`init_from_pretrained.py` on small ViTs and BERTs, against the originals."""

import sys
from dataclasses import replace

import pytest
import tiny
import torch
from command import run
from equal_tensors import assert_equal_tensors, assert_equal_weights
from init_from_pretrained import main
from safetensors.torch import load_file, save_file
from text_source import chosen_layers, text_source
from transformers import BertConfig, BertForPreTraining, ViTConfig, ViTForImageClassification, set_seed
from vision_source import timm_source, vision_source

from transformers_cbvila import CBViLAForPreTraining, CBViLAProcessor

SIZES = {"num_attention_heads": 4, "intermediate_size": 48}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A folder with a ViT of 3 layers (32 px) and a BERT of 4 with tiny's vocabulary, weights large."""
    folder = tmp_path_factory.mktemp("originals")
    set_seed(0)
    vit = ViTForImageClassification(
        ViTConfig(hidden_size=32, num_hidden_layers=3, image_size=32, patch_size=8, **SIZES)
    )
    words = {"vocab_size": len(tiny.WORDS), "max_position_embeddings": 16}
    bert = BertForPreTraining(BertConfig(hidden_size=24, num_hidden_layers=4, **SIZES, **words))
    for model, name in ((vit, "vit"), (bert, "bert")):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(folder / name)
    tiny.tiny_processor().tokenizer.save_pretrained(folder / "bert")
    return folder


def converted(*arguments):
    return run(main, "init_from_pretrained", [str(argument) for argument in arguments])


def test_init_from_pretrained_equals_originals(originals, tmp_path, capsys):
    out = tmp_path / "out"
    options = "--vision", originals / "vit", "--text", originals / "bert", "--output_dir", out, "--image_size", 64
    assert converted(*options) == 0
    printed = capsys.readouterr().out
    assert "Image encoder: within " in printed and "of BertModel, fp64" in printed
    model, vit = CBViLAForPreTraining.from_pretrained(out), load_file(originals / "vit" / "model.safetensors")
    bert = load_file(originals / "bert" / "model.safetensors")
    assert model.config.vision_config.layer_norm_eps == 1e-12  # transformers' ViT's
    assert model.cbvila.vision_model.embeddings.position_embeddings.shape == (1, 1 + 64, 32)
    assert torch.equal(model.cbvila.vision_model.embeddings.cls_token, vit["vit.embeddings.cls_token"])
    for ours, theirs in ((model.cbvila.text_model, 0), (model.cbvila.fusion_model, 2)):
        for layer in range(2):
            weight = bert[f"bert.encoder.layer.{theirs + layer}.output.dense.weight"]
            assert torch.equal(ours.layers[layer].mlp.fc2.weight, weight)
    assert torch.equal(model.objectives["mlm"].head.dense.weight, bert["cls.predictions.transform.dense.weight"])
    fresh = [line.split()[2] for line in printed.splitlines() if line.startswith("fresh")]
    assert [name for name in fresh if name.startswith("cbvila.fusion_model.layers.1.crossattention.q_proj")]
    whole = ("objectives.mlm.", "cbvila.text_model", "cbvila.vision_model")
    assert not [name for name in fresh if name.startswith(whole)]
    batch = CBViLAProcessor.from_pretrained(out)(images=tiny.half_image("red", "top"), text="red", return_tensors="pt")
    assert model.cbvila(**batch).last_hidden_state.shape == (1, 3, 24)


def test_vision_source_reads_new_and_old_key_names(originals, tmp_path):
    source = vision_source(str(originals / "vit"))
    tensors = load_file(originals / "vit" / "model.safetensors")
    renamed = {
        "encoder.layer.": "layers.",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    other = {}
    for key, value in tensors.items():
        for a, b in renamed.items() if "encoder.layer." in key else [(b, a) for a, b in renamed.items()]:
            key = key.replace(a, b)
        other[key] = value
    assert other.keys() != tensors.keys()
    (tmp_path / "config.json").write_text((originals / "vit" / "config.json").read_text())
    save_file(other, tmp_path / "model.safetensors")
    again = vision_source(str(tmp_path))
    first, second = ({k: s.layout(32)(k) for k in s.tensors} for s in (source, again))
    assert {step.targets for step in first.values()} == {step.targets for step in second.values()}


def timm_tensors(originals):
    """The ViT's weights with timm's names."""
    tensors = {k.removeprefix("vit."): v for k, v in load_file(originals / "vit" / "model.safetensors").items()}
    source = vision_source(str(originals / "vit"))
    ours = {source.names(key)[0]: value for key, value in tensors.items() if source.names(key)}
    found = {"head.weight": torch.ones(2, 32)}
    for name, value in ours.items():
        parts = name.replace("layernorm_before", "norm1").replace("layernorm_after", "norm2")
        parts = parts.replace("attention.o_proj", "attn.proj").replace("layernorm.", "norm.")
        parts = parts.replace("layers.", "blocks.").replace("embeddings.patch_embedding", "patch_embed.proj")
        parts = parts.replace("embeddings.position_embeddings", "pos_embed").replace("embeddings.", "")
        if "attention." not in parts:
            found[parts] = value
        elif "q_proj" in parts:
            rows = [ours[name.replace("q_proj", f"{x}_proj")] for x in "qkv"]
            found[parts.replace("attention.q_proj", "attn.qkv")] = torch.cat(rows)
    return found


def test_init_from_timm_file_gives_the_same_tower(originals, tmp_path, capsys):
    save_file(timm_tensors(originals), tmp_path / "vit.safetensors")
    base = "--text", originals / "bert", "--image_size", 32, "--no_processor"
    heads = "--vision_heads", 4
    assert converted("--vision", originals / "vit", "--output_dir", tmp_path / "a", *base) == 0
    assert converted("--vision", tmp_path / "vit.safetensors", "--output_dir", tmp_path / "b", *base, *heads) == 0
    first, second = (CBViLAForPreTraining.from_pretrained(tmp_path / name) for name in "ab")
    assert second.config.vision_config.layer_norm_eps == 1e-6  # timm's
    assert_equal_weights(first, second)


def test_timm_source_check_uses_timm(originals):
    pytest.importorskip("timm")
    source = timm_source(timm_tensors(originals), heads=4)
    assert source.check() <= 1e-9
    source.tensors["norm.bias"] = source.tensors["norm.bias"] + 1e-3
    with pytest.raises(ValueError, match="The image encoder's states differ"):
        replace(source, original=timm_source(timm_tensors(originals), heads=4).original).check()


def test_timm_source_without_timm_notes_it(originals, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    source = timm_source(timm_tensors(originals), heads=4)
    assert source.check() is None and "timm is not installed" in source.notes[0]
    with pytest.raises(ImportError, match="pip install .*timm"):
        vision_source("timm:vit_base_patch16_224")


def test_init_from_tensorflow_bert_key_names(originals, tmp_path, capsys):
    tensors = load_file(originals / "bert" / "model.safetensors")
    tensors = {k.replace("LayerNorm.weight", "LayerNorm.gamma"): v for k, v in tensors.items()}
    tensors = {k.replace("LayerNorm.bias", "LayerNorm.beta"): v for k, v in tensors.items()}
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text((originals / "bert" / "config.json").read_text())
    save_file(tensors, tmp_path / "bert" / "model.safetensors")
    base = "--vision", originals / "vit", "--no_processor", "--image_size", 32, "--output_dir"
    assert converted(*base, tmp_path / "a", "--text", originals / "bert") == 0
    assert converted(*base, tmp_path / "b", "--text", tmp_path / "bert") == 0
    first, second = (CBViLAForPreTraining.from_pretrained(tmp_path / name).state_dict() for name in "ab")
    assert_equal_tensors(first, second)


def test_init_chosen_layers_are_checked_against_bert(originals, tmp_path, capsys):
    options = "--vision", originals / "vit", "--text", originals / "bert", "--output_dir", tmp_path / "out"
    assert converted(*options, "--text_layers", "0,3", "--fusion_layers", "1-1", "--no_processor") == 0
    assert "layer 2 was not chosen" in capsys.readouterr().out
    model = CBViLAForPreTraining.from_pretrained(tmp_path / "out")
    weight = load_file(originals / "bert" / "model.safetensors")["bert.encoder.layer.3.output.dense.weight"]
    assert torch.equal(model.cbvila.text_model.layers[1].mlp.fc2.weight, weight)
    assert model.config.multimodal_config.num_hidden_layers == 1
    source = text_source(str(originals / "bert"), "0,3", "1-1")
    with torch.no_grad():
        assert source.check(model) <= 1e-9
        model.cbvila.fusion_model.layers[0].mlp.fc1.bias[0] += 1e-3
    with pytest.raises(ValueError, match=r"The text encoder's states differ from the original's by up to"):
        source.check(model)


def test_vision_source_check_finds_another_vit(originals):
    source = vision_source(str(originals / "vit"))
    assert source.check() <= 1e-9
    source.tensors["layernorm.bias"] = source.tensors["layernorm.bias"] + 1e-3
    with pytest.raises(ValueError, match="The image encoder's states differ from the original's by up to 1.0e-03"):
        source.check()


@pytest.mark.parametrize(
    "text, fusion, layers, expected",
    [
        (None, None, 12, (tuple(range(6)), tuple(range(6, 12)))),
        (None, None, 5, ((0, 1), (2, 3, 4))),
        ("4", "2", 12, ((0, 1, 2, 3), (4, 5))),
        ("0-2,5", "6-7", 8, ((0, 1, 2, 5), (6, 7))),
        ("3", None, 4, ((0, 1, 2), (3,))),
    ],
)
def test_chosen_layers_of_text_and_fusion(text, fusion, layers, expected):
    assert chosen_layers(text, fusion, layers) == expected


@pytest.mark.parametrize(
    "text, fusion, complaint",
    [
        ("5", None, r"--text_layers are \[0, 1, 2, 3, 4\]; BERT has the layers 0 to 3"),
        ("4", None, r"--fusion_layers are \[\]"),
        ("0,1", "1-2", "Layer 1 is chosen twice"),
        ("0,0", "1-2", "Layer 0 is chosen twice"),
        ("some", None, "'some' names no layers"),
        ("3-1", None, r"--text_layers are \[\]"),
    ],
)
def test_chosen_layers_rejects_impossible_layers(text, fusion, complaint):
    with pytest.raises(ValueError, match=complaint):
        chosen_layers(text, fusion, 4)


def test_init_from_pretrained_rejects_other_models_and_options(originals, tmp_path, capfd):
    vit, bert, out = originals / "vit", originals / "bert", tmp_path / "out"
    positions = torch.ones(1, 6, 64)
    distilled = {"pos_embed": positions, "patch_embed.proj.weight": torch.ones(64, 3, 8, 8)}
    save_file(distilled | {"blocks.0.mlp.fc1.weight": torch.ones(2, 64)}, tmp_path / "distilled.safetensors")
    save_file({"a": positions}, tmp_path / "other.safetensors")
    for vision, text, complaint in (
        (bert, bert, "is a model of type 'bert'; the image encoder is a ViT"),
        (vit, vit, "is a model of type 'vit'; the text encoder is a BERT"),
        (tmp_path / "distilled.safetensors", bert, "pos_embed has 6 rows"),
        (tmp_path / "other.safetensors", bert, "no ViT with timm's names: 'pos_embed' is not among"),
        (tmp_path / "nowhere", bert, "nowhere is no file or folder, and it cannot be loaded from the Hub"),
        (vit, tmp_path, "has no readable config.json"),
    ):
        assert converted("--vision", vision, "--text", text, "--output_dir", out) == 1
        error = capfd.readouterr().err
        assert complaint in error and error.count("\n") == 1 and not out.exists()
    assert converted("--vision", vit, "--text", bert, "--output_dir", out, "--image_size", 30) == 1
    assert "image_size 30 is not a multiple" in capfd.readouterr().err and not out.exists()
