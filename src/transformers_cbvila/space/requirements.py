"""The packages that a Space installs: those of this package, at the versions that its app was tried with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.version import Version

from .contents import DISTRIBUTION

# Spaces install Gradio, at `sdk_version`, in the same step as these, and packages of their own that need
# huggingface_hub: which version is theirs to say, within the range that works.
_MANAGED = ("huggingface-hub",)
_HEAD = """\
# torch for CPUs; on a Space with a GPU leave out the next line
--extra-index-url https://download.pytorch.org/whl/cpu
"""


def requirements() -> str:
    """Returns a requirements.txt of what this package needs.

    Raises:
        ImportError: If the package runs from source, uninstalled, so that nobody knows what it needs.
    """
    try:
        needed = [Requirement(text) for text in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:
        raise ImportError(
            f"{DISTRIBUTION} runs without being installed, and its installation says what a Space has to install: "
            "pip install it"
        ) from None
    return _HEAD + "".join(f"{_pinned(each)}\n" for each in needed if each.marker is None)


def _pinned(requirement: Requirement) -> str:
    installed = Version(version(requirement.name))
    # A development version is in no index.
    if requirement.name in _MANAGED or installed.is_devrelease:
        return f"{requirement.name}{requirement.specifier}"
    return f"{requirement.name}=={installed.public}"
