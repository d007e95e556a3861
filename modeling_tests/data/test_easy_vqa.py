"""easy-VQA: counts, captions derived from answers, and baselines."""

from itertools import chain

import pytest

from transformers_cbvila.data.easy_vqa import load_easy_vqa, load_easy_vqa_captions
from transformers_cbvila.data.easy_vqa.facts import COLORS, SHAPES, derive_facts, question_type, true_captions
from transformers_cbvila.metrics.baselines import majority_accuracy, question_only_accuracy


@pytest.fixture(scope="module")
def splits():
    return {"train": load_easy_vqa("train"), "test": load_easy_vqa("test")}


def flat(dataset, column):
    return list(chain.from_iterable(dataset[column]))


@pytest.mark.parametrize("split, n_images, n_questions", [("train", 4000, 38575), ("test", 1000, 9673)])
def test_load_easy_vqa_counts_images_and_questions(splits, split, n_images, n_questions):
    dataset = splits[split]
    assert dataset["image_id"][:] == list(range(n_images))
    assert len(flat(dataset, "question")) == len(flat(dataset, "answer")) == n_questions
    assert all(len(row["question"]) == len(row["question_type"]) for row in dataset.remove_columns("image"))


def test_load_easy_vqa_test_split_has_2537_shape_and_color_questions(splits):
    types = flat(splits["test"], "question_type")
    assert set(types) == {"shape", "color", "yes/no"}
    assert types.count("shape") + types.count("color") == 2537


def test_load_easy_vqa_row_has_image_and_its_questions(splits):
    row = splits["test"][0]
    assert row["image"].size == (64, 64) and row["image"].mode == "RGB"
    assert (row["question"][0], row["answer"][0], row["question_type"][0]) == (
        "what is the red shape?",
        "triangle",
        "shape",
    )


def test_easy_vqa_baselines_are_the_known_ones(splits):
    train_questions, train_answers = flat(splits["train"], "question"), flat(splits["train"], "answer")
    questions, answers = flat(splits["test"], "question"), flat(splits["test"], "answer")
    looks = [kind != "yes/no" for kind in flat(splits["test"], "question_type")]
    open_questions = [question for question, look in zip(questions, looks, strict=True) if look]
    open_answers = [answer for answer, look in zip(answers, looks, strict=True) if look]

    assert majority_accuracy(train_answers, answers) == pytest.approx(0.373, abs=5e-4)
    overall = question_only_accuracy(train_questions, train_answers, questions, answers)
    assert overall == pytest.approx(0.670, abs=5e-4)
    on_open = question_only_accuracy(train_questions, train_answers, open_questions, open_answers)
    assert on_open == pytest.approx(0.233, abs=5e-4)


def test_question_only_accuracy_of_unseen_questions_uses_the_majority_answer():
    assert question_only_accuracy(["a?", "b?", "b?"], ["x", "y", "y"], ["a?", "c?"], ["x", "y"]) == 1.0


@pytest.mark.parametrize("floor", [lambda: majority_accuracy([], ["x"]), lambda: majority_accuracy(["x"], [])])
def test_baselines_reject_no_answers(floor):
    with pytest.raises(ValueError, match="baselines need answers"):
        floor()


def test_easy_vqa_rejects_unknown_split_and_answer():
    with pytest.raises(ValueError, match="'validation'"):
        load_easy_vqa("validation")
    with pytest.raises(ValueError, match="'purple'"):
        question_type("purple")


@pytest.mark.parametrize(
    "questions, answers, shape, color",
    [
        (["what color is the shape?"], ["red"], None, "red"),
        (["what color is the circle?"], ["red"], "circle", "red"),
        (["what is the blue shape?"], ["rectangle"], "rectangle", "blue"),
        (["is there a red shape?"], ["yes"], None, "red"),
        (["is there a red shape?"], ["no"], None, None),
        (["is there not a red shape?"], ["no"], None, "red"),
        (["is no red shape present?"], ["yes"], None, None),
        (["does the image not contain a circle?"], ["no"], "circle", None),
        (["is there a circle?", "is there not a triangle?"], ["no", "yes"], "rectangle", None),
        ([f"is there a {color} shape?" for color in COLORS[1:]], ["no"] * 7, None, COLORS[0]),
    ],
)
def test_derive_facts_from_answers(questions, answers, shape, color):
    facts = derive_facts(questions, answers)
    assert (facts.shape, facts.color) == (shape, color)
    if shape:
        assert facts.absent_shapes == set(SHAPES) - {shape}
    if color:
        assert facts.absent_colors == set(COLORS) - {color}


@pytest.mark.parametrize(
    "questions, answers",
    [
        (["is there a circle?", "what shape is present?"], ["no", "circle"]),
        (["what shape is present?", "is there a triangle?"], ["circle", "yes"]),
        ([f"is there a {shape}?" for shape in SHAPES], ["no"] * 3),
    ],
)
def test_derive_facts_rejects_contradictory_answers(questions, answers):
    with pytest.raises(ValueError, match="contradictory"):
        derive_facts(questions, answers)


def test_true_captions_state_known_facts_only():
    unknown_color = true_captions(derive_facts(["what shape is present?"], ["circle"]))
    assert "a circle" in unknown_color and "there is no triangle" in unknown_color
    assert not any(color in caption.split() for caption in unknown_color for color in COLORS)

    complete = true_captions(derive_facts(["what is the red shape?"], ["circle"]))
    assert {"a red circle", "a red shape", "a circle", "there is no triangle", "not a blue shape"} <= set(complete)
    assert {"there is no circle", "not a red shape", "a triangle"}.isdisjoint(complete)
    assert len(set(complete)) == len(complete) == 33


@pytest.mark.parametrize("split, n_images, n_complete", [("train", 4000, 3578), ("test", 1000, 888)])
def test_load_easy_vqa_captions_rows(split, n_images, n_complete):
    captions = load_easy_vqa_captions(split)
    assert len(captions) == n_images and set(captions.column_names) == {"image", "captions", "image_id"}
    assert all(captions["captions"])
    complete = load_easy_vqa_captions(split, complete_only=True)
    assert len(complete) == n_complete and {len(row) for row in complete["captions"]} == {33}


def test_true_captions_agree_with_the_pixels():
    """The facts never look at the pixels, yet each image holds the colour that they name and none of the others."""
    colors = {
        (0, 0, 0): "black",
        (0, 0, 255): "blue",
        (165, 42, 42): "brown",
        (128, 128, 128): "gray",
        (0, 255, 0): "green",
        (255, 0, 0): "red",
        (0, 128, 128): "teal",
        (255, 255, 0): "yellow",
    }
    for row in load_easy_vqa_captions("test", complete_only=True):
        drawn = {colors[pixel] for _, pixel in row["image"].getcolors(64 * 64) if pixel in colors}
        named = {color for color in COLORS if f"a {color} shape" in row["captions"]}
        assert drawn == named, f"image {row['image_id']}"
