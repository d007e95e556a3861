"""The image files of a folder."""

from pathlib import Path

from ..model.messages_cbvila import listed, shown
from .images import IMAGE_ENDINGS, is_image_file


def image_files(folder: str | Path) -> list[Path]:
    """Returns the files of a folder and its subfolders with endings of images, sorted; hidden ones are left out.

    Raises:
        ValueError: If it is not a folder, or has no image.
    """
    path = Path(folder)
    if not _is_folder(path):
        raise ValueError(
            f"images is one string, {shown(str(folder), 255)}, and no folder: pass a list, even of one item."
        )
    files = [file for file in path.rglob("*") if is_image_file(str(file)) and file.is_file()]
    visible = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not visible:
        raise ValueError(f"The folder {shown(str(folder), 255)} has no image ({listed(IMAGE_ENDINGS)}).")
    return sorted(visible)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False
