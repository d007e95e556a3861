"""Finds the small checkpoints that come with the package, without the network."""

import os
import re
from pathlib import Path

from .model.messages_cbvila import shown
from .nearest import nearest

CHECKPOINTS = Path(__file__).parent / "checkpoints"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # owner/name


def bundled_checkpoints() -> list[str]:
    """Returns the names that [`bundled_checkpoint`] takes, sorted."""
    return sorted(config.parent.name for config in CHECKPOINTS.glob("*/config.json"))


def bundled_checkpoint(name: str) -> str:
    """Finds a checkpoint that comes with the package.

    Args:
        name: Its name, e.g. `"cbvila-tiny-easyvqa"`.

    Returns:
        The path of its folder, which `from_pretrained` and `pipeline` take.

    Raises:
        ValueError: If there is no checkpoint of that name; the message lists the names.

    Example:
    ```python
    model = AutoModel.from_pretrained(bundled_checkpoint("cbvila-tiny"))
    ```
    """
    names = bundled_checkpoints()
    if name not in names:
        raise ValueError(
            f"no checkpoint {shown(name)} comes with this package; choose one of {', '.join(names) or '(none)'}"
        )
    return str(CHECKPOINTS / name)


def bundled_or_same(name: str) -> str:
    """Returns the folder of a bundled checkpoint for its name, anything else unchanged."""
    return bundled_checkpoint(name) if name in bundled_checkpoints() else name


def local_or_hub_id(name: str) -> str:
    """Returns the folder of a bundled checkpoint for its name, a folder or a Hub id (owner/name) unchanged.

    Does not use the network.

    Raises:
        FileNotFoundError: If it is none of these, such as a misspelt name.
    """
    source = bundled_or_same(name)
    if not os.path.isdir(source) and not _HUB_ID.fullmatch(source):
        raise FileNotFoundError(no_checkpoint(name))
    return source


def checkpoint_source(name: str) -> str:
    """Returns what `from_pretrained` takes, as [`local_or_hub_id`], after checking that the Hub has such an id.

    Raises:
        OSError: If it is none of these, or its configuration cannot be loaded from the Hub.
    """
    source = local_or_hub_id(name)
    if not os.path.isdir(source):
        from transformers.utils import CONFIG_NAME, cached_file  # imported here because it takes a second

        try:
            cached_file(name, CONFIG_NAME)
        except OSError as error:
            raise OSError(f"{no_checkpoint(name)}. Nor could it be loaded from the Hub: {error}") from error
    return source


def class_of_checkpoint(source: str | os.PathLike) -> str | None:
    """Returns the name of the class that a checkpoint was saved from, as its config.json says; None if it does not.

    Args:
        source: What `from_pretrained` takes: a folder or a Hub id.
    """
    from transformers import PreTrainedConfig

    return next(iter(PreTrainedConfig.get_config_dict(source)[0].get("architectures") or ()), None)


def no_checkpoint(name: str) -> str:
    """Returns the message for a name that is neither a folder nor bundled, with the nearest bundled one."""
    names = bundled_checkpoints()
    what = "a file, no folder" if os.path.isfile(name) else "no folder"
    return f"{shown(name)} is {what} and no bundled checkpoint ({', '.join(names)}){nearest(name, names)}"
