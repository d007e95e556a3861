import pytest
import torch
from PIL import Image
from tiny import half_image, tiny_rows

from transformers_cbvila.data.image_views import ImageViews
from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.data.pairs import ImageTextPairs


@pytest.mark.parametrize("size", [(32, 32), (40, 10), (1, 1), (3, 200)])
@pytest.mark.parametrize("scale", [0.1, 0.75, 0.999])
def test_crop_box_lies_in_the_image_and_keeps_crop_scale(size, scale):
    views, (width, height) = ImageViews(crop_scale=scale), size
    for row in range(200):
        left, top, right, bottom = views.crop_box(size, generator_for(row))
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        if min(size) >= 30:
            assert (right - left) * (bottom - top) >= 0.85 * scale * width * height


@pytest.mark.parametrize("size", [(64, 64), (80, 20)])
def test_crop_box_with_max_crop_scale_holds_an_axis(size):
    views, (width, height) = ImageViews(crop_scale=0.5, max_crop_scale=3.0), size
    shares = []
    for row in range(400):
        left, top, right, bottom = views.crop_box(size, generator_for(row))
        for first, last, length in ((left, right, width), (top, bottom, height)):
            inside, around = 0 <= first < last <= length, first <= 0 and last >= length
            assert inside or around
        shares.append((right - left) * (bottom - top) / (width * height))
    assert 0.48 < min(shares) < 0.6 and 2.8 < max(shares) < 3.1
    assert 1.6 < sum(shares) / 400 < 1.9  # evenly between


def test_max_crop_scale_fills_with_the_corner_colour():
    image = Image.new("RGB", (32, 32), (10, 200, 30))
    image.paste((250, 0, 0), (8, 8, 24, 24))
    sizes = set()
    for seed in range(50):
        view = ImageViews(max_crop_scale=4.0).draw(image, generator_for(seed))
        found = {colour: count for count, colour in view.getcolors()}
        assert found == {(10, 200, 30): view.width * view.height - 256, (250, 0, 0): 256}
        sizes.add(view.size)
    assert len(sizes) > 30


def test_max_crop_scale_fills_with_no_outline_colour():
    image = Image.new("RGB", (32, 32), (10, 200, 30))
    image.paste((250, 250, 250), (1, 1, 32, 32))  # an edge along the corner, which ink makes black
    views = ImageViews(max_crop_scale=4.0, outlines=1.0)
    drawn = [views.draw(image, generator_for(seed)) for seed in range(20)]
    whole = [view for view in drawn if min(view.size) >= 32]
    assert len(whole) > 10
    for view in whole:
        colours = {colour: count for count, colour in view.getcolors(10_000)}
        assert colours.get((10, 200, 30), 0) == view.width * view.height - 32 * 32
        assert colours[(0, 0, 0)] == 32 * 32 - 30 * 30  # two pixels along two sides


def test_pairs_crop_scale_1_and_flip():
    whole = ImageTextPairs(tiny_rows(1))
    assert whole[0]["image"].tobytes() == tiny_rows(1)[0]["image"].tobytes()
    pairs, original = ImageTextPairs(tiny_rows(1), flip=True), tiny_rows(1)[0]["image"]
    mirrored = original.transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes()
    flips = 0
    for epoch in range(200):
        pairs.set_epoch(epoch)
        view = pairs[0]["image"].tobytes()
        assert view in (original.tobytes(), mirrored)
        flips += view == mirrored
    assert 70 < flips < 130


@pytest.mark.parametrize("scale", [0, -1, 1.5])
def test_pairs_reject_impossible_crop_scale(scale):
    with pytest.raises(ValueError, match=f"crop_scale={scale}"):
        ImageTextPairs(tiny_rows(), crop_scale=scale)


def test_rotation_and_color_jitter_keep_white():
    image = half_image("red", "top")
    white = Image.new("RGB", (8, 8), "white")
    views = ImageViews(rotation=30, color_jitter=0.3)
    for seed in range(20):
        assert views.draw(white, generator_for(seed)).tobytes() == white.tobytes()
    assert len({views.draw(image, generator_for(seed)).tobytes() for seed in range(20)}) > 15
    assert views.draw(image, generator_for(3)).tobytes() == views.draw(image, generator_for(3)).tobytes()


def test_color_matrix_has_the_given_deviation():
    views = ImageViews(color_jitter=0.3)
    matrices = torch.tensor([views.color_matrix(generator_for(seed)) for seed in range(3000)]).view(-1, 3, 4)
    shares = matrices[:, :, :3]
    assert torch.allclose(shares.sum(-1) * 255 + matrices[:, :, 3], torch.full((3000, 3), 255.0), atol=1e-3)
    assert torch.allclose(shares.mean(0), torch.eye(3), atol=0.03)
    expected = torch.full((3, 3), 0.2) + 0.1 * torch.eye(3)
    assert torch.allclose(shares.std(0), expected, rtol=0.1)


def test_rotation_fills_with_the_corner_colour():
    image = Image.new("RGB", (32, 32), (10, 200, 30))
    assert ImageViews(rotation=45).draw(image, generator_for(0)).tobytes() == image.tobytes()


@pytest.mark.parametrize("option", [{"rotation": -1}, {"rotation": 181}, {"color_jitter": -0.1}, {"color_jitter": 2}])
def test_pairs_reject_impossible_view_options(option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        ImageTextPairs(tiny_rows(), **option)
