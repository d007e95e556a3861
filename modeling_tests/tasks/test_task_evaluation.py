"""Metrics of the tasks against slow references, their baselines, answer lists and protocols."""

import json

import numpy as np
import pytest
import torch
from tiny import answering_model, build, half_image, tiny_processor

from transformers_cbvila.model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from transformers_cbvila.model.modeling_cbvila_visual_entailment import CBViLAForVisualEntailment
from transformers_cbvila.model.modeling_cbvila_visual_reasoning import CBViLAForVisualReasoning
from transformers_cbvila.retrieval.measure import measure_gallery, true_matches
from transformers_cbvila.tasks.answer_lists import ceiling, read_answer_list
from transformers_cbvila.tasks.answer_scores import scorer_of
from transformers_cbvila.tasks.answering import answer_questions
from transformers_cbvila.tasks.entailment import VisualEntailment
from transformers_cbvila.tasks.evaluate_rows import evaluate_rows
from transformers_cbvila.tasks.evaluation import Evaluation
from transformers_cbvila.tasks.generation import Generation
from transformers_cbvila.tasks.protocol_checks import check_protocol, protocol_options
from transformers_cbvila.tasks.reasoning import VisualReasoning
from transformers_cbvila.tasks.retrieval import ImageTextRetrieval
from transformers_cbvila.tasks.rows import Record, TaskRows
from transformers_cbvila.tasks.vqa import VisualQuestionAnswering

PICTURES = [half_image(c, h, s) for c, h, s in (("red", "top", 32), ("blue", "left", 20), ("green", "right", 60))]


class Rows(TaskRows):
    """Rows whose pictures are in memory."""

    def __init__(self, rows):
        records = [
            Record(f"Row {i}", [], {k: v for k, v in row.items() if "image" not in k or k == "image_id"})
            for i, row in enumerate(rows)
        ]
        super().__init__([], records)
        self.rows = rows

    def __getitem__(self, index):
        return self.rows[index]


def measured(model, settings, rows, train=None):
    return evaluate_rows(
        settings, model, tiny_processor(), Rows(rows), Evaluation(train, batch_size=2, progress=False)
    ).metrics


CAPTIONS = [["red half", "top"], ["left half blue", "half", "it is left"], ["green"]]
GALLERY = [{"image": image, "captions": texts} for image, texts in zip(PICTURES, CAPTIONS, strict=True)]


@pytest.mark.parametrize("rerank_k", [0, 2, 100])
def test_retrieval_metrics_equal_slow_reference(rerank_k):
    """Every pair on its own; k larger than the gallery orders all items."""
    model, processor = build(CBViLAForImageTextRetrieval), tiny_processor()
    figures = measured(model, ImageTextRetrieval(rerank_k=rerank_k), GALLERY)
    texts = [text for row in CAPTIONS for text in row]
    owners = [i for i, row in enumerate(CAPTIONS) for _ in row]
    output = [[model(**processor(images=[p], text=[t], return_tensors="pt")) for t in texts] for p in PICTURES]
    cosines = np.array([[float(o.logits_per_image.detach()) for o in row] for row in output])
    matching = np.array([[float((o.itm_logits[0, 1] - o.itm_logits[0, 0]).detach()) for o in row] for row in output])

    def recall(scores, rerank_scores, true, k):
        hits = []
        for query in range(len(scores)):
            order = list(np.argsort(-scores[query]))
            best = sorted(order[:rerank_k], key=lambda item: -rerank_scores[query, item])
            hits.append(any(true(query, item) for item in [*best, *order[rerank_k:]][:k]))
        return sum(hits) / len(hits)

    ending = "_reranked" if rerank_k else ""
    for k in (1, 5):
        by_image = recall(cosines, matching, lambda q, item: owners[item] == q, k)
        by_text = recall(cosines.T, matching.T, lambda q, item: owners[q] == item, k)
        assert figures[f"text_retrieval_r{k}{ending}"] == pytest.approx(by_image)
        assert figures[f"image_retrieval_r{k}{ending}"] == pytest.approx(by_text)
    assert figures["image_retrieval_r1_floor"] == pytest.approx(1 / 3)
    assert figures["text_retrieval_r1_floor"] == pytest.approx((2 + 3 + 1) / 6 / 3)
    assert (figures["gallery_images"], figures["gallery_texts"], figures["rerank_k"]) == (3, 6, rerank_k)
    assert ("mean_recall_reranked" in figures) == (rerank_k > 0)


def test_retrieval_metrics_of_a_gallery_of_one():
    figures = measured(build(CBViLAForImageTextRetrieval), ImageTextRetrieval(), GALLERY[:1])
    assert figures["text_retrieval_r1"] == figures["image_retrieval_r10_reranked"] == 1.0
    assert figures["text_retrieval_r1_floor"] == 1.0


def test_true_matches_own_captions_only():
    texts, owners = ["a", "b", "a"], np.array([0, 0, 1])
    assert true_matches(texts, owners, own_only=False).tolist() == [[True, True, True], [True, False, True]]
    assert true_matches(texts, owners, own_only=True).tolist() == [[True, True, False], [False, False, True]]
    rows = [{"image": image, "captions": ["red"]} for image in PICTURES]
    figures = measured(build(CBViLAForImageTextRetrieval), ImageTextRetrieval(rerank_k=0), rows)
    assert figures["text_retrieval_r1"] == figures["image_retrieval_r1"] == 1.0
    assert figures["duplicate_captions"] == 2
    strict = measure_gallery(
        build(CBViLAForImageTextRetrieval), tiny_processor(), PICTURES, [["red"]] * 3, 0, progress=False,
        own_captions_only=True,
    )  # fmt: skip
    assert strict["text_retrieval_r1"] == 0.0, "three equal texts: none can be told from the others"


def asked(questions, answers, image=0):
    return {"image": PICTURES[image], "question": questions, "answer": answers}


def test_answer_list_metrics_and_baselines(tmp_path):
    model, processor = answering_model(), tiny_processor()
    listed = ["red", "blue", "yes", "no", "half red"]
    (tmp_path / "answers.txt").write_text("\n".join(listed))
    rows = [asked(["is it red ?", "red ?"], [["yes"], ["red"]]), asked(["is it ?"], [["green"]], 1)]
    answers = answer_questions(model, processor, rows, progress=False, answer_list=listed)
    for row, given in zip(rows, answers, strict=True):
        for question, answer in zip(row["question"], given, strict=True):
            inputs = processor(images=[row["image"]], text=[question], return_tensors="pt")
            labels = processor.encode_answers(listed)["labels"]
            assert answer == listed[int(model.rank_answers(**inputs, answer_labels=labels).scores.argmax())]
    train = Rows([asked(["is it ?", "is it ?", "red ?"], [["green"], ["green"], ["red"]])])
    figures = measured(
        model, VisualQuestionAnswering(answer_list=str(tmp_path / "answers.txt"), answer_k=0), rows, train
    )
    flat = [answer for row in answers for answer in row]
    assert figures["accuracy"] == pytest.approx(
        np.mean([a == b for a, b in zip(flat, ["yes", "red", "green"], strict=True)])
    )
    assert figures["answer_list_ceiling"] == pytest.approx(2 / 3), "green is not listed"
    assert figures["accuracy_majority_floor"] == pytest.approx(1 / 3)
    assert figures["accuracy_text_only_floor"] == pytest.approx(2 / 3)  # green, red; "is it red ?" is new
    assert (figures["metric"], figures["rows"], figures["images"]) == ("exact_match", 3, 2)
    assert {"accuracy_yes_no", "accuracy_other", "accuracy_low", "accuracy_other_high"} <= figures.keys()


def test_answer_shortlist_takes_likeliest_first_tokens():
    model, processor = answering_model(), tiny_processor()
    inputs = processor(images=[PICTURES[0]], text=["is it red ?"], return_tensors="pt")
    labels = processor.encode_answers(["red", "red half", "blue", "yes", "no", "a half"])["labels"]
    whole = model.rank_answers(**inputs, answer_labels=labels).log_likelihoods[0]
    first = model(**inputs, labels=labels[:1]).logits[0, 0].detach().log_softmax(-1)[labels[:, 0]]
    for k in (1, 2, 3, 6):
        kept = sorted(range(6), key=lambda row: (-float(first[row]), row))[:k]
        found = model.rank_answers(**inputs, answer_labels=labels, top_k=k)
        assert [i for i in range(6) if found.scores[0, i] > 0] == sorted(kept)
        assert found.log_likelihoods[0, kept].tolist() == pytest.approx(whole[kept].tolist(), abs=1e-5)
        assert float(found.scores.sum()) == pytest.approx(1.0)
    for k in (0, 7):
        with pytest.raises(ValueError, match=f"top_k={k}: there are 6"):
            model.rank_answers(**inputs, answer_labels=labels, top_k=k)


def test_scorer_of_chooses_metric_by_references():
    assert scorer_of([["yes"] * 10])[0] == "vqa_v2" and scorer_of([["yes"] * 10, ["no"]])[0] == "any_of"
    name, score = scorer_of([["yes", "no"], ["Red"]])
    assert name == "any_of" and score(["NO ", "red"], [["yes", "no"], ["Red"]]) == [1.0, 1.0]
    assert scorer_of([["yes"], ["no"]])[0] == "exact_match"
    assert scorer_of([["yes"] * 9 + [""]])[0] == "vqa_v2", "ten were asked, whatever they said"
    assert score(["", "red"], [["yes", ""], ["", "Red"]]) == [0.0, 1.0]


def test_answer_list_ceiling():
    references = [["2"] * 2 + ["blue"] * 8, ["green"] * 10, ["red"] * 10]
    score = scorer_of(references)[1]
    assert ceiling(["two", "red"], references, score) == pytest.approx((0.6 + 0 + 1) / 3)
    with pytest.raises(ValueError, match="none is right for any question"):
        ceiling(["pink"], references, score)


def test_answer_list_ceiling_normalizes_like_the_metric():
    name, normalizing = scorer_of([["2"] * 10, ["yes"] * 10])
    assert name == "vqa_v2" and ceiling(["two", "Yes."], [["2"] * 10, ["yes"] * 10], normalizing) == 1.0
    name, literal = scorer_of([["2"], ["Yes "]])
    assert name == "exact_match" and ceiling(["two", "yes"], [["2"], ["Yes "]], literal) == 0.5
    assert ceiling(["a cat", "cat"], [["A cat"], ["cat"], ["the cat"]], literal) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "name, text, message",
    [("a.json", json.dumps({"a": 1}), "no JSON list"), ("a.txt", " \n\n", "no answer"), (None, "", "isn't there")],
)
def test_read_answer_list_rejects_unreadable_files(name, text, message, tmp_path):
    path = tmp_path / (name or "nowhere.txt")
    if name:
        path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_answer_list(str(path))
    (tmp_path / "b.json").write_text(json.dumps(["red", " red", "白い"]))
    assert read_answer_list(str(tmp_path / "b.json")) == ["red", "白い"]


def test_entailment_metrics_and_baselines():
    model = build(CBViLAForVisualEntailment)
    rows = [
        {"image": PICTURES[i % 3], "image_id": str(i % 3), "text": text, "label": label}
        for i, (text, label) in enumerate([("red", "neutral"), ("blue", "entailment"), ("red", "neutral")])
    ]
    logits = [
        model(**tiny_processor()(images=[row["image"]], text=[row["text"]], return_tensors="pt")).logits
        for row in rows
    ]
    right = [model.config.id2label[int(x.argmax())] == row["label"] for x, row in zip(logits, rows, strict=True)]
    train = Rows(
        [
            {"image": PICTURES[0], "text": t, "label": label}
            for t, label in [("red", "neutral"), ("x", "entailment"), ("y", "entailment")]
        ]
    )
    figures = measured(model, VisualEntailment(), rows, train)
    assert figures["accuracy"] == pytest.approx(np.mean(right)) and "consistency" not in figures
    assert figures["accuracy_majority_floor"] == pytest.approx(1 / 3)
    assert figures["accuracy_text_only_floor"] == pytest.approx(1.0)
    assert measured(model, VisualEntailment(), rows)["accuracy_majority_floor"] == pytest.approx(2 / 3)


def test_reasoning_metrics_include_group_consistency():
    model = build(CBViLAForVisualReasoning)
    rows = [
        {
            "images": PICTURES[:2] if i % 2 else PICTURES[1:],
            "text": "it is red",
            "label": str(i < 3),
            "group": f"g{i // 2}",
        }
        for i in range(6)
    ]
    figures = measured(model, VisualReasoning(image_column=["a", "b"], group_column="g"), rows)
    processor = tiny_processor()
    right = []
    for row in rows:
        inputs = processor(images=[row["images"]], text=[row["text"]], return_tensors="pt")
        right.append(model.config.id2label[int(model(**inputs).logits.argmax())] == row["label"])
    assert figures["accuracy"] == pytest.approx(np.mean(right))
    assert figures["consistency"] == pytest.approx(np.mean([right[i] and right[i + 1] for i in (0, 2, 4)]))
    assert figures["groups"] == 3 and figures["unknown_token_share"] == 0.0


def test_metrics_count_unknown_tokens():
    rows = [
        {"image": PICTURES[0], "text": "白い 犬", "label": "neutral"},
        {"image": PICTURES[0], "text": "red", "label": "neutral"},
    ]
    figures = measured(build(CBViLAForVisualEntailment), VisualEntailment(), rows)
    assert figures["unknown_token_share"] == pytest.approx(3 / 4)  # each sign is a token


def test_protocol_options_reject_other_tasks_and_options():
    defaults = protocol_options(ImageTextRetrieval, "coco-5k")
    assert defaults == {"rerank_k": 256, "own_captions_only": True}
    assert protocol_options(VisualQuestionAnswering, None) == {}
    with pytest.raises(ValueError, match="protocol='coco-5k' is none for vqa; there are vqav2"):
        protocol_options(VisualQuestionAnswering, "coco-5k")
    with pytest.raises(ValueError, match="coco-5k is over 5,000 rows, and there are 3 here"):
        check_protocol("coco-5k", ImageTextRetrieval(**defaults), Rows(GALLERY))
    with pytest.raises(ValueError, match="own_captions_only is True and not False"):
        check_protocol("coco-5k", ImageTextRetrieval(), Rows(GALLERY))
    with pytest.raises(ValueError, match="coco-5k is over 25,000 or 25,010 captions, and there are 10,000 here"):
        check_protocol("coco-5k", ImageTextRetrieval(**defaults), Rows([GALLERY[0]] * 5000))
    five, six = ({**GALLERY[0], "captions": ["red"] * count} for count in (5, 6))
    whole = Rows([five] * 5000)
    check_protocol("coco-5k", ImageTextRetrieval(**defaults), whole)
    check_protocol("coco-5k", ImageTextRetrieval(**defaults), Rows([five] * 4990 + [six] * 10))
    flickr = ImageTextRetrieval(**protocol_options(ImageTextRetrieval, "flickr30k-1k"))
    check_protocol("flickr30k-1k", flickr, Rows([five] * 1000))
    with pytest.raises(ValueError, match="flickr30k-1k is over 5,000 captions, and there are 5,010 here"):
        check_protocol("flickr30k-1k", flickr, Rows([five] * 990 + [six] * 10))
    check_protocol(None, ImageTextRetrieval(), whole)
    nlvr1 = protocol_options(VisualReasoning, "nlvr1") | {"group_parts": []}
    with pytest.raises(ValueError, match=r"Under nlvr1, group_parts is \[0\] and not \[\]"):
        check_protocol("nlvr1", VisualReasoning(**nlvr1), Rows(GALLERY))
    questions = Rows([asked(["a"], [["yes"]])] * VisualQuestionAnswering.protocols["vqav2"].counts["rows"][0])
    with pytest.raises(ValueError, match="is over 10 answers to each question, and there are 1 here"):
        check_protocol(
            "vqav2",
            VisualQuestionAnswering(**protocol_options(VisualQuestionAnswering, "vqav2"), answer_list="a.txt"),
            questions,
        )
    with pytest.raises(ValueError, match="vqav2 needs answer_list, and none is given"):
        check_protocol(
            "vqav2", VisualQuestionAnswering(**protocol_options(VisualQuestionAnswering, "vqav2")), questions
        )


def test_vqav2_is_a_protocol_of_answers_by_a_language_model_too():
    assert protocol_options(Generation, "vqav2") == {"image_id_column": "image_id"}
    task = Generation(**protocol_options(Generation, "vqav2"))
    rows = [asked(["a"], [["yes"] * 10])] * Generation.protocols["vqav2"].counts["rows"][0]
    check_protocol("vqav2", task, Rows(rows))
    with pytest.raises(ValueError, match="vqav2 is over 214,354 rows, and there are 214,353 here"):
        check_protocol("vqav2", task, Rows(rows[1:]))


def test_scorer_of_normalizes_references_but_under_the_protocol():
    given, references = ["The red", "two"], [["Red"] * 10, ["two"] * 5 + ["2."] * 5]
    name, score = scorer_of(references)
    assert name == "vqa_v2, references normalised" and score(given, references) == [1.0, 1.0]
    assert score(given[1:], references[1:]) == [1.0], "of some of the questions"
    assert ceiling(["Red", "2"], references, score) == 1.0
    name, score = scorer_of(references, official=True)
    assert name == "vqa_v2" and score(given, references) == [0.0, 1.0], "as the official script"
    plain = [["red"] * 10, ["2"] * 10]
    assert scorer_of(plain)[0] == "vqa_v2" and scorer_of(plain)[1](given, plain) == [1.0, 1.0]


def test_classification_rejects_logits_that_are_not_finite():
    model = build(CBViLAForVisualEntailment)
    with torch.no_grad():
        next(model.entailment_head.parameters()).fill_(torch.nan)
    rows = [{"image": PICTURES[0], "text": "red", "label": "neutral"}]
    with pytest.raises(ValueError, match="logits of row 0 are not finite"):
        measured(model, VisualEntailment(), rows)
