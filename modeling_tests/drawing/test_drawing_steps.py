"""A picture as it is drawn, step by step, and parts that are redrawn."""

import numpy as np
import pytest
from tiny import PATCHES, half_image, pretraining_model, tiny_processor

from transformers_cbvila.drawing.from_captions import draw_steps
from transformers_cbvila.drawing.steps import draw_in_steps

SIDE = int(PATCHES**0.5)


def test_steps_are_those_of_draw_steps():
    model, processor = pretraining_model(), tiny_processor()
    ((expected,),) = draw_steps(model, processor, ["red left"], seed=3, progress=False, num_steps=4)
    steps = draw_in_steps(model, processor, "red left", seed=3, num_steps=4)
    assert [np.asarray(step.picture).tolist() for step in steps] == [np.asarray(one).tolist() for one in expected]


def test_ever_more_patches_are_settled():
    steps = draw_in_steps(pretraining_model(), tiny_processor(), "red left", num_steps=4)
    hidden = [step.hidden for step in steps]
    assert all(one.shape == (SIDE, SIDE) for one in hidden) and not hidden[-1].any()
    assert all(
        (later <= earlier).all() and later.sum() < earlier.sum()
        for earlier, later in zip(hidden, hidden[1:], strict=False)
    )


def test_patches_beside_the_part_keep_their_visual_words():
    model, processor = pretraining_model(), tiny_processor()
    image, part = half_image("red", "left"), [0, 1, 5]
    steps = draw_in_steps(model, processor, "blue", image, part, num_steps=2, seed=1)
    assert np.flatnonzero(steps[0].hidden).tolist() != [] and set(np.flatnonzero(steps[0].hidden)) <= set(part)
    pixel_values = processor(images=[image], return_tensors="pt")["pixel_values"]
    own = model.tokenize(pixel_values)[0].numpy()
    drawn = model.generate_images
    seen = []
    model.generate_images = lambda *args, **options: seen.append(drawn(*args, **options)) or seen[-1]
    draw_in_steps(model, processor, "blue", image, part, num_steps=2, seed=1)
    kept = [patch for patch in range(PATCHES) if patch not in part]
    assert seen[0].codebook_indices[0].numpy()[kept].tolist() == own[kept].tolist()


@pytest.mark.parametrize(
    "image, part, complaint",
    [
        (half_image("red", "left"), None, "give the picture and at least one patch"),
        (half_image("red", "left"), [], "give the picture and at least one patch"),
        (None, [1], "give the picture and at least one patch"),
        (half_image("red", "left"), [PATCHES], f"no patch {PATCHES}: the picture has {PATCHES}"),
        (half_image("red", "left"), [-1], "no patch -1"),
    ],
)
def test_parts_that_cannot_be_redrawn(image, part, complaint):
    with pytest.raises(ValueError, match=complaint):
        draw_in_steps(pretraining_model(), tiny_processor(), "red", image, part)
