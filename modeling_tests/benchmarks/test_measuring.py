"""Clocks, FLOP counts and medians of benchmarks, against values derived by hand."""

import argparse

import measuring
import pytest
import torch
from measuring import Product, Spread, count_flops, in_turns, peak_memory, positive, seconds


def test_spread_is_median_and_range():
    spread = Spread([3.0, 1.0, 20.0])
    assert spread.median == 3.0
    assert str(spread) == "3 (1 to 20)"


def test_seconds_is_the_difference_of_two_clock_readings():
    readings = iter([10.0, 12.5])
    assert seconds(lambda: None, lambda: next(readings)) == 2.5


def test_in_turns_alternates_tasks_and_skips_the_first_round():
    order, time = [], [0.0]

    def task(name, cost):
        def run():
            order.append(name)
            time[0] += cost if order.count(name) > 1 else 100.0

        return run

    times = in_turns({"a": task("a", 1.0), "b": task("b", 4.0)}, 2, lambda: time[0])
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert times["a"].values == [1.0, 1.0] and times["b"].values == [4.0, 4.0]


def test_product_flops_are_two_n_cubed(monkeypatch):
    readings = iter([0.0, 2.0])
    monkeypatch.setattr(measuring, "clock", lambda device: lambda: next(readings))
    product = Product(8, torch.float32, torch.device("cpu"), repeats=5)
    assert product.flops_per_second() == 5 * 2 * 8**3 / 2.0


def test_count_flops_of_linear_layer_and_its_gradients():
    layer, x = torch.nn.Linear(3, 5), torch.randn(7, 3, requires_grad=True)
    assert count_flops(lambda: layer(x)) == 2 * 7 * 3 * 5
    assert count_flops(lambda: layer(x).sum().backward()) == 3 * 2 * 7 * 3 * 5


@pytest.mark.parametrize("dropout", [0.0, 0.1])  # fused, which torch has no formula for on the CPU; written out
def test_count_flops_of_attention(dropout):
    query, key, value = (torch.randn(2, 3, tokens, 8, requires_grad=True) for tokens in (5, 7, 7))
    one_product = 2 * 2 * 3 * 5 * 7 * 8

    def attend():
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)

    assert count_flops(attend) == 2 * one_product
    recomputed = 0 if dropout else 1  # the fused backward computes the scores again
    assert count_flops(lambda: attend().sum().backward()) == (2 + 4 + recomputed) * one_product


def test_peak_memory_includes_allocated_tensors():
    block = torch.ones(2**25)
    assert peak_memory(torch.device("cpu")) > block.numel() * 4


@pytest.mark.parametrize("text", ["0", "-1"])
def test_positive_rejects_other_texts(text):
    with pytest.raises(argparse.ArgumentTypeError, match=text):
        positive(text)
