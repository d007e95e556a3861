"""Answers after examples: which prompts are written, what counts as right, and that examples are paired."""

import json

import numpy as np
import pytest
from tiny import noise_image
from tiny_language import reading_processor, save_language_model, save_vision_model

from studies.shots import Asked, is_right, main, measure, prompt_of
from transformers_cbvila import CBViLAForConditionalGeneration
from transformers_cbvila.tasks.row_reading import load_task_rows
from transformers_cbvila.tasks.vqa import VisualQuestionAnswering

DOG, CAT = noise_image(seed=1), noise_image(seed=2)


@pytest.fixture(scope="module")
def rows():
    return [load_task_rows(VisualQuestionAnswering(), ["scenes[rows=6]"], split) for split in ("test", "train")]


def test_prompt_of_examples():
    prompt = prompt_of([Asked(DOG, "what is it?", ["dog"])], Asked(CAT, "what is it?", ["cat"]), "<image>")
    assert prompt.text == "<image> what is it? dog.<image> what is it?" and prompt.images == [DOG, CAT]
    assert prompt_of([], Asked(CAT, "what is it?", ["cat"]), "<image>").text == "<image> what is it?"


@pytest.mark.parametrize(
    "text, right", [(" Red.", True), ("red", True), (" red. <image> what", True), (" red square", False), ("", False)]
)
def test_answer_is_what_stands_before_the_first_full_stop(text, right):
    assert is_right(text, ["red", "crimson"]) is right


def answers_of(rows):
    """The answer to each question about each picture."""
    pairs = [
        (row["image"].tobytes(), q, a[0]) for row in rows for q, a in zip(row["question"], row["answer"], strict=True)
    ]
    return {(image, question): answer for image, question, answer in pairs}


def test_accuracy_of_one_who_answers_once_shown_how(rows):
    known, seen = answers_of(rows[0]), []

    def write(prompts):
        seen.append([prompt.text for prompt in prompts])
        asked = [(p.images[-1].tobytes(), p.text.rpartition("<image> ")[2]) for p in prompts]
        return [
            f" {known.get(key, '?')}." if len(p.images) > 1 else "?" for p, key in zip(prompts, asked, strict=True)
        ]

    found = measure(write, *rows, "<image>", (2, 0, 1))
    assert (found["shots_0"], found["shots_1"], found["shots_2"]) == (0.0, 1.0, 1.0)
    assert found["shots_1_gain"] == found["shots_2_gain_low"] == 1.0 and "shots_0_gain" not in found
    assert found["shots_2_floor"] < 1  # of the questions few are asked of the next picture, too
    for none, one, two in zip(*seen[::2], strict=True):  # the same question; the same first example
        assert one.endswith(none) and two.endswith(none)
        assert two.startswith(one.removesuffix(none))
    first, seen = seen, []
    measure(write, *rows, "<image>", (2, 0, 1))
    assert seen == first


def test_more_examples_than_there_are(rows):
    with pytest.raises(ValueError, match=r"shots=7: the examples have 6 row\(s\)"):
        measure(lambda prompts: [], *rows, "<image>", (0, 7))


def test_command_measures_a_model(tmp_path, capsys):
    folders = save_vision_model(tmp_path / "vision"), save_language_model(tmp_path / "language")
    model = CBViLAForConditionalGeneration.from_vision_language_pretrained(*folders)
    for part in (model, reading_processor()):
        part.save_pretrained(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--data", "scenes[rows=3]", "--examples", "scenes[rows=3]"]
    assert main([*arguments, "--shots", "0", "2", "--output", str(tmp_path / "shots.json")]) == 0
    found = json.loads((tmp_path / "shots.json").read_text())
    assert found["rows"] == 3 and found["split"] == "test" and np.isfinite(found["shots_2_gain"])
    assert "shots_2_floor: 0" in capsys.readouterr().out
