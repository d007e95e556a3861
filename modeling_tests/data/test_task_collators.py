"""Training examples and batches of the tasks."""

import pytest
import torch
from tiny import PATCH, answering_model, build, half_image, tiny_processor

from transformers_cbvila import (
    CBViLADataCollatorForImageTextRetrieval,
    CBViLADataCollatorForPreTraining,
    CBViLADataCollatorForQuestionAnswering,
    CBViLADataCollatorForVisualEntailment,
    CBViLADataCollatorForVisualReasoning,
    CBViLAForImageTextRetrieval,
    CBViLAForVisualEntailment,
    CBViLAForVisualReasoning,
)
from transformers_cbvila.data.image_views import ImageViews
from transformers_cbvila.data.pairs import stable_id
from transformers_cbvila.data.questions import SampledQuestions
from transformers_cbvila.data.task_examples import CaptionedImages, ViewedRows

CAPTIONED = [
    {"image": half_image("red", "top"), "captions": ["top half red", "red"]},
    {"image": half_image("blue", "left"), "captions": ["left half blue"]},
]
OTHER_CAPTION = [[False, True, False], [True, False, False], [False, False, False]]


@pytest.mark.parametrize(
    "collate, needed",
    [
        (lambda p: CBViLADataCollatorForPreTraining(p, PATCH), "no image and no text"),
        (CBViLADataCollatorForImageTextRetrieval, "no image and no text"),
        (CBViLADataCollatorForQuestionAnswering, "no image and no question"),
        (lambda p: CBViLADataCollatorForVisualEntailment(p, {0: "a", 1: "b"}), "no image and no text"),
        (lambda p: CBViLADataCollatorForVisualReasoning(p, {0: "a", 1: "b"}), "no images and no text"),
    ],
)
@pytest.mark.parametrize("example", [{"label": 1}, {"label": 1, "answer": "x"}])
def test_task_collators_name_remove_unused_columns(collate, needed, example):
    with pytest.raises(ValueError, match=f"{needed}, only .*'label'.*: set remove_unused_columns=False"):
        collate(tiny_processor())([example])


def test_captioned_images_list_every_caption_once():
    examples = CaptionedImages(CAPTIONED)
    assert len(examples) == 3
    assert [examples[i]["text"] for i in range(3)] == ["top half red", "red", "left half blue"]
    ids = [examples[i]["image_id"] for i in range(3)]
    assert ids[0] == ids[1] != ids[2]
    assert examples[1]["known_text_ids"] == [stable_id("top half red"), stable_id("red")]
    assert len(CaptionedImages(CAPTIONED, captions=[2, 1])) == 3
    with pytest.raises(IndexError):
        examples[3]


def test_retrieval_collator_ids_exclude_captions_of_the_same_image():
    batch = CBViLADataCollatorForImageTextRetrieval(tiny_processor())(
        [CaptionedImages(CAPTIONED)[i] for i in range(3)]
    )
    model = build(CBViLAForImageTextRetrieval)
    output = model(**batch)
    # ITC by hand: the other caption of the red image leaves the sum, in both directions
    logits = output.logits_per_image.detach().masked_fill(torch.tensor(OTHER_CAPTION), float("-inf"))
    by_hand = -logits.log_softmax(-1).diagonal().mean() - logits.T.log_softmax(-1).diagonal().mean()
    assert output.itc_loss.item() == pytest.approx(float(by_hand) / 2, abs=1e-5)
    # the only wrong image of a red caption is the blue one, and the only wrong text of a red image the blue one's
    texts = {name: batch[name][:2] for name in ("input_ids", "attention_mask")}
    wrong = model(pixel_values=batch["pixel_values"][[2, 2]], **texts)
    assert torch.allclose(output.itm_logits[3:5], wrong.itm_logits, atol=1e-5)


def test_question_collator_answer_weights_give_albef_loss():
    """Per question the sum over different answers of share times negative log-likelihood; the mean over questions."""
    rows = [
        {
            "image": half_image("red", "top"),
            "question": ["is it red ?", "is it blue ?"],
            "answer": [["yes", "yes", "yes", "red"], ["no"]],
        },
        {"image": half_image("blue", "top"), "question": "is it red ?", "answer": ["no", "blue"]},
    ]
    model, collate = answering_model(), CBViLADataCollatorForQuestionAnswering(tiny_processor())
    loss = model(**collate(rows)).loss

    def nll(row, question, answer):
        return float(model(**collate([{"image": row["image"], "question": question, "answer": answer}])).loss.detach())

    by_hand = [
        0.75 * nll(rows[0], "is it red ?", "yes") + 0.25 * nll(rows[0], "is it red ?", "red"),
        nll(rows[0], "is it blue ?", "no"),
        0.5 * nll(rows[1], "is it red ?", "no") + 0.5 * nll(rows[1], "is it red ?", "blue"),
    ]
    assert loss.item() == pytest.approx(sum(by_hand) / 3, abs=1e-4)


def test_question_collator_ignores_blank_answers():
    row = {"image": half_image("red", "top"), "question": "is it red ?", "answer": ["yes", "", "no", " ", "yes"]}
    batch = CBViLADataCollatorForQuestionAnswering(tiny_processor())([row])
    assert batch["answer_weights"].tolist() == pytest.approx([2 / 3, 1 / 3])
    with pytest.raises(ValueError, match="answer 0 is empty"):
        CBViLADataCollatorForQuestionAnswering(tiny_processor())([{**row, "answer": ["", ""]}])


def test_sampled_questions_are_closed_by_majority_answer():
    row = {
        "image": half_image("red", "top"),
        "question": ["a", "b", "c"],
        "answer": [["yes", "no", "yes"], ["red"], ["no"]],
    }
    assert SampledQuestions([row], 0)[0]["question"] == ["b"]
    assert SampledQuestions([row], None)[0]["question"] == ["a", "b", "c"]
    assert SampledQuestions([{**row, "answer": [["", "", "yes"], ["red"], ["no"]]}], 0)[0]["question"] == ["b"]
    mirrored = SampledQuestions([row], None, views=ImageViews(crop_scale=0.3))[0]["image"]
    assert mirrored.size != row["image"].size


@pytest.mark.parametrize("label", ["Neutral", 1])
def test_entailment_collator_labels_by_class_name(label):
    model = build(CBViLAForVisualEntailment, id2label={0: "contradiction", 1: "neutral", 2: "entailment"})
    collate = CBViLADataCollatorForVisualEntailment(tiny_processor(), model.config.id2label)
    rows = [{"image": half_image("red", "top"), "text": "red " * 40, "label": label}]
    batch = collate([ViewedRows(rows)[0]])
    assert batch["labels"].tolist() == [1] and batch["input_ids"].shape == (1, 16), "cut to what the model takes"
    assert model(**batch).loss > 0
    assert "labels" not in collate([{"image": rows[0]["image"], "text": "red"}])
    with pytest.raises(ValueError, match="label='maybe' is no class; the model has 'contradiction'"):
        collate([{**rows[0], "label": "maybe"}])


@pytest.mark.parametrize("images", [1, 2, 3])
def test_reasoning_collator_takes_several_images(images):
    model = build(CBViLAForVisualReasoning, num_images=images)
    pictures = [half_image(colour, "top", size) for colour, size in (("red", 32), ("green", 20), ("blue", 50))]
    rows = [{"images": pictures[:images], "text": "it is red", "label": value} for value in (True, "false")]
    collate = CBViLADataCollatorForVisualReasoning(tiny_processor(), model.config.id2label)
    batch = collate([ViewedRows(rows, views=ImageViews(crop_scale=0.5))[i] for i in range(2)])
    assert batch["labels"].tolist() == [1, 0] and batch["pixel_values"].shape == (2, images, 3, 32, 32)
    assert model(**batch).logits.shape == (2, 2)
