"""`cbvila publish`: check, stage, verify, upload, verify again."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, get_token

from ..output_folders import is_free
from .cards import read_card, render_card
from .checking import Checkpoint, check_repo_id, find_checkpoint
from .facts import collect_facts
from .outside_classes import outside_code
from .staging import stage
from .uploading import check_access, upload
from .verifying import Original, ask_original, verify


@dataclass(frozen=True)
class Publication:
    """What `publish` did: the repository, its address, and the commit."""

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
    """
    Put a checkpoint on the Hub, so that anybody can load it with this package and without it.

    A quantizer or objective that was registered from outside the package travels with it, see docs/extending.md.

    The files are put together in a temporary folder and loaded from there in a fresh process that does not have this
    package; if every output is the original's, they are uploaded in one commit, and loaded once more from the Hub.

    Args:
        source: a model folder, the output folder of a run, or the name of a bundled checkpoint.
        repo_id: `owner/name`; made if it is not there.
        private: whether a new repository can be seen by its owners only.
        facts: a YAML file with what the model card has to say and the run did not record (`cbvila publish --help`
            shows one); by default the facts.yaml in the folder, if there is one.
        card: a model card of one's own, instead of one made from `hub_cards/`.
        commit_message: of the commit.
        api: another Hub or token than the environment's.

    Raises:
        ValueError: the folder, the repository's name, the card, the token, or what was staged is not right; a
            quantizer or objective from outside is not registered, or cannot travel.
        ConnectionError: the Hub cannot be reached, or the upload failed; the repository is as it was.

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
        original = _staged(checkpoint, text, Path(scratch))
        _say(f"Uploading to {api.endpoint}/{repo_id} in one commit ...")
        commit = upload(api, scratch, repo_id, private, commit_message)
    _say(f"Loading {repo_id} at commit {commit} in a fresh process without this package ...")
    try:
        verify(repo_id, original, commit, _reach(api))
    except ValueError as error:
        raise ValueError(
            f"{error}. It is on the Hub all the same, as commit {commit}, and its files passed before the upload: "
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
    """
    Everything that `publish` does before it uploads, into a folder; needs no network and no token.

    Args:
        source, repo_id, facts, card: as `publish` takes them.
        output_dir: a folder that is empty, or not there yet.

    Raises:
        ValueError: as `publish` does, or something is at `output_dir`.
    """
    # Absolute: another process, in another folder, is to find it. (Before Python 3.12 a temporary folder is not.)
    target = Path(output_dir).absolute()
    if not is_free(target):
        raise ValueError(f"{target} is there already; name another folder, or move it away")
    checkpoint, text = _prepare(source, repo_id, facts, card)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        folder = Path(scratch, target.name)
        folder.mkdir()
        _staged(checkpoint, text, folder)
        if target.is_dir():
            target.rmdir()  # an empty one, which not every system replaces
        os.replace(folder, target)
    return target


def _prepare(
    source: str | Path, repo_id: str, facts: str | Path | None, card: str | Path | None
) -> tuple[Checkpoint, str]:
    """The checked folder and the text of its card; nothing is written."""
    check_repo_id(repo_id)
    if facts is not None and card is not None:
        raise ValueError(f"a card of your own ({card}) says its facts itself: leave out --facts or --card")
    checkpoint = find_checkpoint(source)
    outside_code(checkpoint.config)  # raises early
    if card is not None:
        return checkpoint, read_card(card)
    facts = checkpoint.facts_file if facts is None else facts
    return checkpoint, render_card(checkpoint, repo_id, collect_facts(checkpoint, facts))


def _staged(checkpoint: Checkpoint, card: str, folder: Path) -> Original:
    _say(f"Putting {checkpoint.folder} together with code and card ...")
    original = ask_original(checkpoint)
    stage(checkpoint, card, folder)
    _say("Loading that in a fresh process without this package, and comparing ...")
    verify(folder, original)
    return original


def _reach(api: HfApi) -> dict[str, str]:
    """Environment variables by which another process asks the same Hub with the same token."""
    token = api.token if isinstance(api.token, str) else get_token()
    return {"HF_ENDPOINT": api.endpoint, "HF_TOKEN": token or "", "HF_HUB_OFFLINE": "0"}


def _say(text: str) -> None:
    print(text, file=sys.stderr)
