"""Outputs of converted ALBEF checkpoints equal those of ALBEF, in fp32 and fp64."""

import albef_fixtures
import pytest
import torch
import torch.nn.functional as F
from convert_albef import convert

from transformers_cbvila.model.configuration_cbvila import CBViLAConfig
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-9}
PRECISIONS = pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "fp64"])


def converted(name, task=None, image_size=None, dtype=torch.float32):
    given = albef_fixtures.albef_config(name)
    special = {"pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102}
    return convert(albef_fixtures.checkpoint(name), task, given, image_size, special)[0].to(dtype)


def assert_parity(actual, expected, dtype):
    # Where only fp32 was recorded, that is all there is to reach.
    tolerance = max(TOLERANCE[dtype], TOLERANCE[expected.dtype])
    torch.testing.assert_close(actual.double(), expected.double(), atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def inputs():
    return albef_fixtures.tensors("pretrain", "inputs")


@pytest.fixture(scope="module")
def expected():
    return albef_fixtures.tensors("pretrain", "expected")


@PRECISIONS
@torch.no_grad()
def test_pretraining_encoders_and_heads_equal_albef(inputs, expected, dtype):
    model = converted("pretrain", dtype=dtype)
    image, mask = inputs["image"].to(dtype), inputs["text_mask"]
    vision = model.cbvila.get_image_features(image, return_dict=True)
    text = model.cbvila.get_text_features(inputs["text_ids"], mask, return_dict=True)
    assert_parity(vision.last_hidden_state, expected["image_embeds"], dtype)
    assert_parity(F.normalize(vision.pooler_output, dim=-1), expected["image_feat"], dtype)
    assert_parity(F.normalize(text.pooler_output, dim=-1), expected["text_feat"], dtype)
    real = mask.bool()
    assert_parity(text.last_hidden_state[real], expected["text_embeds"][real], dtype)
    fused = model.cbvila.fuse_text_with_image(text.last_hidden_state, mask, vision.last_hidden_state)
    assert_parity(fused.last_hidden_state[real], expected["fusion_hidden"][real], dtype)
    assert_parity(fused.last_hidden_state[real], expected["multimodal_hidden"][real], dtype)
    assert_parity(model.objectives["itm"].head(fused.last_hidden_state[:, 0]), expected["itm_logits_pos"], dtype)


@PRECISIONS
@torch.no_grad()
def test_mlm_logits_and_loss_equal_albef(inputs, expected, dtype):
    model = converted("pretrain", dtype=dtype)
    batch = {"input_ids_masked": inputs["mlm_ids"], "mlm_labels": inputs["mlm_labels"]}
    output = model(inputs["image"].to(dtype), inputs["text_ids"], inputs["text_mask"], **batch)
    masked = inputs["mlm_labels"] != -100
    assert_parity(output.mlm_logits, expected["mlm_logits"][masked], dtype)
    assert_parity(output.losses["mlm"], expected["mlm_loss_hard"], dtype)


@pytest.mark.parametrize("side", [96, 48])
def test_resized_position_embeddings_equal_albef(expected, side):
    model = converted("pretrain", image_size=side)
    table = model.cbvila.vision_model.embeddings.position_embeddings
    assert model.config.vision_config.image_size == side
    assert_parity(table, expected[f"pos_embed_{side}"], torch.float32)


@PRECISIONS
@pytest.mark.parametrize("name", ["pretrain", "vqa"])
@torch.no_grad()
def test_question_answering_equals_albef(name, dtype):
    model = converted(name, "vqa", dtype=dtype)
    prefix = "from_pretrain_vqa." if name == "pretrain" else ""
    inputs, expected = albef_fixtures.tensors(name, "inputs"), albef_fixtures.tensors(name, "expected")
    image, mask = inputs["image"].to(dtype), inputs[f"{prefix}question_mask"]
    questions, real = (image, inputs[f"{prefix}question_ids"], mask), mask.bool()
    states = model.encode_question(*questions)
    assert_parity(states[real], expected[f"{prefix}question_states"][real], dtype)

    index = torch.arange(4).repeat_interleave(inputs[f"{prefix}k_list"])
    answers, shown = inputs[f"{prefix}answer_ids"], inputs[f"{prefix}answer_mask"].bool()
    decoder = {"encoder_hidden_states": states, "encoder_attention_mask": mask, "encoder_index": index}
    logits = model.answer_decoder(answers, **decoder, use_cache=False).logits
    assert_parity(logits[shown], expected[f"{prefix}decoder_logits"][shown], dtype)
    labels = answers.masked_fill(~shown, -100)[:, 1:]
    per_token = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels, reduction="none")
    assert_parity(per_token.sum(1), expected[f"{prefix}decoder_loss_per_answer"], dtype)

    candidates = inputs[f"{prefix}cand_ids"].masked_fill(~inputs[f"{prefix}cand_mask"].bool(), -100)[:, 1:]
    k = int(inputs[f"{prefix}k_test"])
    ranking = model.rank_answers(*questions, answer_labels=candidates, top_k=k, compat_first_token_twice=True)
    best = ranking.scores.topk(k)
    assert torch.equal(best.indices, expected[f"{prefix}rank_topk_ids"])
    assert_parity(best.values, expected[f"{prefix}rank_topk_probs"], dtype)


@torch.no_grad()
def test_reasoning_fusion_states_equal_albef(inputs, expected):
    model = converted("pretrain", "reasoning")
    images = torch.stack([inputs["image"], inputs["from_pretrain_nlvr.image1"]], dim=1)
    output = model(images, inputs["text_ids"], inputs["text_mask"], output_hidden_states=True)
    real = inputs["text_mask"].bool()
    assert_parity(output.hidden_states[-1][real], expected["from_pretrain_nlvr.hidden"][real], torch.float32)
    assert len(output.hidden_states) == 1 + 2 * model.config.multimodal_config.num_hidden_layers


@PRECISIONS
@torch.no_grad()
def test_preset_albef_takes_converted_weights(inputs, expected, dtype):
    model = converted("pretrain", dtype=dtype)
    parts = {name: getattr(model.config, name) for name in ("vision_config", "text_config", "multimodal_config")}
    config = CBViLAConfig.from_preset("albef", projection_dim=model.config.projection_dim, **parts)
    bare = CBViLAForPreTraining(config).to(dtype).eval()
    assert not bare.load_state_dict(model.state_dict(), strict=False).missing_keys
    batch = {"input_ids_masked": inputs["mlm_ids"], "mlm_labels": inputs["mlm_labels"]}
    output = bare(inputs["image"].to(dtype), inputs["text_ids"], inputs["text_mask"], **batch)
    assert_parity(output.losses["mlm"], expected["mlm_loss_hard"], dtype)
    assert_parity(output.image_embeds, expected["image_feat"], dtype)
    assert_parity(output.text_embeds, expected["text_feat"], dtype)
