"""Grad-CAM, rollout and normalization of attention, by hand."""

import pytest
import torch

from transformers_cbvila.explaining.attention_maps import (
    albef_layer,
    gradcam,
    normalized,
    of_words,
    on_patches,
    rollout,
)


@pytest.mark.parametrize("layers, chosen", [(1, 0), (2, 0), (3, 1), (4, 1), (6, 2), (12, 5)])
def test_layer_that_albef_shows(layers, chosen):
    assert albef_layer(layers) == chosen


def test_gradcam_takes_positive_gradients_and_the_mean_over_heads():
    attention = torch.tensor([[[[0.25, 0.75], [0.5, 0.5]], [[1.0, 0.0], [0.2, 0.8]]]])
    gradient = torch.tensor([[[[2.0, -4.0], [1.0, 0.0]], [[4.0, 3.0], [-1.0, 5.0]]]])
    expected = torch.tensor([[[(0.5 + 4) / 2, 0.0], [0.25, 2.0]]])
    torch.testing.assert_close(gradcam(attention, gradient), expected)


def test_rollout_halves_what_passes_by():
    own = torch.tensor([[[[0.5, 0.5], [0.0, 1.0]]]])
    cross = torch.tensor([[[[1.0, 0.0], [0.2, 0.8]]]])
    one = torch.tensor([[[[0.5, 0.0], [0.1, 0.4]]]])
    torch.testing.assert_close(rollout([own], [cross]), one)
    # second layer: half of (own @ one + one) / 2, and half of the cross-attention
    mixed = (torch.tensor([[0.3, 0.2], [0.1, 0.4]]) + one[0, 0]) / 2
    torch.testing.assert_close(rollout([own, own], [cross, cross])[0, 0], mixed / 2 + cross[0, 0] / 2)


def test_rollout_shares_sum_to_one_with_those_of_the_text():
    own = torch.rand(3, 2, 5, 5, 5).softmax(-1)
    cross = torch.rand(3, 2, 5, 5, 7).softmax(-1)
    # the text's part halves with every layer
    torch.testing.assert_close(rollout(own, cross).sum((1, 3)), torch.full((2, 5), 1 - 0.5**3))


def test_rollout_gives_each_image_in_turn_its_share():
    own, cross = torch.eye(1).expand(2, 1, 1, 1, 1), torch.ones(2, 1, 1, 1, 1)
    torch.testing.assert_close(rollout(own, cross, images=2).flatten(), torch.tensor([0.25, 0.5]))


def test_class_tokens_are_left_out():
    maps = torch.tensor([[9.0, 1, 2, 3]])
    assert on_patches(maps, 3).tolist() == [[1, 2, 3]]
    both = torch.tensor([[9.0, 1, 2, 3, 9, 10, 20, 30]])  # continuous and quantized tokens
    assert on_patches(both, 3).tolist() == [[11, 22, 33]]


def test_words_are_means_of_their_tokens():
    maps = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 6.0], [5.0, 5.0]])
    assert of_words(maps, [[1, 2], [3]]).tolist() == [[2, 4], [5, 5]]


def test_normalized_maps_reach_from_0_to_1_over_all_images():
    maps = torch.tensor([[[1.0, 2.0], [3.0, 3.0]], [[3.0, 5.0], [3.0, 3.0]]])
    expected = torch.tensor([[[0.0, 0.25], [0.0, 0.0]], [[0.5, 1.0], [0.0, 0.0]]])
    torch.testing.assert_close(normalized(maps), expected)
