"""Batches of one pair: every quantizer and objective takes them, where there is nothing to compare with."""

import pytest
import torch
from tiny import PATCHES, tiny_images, tiny_pairs
from tiny_quantizers import latents_of, visual_tokens
from tiny_relatives import RELATIVES, model_of
from tiny_trainer import pretrainer, step_logs

from transformers_cbvila.data.masking import generator_for


def one_pair():
    batch = tiny_pairs(1)
    return batch | {"masked_words": batch["mlm_labels"] != -100}


@pytest.mark.parametrize("name", RELATIVES)
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
