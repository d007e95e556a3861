"""Scores as probabilities: a known logistic is found again, quality by hand, and the retriever's cut."""

import json
import math

import pytest
import torch
from tiny import half_image, tiny_processor
from tiny_heads import build_head

from transformers_cbvila import CBViLAForImageTextRetrieval, CBViLARetriever
from transformers_cbvila.retrieval.calibration import (
    Calibration,
    JudgedPairs,
    best_pairs,
    calibrate,
    calibration_error,
    fitted_calibration,
)
from transformers_cbvila.retrieval.retrieval_order import RetrievalOrder, keep_better_order
from transformers_cbvila.retrieval.score_weighting import JudgedCandidates

IMAGES = [half_image(colour, half) for colour in ("red", "blue") for half in ("left", "top")]


def judged(queries=4000, k=8, seed=0):
    """Candidates of which the first matches, with a score that is higher by 5 on average, at a deviation of 2."""
    scores = 2 * torch.randn(queries, k, generator=torch.Generator().manual_seed(seed))
    scores[:, 0] += 5
    relevant = torch.zeros(queries, k, dtype=torch.bool)
    relevant[:, 0] = True
    return JudgedCandidates(scores, torch.zeros(queries, k), relevant)


def test_a_known_logistic_is_found_again():
    scores = 3 * torch.randn(50_000, generator=torch.Generator().manual_seed(0)) + 5
    chance = torch.sigmoid(0.8 * scores - 3)
    relevant = torch.rand(50_000, generator=torch.Generator().manual_seed(1)) < chance
    found = fitted_calibration(JudgedPairs(scores, relevant))
    assert found.slope == pytest.approx(0.8, abs=0.03) and found.offset == pytest.approx(-3, abs=0.1)
    assert calibration_error(found.probabilities(scores), relevant) < 0.01


def test_the_likelihood_is_at_its_maximum():
    scores, relevant = torch.tensor([-1.0, 0.0, 0.5, 2.0]), torch.tensor([False, True, False, True])
    found = fitted_calibration(JudgedPairs(scores, relevant))
    weights = torch.tensor([found.slope, found.offset], dtype=torch.float64, requires_grad=True)
    targets = torch.where(relevant, 3 / 4, 1 / 4).double()  # Platt's
    logits = weights[0] * scores.double() + weights[1]
    torch.nn.functional.binary_cross_entropy_with_logits(logits, targets).backward()
    torch.testing.assert_close(weights.grad, torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)


def test_limits():
    """Parted pairs give a finite slope, scores that say nothing or the reverse none, and one kind of pair nothing."""
    parted = fitted_calibration(JudgedPairs(torch.arange(10.0), torch.arange(10) >= 5))
    assert 0 < parted.slope < 100 and math.isfinite(parted.offset)
    reverse = fitted_calibration(JudgedPairs(torch.arange(10.0), torch.arange(10) < 5))
    assert reverse.slope == 0 and reverse.probabilities(torch.tensor([-9.0, 9.0])).tolist() == pytest.approx(
        [0.5, 0.5]
    )
    equal = fitted_calibration(JudgedPairs(torch.ones(10), torch.arange(10) < 5))
    assert equal.probabilities(torch.ones(1)).item() == pytest.approx(0.5, abs=1e-6)
    for relevant in (torch.ones(3).bool(), torch.zeros(3).bool()):
        assert fitted_calibration(JudgedPairs(torch.arange(3.0), relevant)) is None
    assert Calibration(2.0, 0.0).probabilities(torch.tensor([-torch.inf, 0.0])).tolist() == [0.0, 0.5]


def test_calibration_error_by_hand():
    probabilities, relevant = torch.tensor([0.1, 0.1, 0.9, 1.0]), torch.tensor([False, True, True, True])
    # bins of 0.1: (0.1 · 2 - 1) / 4; of 0.9 and 1.0, which share the last bin: (1.9 - 2) / 4
    assert calibration_error(probabilities, relevant, 5) == pytest.approx((0.8 + 0.1) / 4)


def test_best_pairs_leave_out_the_true_ones_of_every_second_query():
    scores = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    relevant = torch.tensor([[True, False, False], [True, False, False]])
    ((pairs, answerable),) = best_pairs([JudgedCandidates(scores, scores, relevant)], best=2)
    assert pairs.scores.tolist() == [3.0, 2.0, 2.0, 1.0] and pairs.relevant.tolist() == [True, False, False, False]
    assert answerable.tolist() == [True, False]


def test_calibrate_measures_on_other_queries():
    _, quality = calibrate([judged()])
    assert quality.error < 0.05 and 0.8 < quality.precision < 1 and 0.4 < quality.answered < 1
    assert calibrate([judged(queries=2)._replace(relevant=torch.zeros(2, 8).bool())]) is None


def test_orders_give_the_retrievers_scores():
    candidates = JudgedCandidates(
        torch.tensor([[1.0, 2.0]]), torch.tensor([[6.0, 3.0]]), torch.tensor([[True, False]])
    )
    assert RetrievalOrder(0, 0.0).scores(candidates, 3.0).tolist() == [[2.0, 1.0]]
    assert RetrievalOrder(8, 0.0).scores(candidates, 3.0).tolist() == [[1.0, 2.0]]
    assert RetrievalOrder(8, 0.5).scores(candidates, 3.0).tolist() == [[4.0, 3.5]]


@pytest.fixture
def retriever():
    model = build_head(CBViLAForImageTextRetrieval)
    model.config.rerank_k, model.config.match_calibration = 4, [2.0, -1.0]
    return CBViLARetriever(model, tiny_processor(), "cpu").index(IMAGES, progress=False)


def test_results_have_probabilities_and_improbable_ones_are_cut(retriever):
    found = retriever.search(text=["red left", "blue"], top_k=4)
    torch.testing.assert_close(found.probabilities, torch.sigmoid(2 * found.scores - 1))
    least = float(found.probabilities[0, 1])
    cut = retriever.search(text=["red left", "blue"], top_k=4, min_probability=least)
    kept = found.probabilities >= least
    assert torch.equal(cut.indices, torch.where(kept, found.indices, -1))
    assert cut.scores[~kept].isneginf().all() and (cut.probabilities[~kept] == 0).all()
    nothing = retriever.search(text="red left", top_k=4, min_probability=1.0)
    assert nothing.indices.tolist() == [-1] * 4


def test_probabilities_hold_for_the_checkpoints_order_alone(retriever):
    assert retriever.search(text="red", rerank_k=0).probabilities is None
    assert retriever.search(image=IMAGES[0]).probabilities is None
    for query, why in (
        ({"text": "red", "rerank_k": 0}, "the checkpoint's own order"),
        ({"text": "red", "similarity_weight": 0.5}, "the checkpoint's own order"),
        ({"image": IMAGES[0]}, "a text with an image"),
        ({"text": "red", "negative_text": "blue"}, "a text with an image"),
    ):
        with pytest.raises(ValueError, match=f"min_probability=0.5: .*{why}"):
            retriever.search(**query, min_probability=0.5)
    for value in (-0.1, 1.5):
        with pytest.raises(ValueError, match=f"min_probability={value} must be from 0 to 1"):
            retriever.search(text="red", min_probability=value)
    retriever.model.config.match_calibration = None
    with pytest.raises(ValueError, match="no match_calibration: `cbvila inspect`"):
        retriever.search(text="red", min_probability=0.5)


@pytest.mark.parametrize("value", [[1.0], [-1.0, 0.0], [float("nan"), 0.0], [1.0, 2.0, 3.0]])
def test_bad_calibrations_are_refused(value):
    with pytest.raises(ValueError, match="match_calibration=.* must be a slope of at least 0 and an offset"):
        build_head(CBViLAForImageTextRetrieval, match_calibration=value)


def test_the_calibration_of_the_better_order_is_kept_and_of_another_dropped(tmp_path):
    build_head(CBViLAForImageTextRetrieval).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    names = [f"{way}_retrieval_r{k}" for way in ("text", "image") for k in (1, 5, 10)]
    figures = dict.fromkeys(names, 0.3) | {f"{name}_reranked": 0.4 for name in names}
    keep_better_order(tmp_path, figures | {"match_slope": 1.5, "match_offset": -2.0}, 16)
    assert json.loads((tmp_path / "config.json").read_text())["match_calibration"] == [1.5, -2.0]
    assert CBViLARetriever.from_pretrained(tmp_path).model.config.match_calibration == [1.5, -2.0]
    keep_better_order(tmp_path, figures, 16)
    assert CBViLARetriever.from_pretrained(tmp_path).model.config.match_calibration is None
