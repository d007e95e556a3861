"""Accuracies for visual question answering against hand-computed values."""

import pytest
from offline_process import run_offline

from transformers_cbvila.metrics.answer_normalization import normalize_answer
from transformers_cbvila.metrics.load_metric import VQA_ACCURACY_FOLDER
from transformers_cbvila.metrics.vqa_metrics import accuracy_by_group, exact_match_accuracy, vqa_soft_accuracy


def test_exact_match_accuracy_ignores_case_and_outer_spaces():
    assert exact_match_accuracy(["Red ", "a dog", "no", "2"], ["red", "dog", "no", "two"]) == 0.5


def test_accuracy_by_group_sorts_by_group_size():
    result = accuracy_by_group(["x", "y", "x", "x"], ["x", "x", "x", "y"], ["b", "a", "b", "b"])
    assert result == {"b": pytest.approx(2 / 3), "a": 0.0}
    assert list(result) == ["b", "a"]


@pytest.mark.parametrize(
    "call",
    [
        lambda: exact_match_accuracy([], []),
        lambda: exact_match_accuracy(["a"], ["a", "b"]),
        lambda: accuracy_by_group(["a"], ["a"], []),
        lambda: vqa_soft_accuracy(["a", "b"], [["a"] * 10]),
    ],
)
def test_vqa_metrics_reject_lengths_that_differ(call):
    with pytest.raises(ValueError, match="equally many"):
        call()


@pytest.mark.parametrize(
    "n_matching, score",
    [
        (0, 0.0),
        # The one annotator who agrees scores 0 when left out; the nine others see one match: 9 · 1/3 / 10.
        (1, 0.3),
        # Two leave-outs see 1 match, eight see 2: (2 · 1/3 + 8 · 2/3) / 10.
        (2, 0.6),
        # Three leave-outs see 2 matches, seven see 3: (3 · 2/3 + 7) / 10.
        (3, 0.9),
        (4, 1.0),
        (10, 1.0),
    ],
)
def test_vqa_soft_accuracy_leaves_one_out(n_matching, score):
    references = ["yes"] * n_matching + ["no"] * (10 - n_matching)
    assert vqa_soft_accuracy(["yes"], [references]) == pytest.approx(score)


def test_vqa_soft_accuracy_averages_questions_and_normalizes():
    references = [["2 dogs"] * 10, ["cat"] * 9 + ["dog"]]
    assert vqa_soft_accuracy(["The two dogs.", "dog"], references) == pytest.approx((1.0 + 0.3) / 2)


@pytest.mark.parametrize(
    "prediction, references, score",
    [
        ("t-shirt", ["t-shirt"] * 9 + ["shirt"], 1.0),  # "t shirt" on both sides
        ("t-shirt", ["t-shirt"] * 10, 0.0),  # unanimous references are left alone, the prediction is not
        ("two", ["two"] * 9 + ["2"], 0.3),  # number words of references stay words
        ("the dog", ["the dog"] * 9 + ["dog"], 0.3),
        ("No", ["No"] * 9 + ["no"], 0.3),  # nor are references put in lower case
    ],
)
def test_vqa_soft_accuracy_normalizes_references_less_than_predictions(prediction, references, score):
    assert vqa_soft_accuracy([prediction], [references]) == pytest.approx(score)


@pytest.mark.parametrize("references", [["a"] * 9, "aaaaaaaaaa"])
def test_vqa_soft_accuracy_needs_ten_references(references):
    with pytest.raises(ValueError, match="10 answers"):
        vqa_soft_accuracy(["a"], [references])


@pytest.mark.parametrize(
    "answer, normalised",
    [
        ("Yes.", "yes"),
        ("The two, dogs", "2 dogs"),
        ("an apple and a pear", "apple and pear"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("couldntve", "couldntve"),  # one apostrophe is put back, not two
        ("twas", "'twas"),
        ("somebody'd", "somebodyd"),
        ("im", "im"),
        ("its", "its"),
        ("girl's", "girl's"),
        ("2:50 p.m.", "2:50 pm"),
        ("100,978", "100978"),
        ("1,000 half-open", "1000 halfopen"),  # a comma between digits: no sign leaves a space
        ("red, white", "red white"),
        ("red,white", "red white"),
        ("0.5 miles.", "0.5 miles"),
        (".5", ".5"),
        ("50%", "50%"),
        ("$5", "$5"),
        ("red & white", "red & white"),
        ("c#", "c#"),
        ("half-open/closed", "half open closed"),
        ("half - open", "half open"),
        ("new_york", "new york"),
        ("u.s.a", "usa"),
        ("none", "0"),
        ("  ten   men ", "10 men"),
        ("new\nyork\tcity", "new york city"),
        ("a", ""),
        ("café", "café"),
    ],
)
def test_normalize_answer(answer, normalised):
    assert normalize_answer(answer) == normalised


METRIC_SESSION = """
import evaluate, sys
from transformers_cbvila.metrics.load_metric import load_vqa_accuracy

metric = evaluate.load(sys.argv[1])
metric.add_batch(predictions=["red", "no"], references=["red", "yes"])
metric.add_batch(predictions=["blue"], references=["blue"])
result = metric.compute(groups=["color", "yes/no", "color"])
assert abs(result["accuracy"] - 2 / 3) < 1e-9, result
assert result["accuracy_by_group"] == {"color": 1.0, "yes/no": 0.0}, result

result = load_vqa_accuracy().compute(predictions=["a", "b"], references=["a", "c"])
assert result == {"accuracy": 0.5}, result
soft = load_vqa_accuracy("vqa_v2", cache_dir=sys.argv[2])
result = soft.compute(predictions=["yes"], references=[["yes"] * 2 + ["no"] * 8])
assert abs(result["accuracy"] - 0.6) < 1e-9, result
try:
    load_vqa_accuracy("vqa_v1")
except ValueError as error:
    assert "vqa_v1" in str(error)
else:
    raise SystemExit("an unknown configuration was taken")
"""


def test_vqa_accuracy_metric_loads_with_evaluate_offline(tmp_path):
    run_offline(METRIC_SESSION, tmp_path, VQA_ACCURACY_FOLDER, tmp_path / "cache")
