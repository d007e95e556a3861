"""Metrics of what codes mean, by hand and at their limits; nothing but counts."""

from math import log

import numpy as np
import pytest
import torch

from transformers_cbvila.metrics.code_counts import code_histograms, frequent_words, word_presence
from transformers_cbvila.metrics.code_meaning import code_purity, measure_code_meaning, mutual_information
from transformers_cbvila.metrics.code_retrieval import code_retrieval_hits
from transformers_cbvila.metrics.image_similarity import psnr, ssim
from transformers_cbvila.metrics.intervals import jackknife_interval
from transformers_cbvila.metrics.linear_probe import probe_hits


def perfect(images=60, words=3, patches=4):
    """Images with one word each, whose patches all have the code of the word."""
    own = torch.arange(images) % words
    return code_histograms(own[:, None].expand(-1, patches), words + 1), torch.eye(words, dtype=torch.float64)[own]


def independent(images=400, codes=5, words=3, patches=6):
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(codes, (images, patches), generator=generator)
    own = torch.randint(words, (images,), generator=generator)
    return code_histograms(indices, codes), torch.eye(words, dtype=torch.float64)[own]


def test_counts_by_hand():
    histograms = code_histograms(torch.tensor([[0, 2, 2], [1, 1, 1]]), 4)
    assert histograms.tolist() == [[1, 0, 2, 0], [0, 3, 0, 0]]
    words = [{"a", "cat"}, {"a", "cat"}, {"a", "dog"}, {"a", "fox"}]
    assert frequent_words(words) == ["cat"]  # "a" is of all images, "dog" and "fox" of one
    assert word_presence(words, ["cat", "dog"]).tolist() == [[1, 0], [1, 0], [0, 1], [0, 0]]


def test_purity_and_information_by_hand():
    together = torch.tensor([[3.0, 1.0], [0.0, 4.0]], dtype=torch.float64)
    assert code_purity(together, together.sum(1)) == 7 / 8
    expected = (3 * log(3 / 8 / (4 / 8 * 3 / 8)) + log(1 / 8 / (4 / 8 * 5 / 8)) + 4 * log(4 / 8 / (4 / 8 * 5 / 8))) / 8
    assert mutual_information(together) == pytest.approx(expected, abs=1e-12)
    assert mutual_information(torch.outer(torch.tensor([0.2, 0.8]), torch.tensor([0.5, 0.5]))) == pytest.approx(0)
    assert mutual_information(torch.eye(3, dtype=torch.float64)) == pytest.approx(log(3), abs=1e-12)


def test_purity_counts_any_word_of_an_image():
    """Every image with code 0 is of a cat, whatever else is in it."""
    histograms, presence = torch.tensor([[2.0, 0], [2, 0], [0, 2]]), torch.tensor([[1.0, 1], [1, 0], [0, 1]])
    assert code_purity(histograms.T @ presence, histograms.sum(0)) == 1


def test_codes_that_are_words_reach_the_limits():
    histograms, presence = perfect()
    found = measure_code_meaning(histograms, presence)
    assert found["code_purity"] == found["code_purity_low"] == found["code_purity_high"] == 1
    assert found["code_purity_floor"] < 0.6
    shares = histograms / 4
    assert mutual_information(shares.T @ presence) == pytest.approx(log(3), abs=1e-12)
    # log 3 minus what 60 images have by chance, about (3 - 1)(3 - 1) / (2 * 60)
    assert found["code_word_mutual_information"] == pytest.approx(log(3) - 4 / 120, abs=0.02)
    assert found["code_word_mutual_information_low"] <= found["code_word_mutual_information"]


def test_independent_codes_are_at_the_floor():
    found = measure_code_meaning(*independent())
    assert found["code_purity"] == pytest.approx(found["code_purity_floor"], abs=0.02)
    assert abs(found["code_word_mutual_information"]) < 2 * found["code_word_mutual_information_floor"]
    assert found["code_word_mutual_information_low"] < found["code_word_mutual_information_floor"] < 0.01
    assert measure_code_meaning(*independent()) == found  # seeded


def test_meaning_needs_images_with_words():
    histograms, presence = perfect()
    assert measure_code_meaning(histograms, torch.zeros_like(presence)) == {}
    assert measure_code_meaning(histograms, presence[:, :0]) == {}
    without = measure_code_meaning(torch.cat([histograms, torch.ones(5, 4)]), torch.cat([presence, torch.zeros(5, 3)]))
    assert without == measure_code_meaning(histograms, presence)


def test_probe_at_its_limits():
    histograms, presence = perfect()
    hits, floor = probe_hits(histograms, presence, exclusive=True)
    assert hits.mean() == 1 and floor == pytest.approx(1 / 3)
    hits, floor = probe_hits(histograms, presence, exclusive=False)
    assert hits.mean() == 1 and floor == pytest.approx(2 / 3)
    hits, floor = probe_hits(*independent(), exclusive=True)
    assert hits.mean() == pytest.approx(floor, abs=0.08)


def test_probe_predicts_images_that_it_has_not_seen():
    """As many features as images: it could learn labels by heart."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 200, dtype=torch.float64, generator=generator)
    labels = torch.eye(2, dtype=torch.float64)[torch.randint(2, (60,), generator=generator)]
    hits, floor = probe_hits(features, labels, exclusive=True)
    assert hits.mean() < floor + 0.2


def test_retrieval_by_codes():
    """Codes name both the colour and the shape: only images of the same two words tie."""
    colours, shapes = torch.arange(100) % 10, torch.arange(100) // 10
    indices = torch.stack([colours, 10 + shapes], dim=1)
    words = [{f"c{colour}", f"s{shape}"} for colour, shape in zip(colours.tolist(), shapes.tolist(), strict=True)]
    presence = word_presence(words, sorted(set().union(*words)))
    hits, floor = code_retrieval_hits(code_histograms(indices, 20), presence, presence)
    assert hits.mean() == 1 and floor == 1 / 50
    hits, floor = code_retrieval_hits(torch.ones(100, 20, dtype=torch.float64), presence, presence)
    assert hits.mean() == pytest.approx(floor)  # all images are equally good


def test_psnr_and_ssim():
    image = torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(0)) * 0.8
    assert psnr(image, image).tolist() == [100, 100] and ssim(image, image).tolist() == pytest.approx([1, 1])
    assert psnr(image, image + 0.1).tolist() == pytest.approx([20, 20], abs=1e-4)
    # of two flat images, the first factor alone: (2ab + c) / (a² + b² + c)
    flat = torch.full((1, 1, 16, 16), 0.5)
    assert float(ssim(flat, flat + 0.25)) == pytest.approx((0.75 + 1e-4) / (0.8125 + 1e-4), abs=1e-5)
    assert (ssim(image, image.flip(0)) < 0.2).all()
    assert ssim(image[..., :4, :5], image[..., :4, :5]).tolist() == pytest.approx([1, 1])  # smaller than the window


def test_jackknife_interval_of_a_mean():
    """Of a mean, the error of the jackknife is the standard error."""
    values = np.random.default_rng(0).normal(size=20)
    low, high = jackknife_interval(values.mean(), np.array([np.delete(values, i).mean() for i in range(20)]))
    assert (high - low) / 2 == pytest.approx(2.093 * values.std(ddof=1) / 20**0.5)
