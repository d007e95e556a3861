"""Publishes a checkpoint: check, stage, verify, upload, verify again."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, get_token

from ..output_folders import free_folder, written_at_once
from .cards import read_card, render_card
from .checking import Checkpoint, check_repo_id, find_checkpoint
from .facts import collect_facts
from .outside_classes import outside_code
from .staging import stage
from .uploading import RepositoryType, check_access, upload
from .verifying import Original, run_original, verify


@dataclass(frozen=True)
class Publication:
    """Result of [`publish`] and [`publish_space`]: the repository, its address, and the commit."""

    repo_id: str
    url: str
    commit: str


def publish(
    source: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    facts: str | Path | None = None,
    card: str | Path | None = None,
    commit_message: str | None = None,
    api: HfApi | None = None,
) -> Publication:
    """Publishes a checkpoint on the Hub, so that it can be loaded with and without this package.

    A quantizer or objective that was registered from outside the package is published with it, see docs/extending.md.

    The files are staged in a temporary folder and loaded from there in a fresh process without this package. If every
    output equals the original's, they are uploaded in one commit and loaded once more from the Hub.

    Args:
        source: A model folder, the output folder of a run, or the name of a bundled checkpoint.
        repo_id: `owner/name`; created if it does not exist.
        private: Whether a new repository is private.
        facts: A YAML file with what the model card needs and the run did not record (`cbvila publish --help` shows
            one); by default the facts.yaml in the folder, if there is one.
        card: A model card, instead of one made from `hub_cards/`.
        commit_message: Message of the commit.
        api: Another Hub or token than the environment's.

    Returns:
        The repository, its address, and the commit.

    Raises:
        ValueError: If the folder, the repository's name, the card, the token or what was staged is not valid; if a
            quantizer or objective from outside is not registered, or cannot be published.
        ConnectionError: If the Hub cannot be reached, or the upload failed; the repository is unchanged.

    Example:
    ```python
    from transformers_cbvila import publish

    publish("runs/mine", "my-org/cbvila-birds", facts="facts.yaml", private=True)
    ```
    """
    api = api or HfApi()
    checkpoint, text = _prepare(source, repo_id, facts, card)
    check_access(api)
    with TemporaryDirectory() as scratch:
        original = _stage_and_verify(checkpoint, text, Path(scratch))
        print_progress(f"Uploading to {api.endpoint}/{repo_id} in one commit ...")
        commit = upload(api, scratch, repo_id, private, commit_message)
    print_progress(f"Loading {repo_id} at commit {commit} in a fresh process without this package ...")
    try:
        verify(repo_id, original, commit, _hub_environment(api))
    except ValueError as error:
        raise ValueError(
            f"{error}. It is on the Hub nevertheless, as commit {commit}, and its files passed before the upload: "
            "load it again, and publish again if that fails"
        ) from None
    return Publication(repo_id, f"{api.endpoint}/{repo_id}", commit)


def stage_repository(
    source: str | Path,
    repo_id: str,
    output_dir: str | Path,
    *,
    facts: str | Path | None = None,
    card: str | Path | None = None,
) -> Path:
    """Does everything that [`publish`] does before the upload, in a folder, without network and token.

    Args:
        source: See [`publish`].
        repo_id: See [`publish`].
        output_dir: A folder that is empty, or does not exist yet.
        facts: See [`publish`].
        card: See [`publish`].

    Returns:
        The folder, as an absolute path.

    Raises:
        ValueError: As [`publish`], or if there is something at `output_dir`.

    Example:
    ```python
    from transformers_cbvila import stage_repository

    stage_repository("cbvila-tiny", "my-org/cbvila-tiny", "staged")
    ```
    """
    target = free_folder(output_dir)
    checkpoint, text = _prepare(source, repo_id, facts, card)
    with written_at_once(target) as folder:
        _stage_and_verify(checkpoint, text, folder)
    return target


def _prepare(
    source: str | Path, repo_id: str, facts: str | Path | None, card: str | Path | None
) -> tuple[Checkpoint, str]:
    """Returns the checked folder and the text of its card; writes nothing."""
    check_repo_id(repo_id)
    if facts is not None and card is not None:
        raise ValueError(f"a card of your own ({card}) has its own facts: leave out --facts or --card")
    checkpoint = find_checkpoint(source)
    outside_code(checkpoint.config)  # only for its errors, before anything is loaded
    if card is not None:
        return checkpoint, read_card(card)
    facts = checkpoint.facts_file if facts is None else facts
    return checkpoint, render_card(checkpoint, repo_id, collect_facts(checkpoint, facts))


def _stage_and_verify(checkpoint: Checkpoint, card: str, folder: Path) -> Original:
    print_progress(f"Putting {checkpoint.folder} together with code and card ...")
    original = run_original(checkpoint)
    stage(checkpoint, card, folder)
    print_progress("Loading that in a fresh process without this package, and comparing ...")
    verify(folder, original)
    return original


def _hub_environment(api: HfApi) -> dict[str, str]:
    """Returns environment variables with which another process uses the same Hub and token."""
    token = api.token if isinstance(api.token, str) else get_token()
    return {"HF_ENDPOINT": api.endpoint, "HF_TOKEN": token or "", "HF_HUB_OFFLINE": "0"}


def publish_space_files(
    api: HfApi,
    repo_id: str,
    files: RepositoryType,
    stage_files: Callable[[Path], None],
    private: bool,
    commit_message: str | None,
) -> Publication:
    """Stages the files of a Space in a temporary folder, and uploads them in one commit.

    Args:
        api: The Hub.
        repo_id: `owner/name` of the Space; created if it does not exist.
        files: What is uploaded, and which files of before go.
        stage_files: Writes the files into an empty folder.
        private: Whether a new Space is private.
        commit_message: Message of the commit.
    """
    with TemporaryDirectory() as scratch:
        folder = Path(scratch).absolute()
        stage_files(folder)
        print_progress(f"Uploading to {api.endpoint}/spaces/{repo_id} in one commit ...")
        commit = upload(api, folder, repo_id, private, commit_message, files)
    return Publication(repo_id, f"{api.endpoint}/spaces/{repo_id}", commit)


def print_progress(text: str) -> None:
    """Prints what is done next, on stderr."""
    print(text, file=sys.stderr)
