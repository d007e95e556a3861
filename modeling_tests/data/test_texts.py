"""Which values are texts, in pretraining, streams and tasks."""

from datetime import date

import datasets
import pytest
from source_forms import picture, pictures

from transformers_cbvila.data.sources import load_pair_stream, load_pairs
from transformers_cbvila.tasks.entailment import VisualEntailment
from transformers_cbvila.tasks.retrieval import ImageTextRetrieval
from transformers_cbvila.tasks.row_reading import load_task_rows
from transformers_cbvila.tasks.vqa import VisualQuestionAnswering

READERS = {
    "pairs": lambda source, column=None: load_pairs(source, caption_column=column)["captions"],
    "stream": lambda source, column=None: [r["captions"] for r in load_pair_stream(source, caption_column=column)],
    "task": lambda source, column=None: load_task_rows(
        ImageTextRetrieval(caption_column=column), [source], "train"
    ).column("captions"),
}


def parquet(folder, values, feature=None, column="caption", **others):
    rows = datasets.Dataset.from_dict({"image": [picture("red")] * len(values), column: values, **others})
    if feature is not None:
        rows = rows.cast_column(column, feature)
    rows.to_parquet(folder / "rows.parquet")
    return str(folder / "rows.parquet")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    "values, texts",
    [
        ([7, 8], [["7"], ["8"]]),
        ([1.0, 2.5], [["1"], ["2.5"]]),
        ([True, False], [["True"], ["False"]]),
        ([date(2020, 1, 2)], [["2020-01-02"]]),
        ([["a", " b ", ""]], [["a", "b"]]),
        ([{"raw": "a"}], [["a"]]),
        ([[{"caption": "a"}, {"caption": "b"}]], [["a", "b"]]),
    ],
)
def test_captions_read_from_every_text_type(values, texts, read, tmp_path):
    assert read(parquet(tmp_path, values)) == texts


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    "value, reason",
    [
        ([0.1, 0.2], "is a list of numbers"),
        ([1, 2], "is a list of numbers"),
        ([0.1] * 5000, "is a list of numbers"),
        ([["a"], ["b"]], "is of type list"),
        ({"x": 1}, "is a record of ['x']; expected a text, or a record with one of answer"),
        (b"a", "is of type bytes"),
    ],
)
def test_captions_that_are_no_text_are_named_by_row_and_column(value, reason, read, tmp_path):
    source = parquet(tmp_path, [value, value])
    with pytest.raises(ValueError) as caught:
        read(source)
    message = str(caught.value)
    assert message.startswith(f"Row 0 of {source}: its caption in column 'caption' {reason}") and len(message) < 500


def test_captions_of_class_labels_are_their_names(tmp_path):
    names = datasets.ClassLabel(names=["cat", "dog"])
    for read in READERS.values():
        assert read(parquet(tmp_path, [1, 0], names)) == [["dog"], ["cat"]]
        assert read(parquet(tmp_path, [[1, 0]], datasets.List(names))) == [["dog", "cat"]]
    assert load_pairs(parquet(tmp_path, [-1, 0], names))["captions"] == [[], ["cat"]], "-1 is no class"
    columns = {"text": [1, 0], "answer": [0, 1]}
    source = parquet(tmp_path, [1, 0], names, "question", **columns)
    assert load_task_rows(VisualQuestionAnswering(), [source], "train").column("question") == [["dog"], ["cat"]]
    source = parquet(tmp_path, [1, 0], names, "text", label=["a", "b"])
    assert load_task_rows(VisualEntailment(), [source], "train", ("a", "b")).column("text") == ["dog", "cat"]


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_captions_of_class_folders_are_their_names(read, tmp_path):
    for name in ("cat", "dog"):
        pictures(tmp_path / "photos" / name)
    assert read(str(tmp_path / "photos"), "label") == [["cat"]] * 4 + [["dog"]] * 4


def test_answers_may_be_lists_of_numbers(tmp_path):
    source = parquet(tmp_path, [[2, 2, 3]], column="answers", question=["how many?"])
    assert load_task_rows(VisualQuestionAnswering(), [source], "train").column("answer") == [[["2", "2", "3"]]]


def test_skip_bad_rows_counts_captions_that_are_no_text(tmp_path, logged):
    good, bad = {"raw": "a", "x": None}, {"raw": None, "x": [1.0]}
    values = [[good], [bad], [good]]
    source = parquet(tmp_path, [{"a": "x"}, {"a": "y"}])
    rows = load_pairs(source, skip_bad_rows=True)
    assert len(rows) == 0 and "Left out 2 bad row(s)" in logged.text and f"Row 0 of {source}" in logged.text
    assert load_pairs(parquet(tmp_path, values))["captions"] == [["a"], [], ["a"]]
