"""Puts the app on a Hugging Face Space: check, stage, try, upload."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from ..app.models import DEFAULT_MODELS
from ..hub.checking import check_repo_id
from ..hub.publishing import Publication, print_progress, publish_space_files
from ..hub.uploading import RepositoryType, check_access
from ..output_folders import free_folder, written_at_once
from .contents import MODELS, PACKAGE, PICTURES, SpaceContents, find_contents
from .page import render_page
from .requirements import requirements
from .staging import stage
from .trying import try_app

# Whatever the Space was made from before goes: a module or a picture that is no longer there would be used.
_SPACE = RepositoryType("space", (f"{PACKAGE}/*", f"{MODELS}/*", f"{PICTURES}/*"), {"space_sdk": "gradio"})


def publish_space(
    repo_id: str,
    models: Sequence[str | Path] = DEFAULT_MODELS,
    *,
    images: str | Path | None = None,
    private: bool = False,
    commit_message: str | None = None,
    api: HfApi | None = None,
) -> Publication:
    """Puts the app of `cbvila app` on a Hugging Face Space.

    The Space holds this package, models that are no Hub ids, and the pictures. It is staged in a temporary folder, and
    its app started from there in a fresh process; if its page answers, all is uploaded in one commit.

    Args:
        repo_id: `owner/name` of the Space; created if it does not exist.
        models: Folders, Hub ids or names of bundled checkpoints; each tab takes the first that can do what it shows.
        images: A folder of pictures to search in; by default generated scenes.
        private: Whether a new Space is private.
        commit_message: Message of the commit.
        api: Another Hub or token than the environment's.

    Returns:
        The Space, its address, and the commit, which the Hub begins to build.

    Raises:
        FileNotFoundError, OSError: If there is no such model.
        ImportError: If Gradio is not installed.
        ValueError: If the Space's name, a model, the pictures or the token are not valid, or the app does not start.
        ConnectionError: If the Hub cannot be reached, or the upload failed; the Space is unchanged.

    Example:
    ```python
    from transformers_cbvila import publish_space

    publish_space("my-org/birds", ["my-org/cbvila-birds", "runs/birds-vqa"], images="pictures")
    ```
    """
    api = api or HfApi()
    contents, page = _prepare(repo_id, models, images)
    check_access(api)
    _require_public(api, contents)
    stage_files = partial(_stage_and_try, contents, page)
    return publish_space_files(api, repo_id, _SPACE, stage_files, private, commit_message)


def stage_space(
    repo_id: str,
    output_dir: str | Path,
    models: Sequence[str | Path] = DEFAULT_MODELS,
    *,
    images: str | Path | None = None,
) -> Path:
    """Does everything that [`publish_space`] does before the upload, in a folder, without a token.

    Args:
        repo_id: See [`publish_space`].
        output_dir: A folder that is empty, or does not exist yet.
        models: See [`publish_space`]; only Hub ids need a network, if they are not in the cache.
        images: See [`publish_space`].

    Returns:
        The folder, as an absolute path.

    Raises:
        FileNotFoundError, OSError, ImportError, ValueError: As [`publish_space`].
        ValueError: If there is something at `output_dir`.
    """
    target = free_folder(output_dir)
    contents, page = _prepare(repo_id, models, images)
    with written_at_once(target) as folder:
        _stage_and_try(contents, page, folder)
    return target


def _prepare(repo_id: str, models: Sequence[str | Path], images: str | Path | None) -> tuple[SpaceContents, str]:
    """Returns what the Space is to hold, and its page; writes nothing."""
    check_repo_id(repo_id)
    contents = find_contents(models, images)
    if contents.pictures is not None and contents.pictures.left_out:
        print_progress(f"Left out, as they cannot be read: {', '.join(contents.pictures.left_out)}")
    return contents, render_page(contents, repo_id)


def _stage_and_try(contents: SpaceContents, page: str, folder: Path) -> None:
    print_progress("Putting the app together with this package, models and pictures ...")
    stage(contents, page, requirements(), folder)
    print_progress("Starting it from there in a fresh process, and fetching its page ...")
    try_app(folder)


def _require_public(api: HfApi, contents: SpaceContents) -> None:
    """Raises a ValueError for a model on the Hub that the Space, which has no token, could not load."""
    for model in contents.models:
        if model.checkpoint is None and not _is_public(api, model.name):
            raise ValueError(
                f"{model.name} is private or gated, so that the Space could not load it: name a folder with the "
                "model, which is put into the Space, or make it public"
            )


def _is_public(api: HfApi, name: str) -> bool:
    try:
        return not api.model_info(name, token=False).gated
    except RepositoryNotFoundError:
        return False
