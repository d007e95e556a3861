"""Drawing images from captions: the schedule by hand, sampling, equivalences of decoding, redrawn parts, errors."""

import pytest
import torch
from tiny import PATCHES, SIDE, pretraining_model, tiny_processor

from transformers_cbvila.model.decoding_steps_cbvila import (
    confidence_in,
    hidden_counts,
    least_confident,
    sample_codes,
)

RESIDUAL = {"quantizer_config": {"type": "residual", "depth": 2, "size": 8}}
SEQUENTIAL = RESIDUAL | {"objectives": {"mim": {"head": "sequential"}}}
GREEDY = {"temperature": 0.0, "choice_temperature": 0.0}


@pytest.mark.parametrize(
    "hidden, steps, expected",
    [
        (16, 4, [15, 12, 7, 0]),
        (16, 8, [15, 14, 13, 12, 9, 7, 4, 0]),
        (16, 6, [15, 14, 12, 8, 5, 0]),
        (256, 8, [252, 237, 213, 182, 143, 98, 50, 0]),
        (256, 12, [254, 248, 237, 222, 204, 182, 156, 128, 98, 67, 34, 0]),
        (3, 5, [2, 1, 0, 0, 0]),
        (0, 2, [0, 0]),
        (7, 1, [0]),
    ],
)
def test_cosine_schedule_by_hand(hidden, steps, expected):
    assert hidden_counts(hidden, steps) == expected


@pytest.mark.parametrize(
    "schedule, expected", [("linear", [12, 8, 4, 0]), ("square", [15, 12, 7, 0]), ("arccos", [14, 11, 8, 0])]
)
def test_other_schedules_by_hand(schedule, expected):
    assert hidden_counts(16, 4, schedule) == expected


def test_samples_follow_the_distribution_of_logits():
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log().expand(1, 20_000, 4)
    generator = torch.Generator().manual_seed(0)
    indices = sample_codes(logits, generator=generator)
    shares = indices[0].bincount(minlength=4) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.25, 0.125, 0.125]), atol=0.02, rtol=0)
    of_two = sample_codes(logits, top_k=2, generator=generator)
    assert set(of_two.unique().tolist()) == {0, 1}
    assert sample_codes(logits, temperature=0.0).unique().tolist() == [0]
    colder = sample_codes(logits, temperature=0.5, generator=generator)
    assert (colder == 0).float().mean() == pytest.approx(0.25 / 0.34375, abs=0.02)


def test_confidence_is_the_mean_log_probability_of_all_books():
    logits = torch.tensor([[[2.0, 0.0, 0.0, 1.0, 3.0]]])
    expected = (logits[..., :2].log_softmax(-1)[..., 0] + logits[..., 2:].log_softmax(-1)[..., 2]) / 2
    torch.testing.assert_close(confidence_in(torch.tensor([[[0, 2]]]), logits, (2, 3)), expected)
    of_one = confidence_in(torch.tensor([[1]]), logits[..., :2], (2,))
    torch.testing.assert_close(of_one, logits[..., :2].log_softmax(-1)[..., 1])


def test_least_confident_of_the_hidden_stay_hidden():
    confidence = torch.tensor([[0.3, 0.1, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4]])
    hidden = torch.tensor([[True, True, True, False], [True, True, False, True]])
    found = least_confident(confidence, hidden, torch.tensor([2, 1]))
    assert found.tolist() == [[False, True, True, False], [True, False, False, False]]


def captions(*texts):
    inputs = tiny_processor()(text=list(texts), padding=True, return_tensors="pt")
    return inputs["input_ids"], inputs["attention_mask"]


@pytest.fixture(scope="module", params=[{}, RESIDUAL, SEQUENTIAL], ids=["nearest", "residual", "sequential"])
def model(request):
    return pretraining_model(**request.param).eval()


def test_a_single_step_takes_the_likeliest_codes_of_hidden_patches(model):
    ids, mask = captions("a red circle")
    drawn = model.generate_images(ids, mask, num_steps=1, **GREEDY)
    blank = torch.zeros(1, 3, SIDE, SIDE)
    hidden = torch.ones(1, PATCHES, dtype=torch.bool)
    found = model.reconstruct(blank, ids, mask, hidden)  # with every patch hidden the image plays no part
    assert torch.equal(drawn.codebook_indices, found.codebook_indices)
    torch.testing.assert_close(drawn.pixel_values, found.pixel_values)


def test_steps_reveal_words_that_stay(model):
    drawn = model.generate_images(
        *captions("red left", "blue"), num_steps=4, generator=torch.Generator().manual_seed(3)
    )
    counts = [step.bool_masked_pos.sum(1).tolist() for step in drawn.steps]
    assert counts == [[number] * 2 for number in hidden_counts(PATCHES, 4)]
    evenly = model.generate_images(*captions("red left"), num_steps=4, schedule="linear").steps
    assert [int(step.bool_masked_pos.sum()) for step in evenly] == [12, 8, 4, 0]
    for before, after in zip(drawn.steps, drawn.steps[1:], strict=False):
        shown = ~before.bool_masked_pos
        assert torch.equal(after.codebook_indices[shown], before.codebook_indices[shown])
        assert not (after.bool_masked_pos & shown).any()
    pixels = model.detokenize(drawn.codebook_indices, *captions("red left", "blue"))
    torch.testing.assert_close(drawn.pixel_values, pixels)


def test_likeliest_codes_do_not_depend_on_the_batch(model):
    together = model.generate_images(*captions("red left", "blue"), **GREEDY)
    for number, text in enumerate(("red left", "blue")):
        alone = model.generate_images(*captions(text), **GREEDY)
        assert torch.equal(alone.codebook_indices[0], together.codebook_indices[number])


def test_a_generator_draws_the_same_again(model):
    one, again, other = (
        model.generate_images(*captions("red"), generator=torch.Generator().manual_seed(seed)).codebook_indices
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_a_generator_for_each_image_makes_it_independent_of_the_batch(model):
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    together = model.generate_images(*captions("red left", "blue"), generator=generators)
    alone = model.generate_images(*captions("blue"), generator=[torch.Generator().manual_seed(6)])
    assert torch.equal(alone.codebook_indices[0], together.codebook_indices[1])
    with pytest.raises(ValueError, match="There are 2 generators for 1 captions"):
        model.generate_images(*captions("blue"), generator=generators)


def test_guidance_goes_beyond_the_caption(model):
    """At scale 0 the caption plays no part; at 1 the empty caption plays none."""
    without = model.generate_images(*captions("red left"), guidance_scale=0.0, num_steps=1, **GREEDY)
    empty = model.empty_captions(without.pixel_values)
    assert torch.equal(without.codebook_indices, model.generate_images(empty, num_steps=1, **GREEDY).codebook_indices)


def test_a_part_is_redrawn_and_the_rest_kept(model):
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    part = torch.zeros(2, PATCHES, dtype=torch.bool)
    part[0, :5] = True  # nothing of the second image
    drawn = model.generate_images(*captions("red", "blue"), images, part, num_steps=3)
    words = model.tokenize(images)
    assert torch.equal(drawn.codebook_indices[~part], words[~part])
    counts = [step.bool_masked_pos.sum(1).tolist() for step in drawn.steps]
    assert counts == [[number, 0] for number in hidden_counts(5, 3)]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_steps": 0}, "num_steps=0 must be at least 1"),
        ({"top_k": 3, "temperature": 0.0}, "top_k=3 changes nothing: temperature=0 takes the likeliest codes"),
        ({"num_steps": PATCHES + 1}, f"num_steps={PATCHES + 1} for images of {PATCHES} patches"),
        ({"temperature": -1.0}, "temperature=-1.0 must be at least 0"),
        ({"temperature": float("nan")}, "temperature=nan must be at least 0"),
        ({"top_k": 0}, "top_k=0 must be at least 1"),
        ({"choice_temperature": -2.0}, "choice_temperature=-2.0"),
        ({"schedule": "cosin"}, "schedule='cosin': choose one of cosine, linear, square, arccos"),
        ({"pixel_values": torch.zeros(1, 3, SIDE, SIDE)}, "give both, pixel_values and bool_masked_pos"),
        ({"bool_masked_pos": torch.zeros(1, PATCHES)}, "give both, pixel_values and bool_masked_pos"),
        (
            {"pixel_values": torch.zeros(2, 3, SIDE, SIDE), "bool_masked_pos": torch.zeros(2, PATCHES).bool()},
            "There are 2 images and 1 captions",
        ),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        pretraining_model().eval().generate_images(*captions("red"), **options)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"fusion_visual_pos": "none"}, "have no positions"),
        ({"fusion_visual_cls": "vit"}, "the class token"),
        ({"objectives": {"pixel": {"normalize": True}}}, "without their mean and contrast"),
        ({"objectives": {"pixel": {"on": "masked"}}}, "trained on masked patches alone"),
        ({"objectives": {"mim": {"weight": 0.0}}}, "without the objective 'mim'"),
        ({"objectives": {"pixel": {"weight": 0.0}}}, "without the objective 'pixel'"),
    ],
)
def test_models_that_cannot_draw_say_why(changes, message):
    with pytest.raises(ValueError, match=message):
        pretraining_model(**changes).eval().generate_images(*captions("red"))
