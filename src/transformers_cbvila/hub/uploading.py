"""Uploads a folder to the Hub in one commit, which succeeds or leaves the repository unchanged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, SpaceInfo, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

from ..model.messages_cbvila import one_line


@dataclass(frozen=True)
class RepositoryType:
    """What is uploaded.

    Attributes:
        name: How the Hub calls this type of repository.
        replaced: Patterns of files that are deleted if they are not replaced.
        creation: Arguments of `HfApi.create_repo` that a new repository of this type needs.
    """

    name: str
    replaced: tuple[str, ...]
    creation: Mapping[str, Any] = field(default_factory=dict)


# Old weights under other names could be loaded instead, and old code would be stale.
MODEL = RepositoryType("model", ("*.safetensors", "*.safetensors.index.json", "*_cbvila*.py"))
# The base class of all errors of the HTTP client, which depends on huggingface_hub's version.
_FAILURES: Any = (HfHubHTTPError.__bases__[0], OSError)


def check_access(api: HfApi) -> None:
    """Checks that there is a token and that the Hub accepts it.

    Raises:
        ValueError: If there is no token, or the Hub refuses it.
        ConnectionError: If the Hub cannot be reached.
    """
    if not (api.token or get_token()):
        raise ValueError(
            "there is no token for the Hub: run 'hf auth login' or set HF_TOKEN to one that may write "
            "(https://huggingface.co/settings/tokens)"
        )
    try:
        api.whoami()
    except HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise ValueError(f"{api.endpoint} refuses the token: create another one and run 'hf auth login'") from None
        raise ConnectionError(_cannot_reach(api, error)) from None
    except _FAILURES as error:
        raise ConnectionError(_cannot_reach(api, error)) from None


def upload(
    api: HfApi,
    folder: str | Path,
    repo_id: str,
    private: bool = False,
    message: str | None = None,
    repository: RepositoryType = MODEL,
) -> str:
    """Uploads a folder in one commit.

    Args:
        api: The Hub.
        folder: The folder.
        repo_id: The repository; created if it does not exist.
        private: Whether a new repository is private.
        message: Message of the commit.
        repository: What kind of repository it is.

    Returns:
        The commit's id.

    Raises:
        ValueError: If `private` is set and the repository is public.
        ConnectionError: If it failed; the message has the state of the repository, and how to continue.
        KeyboardInterrupt: If it was interrupted; with the same message.
    """
    before = _before(api, repo_id, repository)
    if before is not None and private and not before.private:
        raise ValueError(f"{repo_id} is public: leave out --private, or make it private on the Hub")
    head = None if before is None else before.sha
    try:
        if before is None:
            api.create_repo(repo_id, repo_type=repository.name, private=private, exist_ok=True, **repository.creation)
        there = [] if before is None else [file.rfilename for file in before.siblings or ()]
        # Not upload_folder, which splits many files into several commits. Refused if there was another commit since.
        return api.create_commit(
            repo_id,
            _operations(Path(folder), there, repository),
            repo_type=repository.name,
            commit_message=message or "Publish CB-ViLA",
            parent_commit=head,
        ).oid
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Interrupted. {_state(api, repo_id, head, repository)}") from None
    except ValueError as error:  # the Hub's validation of the card's metadata
        raise ValueError(f"{_reason(error)}. {_state(api, repo_id, head, repository)}") from None
    except _FAILURES as error:
        raise ConnectionError(
            f"the upload failed: {_reason(error)}. {_state(api, repo_id, head, repository)}"
        ) from None


def _before(api: HfApi, repo_id: str, repository: RepositoryType) -> ModelInfo | SpaceInfo | None:
    try:
        return _info(api, repo_id, repository)
    except _FAILURES as error:
        raise ConnectionError(_cannot_reach(api, error)) from None


def _operations(folder: Path, there: list[str], repository: RepositoryType) -> list[Any]:
    files = {path.relative_to(folder).as_posix(): str(path) for path in folder.rglob("*") if path.is_file()}
    stale = {name for name in there if any(fnmatch(name, pattern) for pattern in repository.replaced)}
    deletions = [CommitOperationDelete(name) for name in sorted(stale - files.keys())]
    return [*(CommitOperationAdd(name, path) for name, path in sorted(files.items())), *deletions]


def _info(api: HfApi, repo_id: str, repository: RepositoryType) -> Any:
    """Returns None if there is no such repository, or none that this token can access."""
    try:
        return api.repo_info(repo_id, repo_type=repository.name)
    except RepositoryNotFoundError:
        return None


def _state(api: HfApi, repo_id: str, head: str | None, repository: RepositoryType) -> str:
    """Describes the repository after a failed upload; `head` is the commit before it, None for a new repository."""
    again = "The same command starts over; nothing has to be cleaned up."
    try:
        info = _info(api, repo_id, repository)
    except _FAILURES:
        return (
            f"{api.endpoint} does not say how {repo_id} is now; an upload is one commit, so that either all of it is "
            f"there or nothing. {again}"
        )
    if info is None:
        return f"There is no repository {repo_id}. {again}"
    if head is None:
        names = {file.rfilename for file in info.siblings or ()} - {".gitattributes"}
        return f"The repository {repo_id} was made and {'has the upload' if names else 'is empty'}. {again}"
    if info.sha != head:
        return f"{repo_id} has a new commit, {info.sha}: look whether it is this one. {again}"
    return f"{repo_id} is as it was, at commit {head}. {again}"


def _cannot_reach(api: HfApi, error: Exception) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so that nothing can be uploaded: unset it"
    return f"cannot reach {api.endpoint}: {_reason(error)}; nothing was changed there"


def _reason(error: Exception) -> str:
    """Returns an error's message as one line of at most 200 characters."""
    return (one_line(str(error), 200) or type(error).__name__).rstrip(". ")
