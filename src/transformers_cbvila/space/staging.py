"""Stages the files of a Space in a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from ..bundled import CHECKPOINTS
from .contents import DISTRIBUTION, PACKAGE, PICTURES, SpaceContents, SpaceModel

_SOURCES = Path(__file__).parents[1]
_LICENCE = "LICENSE"
_APP = '''\
"""Serves the app of {package}; each tab takes the first model that can do what it shows."""

import os

from {package}.app.serving import serve_app

MODELS = {models}
IMAGES = {images}  # a folder of pictures to search in; None for generated scenes

if __name__ == "__main__":
    os.chdir(os.path.dirname(os.path.abspath(__file__)))  # what is named above is beside this file
    serve_app(MODELS, IMAGES, opens_browser=False)
'''


def stage(contents: SpaceContents, page: str, requirements: str, folder: Path) -> None:
    """Writes the files of a Space into an empty folder.

    This package is a folder of it, as it can be in no requirements.txt: a Space installs from that file alone, before
    it has any other of its files, and from package indexes.

    Args:
        contents: The models and pictures.
        page: Text of its README.md.
        requirements: Text of its requirements.txt.
        folder: The empty folder.
    """
    texts = {
        "app.py": _app(contents),
        "README.md": page,
        "requirements.txt": requirements,
        _LICENCE: package_licence(),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copytree(_SOURCES, folder / PACKAGE, ignore=_left_out(contents))
    for model in contents.models:
        if not model.is_bundled:
            _copy_model(model, folder)
    for picture in contents.pictures.items if contents.pictures else ():
        _copy(Path(str(picture.source)), folder / PICTURES / picture.name)


def _app(contents: SpaceContents) -> str:
    # What JSON writes for texts and lists of them is Python too.
    models = json.dumps([model.name for model in contents.models], ensure_ascii=False)
    return _APP.format(package=PACKAGE, models=models, images=json.dumps(PICTURES) if contents.pictures else None)


def _left_out(contents: SpaceContents) -> Callable[[str, list[str]], set[str]]:
    """Returns what `copytree` asks for names to leave out: caches, hidden files, and checkpoints of no use here."""
    kept = {model.name for model in contents.models}
    unwanted = shutil.ignore_patterns("__pycache__", ".*", "*.py[co]")

    def left_out(folder: str, names: list[str]) -> set[str]:
        unused = {name for name in names if name not in kept} if Path(folder) == CHECKPOINTS else set()
        return unwanted(folder, names) | unused

    return left_out


def _copy_model(model: SpaceModel, folder: Path) -> None:
    if model.checkpoint is not None:
        for name in model.checkpoint.files_to_load:
            _copy(model.checkpoint.folder / name, folder / model.name / name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def package_licence() -> str:
    """Returns the licence of this package, which goes wherever its files go."""
    try:
        installed = [Path(str(path.locate())) for path in files(DISTRIBUTION) or () if path.name == _LICENCE]
    except PackageNotFoundError:
        installed = []
    # A checkout that was built has a list of files in which paths begin elsewhere.
    path = next((path for path in installed if path.is_file()), _SOURCES.parents[1] / _LICENCE)
    return path.read_text(encoding="utf-8")
