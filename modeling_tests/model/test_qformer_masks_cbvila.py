"""The attention masks of a Q-Former, as tabulated: 2 queries and 3 text tokens; rows ask, columns are seen."""

import pytest
import torch

from transformers_cbvila.model.qformer_masks_cbvila import additive_mask, qformer_mask

MASKS = {
    "unimodal": "11000 11000 00111 00111 00111",
    "bidirectional": "11111 11111 11111 11111 11111",
    "causal": "11000 11000 11100 11110 11111",
}
PADDED = {
    "unimodal": "11000 11000 00110 00110 00110",
    "bidirectional": "11110 11110 11110 11110 11110",
    "causal": "11000 11000 11100 11110 11110",
}


def as_text(mask):
    return " ".join("".join(str(int(seen)) for seen in row) for row in mask)


@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float32])
@pytest.mark.parametrize("pattern", MASKS)
def test_qformer_mask_is_as_tabulated(pattern, dtype):
    text_mask = torch.tensor([[1, 1, 1], [1, 1, 0]]).to(dtype)
    whole, padded = qformer_mask(pattern, 2, text_mask)
    assert as_text(whole) == MASKS[pattern] and as_text(padded) == PADDED[pattern]


@pytest.mark.parametrize("pattern", MASKS)
def test_qformer_mask_without_queries_is_that_of_the_text(pattern):
    (mask,) = qformer_mask(pattern, 0, torch.tensor([[1, 1, 0]]))
    assert as_text(mask) == ("100 110 110" if pattern == "causal" else "110 110 110")


def test_qformer_mask_names_the_patterns():
    with pytest.raises(ValueError, match="'prefix' is none of unimodal, bidirectional, causal"):
        qformer_mask("prefix", 2, torch.ones(1, 3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_additive_mask_hides_by_the_least_number(dtype):
    added = additive_mask(torch.tensor([[[True, False]]]), dtype)
    assert added.dtype == dtype and added.tolist() == [[[[0.0, torch.finfo(dtype).min]]]]
