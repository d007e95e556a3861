"""Equal rows, and only those, share a fingerprint."""

import pytest
import torch

from transformers_cbvila.model.known_matches_cbvila import fingerprints


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_fingerprints_of_equal_images_are_equal(dtype):
    images = torch.randn(7, 3, 5, 5).to(dtype)
    images[6] = images[1]
    ids = fingerprints(images).tolist()
    assert ids[6] == ids[1] and len(set(ids)) == 6


@pytest.mark.parametrize("values", [2, 3, 2000])
def test_fingerprints_of_different_rows_differ(values):
    rows = torch.randint(values, (5000, 8))
    assert len(fingerprints(rows).unique()) == len(rows.unique(dim=0))


def test_fingerprints_depend_on_order():
    first, second = fingerprints(torch.tensor([[1, 2, 0], [2, 1, 0]]))
    assert first != second
