"""Stages the files of a page in a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from ..export.onnx_export import export_onnx
from ..onnx_runtime.export_files import DESCRIPTION
from ..onnx_runtime.texts import TOKENIZER_FILE
from ..output_files import write_json
from ..space.staging import package_licence
from .contents import PageContents
from .gallery import write_gallery
from .onnxruntime_web import FILES
from .page import render_page
from .readme import render_readme

CODE, MODEL, GALLERY, RUNTIME = "js", "model", "gallery", "onnxruntime-web"  # folders of a page
CODE_FOLDER = Path(__file__).parent / CODE


def stage(contents: PageContents, title: str, runtime: Path, int8: bool, folder: Path) -> None:
    """Writes the files of a page into an empty folder.

    Args:
        contents: The model, pictures and examples.
        title: The title of the page.
        runtime: A folder with the files of ONNX Runtime Web.
        int8: Whether the page runs the int8 versions of the graphs.
        folder: The empty folder.

    Raises:
        ImportError: If the extra `onnx` is not installed.
        ValueError: If a graph is too large for one file.
    """
    for name, text in _texts(contents, title).items():
        (folder / name).write_text(text, encoding="utf-8")
    for name in (CODE, MODEL, GALLERY, RUNTIME):
        (folder / name).mkdir()
    for file in CODE_FOLDER.glob("*.js"):
        shutil.copyfile(file, folder / CODE / file.name)
    for name in FILES:
        shutil.copyfile(runtime / name, folder / RUNTIME / name)
    images = contents.preparation["images"]
    write_gallery(contents.pictures, contents.model, images, "matching" in contents.graphs, folder / GALLERY)
    _write_model(contents, int8, folder / MODEL)


def _texts(contents: PageContents, title: str) -> dict[str, str]:
    pictures, limits = contents.pictures, contents.facts.limits if contents.facts else ""
    drawn = (contents.drawn, contents.most_steps) if contents.draws else None
    return {
        "index.html": render_page(title, contents.name, len(pictures.items), limits, contents.examples, drawn),
        "README.md": render_readme(
            title, contents.name, contents.facts, len(pictures.items), pictures.are_scenes, contents.draws
        ),
        "LICENSE": package_licence(),
    }


def _write_model(contents: PageContents, int8: bool, folder: Path) -> None:
    """Writes the graphs, their description and the tokenizer, which are all that the page needs of an export."""
    with TemporaryDirectory(dir=folder.parent) as scratch:
        export = export_onnx(contents.source, Path(scratch, "export"), graphs=contents.graphs, int8=int8)
        description = json.loads((export / DESCRIPTION).read_text(encoding="utf-8"))
        for graph in description["graphs"].values():
            graph["file"] = graph.pop("int8_file", graph["file"])  # the page runs one version
            if (export / f"{graph['file']}.data").exists():
                raise ValueError(f"{graph['file']} of {contents.name} has more than 2 GB: too much for a browser")
            shutil.move(export / graph["file"], folder / graph["file"])
        shutil.move(export / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    write_json(folder / DESCRIPTION, description)
