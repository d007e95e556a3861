"""Transport plans: hand values, marginals, limits, and what is finite."""

import math

import pytest
import torch
import torch.nn.functional as F

from transformers_cbvila.model.transport_cbvila import as_targets, ipot, sinkhorn

SIMILARITY = torch.tensor([[0.9, 0.1], [0.8, 0.3], [0.2, 0.7]], dtype=torch.float64)
FEW = torch.tensor([[0.9, 0.5, 0.1, 0.0], [0.2, 0.4, 0.8, 0.3]], dtype=torch.float64)  # features for more prototypes


def assert_rows(plan, expected):
    torch.testing.assert_close(as_targets(plan), torch.tensor(expected, dtype=torch.float64), atol=1.01e-6, rtol=0)


def cost_of(plan):
    return float((plan * (1 - SIMILARITY)).sum())


@pytest.mark.parametrize(
    "steps, rows, cost",
    [
        (1, [[0.759485, 0.240515], [0.634103, 0.365897], [0.189980, 0.810020]], 0.360531),
        (10, [[0.997332, 0.002668], [0.480988, 0.519012], [0.000000, 1.000000]], 0.285709),
        (50, [[1.000000, 0.000000], [0.499991, 0.500009], [0, 1]], 0.283334),
    ],
)
def test_ipot_hand_values(steps, rows, cost):
    plan = ipot(SIMILARITY, 0.5, steps)
    assert_rows(plan, rows)
    assert cost_of(plan) == pytest.approx(cost, abs=1e-6)


def test_ipot_goes_to_the_exact_plan():
    plan = ipot(SIMILARITY, 0.5, 50)
    assert plan.sum(1).tolist() == pytest.approx([0.333336, 0.333333, 0.333330], abs=1e-6)
    assert plan.sum(0).tolist() == pytest.approx([0.5, 0.5], abs=1e-6)
    exact = ipot(SIMILARITY, 0.5, 500)
    assert_rows(exact, [[1, 0], [0.5, 0.5], [0, 1]])
    assert cost_of(exact) == pytest.approx(0.283333, abs=1e-6)


@pytest.mark.parametrize(
    "epsilon, steps, rows, masses",
    [
        (0.05, 3, [[0.999972, 0.000028], [0.989010, 0.010990], [0, 1]], [1.325988, 0.674012]),
        (0.05, 100, [[0.997551, 0.002449], [0.502449, 0.497551], [0, 1]], [1.0, 1.0]),
        (0.5, 3, [[0.732157, 0.267843], [0.600030, 0.399970], [0.168765, 0.831235]], [1.000634, 0.999366]),
    ],
)
def test_sinkhorn_hand_values(epsilon, steps, rows, masses):
    plan = sinkhorn(SIMILARITY, epsilon, steps)
    assert_rows(plan, rows)
    assert (plan.sum(0) * 2).tolist() == pytest.approx(masses, abs=2e-6 if steps == 3 else 1e-3)


def test_fewer_features_than_prototypes_spread_over_several():
    assert_rows(ipot(FEW), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    assert_rows(sinkhorn(FEW), [[0.524862, 0.473519, 0.000001, 0.001619], [0, 0.046699, 0.477386, 0.475914]])


@pytest.mark.parametrize("solve", [ipot, sinkhorn])
def test_one_feature_takes_all_prototypes_equally(solve):
    assert_rows(solve(FEW[:1]), [[0.25] * 4])


def random_similarity(rows=40, columns=8, size=16, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    features, prototypes = (
        F.normalize(torch.randn(number, size, generator=generator, dtype=dtype), dim=-1) for number in (rows, columns)
    )
    return features @ prototypes.T


def test_marginals():
    similarity = random_similarity()
    of_ipot, of_sinkhorn = ipot(similarity), sinkhorn(similarity)
    torch.testing.assert_close(of_ipot.sum(0), torch.full((8,), 1 / 8, dtype=torch.float64))
    torch.testing.assert_close(of_ipot.sum(1), torch.full((40,), 1 / 40, dtype=torch.float64), rtol=0.05, atol=0)
    torch.testing.assert_close(of_sinkhorn.sum(1), torch.full((40,), 1 / 40, dtype=torch.float64))


def test_ipot_costs_least_and_sinkhorn_is_smoother():
    similarity = random_similarity()
    costs = [float((plan * (1 - similarity)).sum()) for plan in (ipot(similarity, steps=500), sinkhorn(similarity))]
    best = sum(sorted((1 - similarity).min(1).values.tolist())) / 40  # each feature alone, without equal masses
    assert best < costs[0] < costs[1]
    entropies = [
        float(-(t * t.clamp_min(1e-30).log()).sum(1).mean())
        for t in map(as_targets, (ipot(similarity), sinkhorn(similarity)))
    ]
    assert entropies[0] < entropies[1] < math.log(8)


@pytest.mark.parametrize("epsilon", [0.05, 0.01, 1e-3])
def test_single_precision_stays_finite_and_near_double(epsilon):
    similarity = random_similarity()
    for solve in (ipot, sinkhorn):
        found = solve(similarity.float(), epsilon, 10)
        assert found.isfinite().all()
        torch.testing.assert_close(found.double(), solve(similarity, epsilon, 10), atol=2e-4, rtol=0)


def test_no_gradient_and_no_half_precision():
    similarity = random_similarity(dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        plans = ipot(similarity), sinkhorn(similarity)
    for plan, solve in zip(plans, (ipot, sinkhorn), strict=True):
        assert not plan.requires_grad and plan.dtype == torch.float32
        assert torch.equal(plan, solve(similarity))
    assert ipot(similarity.bfloat16()).dtype == torch.float32
