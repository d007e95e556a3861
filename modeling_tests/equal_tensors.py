"""Comparing named tensors bit for bit."""

import torch


def assert_equal_tensors(actual, expected):
    """Both mappings have the same names, and equal tensors under each."""
    assert actual.keys() == expected.keys() and len(actual) > 0
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def assert_equal_weights(model, other):
    """Both modules have the same state."""
    assert_equal_tensors(model.state_dict(), other.state_dict())
