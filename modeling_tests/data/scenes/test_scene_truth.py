"""Whatever is said of a scene is true of its objects, and these are what the image shows."""

import re
from collections import Counter

import numpy as np
import pytest
from scene_truth import answer, caption_holds, label, pair_statement_holds

from transformers_cbvila.data.scenes.drawing import GROUND, SCREEN, SCREEN_LABEL
from transformers_cbvila.data.scenes.held_out import is_held_out, is_held_out_pair
from transformers_cbvila.data.scenes.options import SPLITS, SceneOptions
from transformers_cbvila.data.scenes.scene_rows import SceneRows
from transformers_cbvila.data.scenes.words import COLORS, SHAPES, SIZES, SYNONYMS, Kind

SYNONYM = {other: usual for usual, other in SYNONYMS.values()}

ROWS = 250
DRAWN = SPLITS[:-1]


def rows_of(task, split="train", rows=ROWS, **options):
    return SceneRows(SceneOptions(rows=rows, **options), split, task)


@pytest.mark.parametrize("split", DRAWN)
@pytest.mark.parametrize("fewest, objects", [(1, 1), (2, 3), (1, 4)])
def test_captions_are_true(split, fewest, objects):
    rows = rows_of("pretraining", split, fewest=fewest, objects=objects)
    for row in map(rows.texts, range(len(rows))):
        assert fewest <= len(row["objects"]) <= objects
        assert len(row["captions"]) >= (5 if len(row["objects"]) > 1 else 3)
        for caption in row["captions"]:
            assert caption_holds(caption, row["objects"]), (caption, row["objects"])


@pytest.mark.parametrize("fewest, objects", [(1, 1), (2, 3), (4, 4)])
def test_a_caption_tells_one_place_at_most(fewest, objects):
    rows, told, orders = rows_of("pretraining", fewest=fewest, objects=objects), Counter(), Counter()
    for row in map(rows.texts, range(len(rows))):
        captions = [re.sub("over", "above", re.sub("under", "below", caption)) for caption in row["captions"]]
        places = [re.findall(r"\b(left|right|above|below)(?: of)? the middle", caption) for caption in captions]
        assert max(map(len, places)) <= 1 and sum(map(len, places)) <= min(2, objects)
        told.update(place for found in places for place in found)
        placed = [caption for caption, found in zip(row["captions"], places, strict=True) if found]
        assert list(map(named_kinds, placed)) == [(1, 1), (2, 0)][: len(placed)], "the first with its size"
        orders.update("and" in caption.partition("the middle")[0].split() for caption in placed[1:])
    assert set(told) == {"left", "right", "above", "below"}
    assert min(told.values()) > 0.7 * max(told.values()), "no place is the usual one"
    assert sum(told.values()) > 0.6 * min(2, fewest) * len(rows)
    assert not orders or min(orders[True], orders[False]) > 0.4 * orders.total(), "the other object before or after"


WHERE = {"places": "the middle", "relations": r"\b(left|right|above|below|over|under)\b"}


@pytest.mark.parametrize("captions, objects", [("places", 3), ("relations", 2)])
def test_captions_of_places_and_relations_are_those_of_all_captions_that_tell_one(captions, objects):
    options = {"fewest": objects - 1, "objects": objects}
    rows, of_places = (rows_of("pretraining", captions=chosen, **options) for chosen in ("all", captions))
    without = 0
    for number in range(len(rows)):
        row, found = rows.texts(number), of_places.texts(number)
        told = [caption for caption in row["captions"] if re.search(WHERE[captions], caption)]
        without += not told
        assert found["captions"] == (told or row["captions"]) and found["objects"] == row["objects"]
        assert len(found["negative_captions"]) == len(found["captions"])
    assert 0 < without < len(rows) / 5


@pytest.mark.parametrize("objects", [1, 3])
def test_full_captions_tell_kind_and_size_of_every_object(objects):
    rows = rows_of("pretraining", captions="full", objects=objects, fewest=1)
    several = 0
    for number in range(len(rows)):
        row = rows.texts(number)
        several += len(row["captions"]) > 1
        for caption in row["captions"]:
            words = caption.replace(",", " ").split()
            assert sum(word in {"small", "little", "big", "large"} for word in words) == len(row["objects"]), caption
    assert several > 0.9 * len(rows) or objects == 1


@pytest.mark.parametrize("captions", ["pairs", "ordered"])
def test_captions_of_pairs_name_two_objects_and_no_size(captions):
    rows = rows_of("pretraining", captions=captions)
    for number in range(len(rows)):
        (caption,) = rows.texts(number)["captions"]
        assert named_kinds(caption) == (2, 0), caption


def test_ordered_captions_are_those_of_pairs_told_from_the_left_or_from_above():
    pairs, ordered = (rows_of("pretraining", captions=captions) for captions in ("pairs", "ordered"))
    sides = Counter()
    for number in range(len(pairs)):
        row = ordered.texts(number)
        (caption,) = row["captions"]
        assert caption_holds(caption, row["objects"]) and row["negative_captions"] != [caption]
        (as_drawn, side), (as_read, (read, *_)) = map(objects_and_side, (*pairs.texts(number)["captions"], caption))
        assert as_read == (as_drawn if side[0] in ("left", "above", "over") else as_drawn[::-1])
        sides[read] += 1
    assert set(sides) == {"left", "above", "over"} and min(sides.values()) > ROWS / 10


def objects_and_side(caption):
    """Colours and shapes of a caption's two objects, by their usual names, and how it says that they lie."""
    words = [SYNONYM.get(word, word) for word in caption.split()]
    colours, shapes = ([word for word in words if word in names] for names in (COLORS, SHAPES))
    return list(zip(colours, shapes, strict=True)), re.findall(WHERE["relations"], caption)


@pytest.mark.parametrize("split", DRAWN)
def test_questions_of_where_are_one_an_image_and_about_every_side_alike(split):
    rows = rows_of("vqa", split, questions="where", rows=400)
    sides = Counter()
    for number in range(len(rows)):
        row = rows.texts(number)
        ((question,), (given,)) = row["question"], row["answer"]
        assert question.startswith("where is the ") and row["question_type"] == ["relation"]
        assert answer(question, row["objects"]) == given
        sides[given] += 1
    assert set(sides) == {"left", "right", "above", "below"} and min(sides.values()) > 0.6 * max(sides.values())


@pytest.mark.parametrize("split, task", [("confusers", "retrieval"), ("train", "vqa")])
def test_captions_of_places_are_for_pairs(split, task):
    with pytest.raises(ValueError, match="captions=places: .*; leave it out"):
        rows_of(task, split, captions="places")


@pytest.mark.parametrize("split", DRAWN)
@pytest.mark.parametrize("fewest, objects", [(1, 1), (2, 3), (1, 4)])
def test_negative_captions_are_false_and_of_the_form_of_their_captions(split, fewest, objects):
    rows = rows_of("pretraining", split, fewest=fewest, objects=objects)
    given = 0
    for row in map(rows.texts, range(len(rows))):
        assert len(row["negative_captions"]) == len(row["captions"])
        for caption, negative in zip(row["captions"], row["negative_captions"], strict=True):
            if negative:
                given += 1
                assert not caption_holds(negative, row["objects"]), (negative, row["objects"])
                assert named_kinds(negative) == named_kinds(caption)
    assert given > len(rows) * (1 if objects == 1 else 2)


def named_kinds(text):
    """How many shapes a text names, and how many sizes: a relation names none."""
    words = [SYNONYM.get(word, word) for word in text.split()]
    return sum(word in SHAPES for word in words), sum(word in SIZES for word in words)


def test_negative_captions_do_not_name_what_training_must_not_show():
    rows = rows_of("pretraining", rows=1000)
    for row in map(rows.texts, range(len(rows))):
        for negative in filter(None, row["negative_captions"]):
            words = [SYNONYM.get(word, word) for word in negative.split()]
            kinds = {Kind(*pair) for pair in zip(words, words[1:], strict=False) if pair[0] in COLORS}
            assert not any(map(is_held_out, kinds)), negative
            assert not any(is_held_out_pair(one, other) for one in kinds for other in kinds if one != other), negative


def test_captions_are_seldom_true_of_other_images():
    rows = list(map(rows_of("pretraining").texts, range(ROWS)))
    wrong = sum(
        caption_holds(caption, other["objects"])
        for row in rows[:100]
        for caption in row["captions"]
        for other in rows
        if other is not row
    )
    assert wrong / (500 * ROWS) < 2e-3


@pytest.mark.parametrize("split", DRAWN)
@pytest.mark.parametrize("objects", [2, 3, 4])
def test_answers_are_true(split, objects):
    rows = rows_of("vqa", split, objects=objects)
    for row in map(rows.texts, range(len(rows))):
        for question, given in zip(row["question"], row["answer"], strict=True):
            assert answer(question, row["objects"]) == given, (question, row["objects"])


@pytest.mark.parametrize("split", DRAWN)
@pytest.mark.parametrize("objects", [2, 3, 4])
def test_labels_of_hypotheses_hold_whatever_is_hidden(split, objects):
    rows = rows_of("entailment", split, objects=objects)
    for number in range(len(rows)):
        row, scene = rows.texts(number), rows.scenes(number)["image"]
        assert label(row["hypothesis"], row["objects"], scene.screen) == row["label"], (row, scene.screen)
        assert len(row["objects"]) + (scene.screen is not None) <= objects


@pytest.mark.parametrize("split", DRAWN)
@pytest.mark.parametrize("objects", [2, 3, 4])
def test_labels_of_statements_about_two_images_hold(split, objects):
    rows = rows_of("reasoning", split, objects=objects)
    for row in map(rows.texts, range(len(rows))):
        assert pair_statement_holds(row["sentence"], *row["objects"]) is row["label"], row


def test_label_maps_show_where_objects_are():
    for number, row in enumerate(rows_of("pretraining", rows=100, objects=4)):
        pixels, labels = np.asarray(row["image"]), row["label_map"]
        assert labels.max() == len(row["objects"])
        assert (pixels[labels == 0] == GROUND).mean() > 0.9, number  # the rest is the edges of shapes
        for place, item in enumerate(row["objects"], start=1):
            inside = labels == place
            color = COLORS[item["colour"]]
            seen = pixels[inside].astype(int)  # at edges, ground is mixed with the colour
            assert (np.abs(seen - color).sum(1) <= np.abs(seen - GROUND).sum(1) + 6).all()
            down, across = np.nonzero(inside)
            extent = np.array([across.min(), down.min(), across.max() + 1, down.max() + 1])
            assert np.abs(extent - item["box"]).max() <= 2  # of a tip, that covers less than half of its pixels


def test_screens_hide_what_nothing_is_said_of():
    rows = rows_of("entailment", rows=60)
    hidden = [number for number in range(len(rows)) if rows.scenes(number)["image"].screen]
    assert len(hidden) > 10
    for number in hidden:
        row, screen = rows[number], rows.scenes(number)["image"].screen
        assert (np.asarray(row["image"].crop(tuple(screen))) == SCREEN).all()
        assert (row["label_map"] == SCREEN_LABEL).sum() == (screen.right - screen.left) * (screen.bottom - screen.top)


@pytest.mark.parametrize("size", [32, 64, 100])
@pytest.mark.parametrize("objects", [1, 4])
def test_objects_do_not_overlap(size, objects):
    rows = rows_of("pretraining", rows=100, size=size, objects=objects, fewest=objects)
    for row in map(rows.texts, range(len(rows))):
        taken = np.zeros((size, size), dtype=int)
        for left, top, right, bottom in (item["box"] for item in row["objects"]):
            assert 0 <= left < right <= size and 0 <= top < bottom <= size
            taken[top:bottom, left:right] += 1
        assert taken.max() == 1
        kinds = [(item["colour"], item["shape"]) for item in row["objects"]]
        assert len(set(kinds)) == len(kinds)


def test_graph_says_how_objects_lie():
    (row,) = rows_of("pretraining", rows=1, objects=3, fewest=3)
    assert len(row["graph"]) == 6
    for edge in row["graph"]:
        one, other = row["objects"][edge["first"]], row["objects"][edge["second"]]
        side = {"left": "left of", "right": "right of"}.get(edge["relation"], edge["relation"])
        said = f"a {one['colour']} {one['shape']} {side} a {other['colour']} {other['shape']}"
        assert caption_holds(said, row["objects"])
        assert edge["same_shape"] == (one["shape"] == other["shape"])
        assert edge["same_color"] == (one["colour"] == other["colour"])
        assert edge["same_size"] == (one["size"] == other["size"])
