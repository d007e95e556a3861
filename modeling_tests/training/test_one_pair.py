"""Batches of one pair: every quantizer and objective takes them, where there is nothing to compare with."""

import pytest
import torch
from tiny import PATCHES, pretraining_model, tiny_config, tiny_images, tiny_pairs
from tiny_quantizers import latents_of, visual_tokens
from tiny_trainer import pretrainer, step_logs

from transformers_cbvila.data.masking import generator_for

GUIDED = {"type": "class_guided", "size": 16, "dim": 8}
MODELS = {
    "adaptive": {"quantizer_config": {"type": "adaptive", "tables": [[8, 8], [16, 4]]}},
    "raq": {"objectives": {"raq": {}}},
    "lgvq": {"objectives": {"lgvq": {}}},
    "class_guided": {"quantizer_config": GUIDED, "objectives": {"sgc_consistency": {}}},
    "soft targets": {"objectives": {"itc": {"targets": "soft"}}},
    "as in the blog": {"objectives": {"itc": {"targets": "soft", "compat": "blog"}}},
    "albef": {"preset": "albef"},
    "codis": {"preset": "codis", "objectives": {"codis": {"num_codes": 4}}},
}


def model_of(name):
    fields = MODELS[name]
    config = tiny_config(fields.get("preset", "recommended"))
    config.quantizer_config = fields.get("quantizer_config", config.quantizer_config)
    config.objectives = {**config.objectives, **fields.get("objectives", {})}
    return pretraining_model(config)


def one_pair():
    batch = tiny_pairs(1)
    return batch | {"masked_words": batch["mlm_labels"] != -100}


@pytest.mark.parametrize("name", MODELS)
def test_one_pair_has_finite_losses_and_gradients(name):
    model, batch = model_of(name).train(), one_pair()
    if name == "class_guided":
        quantizer = model.cbvila.quantizer
        quantizer.fit(latents_of(quantizer, visual_tokens(8, seed=9)), generator_for(1), 1.0)
        classes = torch.arange(PATCHES).unsqueeze(0) % 3
        batch |= {"token_classes": classes, "other_token_classes": classes, "other_pixel_values": tiny_images(1)}
    output = model(**batch)
    output.loss.backward()
    assert all(loss.isfinite() for loss in output.losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    compare = {"itc", "itm", "adq_balance", "lgvq_semantic"} & output.losses.keys()
    assert all(output.losses[term].abs() < 1e-5 for term in compare)


@pytest.mark.parametrize("name", ["albef", "codis", "soft targets"])
def test_a_last_batch_of_one_pair_is_compared_with_the_queue(name, tmp_path):
    options = {"momentum_distill": 0.4, "queue_size": 4, "train_sampling_strategy": "sequential"}
    trainer = pretrainer(tmp_path, model=model_of(name), rows=3, max_steps=2, codebook_init=False, **options)
    trainer.train()
    log = step_logs(trainer)[-1]
    assert log["loss_codis_instance" if name == "codis" else "loss_itc"] > 0 and log["loss_itm"] == 0
