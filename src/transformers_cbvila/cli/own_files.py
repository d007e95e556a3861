"""`--import FILE.py`, which every command takes: files of a user that register quantizers, objectives or tasks."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from ..model.messages_cbvila import shown

OPTION = "--import"
_folders = set[Path]()


def import_own_files(argv: list[str]) -> list[str]:
    """Imports the files that arguments name, in their order, and returns the other arguments.

    A file is imported by its name, as a script in its folder would import it: it can import its neighbours, and other
    processes can import it.

    Raises:
        ValueError: If no file follows, a file is no Python, or another module has its name.
        FileNotFoundError: If there is no such file.
    """
    others, words = list[str](), iter(argv)
    for word in words:
        if word != OPTION and not word.startswith(f"{OPTION}="):
            others.append(word)
            continue
        file = word.partition("=")[2] if "=" in word else next(words, "")
        if not file:
            raise ValueError(f"{OPTION} needs the file with your class, such as {OPTION} my_quantizer.py.")
        _import_file(Path(file))
    return others


def is_own_file(name: str) -> bool:
    """Returns whether a file is in the folder of one that was imported."""
    return Path(name).resolve().parent in _folders


def _import_file(file: Path) -> None:
    if not file.is_file():
        raise FileNotFoundError(f"{OPTION} {shown(str(file), 255)}: there is no such file.")
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise ValueError(f"{OPTION} {shown(str(file), 255)}: expected a Python file with a name like my_quantizer.py.")
    folder = file.resolve().parent
    _folders.add(folder)
    sys.path.insert(0, str(folder))
    try:
        module = import_module(file.stem)
    except SyntaxError as error:
        raise ValueError(f"{OPTION} {file}: {error.filename}, line {error.lineno}: {error.msg}.") from error
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != file.resolve():
        raise ValueError(f"{OPTION} {file}: {file.stem} is the name of another module, {found}; rename the file.")
