"""The small checkpoints that come with the package, found without the network."""

from pathlib import Path

from transformers.utils import CONFIG_NAME, cached_file

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def bundled_checkpoints() -> list[str]:
    """The names that `bundled_checkpoint` takes, sorted."""
    return sorted(config.parent.name for config in CHECKPOINTS.glob("*/config.json"))


def bundled_checkpoint(name: str) -> str:
    """
    Find a checkpoint that comes with the package.

    Args:
        name: e.g. `"cbvila-tiny-easyvqa"`.

    Returns:
        The path of its folder, which `from_pretrained` and `pipeline` take.

    Raises:
        ValueError: there is no checkpoint of that name; the message names those that are there.

    Example:

    ```python
    model = AutoModel.from_pretrained(bundled_checkpoint("cbvila-tiny"))
    ```
    """
    names = bundled_checkpoints()
    if name not in names:
        raise ValueError(
            f"no checkpoint {name!r} comes with this package; choose one of {', '.join(names) or '(none)'}"
        )
    return str(CHECKPOINTS / name)


def bundled_or_same(name: str) -> str:
    """The folder of a bundled checkpoint for its name, anything else as it is."""
    return bundled_checkpoint(name) if name in bundled_checkpoints() else name


def checkpoint_source(name: str) -> str:
    """What `from_pretrained` takes: the folder of a bundled checkpoint for its name, a folder or a Hub id as it is.

    Raises:
        OSError: If it is none of these, or the Hub does not give its configuration.
    """
    source = bundled_or_same(name)
    if not Path(source).is_dir():
        try:
            cached_file(name, CONFIG_NAME)
        except OSError as error:
            raise OSError(
                f"{name} is no folder and no bundled checkpoint ({', '.join(bundled_checkpoints())}), and could not "
                f"be had from the Hub: {error}"
            ) from error
    return source
