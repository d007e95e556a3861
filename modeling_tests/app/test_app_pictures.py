"""The pictures of the app: generated scenes, and folders with files that cannot be read."""

import pytest
from PIL import Image

from transformers_cbvila.app.pictures import asked_scenes, folder_pictures, scene_pictures
from transformers_cbvila.data.scenes.caption_truth import is_true
from transformers_cbvila.data.scenes.seeing import seen_objects


def test_scenes_show_what_their_captions_say():
    pictures = scene_pictures(4)
    assert pictures.are_scenes and len(pictures.items) == 4
    for item in pictures.items:
        objects = seen_objects(item.image)
        assert all(is_true(caption, objects, item.image.width) for caption in item.captions)
        assert item.caption in item.captions and len(item.caption) == min(map(len, item.captions))
        assert all(one["shape"] in item.name for one in objects)


def test_asked_scenes_have_questions_with_answers():
    for asked in asked_scenes(3):
        assert len(asked.questions) > 3 and all(one.text.endswith("?") and one.answer for one in asked.questions)


def test_broken_pictures_are_left_out(tmp_path):
    (tmp_path / "deep").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "deep" / "red.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no picture either")
    pictures = folder_pictures(tmp_path)
    assert [item.name for item in pictures.items] == ["deep/red.png"] and not pictures.are_scenes
    assert pictures.left_out == ["broken.jpg", "empty.png"]
    assert pictures.items[0].image.getpixel((0, 0)) == (255, 0, 0) and pictures.items[0].caption == ""
    assert pictures.rows() == [{"image": pictures.items[0].image, "captions": []}]


@pytest.mark.parametrize(
    "files, complaint",
    [
        ({}, "has no image"),
        ({"notes.txt": b"text"}, "has no image"),
        ({"a.png": b"", "b.jpg": b"x"}, "None of the 2 pictures in .* can be read: .*a.png.* is empty"),
    ],
)
def test_folders_without_pictures(tmp_path, files, complaint):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        folder_pictures(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(ValueError, match="--images .*nowhere.* is no folder"):
        folder_pictures(tmp_path / "nowhere")
