import math

import pytest
import torch

from transformers_cbvila.data.masking import generator_for, mask_patches, mask_patches_by_cosine, mask_tokens

MASK, VOCABULARY = 4, 1000


def draw(ids, maskable, *key, **options):
    return mask_tokens(ids, maskable, MASK, VOCABULARY, generator_for(*key), **options)


def test_generator_for_depends_on_its_keys():
    keys = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 1), (2**62,)]
    draws = [torch.rand(8, generator=generator_for(*key)) for key in keys]
    for key, numbers in zip(keys, draws, strict=True):
        assert torch.equal(torch.rand(8, generator=generator_for(*key)), numbers)
    assert len({tuple(numbers.tolist()) for numbers in draws}) == len(keys)


def test_generator_for_neighbouring_keys_is_uncorrelated():
    first = torch.stack([torch.rand(2, generator=generator_for(0, 0, row)) for row in range(2000)])
    assert first.mean().item() == pytest.approx(0.5, abs=0.03)
    assert abs(torch.corrcoef(torch.stack([first[:-1, 0], first[1:, 0]]))[0, 1]) < 0.1


@pytest.mark.parametrize("patches, ratio, hidden", [(16, 0.75, 12), (10, 0.75, 7), (16, 0.0, 0), (16, 1.0, 16)])
def test_mask_patches_hides_the_exact_ratio(patches, ratio, hidden):
    for row in range(20):
        mask = mask_patches(patches, generator_for(row), ratio)
        assert mask.dtype == torch.bool and mask.shape == (patches,) and mask.sum() == hidden


def test_mask_patches_hides_every_patch_equally_often():
    rate = torch.stack([mask_patches(16, generator_for(row)) for row in range(2000)]).float().mean(0)
    torch.testing.assert_close(rate, torch.full((16,), 0.75), atol=0.05, rtol=0)


@pytest.mark.parametrize("probability", [0.15, 0.0])
def test_mask_tokens_has_at_least_one_label(probability):
    ids, maskable = torch.tensor([2, 7, 8, 3, 0]), torch.tensor([0, 1, 1, 0, 0]).bool()
    for row in range(50):
        corrupted, labels = draw(ids, maskable, row, probability=probability)
        chosen = labels != -100
        assert 1 <= chosen.sum() <= 2
        assert torch.equal(labels[chosen], ids[chosen]) and torch.equal(corrupted[~chosen], ids[~chosen])
        assert not chosen[~maskable].any(), "special tokens and padding are left alone"


def test_mask_tokens_without_maskable_token():
    ids = torch.tensor([2, 3, 0])
    corrupted, labels = draw(ids, torch.zeros(3).bool(), 0)
    assert torch.equal(corrupted, ids) and (labels == -100).all()


@pytest.mark.parametrize("replace, shares", [(0.8, (0.8, 0.1, 0.1)), (1.0, (1.0, 0.0, 0.0)), (0.0, (0.0, 0.5, 0.5))])
def test_mask_tokens_shares_of_masked_random_and_kept_tokens(replace, shares):
    ids = torch.full((40_000,), 7)
    corrupted, labels = draw(ids, torch.ones(40_000).bool(), 0, replace=replace)
    chosen = corrupted[labels != -100]
    assert len(chosen) / 40_000 == pytest.approx(0.15, abs=0.01)
    masked, kept = (chosen == MASK).float().mean(), (chosen == 7).float().mean()
    assert (masked, 1 - masked - kept, kept) == pytest.approx(shares, abs=0.02)
    random = chosen[(chosen != MASK) & (chosen != 7)]
    assert bool(len(random)) == (shares[1] > 0)
    if len(random):
        assert random.min() < 50 and 950 < random.max() < VOCABULARY, "drawn from the whole vocabulary"


def test_mask_tokens_leaves_its_input_unchanged():
    ids = torch.arange(5, 25)
    draw(ids, torch.ones(20).bool(), 0, probability=1.0)
    assert torch.equal(ids, torch.arange(5, 25))


def test_mask_tokens_and_patches_do_not_depend_on_padding():
    """A text is masked alike beside shorter and beside longer ones, and so is its image, whose draws come after."""
    ids, maskable = torch.arange(5, 25), torch.ones(20).bool()
    maskable[0] = maskable[-1] = False
    padded, padding = torch.cat([ids, torch.zeros(9, dtype=torch.long)]), torch.zeros(9).bool()
    for row in range(20):
        generators = [generator_for(row) for _ in range(2)]
        short = mask_tokens(ids, maskable, MASK, VOCABULARY, generators[0])
        long = mask_tokens(padded, torch.cat([maskable, padding]), MASK, VOCABULARY, generators[1])
        for one, other, end in zip(short, long, (0, -100), strict=True):
            assert torch.equal(torch.cat([one, torch.full((9,), end)]), other)
        assert torch.equal(*(mask_patches(16, generator) for generator in generators))


def test_cosine_shares_by_hand(monkeypatch):
    """Shares by u = 0, 1/4, 1/2, 3/4, 1 hide 16, 15, 12, 7, 1 of 16 patches; on average 2/π of them are hidden."""
    for u, expected in ((0, 16), (0.25, 15), (0.5, 12), (0.75, 7), (1, 1)):
        with monkeypatch.context() as patch:
            patch.setattr(torch, "rand", lambda *_, u=u, **__: torch.tensor(u, dtype=torch.float64))
            assert mask_patches_by_cosine(16, generator_for(0)).sum() == expected
    shares = [mask_patches_by_cosine(256, generator_for(row)).float().mean() for row in range(2000)]
    assert torch.stack(shares).mean() == pytest.approx(2 / math.pi, abs=0.02)
