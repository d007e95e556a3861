"""Checkpoints with LG-VQ and class-guided codes train where this package is not."""

import json

import pytest
import torch
from publishable import run_offline
from safetensors.torch import load_file, save_file
from tiny import PATCHES, build, tiny_config, tiny_pairs, tiny_processor

from transformers_cbvila import CBViLAForPreTraining
from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.hub.checking import find_checkpoint
from transformers_cbvila.hub.staging import stage

ELSEWHERE = """
import json, sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForPreTraining
published, inputs, outputs = sys.argv[1:]
model = AutoModelForPreTraining.from_pretrained(published, trust_remote_code=True)
batch = load_file(inputs)
with torch.no_grad():
    known = model.eval()(**{n: v for n, v in batch.items() if n in ("pixel_values", "input_ids", "attention_mask")})
    output = model.train()(**batch)
losses = {name: value for name, value in output.losses.items()}
save_file({**losses, "indices": output.codebook_indices, "at inference": known.codebook_indices}, outputs)
print(json.dumps(model.cbvila.quantizer.label_agreement))
"""


@pytest.mark.slow
def test_published_relatives_train_without_the_package(tmp_path):
    config = tiny_config()
    config.quantizer_config = {"type": "class_guided", "size": 16, "dim": 8, "feature_layers": [1, 2]}
    config.objectives = {**config.objectives, "lgvq": {}, "sgc_consistency": {}}
    model = build(CBViLAForPreTraining, config)
    model.cbvila.quantizer.code_labels.copy_(torch.arange(16) % 3)
    model.cbvila.quantizer.label_counts.copy_(torch.tensor([3.0, 4.0]))
    model.save_pretrained(tmp_path / "original")
    tiny_processor().save_pretrained(tmp_path / "original")
    published = tmp_path / "published"
    published.mkdir()
    stage(find_checkpoint(tmp_path / "original"), "# card\n", published)
    batch = tiny_pairs()
    classes = torch.randint(-1, 3, (2, 4, PATCHES), generator=generator_for(1))
    batch |= {"masked_words": batch["mlm_labels"] != -100, "other_pixel_values": batch["pixel_values"].flip(-1)}
    batch |= {"token_classes": classes[0].contiguous(), "other_token_classes": classes[1].contiguous()}
    batch |= {"negative_image_index": torch.tensor([1, 0, 3, 2]), "negative_text_index": torch.tensor([1, 0, 3, 2])}
    save_file({name: value.contiguous() for name, value in batch.items()}, tmp_path / "inputs")
    printed = run_offline(ELSEWHERE, tmp_path, published, tmp_path / "inputs", tmp_path / "outputs")
    assert json.loads(printed.strip().splitlines()[-1]) == 0.75
    given = load_file(tmp_path / "outputs")
    with torch.no_grad():
        plain, expected = model(**tiny_pairs()), model.train()(**batch)
    assert torch.equal(given["indices"], expected.codebook_indices)
    assert torch.equal(given["at inference"], plain.codebook_indices)
    assert {"lgvq_semantic", "lgvq_masked_text", "lgvq_relation", "sgc_consistency"} <= set(given)
    for name, value in expected.losses.items():
        torch.testing.assert_close(given[name], value, msg=name)
