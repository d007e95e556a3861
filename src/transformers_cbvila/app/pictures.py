"""The pictures that the app shows: those of a folder, or generated scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.image_files import image_files
from ..data.scenes.options import SceneOptions
from ..data.scenes.scene_rows import SceneRows
from ..data.scenes.words import listed_in_words
from ..model.image_loading_cbvila import load_image
from ..model.messages_cbvila import one_line, shown

SCENES = 240
_SPLIT = "test"  # training does not show its scenes


@dataclass
class Picture:
    """A picture.

    Attributes:
        name: What it is called, also for people who do not see it.
        source: The picture, or its file.
        captions: What is true of it; none of a picture of a folder.
    """

    name: str
    source: Image.Image | Path
    captions: list[str] = field(default_factory=list)

    @property
    def image(self) -> Image.Image:
        """The picture in RGB."""
        return load_image(self.source)

    @property
    def caption(self) -> str:
        """The shortest caption, or an empty one."""
        return min(self.captions, key=len, default="")


@dataclass
class Pictures:
    """Pictures.

    Attributes:
        items: The pictures.
        left_out: Names of files that could not be read.
        are_scenes: Whether they are generated scenes.
    """

    items: list[Picture]
    left_out: list[str] = field(default_factory=list)
    are_scenes: bool = False

    def rows(self) -> list[dict[str, Any]]:
        """Returns the pictures as rows with `image` and `captions`."""
        return [{"image": item.image, "captions": item.captions} for item in self.items]


@dataclass
class Question:
    """A question about a scene, and the right answer."""

    text: str
    answer: str


@dataclass
class AskedPicture:
    """A scene with questions."""

    picture: Picture
    questions: list[Question]


def scene_pictures(number: int = SCENES) -> Pictures:
    """Returns generated scenes with their captions."""
    rows = SceneRows(SceneOptions(), _SPLIT, "pretraining")
    items = []
    for place in range(number):
        texts = rows.texts(place)
        items.append(Picture(_named(texts["objects"]), rows.image(place), texts["captions"]))
    return Pictures(items, are_scenes=True)


def asked_scenes(number: int = 8) -> list[AskedPicture]:
    """Returns generated scenes with questions."""
    rows = SceneRows(SceneOptions(), _SPLIT, "vqa")
    asked = []
    for place in range(number):
        texts = rows.texts(place)
        questions = [
            Question(text, answer)
            for text, answer, _ in sorted(
                zip(texts["question"], texts["answer"], texts["question_type"], strict=True),
                key=lambda question: question[2] != "attribute",  # those first: the simplest
            )
        ]
        asked.append(AskedPicture(Picture(_named(texts["objects"]), rows.image(place)), questions))
    return asked


def folder_pictures(folder: str | Path) -> Pictures:
    """Returns the pictures of a folder and its subfolders; files that cannot be read are left out.

    Raises:
        ValueError: If it is no folder, has no pictures, or none of them can be read.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"--images {shown(str(folder), 255)} is no folder: name a folder with pictures.")
    found, left_out, reason = [], [], ""
    for file in image_files(folder):
        name = file.relative_to(folder).as_posix()
        try:
            load_image(file)
        except (OSError, ValueError) as error:
            left_out.append(name)
            reason = reason or one_line(str(error))
        else:
            found.append(Picture(name, file))
    if not found:
        raise ValueError(f"None of the {len(left_out)} pictures in {shown(str(folder), 255)} can be read: {reason}")
    return Pictures(found, left_out)


def _named(objects: Sequence[Mapping[str, Any]]) -> str:
    """Returns what is in a scene: "a big blue circle and a small red ring"."""
    return listed_in_words([f"a {item['size']} {item['colour']} {item['shape']}" for item in objects])
