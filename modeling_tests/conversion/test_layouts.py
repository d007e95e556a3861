"""Layouts map every weight of the original models to one of ours."""

import pytest
from bert_layout import BertName, bert_name
from transformers import BertConfig, BertForPreTraining, ViTConfig, ViTModel
from vit_layout import timm_names, transformers_names

from transformers_cbvila import CBViLATextConfig, CBViLATextModel, CBViLAVisionConfig, CBViLAVisionModel

SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
VISION = CBViLAVisionModel(CBViLAVisionConfig(**SIZES, image_size=32)).state_dict().keys()


def test_transformers_names_cover_current_vit():
    model = ViTModel(ViTConfig(**SIZES, image_size=32), add_pooling_layer=False)
    assert sorted(name for key in model.state_dict() for name in transformers_names(key)) == sorted(VISION)


def test_transformers_names_cover_older_vit():
    parts = {
        "attention.attention.query": "attention.q_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "layernorm_before": "layernorm_before",
    }
    for old, ours in parts.items():
        assert transformers_names(f"encoder.layer.11.{old}.bias") == (f"layers.11.{ours}.bias",)
    for key in (
        "encoder.layer.0.attention.q_proj.bias",
        "layers.0.output.dense.bias",
        "pooler.dense.weight",
        "layers",
    ):
        assert transformers_names(key) == ()


def test_timm_names_cover_timm_vit():
    keys = ["cls_token", "pos_embed"]
    modules = ["patch_embed.proj", "norm"]
    for block in range(2):
        parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        modules += [f"blocks.{block}.{part}" for part in parts]
    keys += [f"{module}.{ending}" for module in modules for ending in ("weight", "bias")]
    assert sorted(name for key in keys for name in timm_names(key)) == sorted(VISION)
    assert timm_names("blocks.3.attn.qkv.bias") == tuple(f"layers.3.attention.{x}_proj.bias" for x in "qkv")
    assert timm_names("head.weight") == timm_names("blocks.0.ls1.gamma") == ()


def test_bert_name_covers_bert():
    model = BertForPreTraining(BertConfig(**SIZES, vocab_size=20))
    found = {key: bert_name(key.removeprefix("bert.")) for key in model.state_dict()}
    ours = CBViLATextModel(CBViLATextConfig(**SIZES, vocab_size=20)).state_dict()
    assert sorted(
        f"embeddings.{name.name}" if name.part == "embeddings" else f"layers.{name.layer}.{name.name}"
        for name in found.values()
        if name and name.part != "head"
    ) == sorted(ours)
    assert {key for key, name in found.items() if name is None} == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "cls.seq_relationship.weight",
        "cls.seq_relationship.bias",
        "cls.predictions.decoder.weight",
        "cls.predictions.decoder.bias",
    }


@pytest.mark.parametrize(
    "key, name",
    [
        ("embeddings.LayerNorm.gamma", BertName("embeddings", -1, "layernorm.weight")),
        ("encoder.layer.10.output.LayerNorm.beta", BertName("layer", 10, "output_layernorm.bias")),
        ("encoder.layer.0.crossattention.self.key.weight", BertName("layer", 0, "crossattention.k_proj.weight")),
        ("cls.predictions.transform.LayerNorm.gamma", BertName("head", -1, "layernorm.weight")),
        ("cls.predictions.bias", BertName("head", -1, "decoder.bias")),
        ("encoder.layer.0.attention.self.distance_embedding.weight", None),
    ],
)
def test_bert_name_reads_tensorflow_and_albef_keys(key, name):
    assert bert_name(key) == name
