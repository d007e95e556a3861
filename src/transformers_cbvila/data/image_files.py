"""The pictures of a folder."""

from pathlib import Path

from ..model.messages_cbvila import listed, shown
from .images import IMAGE_ENDINGS, is_image_file


def image_files(folder: str | Path) -> list[Path]:
    """The files of a folder and its subfolders with endings of pictures, sorted; hidden ones are passed over.

    Raises:
        ValueError: If it is no folder, or has no picture.
    """
    path = Path(folder)
    if not _is_folder(path):
        raise ValueError(
            f"images is one string, {shown(str(folder), 255)}, and no folder: pass a list, even of one item."
        )
    files = [file for file in path.rglob("*") if is_image_file(str(file)) and file.is_file()]
    shown_ones = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not shown_ones:
        raise ValueError(f"The folder {shown(str(folder), 255)} has no picture ({listed(IMAGE_ENDINGS)}).")
    return sorted(shown_ones)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False
