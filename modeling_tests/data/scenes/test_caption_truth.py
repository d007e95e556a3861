"""What captions say is checked against the objects of their scenes; an independent reader agrees."""

import pytest
from scene_truth import IMAGE, caption_holds

from transformers_cbvila.data.scenes.caption_truth import has_truth, is_true
from transformers_cbvila.data.scenes.options import SceneOptions
from transformers_cbvila.data.scenes.scene_rows import SceneRows

RED = {"shape": "circle", "colour": "red", "size": "big", "box": [4, 20, 28, 44]}
BLUE = {"shape": "square", "colour": "blue", "size": "small", "box": [44, 26, 56, 38]}
ROWS = SceneRows(SceneOptions(rows=300, objects=4, fewest=1), "validation")


def test_captions_of_scenes_are_true_and_false_ones_are_not():
    for number in range(len(ROWS)):
        row = ROWS.texts(number)
        assert has_truth(row["objects"])
        for caption in row["captions"]:
            assert is_true(caption, row["objects"], 64), caption
        for caption in filter(None, row["negative_captions"]):
            assert not is_true(caption, row["objects"], 64), caption


def test_captions_of_other_scenes_are_judged_as_by_another_reader():
    assert IMAGE == (0, 0, 64, 64)
    judged = []
    for number in range(len(ROWS) - 1):
        objects = ROWS.texts(number)["objects"]
        for caption in ROWS.texts(number + 1)["captions"]:
            judged.append(is_true(caption, objects, 64))
            assert judged[-1] == caption_holds(caption, objects), (caption, objects)
    assert 0 < sum(judged) < len(judged) / 2


@pytest.mark.parametrize(
    "caption, truth",
    [
        ("a big red disk to the left of a little blue box", True),
        ("There is a red circle left of a blue square.", True),
        ("a red circle right of a blue square", False),
        ("a big red circle left of a big blue square", False),
        ("two shapes: a blue square and a red circle", True),
        ("two shapes: a red circle and a red circle", False),
        ("one shape: a red circle", False),
        ("a red circle and a blue square and a green ring", False),
        ("a dog", False),
        ("", False),
        ("a red circle and", False),
    ],
)
def test_captions_that_a_model_may_write(caption, truth):
    assert is_true(caption, [RED, BLUE], 64) is truth


def test_objects_of_other_data_are_no_truth():
    assert has_truth([RED, BLUE]) and not has_truth([{"bbox": [0, 0, 1, 1]}]) and not has_truth("circle")
