"""Rows are the same everywhere; their splits share nothing; their words say nothing of answers and labels."""

import hashlib
import multiprocessing
import pickle
from collections import Counter, defaultdict

import numpy as np
import pytest
from scene_truth import caption_holds

from transformers_cbvila.data.scenes.confusers import ROLES
from transformers_cbvila.data.scenes.held_out import SEEN, UNSEEN, held_out_partners, is_held_out_pair
from transformers_cbvila.data.scenes.options import SPLITS, STYLES, TASKS, SceneOptions
from transformers_cbvila.data.scenes.scene_rows import SceneRows
from transformers_cbvila.data.scenes.words import COLORS, SHAPES, Kind

DRAWN = SPLITS[:-1]
# Of the bytes of the first images of each style, and of the first texts of each task: every machine has the same.
GOLDEN = {"images": "902398d3ba1cf59e", "texts": "91f9aae1f681c360"}


def fingerprint(row):
    """A hash of a row's image and of all else in it."""
    rest = {name: value for name, value in row.items() if name not in ("image", "label_map")}
    return hashlib.sha256(row["image"].tobytes() + row["label_map"].tobytes() + repr(rest).encode()).hexdigest()


def row_in_another_process(arguments):
    rows, number = arguments
    return fingerprint(rows[number])


def test_rows_are_the_same_on_every_machine():
    images, texts = hashlib.sha256(), hashlib.sha256()
    for style in STYLES:
        rows = SceneRows(SceneOptions(rows=8, style=style), "train")
        for number in range(8):
            images.update(rows.image(number).tobytes())
    for task in TASKS:
        rows = SceneRows(SceneOptions(rows=8), "test", task)
        texts.update(repr([rows.texts(number) for number in range(8)]).encode())
    assert {"images": images.hexdigest()[:16], "texts": texts.hexdigest()[:16]} == GOLDEN


def test_a_row_depends_on_nothing_but_options_split_and_number():
    rows = SceneRows(SceneOptions(style="noisy"), "train")
    ahead = [fingerprint(rows[number]) for number in (7, 3, 23_999)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(row_in_another_process, [(rows, number) for number in (3, 23_999, 7)]) == [
            ahead[1],
            ahead[2],
            ahead[0],
        ]
    assert fingerprint(pickle.loads(pickle.dumps(rows))[-1]) == ahead[2]
    assert fingerprint(SceneRows(SceneOptions(style="noisy", rows=10), "train")[3]) == ahead[1]
    assert fingerprint(SceneRows(SceneOptions(style="noisy", seed=1), "train")[3]) != ahead[1]


@pytest.mark.parametrize("task", TASKS)
def test_texts_are_those_of_the_rows(task):
    rows = SceneRows(SceneOptions(rows=10), "test", task)
    for number, row in enumerate(rows):
        drawn = {"image", "left_image", "right_image", "label_map", "graph"}
        assert rows.texts(number) == {name: value for name, value in row.items() if name not in drawn}
    with pytest.raises(IndexError, match="no row 10"):
        rows[10]


def test_splits_have_no_layout_in_common():
    layouts = defaultdict(set)
    for split in SPLITS:
        rows = SceneRows(SceneOptions(rows=300, objects=2, fewest=1 if split != "confusers" else 2), split)
        for number in range(300):
            (scene,) = rows.scenes(number).values()
            layouts[frozenset(item.box for item in scene.objects)].add(split)
    assert all(len(splits) == 1 for splits in layouts.values())


def test_held_out_kinds_and_pairs_are_regular():
    assert len(UNSEEN) == 7 and len(SEEN) == 42
    assert {kind.color for kind in UNSEEN} == set(COLORS) and {kind.shape for kind in UNSEEN} == set(SHAPES)
    assert {len(held_out_partners(kind)) for kind in SEEN} == {6}
    assert all(is_held_out_pair(other, kind) for kind in SEEN for other in held_out_partners(kind))


def kinds_in(row):
    """The kinds of each image of a row, and all pairs of words for a kind in its texts."""
    objects = row["objects"] if row["objects"] and isinstance(row["objects"][0], list) else [row["objects"]]
    return [[Kind(item["colour"], item["shape"]) for item in image] for image in objects]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_combinations_are_new_in_test_compositional_only(task, split):
    if split == "confusers" and task not in ("pretraining", "retrieval"):
        pytest.skip("a gallery for retrieval")
    rows = SceneRows(SceneOptions(rows=200), split, task)
    for number in range(200):
        row = rows.texts(number)
        told = str({name: value for name, value in row.items() if name != "objects"})
        has_new = any(" ".join(kind) in told for kind in UNSEEN)
        for kinds in kinds_in(row):
            pairs = [(a, b) for a in kinds for b in kinds if a in SEEN and b in SEEN]
            has_new = (
                has_new or any(kind in UNSEEN for kind in kinds) or any(is_held_out_pair(*pair) for pair in pairs)
            )
        if split != "test_compositional":
            assert not has_new, row
        elif task in ("pretraining", "retrieval", "vqa"):
            assert has_new, row


def texts_with_labels(task, split, rows):
    rows = SceneRows(SceneOptions(rows=rows), split, task)
    for row in map(rows.texts, range(len(rows))):
        if task == "vqa":
            yield from zip(row["question"], row["answer"], strict=True)
        else:
            yield row["hypothesis" if task == "entailment" else "sentence"], str(row["label"])


@pytest.mark.parametrize(
    "task, begins, answers",
    [
        ("vqa", "is there a", 2),
        ("vqa", "is the", 2),
        ("vqa", "are there more", 2),
        ("vqa", "how many", 4),
        ("vqa", "where is", 4),
        ("vqa", "what color", 7),
        ("vqa", "what shape", 7),
        ("vqa", "what size", 2),
        ("entailment", "", 3),
        ("reasoning", "", 2),
    ],
)
def test_words_do_not_tell_the_answer(task, begins, answers):
    """The most frequent answer to each text in training is right as often as guessing."""
    counted = defaultdict(Counter)
    for text, given in texts_with_labels(task, "train", 3000):
        counted[text][given] += 1
    right = [
        counted[text].most_common(1)[0][0] == given
        for text, given in texts_with_labels(task, "test", 2000)
        if text.startswith(begins) and text in counted
    ]
    assert len(right) > 300
    assert abs(np.mean(right) - 1 / answers) < 3.5 * (0.25 / len(right)) ** 0.5, np.mean(right)


def test_a_hypothesis_has_each_label_once_in_three_rows():
    rows = SceneRows(SceneOptions(rows=300), "validation", "entailment")
    for start in range(0, 300, 3):
        group = [rows.texts(start + member) for member in range(3)]
        assert len({row["hypothesis"] for row in group}) == 1
        assert {row["label"] for row in group} == {"entailment", "neutral", "contradiction"}


def test_a_statement_is_true_of_two_pairs_of_images_in_four():
    rows = SceneRows(SceneOptions(rows=400), "validation", "reasoning")
    labels, sentences = defaultdict(list), defaultdict(set)
    for row in map(rows.texts, range(400)):
        group = row["identifier"].rpartition("-")[0].rpartition("-")[0]
        labels[group].append(row["label"])
        sentences[group].add(row["sentence"])
    assert all(sorted(values) == [False, False, True, True] for values in labels.values())
    assert all(len(values) == 1 for values in sentences.values())


@pytest.mark.parametrize("objects", [2, 4])
def test_each_caption_of_the_gallery_is_true_of_one_image(objects):
    rows = list(map(SceneRows(SceneOptions(rows=400, objects=objects), "confusers", "retrieval").texts, range(400)))
    for number, row in enumerate(rows):
        assert row["confuser"] == ROLES[number % 4] and row["group"] == number // 4
        assert row["captions"] == [row["caption"]]
        true_of = [place for place, other in enumerate(rows) if caption_holds(row["caption"], other["objects"])]
        assert true_of == [number]


def test_confusers_differ_in_one_thing():
    rows = list(map(SceneRows(SceneOptions(rows=400), "confusers", "retrieval").texts, range(400)))
    for start in range(0, 400, 4):
        original, swapped, turned, changed = (row["objects"] for row in rows[start : start + 4])
        assert sorted(item["colour"] for item in swapped) == sorted(item["colour"] for item in original)
        assert [item["shape"] for item in swapped] == [item["shape"] for item in original]
        assert [item["box"] for item in swapped] == [item["box"] for item in original]
        for item, other in zip(turned, original, strict=True):
            assert {**item, "box": None} == {**other, "box": None}
        differing = [
            name
            for item, other in zip(changed, original, strict=True)
            for name in ("shape", "colour", "size")
            if item[name] != other[name]
        ]
        assert len(differing) == 1
