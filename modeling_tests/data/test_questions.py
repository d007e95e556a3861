"""SampledQuestions keeps open questions and draws closed ones by seed, epoch and row."""

import pytest
from tiny import half_image

from transformers_cbvila.data.questions import SampledQuestions

ROW = {
    "image": half_image("red", "top"),
    "question": ["shape?", "q1", "q2", "colour?", "q3", "q4"],
    "answer": ["circle", "yes", "no", "red", "yes", "no"],
}
NOTHING_OPEN = {"image": half_image("blue", "top"), "question": ["q1", "q2"], "answer": ["yes", "no"]}


def asked(sampler, epoch):
    sampler.set_epoch(epoch)
    return sampler[0]["question"]


def test_sampled_questions_keep_open_and_closed_questions():
    sampler = SampledQuestions([ROW], closed_questions=2)
    for epoch in range(20):
        questions = asked(sampler, epoch)
        assert {"shape?", "colour?"} <= set(questions) and len(questions) == 4


def test_sampled_questions_keep_answers_with_questions():
    example = SampledQuestions([ROW], closed_questions=3)[0]
    pairs = set(zip(ROW["question"], ROW["answer"], strict=True))
    assert set(zip(example["question"], example["answer"], strict=True)) <= pairs


def test_sampled_questions_depend_on_epoch_and_seed():
    sampler, twin = SampledQuestions([ROW], 1, seed=3), SampledQuestions([ROW], 1, seed=3)
    draws = [tuple(asked(sampler, epoch)) for epoch in range(20)]
    assert draws == [tuple(asked(twin, epoch)) for epoch in range(20)]
    assert len(set(draws)) > 1
    assert draws != [tuple(asked(SampledQuestions([ROW], 1, seed=4), epoch)) for epoch in range(20)]


def test_sampled_questions_normalize_yes_and_no():
    row = {**NOTHING_OPEN, "answer": ["Yes", "NO"]}
    assert len(asked(SampledQuestions([row], closed_questions=1), 0)) == 1


def test_sampled_questions_keep_one_question_per_image():
    assert asked(SampledQuestions([NOTHING_OPEN], closed_questions=0), 0) == ["q1"]


def test_sampled_questions_reject_a_negative_number():
    with pytest.raises(ValueError, match="-1"):
        SampledQuestions([ROW], closed_questions=-1)
