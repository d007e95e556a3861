"""Texts in tables stay as they are written."""

import json

import pytest
from source_forms import pictures, write

from transformers_cbvila.data.sources import load_pair_stream, load_pairs
from transformers_cbvila.tasks.entailment import VisualEntailment
from transformers_cbvila.tasks.retrieval import ImageTextRetrieval
from transformers_cbvila.tasks.row_reading import load_task_rows
from transformers_cbvila.tasks.vqa import VisualQuestionAnswering

TEXTS = ["None", "NA", "null", "nan", "N/A", "007", "1.50", "1e5", "true", "2020-01-01", "12:30", "inf", "-", "#N/A"]
VE = ("entailment", "neutral", "contradiction")


def table(folder, name, texts, image="image"):
    """A table of one column of texts, in the format that its name says."""
    if name.endswith("jsonl"):
        return write(folder / name, "".join(json.dumps({image: "red.png", "caption": t}) + "\n" for t in texts))
    if name.endswith("json"):
        return write(folder / name, json.dumps([{image: "red.png", "caption": t} for t in texts]))
    divider = "\t" if name.endswith("tsv") else ","
    return write(folder / name, f"{image}{divider}caption\n" + "".join(f"red.png{divider}{t}\n" for t in texts))


@pytest.mark.parametrize("load", [load_pairs, load_pair_stream])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json"])
def test_tables_keep_captions_as_text(name, load, tmp_path):
    pictures(tmp_path)
    assert [row["captions"] for row in load(table(tmp_path, name, TEXTS))] == [[text] for text in TEXTS]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("texts", [["2020-01-01", "2021-12-31"], ["007", "008"], ["1.50", "2.0"], ["true", "false"]])
def test_tables_read_columns_of_numbers_as_text(name, texts, tmp_path):
    pictures(tmp_path)
    described = name.startswith("metadata")
    path = table(tmp_path, name, texts, "file_name" if described else "image")
    source = str(tmp_path) if described else path
    for load in (load_pairs, load_pair_stream):
        assert [row["captions"] for row in load(source)] == [[text] for text in texts]
    assert load_task_rows(ImageTextRetrieval(), [source], "train").column("captions") == [[text] for text in texts]


def test_tables_keep_dates_in_lists_as_text(tmp_path):
    pictures(tmp_path)
    line = {"image": "red.png", "caption": ["2020-01-01", "2021-01-01 10:00:00"]}
    assert load_pairs(write(tmp_path / "a.jsonl", json.dumps(line)))["captions"] == [line["caption"]]


@pytest.mark.parametrize("name, divider", [("a.csv", ","), ("a.tsv", "\t")])
def test_tables_read_empty_cells_as_missing(name, divider, tmp_path):
    pictures(tmp_path)
    lines = ["image,caption", "red.png,x", "red.png,", ",y", "red.png,  "]
    source = write(tmp_path / name, "\n".join(lines).replace(",", divider))
    for load in (load_pairs, load_pair_stream):
        assert [row["captions"] for row in load(source)] == [["x"], [], ["y"], []]
    rows = load_task_rows(ImageTextRetrieval(skip_bad_rows=True), [source], "train")
    assert rows.column("captions") == [["x"]]
    assert [reason.split(": ", 1)[1].split(" (")[0] for reason in rows.skipped] == [
        "it has no caption in column 'caption'",
        "it has no caption in column 'caption'",
        "it has no image",
    ]


def test_tables_keep_questions_and_answers_as_text(tmp_path):
    pictures(tmp_path)
    answers = ["None", "NA", "007", "1.50"]
    lines = ["image,question,answer", *(f"red.png,{text}?,{text}" for text in answers)]
    rows = load_task_rows(VisualQuestionAnswering(), [write(tmp_path / "a.csv", "\n".join(lines))], "train")
    assert rows.column("answer") == [[[text]] for text in answers]
    assert rows.column("question") == [[f"{text}?"] for text in answers]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_tables_read_class_names_given_as_numbers(name, tmp_path):
    pictures(tmp_path)
    rows = [("None", "0"), ("x", "2")]
    lines = {
        "a.csv": "\n".join(["image,text,label", *(f"red.png,{text},{label}" for text, label in rows)]),
        "a.jsonl": "\n".join(json.dumps({"image": "red.png", "text": t, "label": label}) for t, label in rows),
    }
    source = write(tmp_path / name, lines[name])
    named = load_task_rows(VisualEntailment(class_names=["neutral", "x", "contradiction"]), [source], "train", VE)
    assert named.column("label") == ["neutral", "contradiction"] and named.column("text") == ["None", "x"]
    with pytest.raises(ValueError, match="Row 0 of .*: its label is '0'. Column 'label' has numbers and no names"):
        load_task_rows(VisualEntailment(), [source], "train", VE)
    with pytest.raises(ValueError, match="Row 1 of .*: its label is 'class 2'"):
        load_task_rows(VisualEntailment(class_names=["neutral", "contradiction"]), [source], "train", VE)


@pytest.mark.parametrize("load", [load_pairs, load_pair_stream])
@pytest.mark.parametrize("row", ["red.png,a red one,on a hill", "red.png,a red one,", "1,red.png,a red one"])
def test_tables_reject_rows_longer_than_the_header(row, load, tmp_path):
    pictures(tmp_path)
    path = write(tmp_path / "a.csv", f"image,caption\n{row}\n{row}\n")
    with pytest.raises(ValueError, match="a.csv .* cannot be read: rows have more cells than the header has names"):
        list(load(path))
