"""Consistency, codebook use, baselines and bootstrap intervals by hand or enumeration; the modules of `evaluate`."""

import ast
import math
from itertools import combinations

import numpy as np
import pytest
import yaml
from code_blocks import code_blocks
from offline_process import run_offline

from transformers_cbvila.metrics.baselines import chance_recall, guesses_by_text, majority
from transformers_cbvila.metrics.codebook_metrics import codebook_use
from transformers_cbvila.metrics.intervals import bootstrap_interval
from transformers_cbvila.metrics.load_metric import METRICS, load_metric, metric_folder
from transformers_cbvila.metrics.reasoning_metrics import consistency


def test_consistency_is_the_share_of_correct_groups():
    assert consistency([True, True, False, True, True], ["a", "b", "a", "b", "c"]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="a group for each row"):
        consistency([True], [])


def test_codebook_use_equals_hand_computed_values():
    found = codebook_use([[0, 0, 1], [1]], 4)
    assert found == {"usage": 0.5, "perplexity": pytest.approx(2.0), "top_share": 0.5}
    shares = [0.5, 0.25, 0.25]
    entropy = -sum(p * math.log(p) for p in shares)
    assert codebook_use([[2, 2, 3, 0]], 8)["perplexity"] == pytest.approx(math.exp(entropy))
    for codes in ([], [[]]):
        with pytest.raises(ValueError, match="no codes"):
            codebook_use(codes, 4)
    with pytest.raises(ValueError, match="code 4 is not in the codebook, which has 0 to 3"):
        codebook_use([[4]], 4)


@pytest.mark.parametrize("relevant, gallery, k", [(1, 5, 1), (2, 6, 3), (5, 5, 1), (1, 3, 10), (3, 4, 2), (1, 1, 5)])
def test_chance_recall_equals_enumeration(relevant, gallery, k):
    shown = list(combinations(range(gallery), min(k, gallery)))
    hits = sum(any(item < relevant for item in items) for items in shown)
    assert chance_recall([relevant], gallery, k) == pytest.approx(hits / len(shown))


def test_chance_recall_is_a_mean_over_queries():
    assert chance_recall([1, 2], 4, 1) == pytest.approx((0.25 + 0.5) / 2)
    with pytest.raises(ValueError, match="1 to 4 relevant"):
        chance_recall([5], 4, 1)


def test_guesses_by_text_use_the_majority_label():
    guesses = guesses_by_text(["a", "a", "b", "a"], ["x", "y", "z", "y"], ["a", "b", "c"])
    assert guesses == ["y", "z", "y"] and majority(["p", "q", "q"]) == "q"


def test_bootstrap_interval_over_groups_is_wider():
    values, groups = np.repeat([0.0, 1.0] * 10, 10), np.repeat(np.arange(20), 10)
    alone, together = bootstrap_interval(values, 0), bootstrap_interval(values, 0, groups=groups)
    assert together[1] - together[0] > 2.5 * (alone[1] - alone[0])  # sqrt(10) times, but for sampling
    assert bootstrap_interval(values, 0, groups=np.arange(200)) == pytest.approx(alone)
    assert bootstrap_interval(np.ones(3), 0, groups=np.zeros(3)) == (1.0, 1.0)


def test_bootstrap_interval_of_a_proportion():
    hits = np.repeat([1.0, 0.0], [100, 300])
    low, high = bootstrap_interval(hits, seed=0)
    spread = 1.96 * np.sqrt(0.25 * 0.75 / 400)  # the normal approximation
    assert low == pytest.approx(0.25 - spread, abs=0.008) and high == pytest.approx(0.25 + spread, abs=0.008)
    assert bootstrap_interval(np.ones(9), seed=0) == (1.0, 1.0)


def test_metric_folder_rejects_unknown_metrics():
    with pytest.raises(ValueError, match="no metric is called 'bleu'; there are vqa_accuracy"):
        metric_folder("bleu")


SESSION = """
import evaluate, sys
recall, nlvr, codes = (evaluate.load(folder) for folder in sys.argv[1:])
found = recall.compute(predictions=[[0.9, 0.1, 0.2], [0.5, 0.6, 0.7]], references=[[0], [0, 1]], ks=[1, 2])
assert found == {"recall_at_1": 0.5, "recall_at_2": 1.0}, found
judged = {"predictions": ["True", "False", "true"], "references": ["true", "true", "True"]}
found = nlvr.compute(**judged, groups=["a", "a", "b"])
assert found == {"accuracy": 2 / 3, "consistency": 0.5}, found
for kind in (bool, int):
    judged = {"predictions": [kind(1), kind(0), kind(1)], "references": [kind(1)] * 3}
    assert nlvr.compute(**judged, groups=[1, 1, 2]) == found, judged
found = codes.compute(predictions=[[0, 0, 1], [1]], codebook_size=4)
assert found["usage"] == 0.5 and abs(found["perplexity"] - 2) < 1e-9, found
try:
    recall.compute(predictions=[[0.1]], references=[[1]])
except ValueError as error:
    assert "query 0 names [1] in a gallery of 1" in str(error), error
else:
    raise SystemExit("a place outside the gallery was taken")
"""


def test_metric_folders_load_with_evaluate_offline(tmp_path):
    run_offline(SESSION, tmp_path, *(metric_folder(name) for name in METRICS[1:]))


@pytest.mark.parametrize("name", METRICS)
def test_metric_card_has_space_fields_and_a_true_example(name):
    folder = metric_folder(name)
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["sdk"] == "static" and "evaluate" in yaml.safe_load(front)["tags"]
    example = code_blocks(text)[0]
    assert f'evaluate.load("{folder.name}")' in example
    call = example.split("metric.compute(")[1].split("\n# ")[0]
    found = eval(f"compute({call}", {"compute": load_metric(name).compute})
    assert found == ast.literal_eval(example.split("\n# ")[-1].strip())
