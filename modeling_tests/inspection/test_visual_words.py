"""Contents of the codebook page, against slow references and made-up indices."""

import numpy as np
import pytest
import torch
from tiny import CODES, PATCH, PATCHES, SIDE, pretraining_model, tiny_processor, tiny_rows

from transformers_cbvila.inspection.visual_words import (
    choose_codes,
    choose_rows,
    collect_visual_words,
    find_patches,
    hide_patches,
    reconstruct_examples,
)
from transformers_cbvila.model.drawn_images_cbvila import to_pictures
from transformers_cbvila.retrieval.encoding import pixel_values_of


def test_collect_visual_words_counts_and_mean_colours():
    model, processor, rows = pretraining_model(), tiny_processor(), tiny_rows(5)
    words = collect_visual_words(model, processor, rows, batch_size=2, progress=False)
    pixel_values = pixel_values_of(model, processor, [row["image"] for row in rows])
    expected = model.cbvila(pixel_values).codebook_indices.numpy()
    assert words.indices.shape == (5, PATCHES, 1)
    np.testing.assert_array_equal(words.indices, expected[..., None])  # of one book
    assert words.counts.tolist() == np.bincount(expected.flatten(), minlength=CODES).tolist()
    assert words.grid == (4, 4)
    pictures = to_pictures(processor.image_processor, pixel_values).astype(float) / 255
    for code in range(CODES):
        patches = [
            pictures[i, n // 4 * PATCH : (n // 4 + 1) * PATCH, n % 4 * PATCH : (n % 4 + 1) * PATCH].mean((0, 1))
            for i, n in zip(*np.nonzero(expected == code), strict=True)
        ]
        colour = np.mean(patches, axis=0) if patches else np.full(3, 0.5)
        np.testing.assert_allclose(words.colours[code], colour, atol=2e-3)  # pictures are rounded to 8 bits


def test_pictures_are_the_images_of_the_model():
    rows = tiny_rows(3)  # of the model's size: nothing is resized
    pixel_values = pixel_values_of(pretraining_model(), tiny_processor(), [row["image"] for row in rows])
    for picture, row in zip(to_pictures(tiny_processor().image_processor, pixel_values), rows, strict=True):
        np.testing.assert_array_equal(picture, np.asarray(row["image"]))


def test_collect_visual_words_rejects_no_rows():
    with pytest.raises(ValueError, match="rows is empty"):
        collect_visual_words(pretraining_model(), tiny_processor(), [], progress=False)


def test_choose_codes_takes_most_used_and_others():
    counts = np.array([5, 0, 9, 1, 3, 0, 2, 7])
    assert choose_codes(counts, most_used=3, others=0) == [2, 7, 0]
    chosen = choose_codes(counts, most_used=2, others=2)
    assert chosen[:2] == [2, 7] and len(set(chosen)) == 4 and set(chosen[2:]) <= {0, 3, 4, 6}
    assert sorted(choose_codes(counts, most_used=4, others=9)) == [0, 2, 3, 4, 6, 7]
    assert len({tuple(choose_codes(counts, 2, 2, seed)) for seed in range(8)}) > 1


def test_find_patches_of_a_code_are_in_different_images():
    indices = np.random.default_rng(0).integers(4, size=(30, 9, 2)) + np.array([0, 4])  # of two books
    places = find_patches(2, indices, limit=16)
    assert len(places) == 16 == len({image for image, _ in places})
    assert all(indices[image, patch, 0] == 2 for image, patch in places)
    assert all(indices[image, patch, 1] == 6 for image, patch in find_patches(6, indices))
    assert find_patches(8, indices) == []


def test_choose_rows_prefers_distinct_captions():
    rows = [{"captions": [caption]} for caption in "aaaabbbc"]
    chosen = choose_rows(rows, 3)
    assert {rows[row]["captions"][0] for row in chosen} == set("abc")
    assert len(set(choose_rows(rows, 6))) == 6 and sorted(choose_rows(rows, 20)) == list(range(8))


def test_hide_patches_paints_grey():
    pictures = np.zeros((1, 4, 6, 3), np.uint8)
    hidden = np.array([[False, True, False, True, False, False]])  # 2 rows of 3 patches
    grey = hide_patches(pictures, hidden, 2)[0, :, :, 0]
    assert grey.tolist() == [[0, 0, 128, 128, 0, 0]] * 2 + [[128, 128, 0, 0, 0, 0]] * 2


def test_reconstruct_examples_with_own_and_other_caption():
    model, processor, rows = pretraining_model(), tiny_processor(), tiny_rows(3)
    rows.append({**rows[2], "captions": rows[0]["captions"]})
    whole = reconstruct_examples(model, processor, rows)
    assert [e.caption for e in whole] == [row["captions"][0] for row in rows]
    assert [e.other_caption for e in whole] == [whole[1].caption, whole[2].caption, whole[3].caption, whole[1].caption]
    for one, two in zip(whole, reconstruct_examples(model, processor, rows, batch_size=3), strict=True):
        np.testing.assert_allclose(one.predicted.astype(int), two.predicted.astype(int), atol=1)
    for example in whole:
        assert example.image.shape == example.reconstructed.shape == (SIDE, SIDE, 3)
        assert (example.masked == 128).all(-1).sum() >= 0.75 * SIDE * SIDE
        assert 0 <= example.accuracy <= 1 and example.accuracy * PATCHES * 0.75 == pytest.approx(
            round(example.accuracy * 12)
        )
    assert any((e.predicted != e.predicted_other).any() for e in whole)


@torch.no_grad()
def test_reconstruct_examples_with_mask_ratio_0():
    model, processor = pretraining_model(), tiny_processor()
    (example,) = reconstruct_examples(model, processor, tiny_rows(1), mask_ratio=0.0)
    np.testing.assert_array_equal(example.predicted, example.reconstructed)
    np.testing.assert_array_equal(example.masked, example.image)
