"""Judging drawings: true pictures are, changed ones and other captions are not."""

import pytest

from transformers_cbvila.data.scenes.options import SceneOptions
from transformers_cbvila.data.scenes.scene_rows import SceneRows
from transformers_cbvila.drawing.judging import judge_drawings


def test_true_pictures_are_true_of_all_kinds_of_captions():
    rows = [SceneRows(SceneOptions(rows=60, fewest=2, objects=3), "test")[row] for row in range(60)]
    pairs = [(row["image"], caption) for row in rows for caption in row["captions"]]
    judged = judge_drawings(*zip(*pairs, strict=True))
    assert judged["drawn_true"] >= 0.99
    first = judge_drawings([row["image"] for row in rows], [row["captions"][0] for row in rows])
    assert first["drawn_true"] >= 0.99 and first["drawn_true_floor"] <= 0.05
    assert first["drawn_objects"] == pytest.approx(sum(len(row["objects"]) for row in rows) / 60, abs=0.05)


def test_a_turned_picture_is_false():
    row = SceneRows(SceneOptions(rows=1, fewest=2, objects=2), "test")[0]
    caption = row["captions"][0]
    assert judge_drawings([row["image"].rotate(180)], [caption])["drawn_true"] == 0.0
    assert judge_drawings([row["image"]], [caption])["drawn_true"] == 1.0


@pytest.mark.parametrize("captions", [[], ["a red circle"] * 2])
def test_a_caption_is_needed_for_each_picture(captions):
    row = SceneRows(SceneOptions(rows=1), "test")[0]
    with pytest.raises(ValueError, match=f"1 pictures and {len(captions)} captions"):
        judge_drawings([row["image"]], captions)
