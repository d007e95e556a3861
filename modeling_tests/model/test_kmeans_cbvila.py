import pytest
import torch
from torch.nn.functional import normalize

from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.model.kmeans_cbvila import kmeans
from transformers_cbvila.model.nearest_codes_cbvila import nearest_codes


def blobs(count=60, width=5, spread=0.01):
    centres = torch.eye(4, width) * 3
    return centres.repeat(count, 1) + spread * torch.randn(4 * count, width), centres


def run(points, clusters, seed=0, **options):
    return kmeans(points, clusters, generator_for(seed), nearest_codes, **options)


def test_kmeans_finds_clusters_far_apart():
    points, expected = blobs()
    centres, counts = run(points, 4)
    order = torch.cdist(expected, centres).argmin(-1)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    torch.testing.assert_close(centres[order], expected, atol=0.02, rtol=0)
    assert counts.tolist() == [60] * 4


def test_kmeans_gives_rare_points_a_centre():
    background = torch.zeros(5000, 3) + 1e-3 * torch.randn(5000, 3)
    rare = torch.eye(3) * 2
    centres, _ = run(torch.cat([background, rare]), 6)
    assert torch.cdist(rare, centres).min(-1).values.max() < 0.1


def test_kmeans_centres_are_the_means_of_their_points():
    points = torch.randn(200, 3)
    centres, counts = run(points, 8, iterations=50)
    assigned = torch.cdist(points, centres).argmin(-1)
    for k in range(8):
        torch.testing.assert_close(centres[k], points[assigned == k].mean(0), atol=0.05, rtol=0)
    assert counts.tolist() == torch.bincount(assigned, minlength=8).tolist()


def test_kmeans_unit_norm_keeps_unit_centres():
    points = normalize(torch.randn(100, 5), dim=-1)
    centres, _ = run(points, 8, unit_norm=True)
    torch.testing.assert_close(centres.norm(dim=-1), torch.ones(8))


def test_kmeans_depends_on_its_generator_only():
    points = torch.randn(100, 3)
    first, _ = run(points, 8)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again, _ = run(points, 8)
    assert torch.equal(first, again) and torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, run(points, 8, seed=1)[0])


def test_kmeans_of_equal_points():
    centres, counts = run(torch.ones(20, 3), 5)
    assert torch.equal(centres, torch.ones(5, 3)) and counts.sum() == 20


def test_kmeans_rejects_too_few_points():
    with pytest.raises(ValueError, match="3 points cannot start 4 clusters"):
        run(torch.randn(3, 2), 4)
