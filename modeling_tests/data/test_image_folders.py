"""Folders of images: their descriptions are read, and what is left out is counted."""

import json

import pytest
from source_forms import COLOURS, described, jsonl, picture, pictures, with_texts, write, zipped

from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.data.sources import load_pair_stream, load_pairs
from transformers_cbvila.tasks.reasoning import VisualReasoning
from transformers_cbvila.tasks.row_reading import load_task_rows
from transformers_cbvila.tasks.vqa import VisualQuestionAnswering


def test_image_folder_text_file_has_a_caption_per_line(tmp_path):
    write(tmp_path / "a" / "deep" / "cat.jpg", picture("red", "JPEG"))
    write(tmp_path / "a" / "deep" / "cat.txt", "\ufeffa cat\r\n\r\n  on a mat \n")
    write(tmp_path / "a" / "dog.png", picture("blue"))
    write(tmp_path / "a" / "dog.txt", "a dog")
    for load in (load_pairs, load_pair_stream):
        assert sorted(row["captions"] for row in load(str(tmp_path))) == [["a cat", "on a mat"], ["a dog"]]


def test_image_folder_counts_images_and_texts_without_partner(tmp_path, logged):
    with_texts(tmp_path / "photos")
    write(tmp_path / "photos" / "lonely.png", picture("red"))
    write(tmp_path / "photos" / "notes.txt", "x")
    assert len(load_pairs(str(tmp_path / "photos"))) == 4
    assert "(lonely.png) is left out, of 5 images: there is no .txt of the same name" in logged.text
    assert "(notes.txt) is left out, of 5 texts: there is no image of that name" in logged.text


def test_image_folder_counts_images_missing_in_metadata(tmp_path, logged):
    folder = described(tmp_path / "photos")
    assert len(load_pairs(folder)) == 4 and not logged()
    for number in range(7):
        write(tmp_path / "photos" / f"{number}.png", picture("red"))
    assert len(load_pairs(folder)) == 4
    assert "7 files of" in logged.text and "(0.png, 1.png, 2.png, 3.png, 4.png, …)" in logged.text
    assert "are left out, of 11 images: no line of the metadata names them" in logged.text


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
def test_image_folder_names_metadata_above_splits(name, tmp_path, logged):
    for split in ("train", "test"):
        pictures(tmp_path / "photos" / split)
    write(tmp_path / "photos" / name, jsonl("file_name", "train/"))
    with pytest.raises(ValueError, match=f"no column called captions.*/photos/{name} is passed over: a metadata file"):
        load_pairs(str(tmp_path / "photos"))
    assert f"1 file of {tmp_path / 'photos'} ({name}) is passed over" in logged.text


def test_image_folder_names_metadata_beside_an_archive(tmp_path):
    zipped(tmp_path / "photos" / "images.zip", [(f"{c}.png", picture(c)) for c in COLOURS])
    write(tmp_path / "photos" / "metadata.jsonl", jsonl("file_name", ""))
    with pytest.raises(ValueError, match="metadata.jsonl is passed over"):
        load_pairs(str(tmp_path / "photos"))


def test_image_folder_names_questions_file_beside_images(tmp_path):
    pictures(tmp_path / "myvqa")
    write(tmp_path / "myvqa" / "questions.jsonl", json.dumps({"image": "red.png", "question": "a", "answer": "b"}))
    with pytest.raises(
        ValueError, match="no column called question; .*questions.jsonl is passed over: name that file instead"
    ):
        load_task_rows(VisualQuestionAnswering(), [str(tmp_path / "myvqa")], "train")


def test_image_folder_rejects_metadata_without_file_name(tmp_path):
    pictures(tmp_path)
    write(tmp_path / "metadata.jsonl", json.dumps({"image": "red.png", "caption": "a"}))
    with pytest.raises(ValueError, match="metadata.jsonl has no column file_name.*it has image, caption"):
        load_pairs(str(tmp_path))


def test_image_folder_names_the_row_of_a_missing_picture(tmp_path):
    pictures(tmp_path)
    write(tmp_path / "metadata.jsonl", jsonl("file_name", "").replace("green.png", "nowhere.png"))
    pairs = ImageTextPairs(load_pairs(str(tmp_path)))
    assert pairs[0]["text"] == "a red"
    with pytest.raises(ValueError, match=f"Row 1 of {tmp_path}: its image cannot be read .FileNotFoundError"):
        pairs[1]


def test_image_folder_line_with_several_file_names(tmp_path):
    pictures(tmp_path)
    line = {"left_file_name": "red.png", "right_file_name": "blue.png", "sentence": "x", "label": "true"}
    write(tmp_path / "metadata.jsonl", json.dumps(line))
    settings = VisualReasoning(image_column=["left", "right"])
    (row,) = load_task_rows(settings, [str(tmp_path)], "train", ("False", "True"))
    assert [image.getpixel((0, 0)) for image in row["images"]] == [(255, 0, 0), (0, 0, 255)]


def test_image_folder_reads_metadata_of_each_subfolder(tmp_path):
    for name in ("one", "two"):
        described(tmp_path / name)
    assert len(load_pairs(str(tmp_path))) == 8
    write(tmp_path / "two" / "metadata.jsonl", json.dumps({"file_name": "red.png", "other": 1}))
    with pytest.raises(ValueError, match="metadata files have other columns than each other"):
        load_pairs(str(tmp_path))
