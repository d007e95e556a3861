import pytest
import torch
from tiny import pretraining_model, tiny_pairs

from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.model.known_matches_cbvila import known_matches, matches_between
from transformers_cbvila.model.negatives_cbvila import choose_negatives, gumbel_noise, itm_labels

CPU = torch.device("cpu")
HARDNESS = [None, 0.0, 0.5, 1.0]


def eye(batch):
    return torch.eye(batch, dtype=torch.bool)


@pytest.mark.parametrize(
    "ids, pairs",
    [
        ({}, []),
        ({"image_ids": [7, 8, 7, 9]}, [(0, 2), (2, 0)]),
        ({"text_ids": [7, 8, 9, 8]}, [(1, 3), (3, 1)]),
        ({"text_ids": [5, 6, 7, 8], "known_text_ids": [[5, 7], [6, -1], [7, -1], [8, 5]]}, [(0, 2), (3, 0)]),
        ({"image_ids": [1, 1, 2, 3], "text_ids": [5, 6, 7, 7]}, [(0, 1), (1, 0), (2, 3), (3, 2)]),
    ],
)
def test_known_matches_by_ids(ids, pairs):
    expected = eye(4)
    for image, text in pairs:
        expected[image, text] = True
    assert torch.equal(known_matches(4, CPU, **{k: torch.tensor(v) for k, v in ids.items()}), expected)


def test_matches_between_equals_known_matches_of_both():
    generator = generator_for(0)
    image_ids, text_ids = torch.randint(9, (2, 10), generator=generator)
    known = torch.randint(-1, 9, (10, 2), generator=generator)
    whole = known_matches(10, CPU, image_ids, text_ids, known)
    part = matches_between(image_ids[:3], text_ids[:3], known[:3], image_ids[3:], text_ids[3:])
    assert torch.equal(part, whole[:3, 3:]) and part.any() and not part.all()


@pytest.mark.parametrize("hardness", HARDNESS)
def test_choose_negatives_avoids_known_matches(hardness):
    matches = torch.rand(12, 12, generator=generator_for(0)) < 0.7
    matches |= eye(12)
    for _ in range(50):
        chosen = choose_negatives(torch.where(matches, 1e4, torch.zeros(12, 12)), matches, hardness)
        images, texts = (index.squeeze(1) for index in chosen)
        rows = torch.arange(12)
        assert not matches[images.clamp_min(0), rows][images >= 0].any()
        assert not matches[rows, texts.clamp_min(0)][texts >= 0].any()
        assert torch.equal(images < 0, matches.all(0)) and torch.equal(texts < 0, matches.all(1))


@pytest.mark.parametrize("hardness", HARDNESS)
@pytest.mark.parametrize("batch", [1, 4])
def test_choose_negatives_without_candidates_gives_minus_1(batch, hardness):
    everything = torch.ones(batch, batch, dtype=torch.bool)
    for chosen in choose_negatives(torch.randn(batch, batch), everything, hardness):
        assert chosen.tolist() == [[-1]] * batch


@pytest.mark.parametrize("seed", [None, 0, 2**61, torch.tensor([3])])
@pytest.mark.parametrize("hardness", [0.0, 0.5, 1.0])
def test_choose_negatives_draws_by_exp_similarity(hardness, seed):
    """Pearson's chi-square of 20,000 draws; with 3 degrees of freedom it exceeds 25 once in 65,000 runs."""
    torch.manual_seed(0)
    logits, draws = torch.tensor([0.0, 1.0, 2.0, 0.5, 9.0]), 20_000
    similarity, matches = logits.repeat(draws, 1), torch.tensor([0, 0, 0, 0, 1]).bool().repeat(draws, 1)
    per_text = similarity.T.contiguous()
    _, texts = choose_negatives(similarity, matches, hardness, per_text, matches.T, seed=seed)
    expected = draws * (hardness * logits[:4]).softmax(0)
    chi_square = ((torch.bincount(texts.squeeze(1), minlength=4) - expected).square() / expected).sum()
    assert chi_square < 25


def test_choose_negatives_without_hardness_takes_most_similar():
    similarity = torch.tensor([[9.0, 1.0, 2.0], [3.0, 9.0, 1.0], [0.0, 5.0, 9.0]])
    images, texts = choose_negatives(similarity, eye(3), None)
    assert images.tolist() == [[1], [2], [0]] and texts.tolist() == [[2], [0], [1]]


@pytest.mark.parametrize("hardness", HARDNESS)
@pytest.mark.parametrize("extreme", [1e30, -1e30, float("inf"), float("nan")])
def test_choose_negatives_takes_extreme_similarities(extreme, hardness):
    """A diverged model must get as far as its loss, where the trainer names what is not finite."""
    similarity = torch.randn(5, 5, generator=generator_for(0))
    similarity[0, 1] = similarity[2, 3] = similarity[2, 4] = extreme
    similarity[4] = extreme
    for chosen in choose_negatives(similarity, eye(5), hardness):
        assert (chosen.squeeze(1) != torch.arange(5)).all() and (chosen >= 0).all()


def test_choose_negatives_seed_does_not_depend_on_rows():
    similarity, matches = torch.randn(9, 9, generator=generator_for(1)), eye(9)
    whole = choose_negatives(similarity, matches, 1.0, seed=5)
    for first, end in ((0, 4), (4, 5), (5, 9)):
        own = slice(first, end)
        arguments = similarity[own], matches[own], 1.0, similarity.T[own], matches.T[own], first
        for part, all_rows in zip(choose_negatives(*arguments, seed=5), whole, strict=True):
            assert torch.equal(part, all_rows[own])
    others = [choose_negatives(similarity, matches, 1.0, seed=seed)[0] for seed in range(20)]
    assert len({tuple(chosen.flatten().tolist()) for chosen in others}) > 15


def test_gumbel_noise_is_standard_gumbel():
    """Mean γ and variance π²/6, no two rows or columns alike, and the same in fp64."""
    noise = gumbel_noise(3, 0, torch.zeros(400, 300))
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02) and noise.isfinite().all()
    assert noise.var().item() == pytest.approx(torch.pi**2 / 6, abs=0.05)
    assert len(noise[:, 0].unique()) == 400 and len(noise[0].unique()) == 300
    wide = gumbel_noise(3, 0, torch.zeros(400, 300, dtype=torch.float64))
    torch.testing.assert_close(wide.float(), noise, atol=1e-3, rtol=1e-3)


def test_choose_negatives_has_no_gradient():
    similarity = torch.randn(4, 4, requires_grad=True)
    assert not choose_negatives(similarity, eye(4), 1.0)[0].requires_grad


def test_itm_labels_pair_matches_with_negatives():
    images, texts = torch.tensor([[1], [-1], [0], [-1]]), torch.tensor([[2], [0], [-1], [-1]])
    assert itm_labels(images, texts).tolist() == [1, 1, 1, -100, 0, -100, 0, -100, 0, 0, -100, -100]
    images, texts = torch.tensor([[1, 2], [2, -1], [-1, -1]]), torch.tensor([[1, 2], [0, 2], [-1, -1]])
    assert itm_labels(images, texts).tolist() == [1, 1, -100, 0, 0, -100, 0, -100, -100, 0, 0, -100, 0, 0, -100]


@pytest.mark.parametrize("hardness, seed", [(None, None), (0.0, None), (1.0, 3)])
def test_choose_negatives_takes_several_without_repetition(hardness, seed):
    matches = eye(5)
    matches[0, 1:4] = True  # one candidate is left for the first image
    similarity = torch.randn(5, 5, generator=generator_for(0))
    _, texts = choose_negatives(similarity, matches, hardness, seed=seed, count=3)
    assert texts[0].tolist() == [4, -1, -1]
    for row, chosen in enumerate(texts[1:].tolist(), 1):
        assert len(set(chosen)) == 3 and row not in chosen and -1 not in chosen
    assert choose_negatives(similarity, matches, hardness, seed=seed, count=9)[1].shape == (5, 9)


def test_choose_negatives_takes_first_the_one_that_it_takes_alone():
    similarity = torch.randn(6, 6, generator=generator_for(2))
    several = choose_negatives(similarity, eye(6), 1.0, seed=8, count=4)
    for one, more in zip(choose_negatives(similarity, eye(6), 1.0, seed=8), several, strict=True):
        assert torch.equal(one, more[:, :1])


@pytest.mark.parametrize("training", [False, True])
def test_negatives_are_never_of_the_same_image(training):
    """Four pairs that are two images with two captions each: of the negatives, none may be of the same image."""
    model, batch = pretraining_model().train(training), tiny_pairs()
    batch |= {"image_ids": torch.tensor([1, 1, 2, 2]), "loss_weights": {"itm": 1.0}}
    everything = batch | {"image_ids": torch.tensor([1, 1, 1, 1])}
    assert model(**batch).itm_logits.shape == (12, 2)
    only_matches = model(**everything).losses["itm"]
    only_matches.backward()
    assert only_matches == 0, "true pairs alone would teach that everything matches"
    assert not any(weight.grad.any() for weight in model.objectives["itm"].head.parameters())
