"""Distortions and views of training images: reproducible draws within bounds."""

import numpy as np
import pytest
from PIL import Image
from tiny import half_image, noise_image

from transformers_cbvila.data.distortions import DISTORTIONS, inked
from transformers_cbvila.data.image_views import ImageViews
from transformers_cbvila.data.masking import generator_for


def test_image_views_depend_on_the_generator_alone():
    views = ImageViews(crop_scale=0.5, flip=True, distortions=2)
    first, again, other = (views.draw(noise_image(), generator_for(key)).tobytes() for key in (1, 1, 2))
    assert first == again != other
    assert ImageViews().draw(noise_image(), generator_for(0)).tobytes() == noise_image().tobytes()


@pytest.mark.parametrize("number", range(len(DISTORTIONS)))
@pytest.mark.parametrize("size", [(40, 30), (1, 1)])
def test_distortions_keep_size_and_mode(number, size):
    image = noise_image(size)
    for sign in (1.0, -1.0):
        distorted = DISTORTIONS[number](image, sign)
        assert (distorted.size, distorted.mode) == (image.size, "RGB")
    changed = distorted.tobytes() != image.tobytes()
    # of evenly spread noise, contrast is full already
    assert changed == (number not in (0, 1)) or size == (1, 1)


def test_distortion_shifts_uncover_grey():
    across, down = (DISTORTIONS[number](half_image("red", "top"), 1.0) for number in (7, 8))
    pixels = np.asarray(across)
    assert (pixels[:, -7:] == 128).all() and (pixels[:, :-7] == np.asarray(half_image("red", "top"))[:, 7:]).all()
    assert (np.asarray(down)[-7:] == 128).all()


def test_image_views_apply_distortions_half_of_the_time():
    views, image = ImageViews(distortions=1), noise_image()
    seen = {views.draw(image, generator_for(key)).tobytes() for key in range(400)}
    unchanged = sum(views.draw(image, generator_for(key)).tobytes() == image.tobytes() for key in range(400))
    assert len(seen) == 14  # as it is; 3 without a direction; 5 with two directions
    assert 0.5 < unchanged / 400 < 0.7  # 1/2 + 1/2 of the 2 in 10 that change nothing


def test_inked_draws_black_where_colours_meet():
    image = half_image("red", "top")
    pixels, ink = np.asarray(image), np.asarray(inked(image))
    border = pixels.shape[0] // 2
    assert (ink[border - 1 : border + 1] == 0).all()  # the rows on both sides of the edge
    assert (ink[: border - 1] == pixels[: border - 1]).all() and (ink[border + 1 :] == pixels[border + 1 :]).all()
    assert inked(Image.new("RGB", (1, 1), "red")).getpixel((0, 0)) == (255, 0, 0)


def test_image_views_outlines_is_the_share_of_inked_images():
    image, views = half_image("red", "top"), ImageViews(outlines=0.3)
    views_drawn = [views.draw(image, generator_for(key)).tobytes() for key in range(400)]
    assert set(views_drawn) == {image.tobytes(), inked(image).tobytes()}
    assert 90 < views_drawn.count(inked(image).tobytes()) < 150


OUT_OF_RANGE = [
    {"crop_scale": 0.0},
    {"crop_scale": 1.1},
    {"max_crop_scale": 0.9},
    {"max_crop_scale": 17},
    {"distortions": -1},
    {"outlines": -0.1},
    {"outlines": 1.5},
]


@pytest.mark.parametrize("options", OUT_OF_RANGE)
def test_image_views_reject_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ImageViews(**options)
