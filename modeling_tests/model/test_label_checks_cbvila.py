"""Invalid labels, answers, masks and ids are rejected with clear errors, in every head."""

import pytest
import torch
from tiny import CLS, CODES, PAD, PATCHES, SEP, VOCABULARY, build, half_image, tiny_processor
from tiny_heads import HEADS, batch_for

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForMaskedImageModeling,
    CBViLAForPreTraining,
    CBViLAForQuestionAnswering,
    CBViLAForVisualEntailment,
    CBViLAForVisualReasoning,
    CBViLAModel,
)
from transformers_cbvila.model.label_checks_cbvila import check_ids
from transformers_cbvila.tasks.answering import answer_questions

VQA, PRETRAINING, MASKED = CBViLAForQuestionAnswering, CBViLAForPreTraining, CBViLAForMaskedImageModeling
CLASSIFIERS = (CBViLAForVisualEntailment, CBViLAForVisualReasoning)


def answers(*rows):
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[-100] * (longest - len(row))] for row in rows])


def rows_with(row):
    return answers([5, SEP], row, [6, SEP], [7, SEP])


NONE = [
    *[
        (head, "labels", torch.tensor([0, 1, 9, 0]), "labels hold 9, but the model has . classes")
        for head in CLASSIFIERS
    ],
    *[(head, "labels", torch.tensor([0, -1, 1, 0]), "labels hold -1") for head in CLASSIFIERS],
    *[(head, "labels", torch.tensor([0.0, 1, 1, 0]), r"of torch.float32; expected \(4,\)") for head in CLASSIFIERS],
    *[(head, "labels", torch.tensor([0, 1, 1]), r"labels are \(3,\) of torch.int64") for head in CLASSIFIERS],
    *[(head, "labels", torch.tensor([0, 1, 1, 0]).int(), "of torch.int32") for head in CLASSIFIERS],
    *[(head, "labels", ["no"], r"labels are \['no'\]; expected a tensor") for head in CLASSIFIERS],
    (VQA, "labels", rows_with([CLS, 8, SEP]), rf"row 1 is \[{CLS}, 8, {SEP}\]: it begins with.*encode_answers"),
    (VQA, "labels", torch.tensor([[5, SEP, PAD]] * 4), "row 0 is .*padding of texts; answers are padded with -100"),
    (VQA, "labels", rows_with([8, SEP, 9]), "row 1 is .*tokens follow its end"),
    (VQA, "labels", torch.tensor([[-100, 5, SEP]] * 4), "row 0 is .*-100 stands before a token"),
    (VQA, "labels", rows_with([VOCABULARY, SEP]), f"row 1 is .*the vocabulary has {VOCABULARY} tokens"),
    (VQA, "labels", rows_with([-7, SEP]), "row 1 is .*the vocabulary has"),
    (VQA, "labels", rows_with([8, SEP]).float(), r"labels is \(4, 2\); expected an integer tensor.*float32"),
    (VQA, "labels", torch.tensor([8, 9, 8, 9]), r"labels is \(4,\)"),
    (VQA, "labels", ["red"], "labels is list"),
    (VQA, "answer_weights", torch.ones(4, 2), r"answer_weights has shape \(4, 2\); expected \(4,\)"),
    (PRETRAINING, "mlm_labels", torch.full((4, 7), VOCABULARY), f"mlm_labels hold {VOCABULARY}, but the vocabulary"),
    (PRETRAINING, "mlm_labels", torch.full((4, 7), -1), "mlm_labels hold -1"),
    (PRETRAINING, "mlm_labels", torch.full((4, 7), 5.0), "mlm_labels are .*float32"),
    (PRETRAINING, "mim_targets", torch.full((4, PATCHES), CODES), f"mim_targets hold {CODES}, but the codebook has"),
    (PRETRAINING, "mim_targets", torch.full((4, PATCHES), -100.0), "mim_targets are .*float32"),
    (PRETRAINING, "bool_masked_pos", torch.full((4, PATCHES), 0.5), "bool_masked_pos are .*float32"),
    (MASKED, "bool_masked_pos", torch.full((4, PATCHES), 2), "bool_masked_pos hold 2"),
    (MASKED, "bool_masked_pos", torch.full((4, PATCHES), 0.5), "bool_masked_pos are .*float32"),
    *[
        (head, "image_index", torch.tensor([0, 1, 2, 4]), r"image_index hold 4, but there are 4 image\(s\)")
        for head in (CBViLAModel, CBViLAForImageTextRetrieval, VQA, CBViLAForVisualEntailment)
    ],
    (CBViLAModel, "image_index", torch.tensor([0.0, 1, 2, 3]), "image_index are .*float32"),
    *[
        (head, "input_ids", torch.full((4, 7), VOCABULARY), f"input_ids hold {VOCABULARY}, but the voc")
        for head in HEADS
    ],
    *[
        (head, "input_ids", torch.full((4, 7), -1), "input_ids hold -1.*is the tokenizer that of the model")
        for head in HEADS
    ],
]


@pytest.mark.parametrize("head, name, value, message", NONE, ids=lambda value: getattr(value, "__name__", None))
def test_labels_and_masks_invalid_are_rejected(head, name, value, message):
    with pytest.raises(ValueError, match=message) as raised:
        build(head)(**{**batch_for(head), name: value})
    assert len(str(raised.value)) < 600


def test_labels_in_the_form_of_blip_are_rejected():
    processor, model = tiny_processor(), build(VQA)
    texts = ["red", "left half", "red", "blue"]
    labels = processor(text=texts, return_tensors="pt").input_ids
    with pytest.raises(ValueError, match="processor.encode_answers"):
        model(**{**batch_for(VQA), "labels": labels})
    with pytest.raises(ValueError, match="processor.encode_answers"):
        model(**{**batch_for(VQA), "labels": labels.masked_fill(labels == PAD, -100)})
    assert model(**{**batch_for(VQA), **processor.encode_answers(texts)}).loss.isfinite()


def test_masks_and_indices_of_other_integer_types():
    batch = batch_for(MASKED)
    expected = build(MASKED)(**batch).loss
    for dtype in (torch.uint8, torch.int64):
        torch.testing.assert_close(
            build(MASKED)(**{**batch, "bool_masked_pos": batch["bool_masked_pos"].to(dtype)}).loss, expected
        )
    build(VQA)(**batch_for(VQA), image_index=torch.arange(4, dtype=torch.int32))


def test_label_checks_look_at_the_first_batch_on_accelerators():
    """There the first batch of a model is looked at and no later one; the shape of all."""

    class Elsewhere(torch.Tensor):
        device = torch.device("cuda")

    def ids(*values):
        return torch.tensor(values).as_subclass(Elsewhere)

    owner = torch.nn.Module()
    with pytest.raises(ValueError, match="labels hold 3"):
        check_ids("labels", ids(0, 3), (2,), 3, "there are 3", owner)
    check_ids("labels", ids(0, 3), (2,), 3, "there are 3", owner)
    with pytest.raises(ValueError, match="mlm_labels hold 3"):
        check_ids("mlm_labels", ids(0, 3), (2,), 3, "there are 3", owner)
    with pytest.raises(ValueError, match="labels are"):
        check_ids("labels", ids(0, 1, 2), (2,), 3, "there are 3", owner)


# Lists of answers to choose from


TIES = [
    (["red", "red", "blue"], "'red' comes twice"),
    (["Red", "blue", "red"], "'Red' and 'red' are the same tokens"),
    (["blué", "blue"], "'blué' and 'blue' are the same tokens"),
    (["红", "蓝"], "knows nothing of '红'"),
    (["red", "蓝"], "knows nothing of '蓝'"),
    (["red 红", "red 蓝"], "'red 红' and 'red 蓝' are the same tokens"),
]


@pytest.mark.parametrize("texts, message", TIES)
def test_encode_candidates_rejects_equal_candidates(texts, message):
    processor = tiny_processor()
    with pytest.raises(ValueError, match=message):
        processor.encode_candidates(texts)
    assert len(processor.encode_answers(texts)["labels"]) == len(texts)  # as labels of training they may be the same


@pytest.mark.parametrize("top_k", [None, 2, 4])
def test_rank_answers_merges_equal_answers(top_k):
    question = {name: value for name, value in batch_for(VQA).items() if name != "labels"}
    model, listed = build(VQA), answers([5, SEP], [6, SEP], [7, 8, SEP])
    once = model.rank_answers(**question, answer_labels=listed, top_k=top_k and min(top_k, 3))
    twice = model.rank_answers(**question, answer_labels=listed[[0, 1, 0, 2, 1]], top_k=top_k)
    for name in ("scores", "log_likelihoods"):
        torch.testing.assert_close(twice[name], once[name][:, [0, 1, 0, 2, 1]])
    assert torch.equal(
        model.generate(**question, answer_labels=listed[[0, 1, 0, 2, 1]]),
        model.generate(**question, answer_labels=listed),
    )


@pytest.mark.parametrize("choose", ["rank_answers", "generate"])
def test_answer_labels_in_the_form_of_texts_are_rejected(choose):
    question = {name: value for name, value in batch_for(VQA).items() if name != "labels"}
    with pytest.raises(ValueError, match="answer_labels row 0 is .*it begins with"):
        getattr(build(VQA), choose)(**question, answer_labels=answers([CLS, 5, SEP], [CLS, 6, SEP]))


def test_answer_questions_drops_equal_candidates(logged):
    rows = [{"image": half_image("red", "left"), "question": "is it red"}]
    listed = ["red", "Red", "blue", "蓝"]
    ranked = answer_questions(build(VQA), tiny_processor(), rows, progress=False, answer_list=listed)
    assert ranked == answer_questions(build(VQA), tiny_processor(), rows, progress=False, answer_list=["red", "blue"])
    assert "2 of 4 answers of the list are left out" in logged.text and "'Red' (as 'red')" in logged.text


@pytest.mark.parametrize("head", HEADS)
def test_texts_without_tokens_are_rejected(head):
    batch = batch_for(head)
    shape = batch["input_ids"].shape
    empty = {name: value[:, :0] for name, value in batch.items() if getattr(value, "shape", None) == shape}
    with pytest.raises(ValueError, match="token"):
        build(head)(**{**batch, **empty})
