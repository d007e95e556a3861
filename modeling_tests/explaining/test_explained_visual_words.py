"""Visual words that speak for a word, and words that go with a visual word."""

from dataclasses import replace

import numpy as np
import pytest
from tiny import CODES, build, pretraining_model, tiny_processor, tiny_rows

from transformers_cbvila import CBViLAForImageTextRetrieval
from transformers_cbvila.explaining.explain import explain
from transformers_cbvila.explaining.visual_words import (
    codes_for_words,
    codes_of_image,
    explained_code_words,
    words_for_code,
)

ROW = tiny_rows(1)[0]


@pytest.fixture(scope="module")
def explanation():
    found = explain(pretraining_model(), tiny_processor(), ROW["image"], "red left")
    maps = np.array([[[1.0, 0.5], [0.0, 0.5]], [[0.0, 0.0], [1.0, 0.0]]])
    return replace(found, image_maps=maps[None])


CODES_OF_PATCHES = np.array([[7], [3], [3], [5]])


def test_codes_speak_by_their_part_of_the_map(explanation):
    assert codes_for_words(explanation, CODES_OF_PATCHES) == [[(7, 0.5), (3, 0.25), (5, 0.25)], [(3, 1.0)]]
    assert codes_for_words(explanation, CODES_OF_PATCHES, limit=1) == [[(7, 0.5)], [(3, 1.0)]]


def test_words_go_with_codes_by_the_mean_of_their_map(explanation):
    assert words_for_code(explanation, CODES_OF_PATCHES, 3) == [("left", 0.5), ("red", 0.25)]
    assert words_for_code(explanation, CODES_OF_PATCHES, 7) == [("red", 1.0), ("left", 0.0)]
    with pytest.raises(ValueError, match=r"code=4: no patch of the image has it; its codes are \[3, 5, 7\]"):
        words_for_code(explanation, CODES_OF_PATCHES, 4)


def test_a_word_without_a_map_has_no_codes(explanation):
    flat = replace(explanation, image_maps=np.zeros_like(explanation.image_maps))
    assert codes_for_words(flat, CODES_OF_PATCHES) == [[], []]


def test_codes_of_an_image_are_the_models():
    model, processor = pretraining_model(), tiny_processor()
    codes = codes_of_image(model, processor, ROW["image"])
    inputs = processor(images=[ROW["image"]], text=["a"], return_tensors="pt")
    assert np.array_equal(codes[:, 0], model(**inputs).codebook_indices[0].numpy().ravel())
    with pytest.raises(ValueError, match="no codebook"):
        codes_of_image(build(CBViLAForImageTextRetrieval), processor, ROW["image"])


def test_code_words_add_up_where_words_look():
    model, processor = pretraining_model(), tiny_processor()
    rows = [row for row in tiny_rows(8) for _ in range(3)]
    found = explained_code_words(model, processor, rows, batch_size=5, progress=False)
    assert found.together.shape == (CODES, len(found.words)) and {"red", "left"} <= set(found.words)
    expected = np.zeros(CODES)
    for row in rows:
        explanation = explain(model, processor, row["image"], row["captions"][0])
        if "red" in explanation.words:
            codes = codes_of_image(model, processor, row["image"])[:, 0]
            np.add.at(expected, codes, explanation.map_of("red").ravel())
    column = found.words.index("red")
    np.testing.assert_allclose(found.together[:, column], expected, atol=1e-2)
    assert found.frequencies[column] == pytest.approx(expected.sum() / (len(rows) * 16), abs=1e-3)
    assert found.of_word("red") and all(0 <= share <= 1 for _, share, _ in found.of_code(int(expected.argmax())))
