"""A moving average moves by lerp, and copies what is no average."""

import copy

import pytest
import torch
from torch import nn

from transformers_cbvila.training.moving_average import MovingAverage


def followed_module(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2, bias=False))


def test_moving_average_lerps_weights_and_copies_buffers():
    followed, other = followed_module(0).train(), followed_module(1)
    average = MovingAverage(copy.deepcopy(followed), decay=0.9)
    expected = {
        name: weight.detach().lerp(other.get_parameter(name), 1 - 0.9) for name, weight in followed.named_parameters()
    }
    other(torch.randn(5, 3))  # moves the statistics of the batch norm
    average.update(other)
    assert all(torch.equal(weight, expected[name]) for name, weight in average.module.named_parameters())
    assert all(torch.equal(buffer, other.get_buffer(name)) for name, buffer in average.module.named_buffers())


def test_moving_average_copies_named_weights():
    followed, other = followed_module(0), followed_module(1)
    average = MovingAverage(copy.deepcopy(followed), decay=0.9)
    average.update(other, copied={id(other[0].weight)})
    assert torch.equal(average.module[0].weight, other[0].weight)
    assert not torch.equal(average.module[3].weight, other[3].weight)


def test_moving_average_is_frozen_in_evaluation_mode():
    followed = followed_module(0).train()
    average = MovingAverage(copy.deepcopy(followed), decay=0.9)
    average.update(followed)
    assert not any(weight.requires_grad for weight in average.module.parameters()) and not average.module[2].training
    assert all(weight.requires_grad for weight in followed.parameters()) and followed[2].training


def test_moving_average_of_a_part_follows_that_part():
    followed, other = followed_module(0), followed_module(1)
    average = MovingAverage(copy.deepcopy(followed)[:1], decay=0.5)
    average.update(other)
    torch.testing.assert_close(average.module[0].weight, (followed[0].weight + other[0].weight) / 2)


def test_moving_average_rejects_state_of_other_weights():
    average = MovingAverage(followed_module(0), decay=0.9)
    state = average.state_dict()
    part = {name: value + 1 for name, value in state.items() if name.startswith("0.")}
    with pytest.raises(RuntimeError, match="Missing key"):
        average.load_state_dict(part)
    kept = average.module[3].weight.clone()
    average.load_state_dict(part, strict=False)
    assert torch.equal(average.module[0].weight, part["0.weight"]) and torch.equal(average.module[3].weight, kept)
