"""The parser of pixels: exact on true pictures, right on blurred larger ones, sane on others."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from transformers_cbvila.data.scenes.options import SceneOptions
from transformers_cbvila.data.scenes.scene_rows import SceneRows
from transformers_cbvila.data.scenes.seeing import seen_objects


def told(objects):
    return sorted((item["colour"], item["shape"], item["size"]) for item in objects)


@pytest.mark.parametrize("size, blur", [(64, 0), (96, 0), (96, 1.0)])
def test_objects_of_true_pictures_are_seen(size, blur):
    rows = SceneRows(SceneOptions(rows=120, size=size, fewest=1, objects=4), "test")
    for row in map(rows.__getitem__, range(len(rows))):
        picture = row["image"].filter(ImageFilter.GaussianBlur(blur)) if blur else row["image"]
        seen = seen_objects(picture)
        assert told(seen) == told(row["objects"])
        if not blur:
            boxes = {(item["colour"], item["shape"]): item["box"] for item in row["objects"]}
            assert all(np.abs(np.subtract(o["box"], boxes[o["colour"], o["shape"]])).max() <= 1 for o in seen)


def test_ground_and_specks_are_no_objects():
    picture = Image.new("RGB", (64, 64), (240, 240, 240))
    assert seen_objects(picture) == []
    picture.paste((220, 40, 40), (10, 10, 13, 13))
    assert seen_objects(picture) == []


def test_a_region_at_the_edge_is_within_the_picture():
    picture = Image.new("RGB", (64, 64), (240, 240, 240))
    picture.paste((220, 40, 40), (0, 50, 5, 64))
    (seen,) = seen_objects(picture)
    left, top, right, bottom = seen["box"]
    assert 0 <= left < right <= 64 and 0 <= top < bottom <= 64 and seen["colour"] == "red"
    with pytest.raises(ValueError, match="64 x 32"):
        seen_objects(picture.crop((0, 0, 64, 32)))
