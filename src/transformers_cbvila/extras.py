"""Optional packages: imported when a function needs them, with an install command that works in the error."""

import importlib
from importlib.metadata import PackageNotFoundError, requires
from types import ModuleType

_DISTRIBUTION = "transformers-cbvila"
# The extra of setup.cfg that brings each optional top-level module.
_EXTRA_OF_MODULE = {
    "datasets": "train",
    "pyarrow": "train",
    "evaluate": "train",
    "easy_vqa": "train",
    "matplotlib": "train",
    "timm": "timm",
    "faiss": "faiss",
    "peft": "peft",
}


def require(module: str) -> ModuleType:
    """Imports an optional module and returns it.

    Args:
        module: dotted module name, e.g. `"datasets"` or `"matplotlib.figure"`.

    Returns:
        The imported module.

    Raises:
        ImportError: the package is not installed; the message has the command that installs what its extra brings. An
            import that fails *inside* an installed package is raised as it is: installing it again would not help.
        ValueError: no extra of this project brings the module.
    """
    package = module.partition(".")[0]
    if package not in _EXTRA_OF_MODULE:
        raise ValueError(
            f"no extra brings {package!r}; known optional packages: {', '.join(sorted(_EXTRA_OF_MODULE))}"
        )
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        extra = _EXTRA_OF_MODULE[package]
        needed = " ".join(f'"{name}"' for name in _requirements(extra) or [package.replace("_", "-")])
        raise ImportError(f"{package!r} is not installed and this needs it: pip install {needed}") from error


def _requirements(extra: str) -> list[str]:
    """What an extra brings, such as `datasets>=5`, from the metadata of the installed package; [] where it has none.

    These and not the extra's name, which works only for who can say from where this package was installed.
    """
    from packaging.requirements import Requirement

    try:
        parsed = [Requirement(text) for text in requires(_DISTRIBUTION) or []]
    except PackageNotFoundError:  # run from a folder of sources
        return []
    with_markers = [(f"{each.name}{each.specifier}", each.marker) for each in parsed if each.marker]
    return [
        name
        for name, marker in with_markers
        if marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})
    ]
