"""The pipeline explains its answers by option, as `explain` does."""

from dataclasses import fields

import numpy as np
import pytest
from tiny_vqa import picture, tiny_model, tiny_processor
from transformers import pipeline

import transformers_cbvila
from transformers_cbvila import explain
from transformers_cbvila.explaining.explanation import Explanation
from transformers_cbvila.model import pipeline_cbvila

PICTURES = [picture(seed) for seed in range(3)]
QUESTIONS = ["what shape is in the image?", "red", "how many circles are there at the left?"]
SHORT = {"max_new_tokens": 3}


@pytest.fixture(scope="module")
def ask():
    return pipeline("visual-question-answering", model=tiny_model(), processor=tiny_processor(), generate_kwargs=SHORT)


def assert_same(explanation, expected):
    for field in fields(Explanation):
        one, other = (getattr(each, field.name) for each in (explanation, expected))
        if isinstance(one, np.ndarray | float):
            np.testing.assert_allclose(one, other, atol=1e-4, err_msg=field.name)
        else:
            assert one == other, field.name


@pytest.mark.parametrize("method", [True, "rollout"])
def test_explanations_are_those_of_explain(ask, method):
    options = {} if method is True else {"method": method}
    found = ask(PICTURES, QUESTIONS, explain=method, batch_size=2)
    for image, question, (entry,) in zip(PICTURES, QUESTIONS, found, strict=True):
        expected = explain(ask.model, ask.processor, image, question, entry["answer"], **options)
        assert_same(entry["explanation"], expected)
    assert found[0][0]["explanation"].maps.shape == (6, 4, 4)


def test_answers_are_what_they_were(ask):
    plain, explained = (ask(PICTURES[0], QUESTIONS[0], top_k=2, explain=flag) for flag in (False, True))
    assert [{key: entry[key] for key in ("score", "answer")} for entry in explained] == plain


def test_each_of_several_answers_is_explained(ask):
    found = ask(PICTURES[0], QUESTIONS[0], answers=["red", "yes", "no"], explain=True)
    for entry in found:
        expected = explain(ask.model, ask.processor, PICTURES[0], QUESTIONS[0], entry["answer"])
        assert_same(entry["explanation"], expected)
    maps = [entry["explanation"].maps for entry in found]
    assert not np.allclose(maps[0], maps[1])


def test_paths_and_streams(ask, tmp_path):
    PICTURES[1].save(tmp_path / "a.png")
    pairs = ({"image": str(tmp_path / "a.png"), "question": question} for question in QUESTIONS)
    for question, (entry,) in zip(QUESTIONS, ask(pairs, explain=True), strict=True):
        assert_same(entry["explanation"], explain(ask.model, ask.processor, PICTURES[1], question, entry["answer"]))


def test_empty_answers_have_none(ask, monkeypatch):
    monkeypatch.setattr(type(ask.processor), "decode_answers", lambda self, sequences: [""] * len(sequences))
    assert ask(PICTURES[0], QUESTIONS[0], explain=True)[0]["explanation"] is None


@pytest.mark.parametrize(
    "options, question, message",
    [
        ({"explain": "lime"}, "red", r"explain='lime' must be True, False or one of 'gradcam', 'rollout'"),
        ({"explain": 1}, "red", r"explain=1 must be"),
        ({"explain": True}, "?!", r"has no word to explain"),
    ],
)
def test_what_cannot_be_explained(ask, options, question, message):
    with pytest.raises(ValueError, match=message):
        ask(PICTURES[0], question, **options)


def test_the_public_pipeline_is_the_one_that_explains():
    ours = transformers_cbvila.CBViLAVisualQuestionAnsweringPipeline
    published = pipeline_cbvila.CBViLAVisualQuestionAnsweringPipeline
    assert ours is not published and issubclass(ours, published) and ours.__name__ == published.__name__
