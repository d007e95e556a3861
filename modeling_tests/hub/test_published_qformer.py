"""A published Q-Former has its own Auto classes, and loads and trains where this package is not."""

import json

import pytest
import torch
from publishable import run_offline, staged
from safetensors.torch import load_file, save_file
from tiny import tiny_images, tiny_texts
from tiny_qformer import build_qformer

from transformers_cbvila import CBViLAForQFormerPreTraining

ELSEWHERE = """
import sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForPreTraining, AutoProcessor
published, inputs, outputs = sys.argv[1:]
model = AutoModelForPreTraining.from_pretrained(published, trust_remote_code=True)
batch = load_file(inputs)
with torch.no_grad():
    plain = model.eval()(**batch)
losses = model.train()(**batch, negative_seed=3).losses
sum(losses.values()).backward()
frozen = [p.requires_grad or p.grad is not None for p in model.vision_model.parameters()]
assert not any(frozen) and model.qformer.embeddings.query_tokens.grad is not None
qformer = AutoModel.from_pretrained(published, trust_remote_code=True)
assert type(qformer).__name__ == "CBViLAQFormerModel", type(qformer)
assert type(AutoProcessor.from_pretrained(published, trust_remote_code=True)).__name__ == "CBViLAProcessor"
save_file({"similarity": plain.logits_per_image.contiguous(), **{n: v.detach() for n, v in losses.items()}}, outputs)
"""


def test_stage_names_the_auto_classes_of_a_qformer(tmp_path):
    folder = staged(CBViLAForQFormerPreTraining, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_cbvila_qformer.CBViLAQFormerConfig",
        "AutoModel": "modeling_cbvila_qformer.CBViLAQFormerModel",
        "AutoModelForPreTraining": "modeling_cbvila_qformer_pretraining.CBViLAForQFormerPreTraining",
    }
    for reference in config["auto_map"].values():
        assert (folder / f"{reference.partition('.')[0]}.py").is_file()


@pytest.mark.slow
def test_published_qformer_trains_without_the_package(tmp_path):
    published = staged(CBViLAForQFormerPreTraining, tmp_path)
    batch = {"pixel_values": tiny_images(), **tiny_texts()}
    save_file(batch, tmp_path / "inputs")
    run_offline(ELSEWHERE, tmp_path, published, tmp_path / "inputs", tmp_path / "outputs")
    given, model = load_file(tmp_path / "outputs"), build_qformer(CBViLAForQFormerPreTraining)
    with torch.no_grad():
        torch.testing.assert_close(given["similarity"], model(**batch).logits_per_image)
        for name, value in model.train()(**batch, negative_seed=3).losses.items():
            torch.testing.assert_close(given[name], value, msg=name)
