"""Texts that a tokenizer cannot take, by row, before anything is computed."""

import pytest
from tiny import tiny_processor

from transformers_cbvila.tasks.entailment import VisualEntailment
from transformers_cbvila.tasks.retrieval import ImageTextRetrieval
from transformers_cbvila.tasks.rows import Record, TaskRows
from transformers_cbvila.tasks.texts import check_texts, share_with_sides
from transformers_cbvila.tasks.vqa import VisualQuestionAnswering

GOOD = {"question": ["is it red ?", "red " * 70], "answer": [["yes", ""], ["no"]]}
BAD = {
    "its question '\ufffd' has nothing": {"question": ["is it ?", "\ufffd"]},
    "its answer 'red red .* has 41 tokens with the one that ends it, and the model takes 16": {
        "answer": [["yes", "red " * 40], ["no"]]
    },
    "its answer '\u0301' has nothing": {"answer": [["yes"], ["\u0301"]]},
}


def rows_of(*fields):
    return TaskRows([], [Record(f"Row {i} of FILE", [], {**GOOD, **changed}) for i, changed in enumerate(fields)])


@pytest.mark.parametrize("reason, change", BAD.items())
def test_check_texts_names_or_skips_bad_texts(reason, change):
    rows = rows_of({}, {}, change, {})
    with pytest.raises(ValueError, match=f"Row 2 of FILE: {reason}.*skip_bad_rows"):
        check_texts(VisualQuestionAnswering(), rows, tiny_processor(), training=True)
    kept = check_texts(VisualQuestionAnswering(skip_bad_rows=True), rows, tiny_processor(), training=True)
    assert [record.origin[4] for record in kept.records] == ["0", "1", "3"] and len(kept.skipped) == 1
    assert kept.skipped[0].startswith("Row 2 of FILE: its ") and not rows.skipped
    with pytest.raises(ValueError, match="no row that can be used. Left out 1 bad"):
        check_texts(VisualQuestionAnswering(skip_bad_rows=True), rows_of(change), tiny_processor(), training=True)


def test_check_texts_ignores_reference_answers_in_evaluation():
    rows = rows_of({}, {"answer": [["\ufffd"], ["red " * 40]]})
    assert len(check_texts(VisualQuestionAnswering(), rows, tiny_processor())) == 2


@pytest.mark.parametrize(
    "task, field, value",
    [(ImageTextRetrieval(), "captions", ["red", "\ufffd"]), (VisualEntailment(), "text", "\ufffd")],
)
def test_check_texts_covers_texts_of_every_task(task, field, value):
    rows = TaskRows([], [Record("Row 0", [], {field: value})])
    with pytest.raises(ValueError, match=f"Row 0: its {field.removesuffix('s')} '\ufffd'"):
        check_texts(task, rows, tiny_processor())


def test_check_texts_tokenizes_in_parts(monkeypatch):
    monkeypatch.setattr("transformers_cbvila.tasks.texts._AT_A_TIME", 2)
    with pytest.raises(ValueError, match="Row 5"):
        check_texts(VisualQuestionAnswering(), rows_of(*[{}] * 5, {"question": ["a", "\ufffd"]}), tiny_processor())


def test_share_with_sides_counts_different_texts():
    captions = ["a Left turn", "a bright light", "leftovers", "two, right there", "two, right there"]
    rows = TaskRows([], [Record(f"Row {i}", [], {"captions": [text]}) for i, text in enumerate(captions)])
    assert share_with_sides(ImageTextRetrieval(), rows) == 0.5
    assert share_with_sides(ImageTextRetrieval(), TaskRows([], [])) == 0
