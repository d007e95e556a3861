"""Makes a page that searches and draws in the browser: in a folder, or on a Hugging Face Space."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi

from ..extras import require
from ..hub.checking import check_repo_id
from ..hub.publishing import Publication, print_progress, publish_space_files
from ..hub.uploading import RepositoryType, check_access
from ..output_folders import free_folder, written_at_once
from .contents import PageContents, find_page_contents
from .onnxruntime_web import find_onnxruntime_web
from .staging import CODE, GALLERY, MODEL, RUNTIME, stage

DEFAULT_MODEL = "cbvila-scenes"
# Graphs and pictures of before would lie about.
_PAGE = RepositoryType(
    "space", tuple(f"{name}/*" for name in (CODE, MODEL, GALLERY, RUNTIME)), {"space_sdk": "static"}
)


def publish_static_page(
    repo_id: str,
    model: str | Path = DEFAULT_MODEL,
    *,
    images: str | Path | None = None,
    examples: Sequence[str] = (),
    int8: bool = False,
    onnxruntime_web: str | Path | None = None,
    private: bool = False,
    commit_message: str | None = None,
    api: HfApi | None = None,
) -> Publication:
    """Puts a page that searches pictures, and draws them, in the browser on a Hugging Face Space of static files.

    The page runs the exported model in ONNX Runtime Web, and needs no server. It is staged in a temporary folder and
    uploaded in one commit. Needs the extra `onnx`.

    Args:
        repo_id: `owner/name` of the Space; created if it does not exist.
        model: A folder, a Hub id or the name of a bundled checkpoint: a pretrained model, or one for retrieval.
        images: A folder of pictures to search in, whose names and small copies are put on the page; by default
            generated scenes.
        examples: Texts to press, instead of writing one; of generated scenes there are some by default.
        int8: Whether the page runs int8 versions of the graphs, a third as large and less exact (docs/export.md).
        onnxruntime_web: A folder with the files of ONNX Runtime Web; by default they are fetched once (33 MB) from the
            npm registry and kept in the cache of the Hub.
        private: Whether a new Space is private.
        commit_message: Message of the commit.
        api: Another Hub or token than the environment's.

    Returns:
        The Space, its address, and the commit.

    Raises:
        FileNotFoundError, OSError: If there is no such model, or no ONNX Runtime Web in the folder.
        ImportError: If the extra `onnx` is not installed.
        ValueError: If the Space's name, the model, the pictures, an example or the token are not valid.
        ConnectionError: If the npm registry or the Hub cannot be reached, or the upload failed; the Space is unchanged
            then.

    Example:
    ```python
    from transformers_cbvila import publish_static_page

    publish_static_page("my-org/birds", "my-org/cbvila-birds", images="pictures", examples=["a red bird on a branch"])
    ```
    """
    api = api or HfApi()
    check_repo_id(repo_id)
    contents, runtime = _prepare(model, images, examples, int8, onnxruntime_web)
    check_access(api)
    stage_files = partial(_stage, contents, repo_id, runtime, int8)
    return publish_space_files(api, repo_id, _PAGE, stage_files, private, commit_message)


def stage_static_page(
    repo_id: str,
    output_dir: str | Path,
    model: str | Path = DEFAULT_MODEL,
    *,
    images: str | Path | None = None,
    examples: Sequence[str] = (),
    int8: bool = False,
    onnxruntime_web: str | Path | None = None,
) -> Path:
    """Writes the page that [`publish_static_page`] uploads into a folder, without a token.

    `python -m http.server` in that folder serves it; so does any other server of files.

    Args:
        repo_id: See [`publish_static_page`]; the page's title is its name.
        output_dir: A folder that is empty, or does not exist yet.
        model: See [`publish_static_page`].
        images: See [`publish_static_page`].
        examples: See [`publish_static_page`].
        int8: See [`publish_static_page`].
        onnxruntime_web: See [`publish_static_page`].

    Returns:
        The folder, as an absolute path.

    Raises:
        FileNotFoundError, OSError, ImportError, ValueError, ConnectionError: As [`publish_static_page`].
        ValueError: If there is something at `output_dir`.
    """
    target = free_folder(output_dir)
    check_repo_id(repo_id)
    contents, runtime = _prepare(model, images, examples, int8, onnxruntime_web)
    with written_at_once(target) as folder:
        _stage(contents, repo_id, runtime, int8, folder)
    return target


def _prepare(
    model: str | Path,
    images: str | Path | None,
    examples: Sequence[str],
    int8: bool,
    onnxruntime_web: str | Path | None,
) -> tuple[PageContents, Path]:
    """Returns what the page is to hold, and a folder with ONNX Runtime Web; writes no page."""
    for module in ("onnx", "onnxscript", *(["onnxruntime"] if int8 else [])):
        require(module)  # before a model is loaded
    contents = find_page_contents(model, images, examples)
    if contents.pictures.left_out:
        print_progress(f"Left out, as they cannot be read: {', '.join(contents.pictures.left_out)}")
    return contents, find_onnxruntime_web(onnxruntime_web)


def _stage(contents: PageContents, repo_id: str, runtime: Path, int8: bool, folder: Path) -> None:
    print_progress("Encoding the pictures, and exporting the model ...")
    stage(contents, repo_id.rpartition("/")[2], runtime, int8, folder)
