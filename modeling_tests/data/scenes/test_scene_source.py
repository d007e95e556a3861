"""`scenes` as a source: for every reader, map-style and streamed, as files; and what is refused."""

import re

import datasets
import numpy as np
import pytest

from transformers_cbvila.cli import main
from transformers_cbvila.data.builtin_sources import find_builtin
from transformers_cbvila.data.images import read_image
from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.data.scenes.addresses import image_at
from transformers_cbvila.data.scenes.options import TASKS, SceneOptions
from transformers_cbvila.data.scenes.scene_rows import SceneRows
from transformers_cbvila.data.source_rows import load_rows
from transformers_cbvila.data.sources import load_pair_stream, load_pairs
from transformers_cbvila.data.training_texts import training_texts

SMALL = "scenes[rows=130,size=32]"
OPTIONS = SceneOptions(rows=130, size=32)


@pytest.mark.parametrize("task", TASKS)
def test_a_stream_has_the_rows_of_the_table(task):
    table = load_rows(SMALL, "test", task=task)
    stream = load_rows(SMALL, "test", task=task, streaming=True)
    assert isinstance(table, datasets.Dataset) and len(table) == 130
    assert stream.num_shards == 64 and list(stream.features) == table.column_names
    for row, streamed in zip(table.select(range(5)), stream, strict=False):
        for name, value in row.items():
            if name.endswith("image"):
                assert np.array_equal(np.asarray(value), np.asarray(streamed[name]))
            else:
                assert value == streamed[name]
    rows = SceneRows(OPTIONS, "test", task)
    texts = table.remove_columns([name for name in table.column_names if name.endswith("image")])
    assert list(texts) == list(map(rows.texts, range(130)))


def test_pairs_have_the_images_of_the_rows():
    pairs, rows = load_pairs(SMALL), SceneRows(OPTIONS, "train")
    examples = ImageTextPairs(pairs)
    for number in (0, 129):
        drawn = np.asarray(rows.image(number))
        assert np.array_equal(np.asarray(pairs[number]["image"]), drawn)
        assert np.array_equal(np.asarray(examples[number]["image"]), drawn)
        assert pairs[number]["captions"] == rows.texts(number)["captions"]
    streamed = next(iter(load_pair_stream(SMALL)))
    assert np.array_equal(np.asarray(read_image(streamed["image"])), np.asarray(rows.image(0)))
    assert load_pairs(SMALL, "train[:10]").num_rows == 10


@pytest.mark.parametrize(
    "options", ["objects=2,fewest=1,captions=places", "objects=2,questions=where", "objects=1,fewest=1"]
)
def test_a_vocabulary_has_the_words_of_every_task_whatever_the_options_narrow(options):
    def words(name):
        return {word for text in training_texts([], [name]) for word in re.findall("[a-z]+", text.lower())}

    every = words("scenes")
    missing = every - words(f"scenes[{options}]")
    assert "left" in every and len(every) > 50
    # Of one object there is nothing to compare.
    assert not missing if options.startswith("objects=2") else "left" not in missing


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_blank_images_are_grey_and_nothing_else_changes(task, streaming):
    blank = load_rows("scenes[rows=6,style=noisy,blank=true]", "test", task=task, streaming=streaming)
    for row, drawn in zip(blank, load_rows("scenes[rows=6,style=noisy]", "test", task=task), strict=True):
        for name, value in drawn.items():
            if name.endswith("image"):
                assert row[name].size == (64, 64) and row[name].convert("RGB").getextrema() == 3 * ((128, 128),)
            else:
                assert row[name] == value


def test_words_of_all_tasks_are_there_for_a_vocabulary():
    words = {word for text in find_builtin(SMALL).texts("train") for word in text.split()}
    assert {"how", "many", "3", "yes", "exactly", "every", "purple", "both", "images", "together"} <= words


@pytest.mark.parametrize("task", TASKS)
def test_files_have_the_rows_and_their_truth(tmp_path, task, capsys):
    command = ["data", "scenes[size=32]", "--output_dir", str(tmp_path), "--rows", "9", "--split", "validation"]
    assert main([*command, "--seed", "5", "--task", task]) == 0
    assert "9 rows" in capsys.readouterr().out
    written = datasets.load_dataset("parquet", data_files=str(tmp_path / "validation.parquet"), split="train")
    rows = SceneRows(SceneOptions(rows=9, size=32, seed=5), "validation", task)
    assert len(written) == 9
    for row, drawn in zip(written, rows, strict=True):
        assert set(row) == set(drawn)
        for name, value in drawn.items():
            if name.endswith("image") or name == "label_map" and not isinstance(value, list):
                assert np.array_equal(np.asarray(row[name]), np.asarray(value))
            elif name == "label_map":
                assert all(np.array_equal(np.asarray(a), b) for a, b in zip(row[name], value, strict=True))
            else:
                assert row[name] == value
    if task == "pretraining":
        assert load_pairs(tmp_path, "validation")[3]["captions"] == rows[3]["captions"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"size": 8}, "size=8 is no size of scenes; give 32 to 1024"),
        ({"size": 4096}, "size=4096"),
        ({"objects": 5}, "objects=5: an image has places for 1 to 4"),
        ({"objects": 0}, "objects=0"),
        ({"objects": 2, "fewest": 3}, "fewest=3 must be from 1 to objects=2"),
        ({"captions": "place"}, "captions='place' is none of all, full, pairs, ordered, places, .* mean places"),
        ({"questions": "were"}, r"questions='were' is none of all, where; did you mean where\?"),
        ({"style": "stripes"}, r"style='stripes' is none of flat, striped, noisy, mixed; did you mean striped\?"),
        ({"rows": 0}, "rows=0 must be at least 1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SceneOptions(**options)


@pytest.mark.parametrize(
    "options, split, task, message",
    [
        ({}, "dev", "vqa", "no split 'dev'; it has train, validation, test, test_compositional, confusers"),
        ({}, "test", "detection", "no rows for 'detection'; it has rows for pretraining"),
        ({}, "confusers", "vqa", "gallery for retrieval and has no rows for vqa; take train"),
        ({"objects": 1, "fewest": 1}, "confusers", "retrieval", "objects=1: confusers is about two objects"),
        ({"objects": 1, "fewest": 1}, "test", "entailment", "give at least objects=2"),
        ({"fewest": 1}, "test", "entailment", "fewest=1: the text of entailment says what an image has; leave it out"),
        ({"fewest": 3}, "train", "reasoning", "fewest=3: the text of reasoning says"),
        ({"fewest": 1}, "confusers", "retrieval", "fewest=1: confusers have two objects or more"),
        ({"questions": "where"}, "train", "retrieval", "questions=where: retrieval has no questions; leave it out"),
        ({"questions": "where", "fewest": 1}, "train", "vqa", "questions=where: with fewest=1 some images have none"),
        ({"rows": 20_000}, "confusers", "retrieval", "rows=20000 is more than the split confusers can have"),
    ],
)
def test_rows_that_there_cannot_be_are_refused(options, split, task, message):
    with pytest.raises(ValueError, match=message):
        SceneRows(SceneOptions(**options), split, task)


def test_options_in_brackets_are_checked():
    with pytest.raises(ValueError, match="size=8 is no size"):
        load_rows("scenes[size=8]", "train")
    known = "size, objects, fewest, style, rows, seed, captions, questions, blank"
    with pytest.raises(ValueError, match=f"no option 'colors'; its options are {known}"):
        load_rows("scenes[colors=3]", "train")
    with pytest.raises(ValueError, match="Unknown split"):
        load_rows("scenes", "dev")


def test_addresses_of_no_image_are_refused():
    for address in (
        "scenes://train/vqa/x/image?size=64",
        "scenes://dev/vqa/0/image",
        "scenes://train/vqa/0/left_image",
    ):
        with pytest.raises(ValueError, match="names no image of scenes"):
            image_at(address)


def test_other_data_cannot_be_written(capsys):
    assert main(["data", "easy-vqa", "--output_dir", "x"]) == 1
    assert "'easy-vqa' is no data that can be written; give scenes" in capsys.readouterr().err
