"""The pointing game: words that name objects, patches in boxes, and hits beside their floors."""

import numpy as np
import pytest
from tiny import build, tiny_processor

import transformers_cbvila.explaining.pointing as pointing
from transformers_cbvila import CBViLAForImageTextRetrieval
from transformers_cbvila.data.scenes.options import SceneOptions
from transformers_cbvila.data.scenes.scene_rows import SceneRows
from transformers_cbvila.explaining.explain import explain
from transformers_cbvila.explaining.pointing import named_objects, patches_in_box, play_pointing_game

OBJECTS = [
    {"colour": "purple", "shape": "circle", "size": "big", "box": [0, 0, 20, 20]},
    {"colour": "red", "shape": "square", "size": "small", "box": [40, 30, 52, 42]},
]


def test_words_name_objects_by_colour_and_shape():
    words = [
        *["A", "big", "violet", "disk", "left", "of"],
        *["a", "red", "square", ",", "a", "red", "circle"],
        "square",
    ]
    found = named_objects(words, OBJECTS)
    assert [tuple(named) for named in found] == [
        (2, "colour", (0, 0, 20, 20)),
        (3, "shape", (0, 0, 20, 20)),
        (7, "colour", (40, 30, 52, 42)),
        (8, "shape", (40, 30, 52, 42)),
    ]
    assert named_objects(["square"], OBJECTS) == named_objects([], OBJECTS) == []


def test_patches_in_a_box_have_their_centres_there():
    assert patches_in_box((0, 0, 20, 20), (64, 64), (4, 4)).tolist() == [[True] + [False] * 3] + [[False] * 4] * 3
    assert patches_in_box((8, 24, 25, 25), (64, 64), (4, 4)).nonzero()[1].tolist() == [0, 1]
    assert not patches_in_box((9, 9, 23, 23), (64, 64), (4, 4)).any()
    assert patches_in_box((0, 0, 10, 4), (20, 8), (2, 2)).tolist() == [[True, False], [False, False]]


def test_the_game_compares_maxima_with_boxes():
    rows = SceneRows(SceneOptions(size=64, rows=6), "test")[:]
    words = sorted({word for row in rows for word in row["captions"][0].replace(",", " ").split()})
    processor = tiny_processor(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words], model_max_length=60)
    model = build(CBViLAForImageTextRetrieval, text={"max_position_embeddings": 64})
    game = play_pointing_game(model, processor, rows, batch_size=4, progress=False)
    expected = []
    for row in rows:
        found = explain(model, processor, row["image"], row["captions"][0])
        for named in named_objects(found.words, row["objects"]):
            place = np.unravel_index(found.maps[named.place].argmax(), (4, 4))
            expected.append(bool(patches_in_box(named.box, (64, 64), (4, 4))[place]))
    assert game.hits.tolist() == expected and len(expected) >= 12
    assert set(game.parts) == {"colour", "shape"} and set(game.images) == set(range(6))
    assert (game.hits <= (game.of_random_patch > 0)).all() and game.hits.mean() <= game.best <= 1
    assert set(game.of_centre) <= {0.0, 1.0}


def test_equal_maxima_count_by_their_share():
    inside = np.array([[True, False], [False, False]])
    assert pointing._share_of_maxima(np.array([[1.0, 1.0], [0.5, 0.0]]), inside) == 0.5
    assert pointing._share_of_maxima(np.zeros((2, 2)), inside) == 0.25


def test_captions_that_name_nothing_are_refused():
    row = {**SceneRows(SceneOptions(rows=1), "test")[0], "captions": ["red"]}
    with pytest.raises(ValueError, match="No caption of the 1 rows names an object"):
        play_pointing_game(build(CBViLAForImageTextRetrieval), tiny_processor(), [row], progress=False)
