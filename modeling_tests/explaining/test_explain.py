"""Explanations of every head: what they hold, what they are of, and that the model is left as it was."""

import numpy as np
import pytest
import torch
from tiny import build, half_image, noise_image, tiny_processor
from tiny_qformer import build_qformer

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForMaskedImageModeling,
    CBViLAForPreTraining,
    CBViLAForQFormerPreTraining,
    CBViLAForQuestionAnswering,
    CBViLAForVisualEntailment,
    CBViLAForVisualReasoning,
    CBViLAModel,
)
from transformers_cbvila.explaining.explain import explain, explain_batch
from transformers_cbvila.explaining.passes import explainable
from transformers_cbvila.explaining.words import words_of_text

MATCHING = (CBViLAForImageTextRetrieval, CBViLAForPreTraining)
ONE_IMAGE = (*MATCHING, CBViLAForQuestionAnswering, CBViLAForVisualEntailment)
PICTURE, OTHER, TEXT = half_image("red", "left"), half_image("blue", "top"), "red left half"


def answer_of(head):
    return "yes" if head is CBViLAForQuestionAnswering else None  # a random decoder may generate nothing


def state_of(model):
    modes = [module.training for module in model.modules()]
    back_ends = [config._attn_implementation for config in (model.config, model.config.multimodal_config)]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    return modes, back_ends, weights


def assert_same_state(model, before):
    modes, back_ends, weights = state_of(model)
    assert (modes, back_ends) == before[:2]
    assert all(torch.equal(weights[name], value) for name, value in before[2].items())
    assert all(weight.grad is None for weight in model.parameters())
    assert not model.cbvila.fusion_model._forward_pre_hooks


@pytest.mark.parametrize("head", ONE_IMAGE)
@pytest.mark.parametrize("method", ["gradcam", "rollout"])
def test_every_head_explains_and_stays_as_it_was(head, method):
    model, processor = build(head, dropout=0.1).train(), tiny_processor()
    model.cbvila.vision_model.eval()  # as if frozen
    before = state_of(model)
    assert "sdpa" in before[1]
    found = explain(model, processor, PICTURE, TEXT, answer_of(head), method=method)
    assert_same_state(model, before)
    assert found.words == ["red", "left", "half"] and found.maps.shape == (3, 4, 4)
    assert found.maps.min() == 0 and found.maps.max() == 1 and np.isfinite(found.maps).all()
    assert found.shares.sum() == pytest.approx(1) and 0 <= found.probability <= 1
    assert found.images.shape == (1, 32, 32, 3) and np.abs(found.images[0] - np.asarray(PICTURE)).max() <= 1
    again = explain(model, processor, PICTURE, TEXT, answer_of(head), method=method)
    assert np.array_equal(found.maps, again.maps), "dropout is off"


@pytest.mark.parametrize("fusion", ["separate", "twin"])
@pytest.mark.parametrize("method", ["gradcam", "rollout"])
def test_reasoning_explains_both_images(fusion, method):
    model, processor = build(CBViLAForVisualReasoning, reasoning_fusion=fusion), tiny_processor()
    found = explain(model, processor, [PICTURE, OTHER], TEXT, method=method)
    assert found.image_maps.shape == (2, 3, 4, 4) and found.answer in ("True", "False")
    assert found.image_maps.max(axis=(0, 2, 3)).tolist() == [1, 1, 1]
    # the other answer, and images the other way round
    logits = model(**processor(images=[[PICTURE, OTHER]], text=[TEXT], return_tensors="pt")).logits[0]
    assert found.score == pytest.approx(float(logits.max().detach()), abs=1e-5)
    assert explain(model, processor, [PICTURE, OTHER], TEXT, "false").score == pytest.approx(
        float(logits[0].detach()), abs=1e-5
    )
    if fusion == "separate" and method == "rollout":
        swapped = explain(model, processor, [OTHER, PICTURE], TEXT, method=method)
        np.testing.assert_allclose(swapped.image_maps, found.image_maps[::-1], atol=1e-5)


@pytest.mark.parametrize("head", MATCHING)
def test_gradcam_is_that_of_the_matching_logit(head):
    """Against gradients of the whole model, with eager attention from the start; of all layers, the sum."""
    model, processor = build(head, fusion={"num_hidden_layers": 3}), tiny_processor()
    model.set_attn_implementation("eager")
    inputs = processor(images=[PICTURE], text=[TEXT], return_tensors="pt")
    fused = model.cbvila.encode_pairs(**inputs, output_attentions=True)
    logit = model.objectives["itm"].head(fused.last_hidden_state[:, 0])[0, 1]
    gradients = torch.autograd.grad(logit, fused.cross_attentions)
    cams = [
        (attention * gradient.clamp_min(0)).mean(1)[0, 1:4, 1:].detach()
        for attention, gradient in zip(fused.cross_attentions, gradients, strict=True)
    ]
    for layer, cam in ((0, cams[0]), (1, cams[1]), (None, cams[0] + cams[1])):  # words of the last have no gradient
        scaled = (cam - cam.amin(1, keepdim=True)) / (cam.amax(1, keepdim=True) - cam.amin(1, keepdim=True))
        found = explain(model, processor, PICTURE, TEXT, layer=layer)
        np.testing.assert_allclose(found.maps.reshape(3, -1), scaled, atol=1e-4)
        assert found.score == pytest.approx(float(logit), abs=1e-5)
        assert found.layers == ([0, 1, 2] if layer is None else [layer])
    assert found.answer is None and found.score_name == "matching logit"


def test_answers_are_scored_by_their_log_probability():
    model, processor = build(CBViLAForQuestionAnswering), tiny_processor()
    inputs = processor(images=[PICTURE], text=["is it red ?"], return_tensors="pt")
    loss = model(**inputs, **processor.encode_answers(["yes"])).loss
    found = explain(model, processor, PICTURE, "is it red ?", "yes")
    assert found.score == pytest.approx(-float(loss), abs=1e-5) and found.answer == "yes"
    assert found.words == ["is", "it", "red"]
    other = explain(model, processor, PICTURE, "is it red ?", "no")
    assert not np.array_equal(found.maps, other.maps)


def test_answers_are_as_many_as_texts():
    model = build(CBViLAForVisualEntailment)
    with pytest.raises(ValueError, match=r"Got 1 answer\(s\) for 2 text\(s\)"):
        explain_batch(model, tiny_processor(), [PICTURE, OTHER], [TEXT, TEXT], ["neutral"])


def test_an_answer_is_generated_if_none_is_given():
    model, processor = build(CBViLAForQuestionAnswering), tiny_processor()
    model.generate = lambda **inputs: torch.tensor([[2, 17, 3]])  # [CLS] a [SEP]
    assert explain(model, processor, PICTURE, TEXT).answer == processor.decode_answers([[2, 17, 3]])[0]
    model.generate = lambda **inputs: torch.tensor([[2, 3]])
    with pytest.raises(ValueError, match="answer to the question is empty: pass the answer"):
        explain(model, processor, PICTURE, TEXT)


def test_a_class_may_be_chosen():
    model, processor = build(CBViLAForVisualEntailment), tiny_processor()
    logits = model(**processor(images=[PICTURE], text=[TEXT], return_tensors="pt")).logits[0]
    predicted = explain(model, processor, PICTURE, TEXT)
    assert predicted.answer == model.config.id2label[int(logits.argmax())]
    for number, name in model.config.id2label.items():
        assert explain(model, processor, PICTURE, TEXT, name).score == pytest.approx(float(logits[number]), abs=1e-5)
    with pytest.raises(ValueError, match="No class is named 'maybe'"):
        explain(model, processor, PICTURE, TEXT, "maybe")


def test_batches_change_nothing():
    model, processor = build(CBViLAForPreTraining), tiny_processor()
    texts = [TEXT, "a blue", "half is it red top ?"]
    pictures = [PICTURE, OTHER, noise_image((32, 32))]
    for method in ("gradcam", "rollout"):
        together = explain_batch(model, processor, pictures, texts, method=method)
        for picture, text, found in zip(pictures, texts, together, strict=True):
            alone = explain(model, processor, picture, text, method=method)
            assert alone.words == found.words
            np.testing.assert_allclose(alone.maps, found.maps, atol=1e-3)


@pytest.mark.parametrize("itm_kv", ["quantized", "both"])
def test_other_keys_and_frozen_weights(itm_kv):
    model, processor = build(CBViLAForPreTraining, itm_kv=itm_kv).requires_grad_(False), tiny_processor()
    with torch.inference_mode():
        found = explain(model, processor, PICTURE, TEXT)
    assert found.maps.shape == (3, 4, 4) and found.maps.max() == 1


def test_other_image_sizes():
    model = build(CBViLAForImageTextRetrieval)
    found = explain(model, tiny_processor(side=48), PICTURE, TEXT)
    assert found.maps.shape == (3, 6, 6) and found.images.shape == (1, 48, 48, 3)


def test_half_precision_is_explained_in_fp32():
    model, processor = build(CBViLAForImageTextRetrieval).to(torch.bfloat16), tiny_processor()
    before = state_of(model)
    found = explain(model, processor, PICTURE, TEXT)
    assert_same_state(model, before)
    expected = explain(build(CBViLAForImageTextRetrieval).to(torch.bfloat16).float(), processor, PICTURE, TEXT)
    np.testing.assert_allclose(found.maps, expected.maps, atol=1e-5)


def test_the_model_is_restored_after_an_error():
    model = build(CBViLAForImageTextRetrieval).train()
    before = state_of(model)
    with pytest.raises(KeyError), explainable(model) as running:
        assert not running.training and running.cbvila.fusion_model.config._attn_implementation == "eager"
        raise KeyError
    assert_same_state(model, before)


def test_words_of_several_tokens_and_signs():
    processor = tiny_processor(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "##dish", "left", "-", "it"])
    words = words_of_text(processor, "Reddish, it-left!", 20)
    assert [tuple(word) for word in words] == [("Reddish", [1, 2]), ("it-left", [4, 5, 6])]
    assert [word.text for word in words_of_text(processor, "red left it", 4)] == ["red", "left"], "truncated"
    with pytest.raises(ValueError, match=r"text='\?!' has no word to explain"):
        words_of_text(processor, "?!", 4)


@pytest.mark.parametrize("side, words", [("right", ["red", "left"]), ("left", ["half", "blue"])])
def test_long_texts_are_cut(side, words):
    model = build(CBViLAForImageTextRetrieval, text={"max_position_embeddings": 4})
    processor = tiny_processor(model_max_length=int(1e30), truncation_side=side)
    assert explain(model, processor, PICTURE, "red left half blue").words == words


def test_words_that_the_model_does_not_know():
    found = explain(build(CBViLAForImageTextRetrieval), tiny_processor(), PICTURE, "red pizza")
    assert found.words == ["red", "pizza"] and found.known == [True, False]


def test_map_of_a_word():
    found = explain(build(CBViLAForImageTextRetrieval), tiny_processor(), PICTURE, "Red left red")
    np.testing.assert_allclose(found.map_of("red"), (found.maps[0] + found.maps[2]) / 2)
    with pytest.raises(ValueError, match="The text has no word 'blue'; its words are Red, left, red"):
        found.map_of("blue")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"text": ""}, "text 0 is empty"),
        ({"text": "?!"}, "has no word to explain"),
        ({"image": [PICTURE, OTHER]}, r"Got 2 image\(s\) for a text: a CBViLAForImageTextRetrieval takes 1"),
        ({"answer": "yes"}, "answer='yes': CBViLAForImageTextRetrieval gives no answers"),
        ({"method": "magic"}, "method='magic': choose one of gradcam, rollout"),
        ({"layer": 2}, "layer=2: the fusion encoder has 2 layers, numbered from 0 to 1"),
        ({"layer": -1}, "layer=1: the score does not depend on what words see in this layer"),
    ],
)
def test_what_cannot_be_explained(options, message):
    model = build(CBViLAForImageTextRetrieval)
    with pytest.raises(ValueError, match=message):
        explain(model, tiny_processor(), **{"image": PICTURE, "text": TEXT, **options})


@pytest.mark.parametrize("head", [CBViLAModel, CBViLAForMaskedImageModeling, CBViLAForQFormerPreTraining])
def test_heads_without_a_score_are_refused(head):
    model = build_qformer(head) if head is CBViLAForQFormerPreTraining else build(head)
    with pytest.raises(ValueError, match=f"A {head.__name__} cannot be explained: it has no score"):
        explain(model, tiny_processor(), PICTURE, TEXT)


def test_a_model_trained_without_matching_is_refused():
    model = build(CBViLAForPreTraining, objectives={"itm": {"weight": 0.0}})
    with pytest.raises(ValueError, match="no matching head"):
        explain(model, tiny_processor(), PICTURE, TEXT)
