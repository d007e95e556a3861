"""Imports optional packages when they are needed, with the install command in the error."""

import importlib.util
from importlib.metadata import PackageNotFoundError, requires
from types import ModuleType

_DISTRIBUTION = "transformers-cbvila"
# The extra of setup.cfg that installs each optional top-level module.
_EXTRA_OF_MODULE = {
    "datasets": "train",
    "pyarrow": "train",
    "evaluate": "train",
    "easy_vqa": "train",
    "matplotlib": "train",
    "timm": "timm",
    "faiss": "faiss",
    "peft": "peft",
    "gradio": "app",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
}


def require(module: str) -> ModuleType:
    """Imports an optional module and returns it.

    Args:
        module: Dotted module name, e.g. `"datasets"` or `"matplotlib.figure"`.

    Returns:
        The imported module.

    Raises:
        ImportError: If the package is not installed; the message has the command that installs its extra's packages.
            An import that fails *inside* an installed package is raised unchanged.
        ValueError: If no extra of this project includes the module.
    """
    package = _package(module)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise _not_installed(package) from error


def require_installed(module: str) -> None:
    """Raises the errors of [`require`] without importing the module: before long work that needs it at its end."""
    package = _package(module)
    if importlib.util.find_spec(package) is None:
        raise _not_installed(package)


def _package(module: str) -> str:
    """Returns the package of a module of one of the extras."""
    package = module.partition(".")[0]
    if package not in _EXTRA_OF_MODULE:
        raise ValueError(
            f"no extra includes {package!r}; known optional packages: {', '.join(sorted(_EXTRA_OF_MODULE))}"
        )
    return package


def _not_installed(package: str) -> ImportError:
    """Returns an error with the command that installs the package and the others of its extra."""
    extra = _EXTRA_OF_MODULE[package]
    needed = " ".join(f'"{name}"' for name in _requirements(extra) or [package.replace("_", "-")])
    return ImportError(f"{package!r} is not installed and this needs it: pip install {needed}")


def _requirements(extra: str) -> list[str]:
    """Returns an extra's requirements, such as `datasets>=5`, from the installed package's metadata; [] without it.

    The extra's name would not do: installing it needs to know where this package was installed from.
    """
    from packaging.requirements import Requirement

    try:
        parsed = [Requirement(text) for text in requires(_DISTRIBUTION) or []]
    except PackageNotFoundError:  # run from source
        return []
    with_markers = [(f"{each.name}{each.specifier}", each.marker) for each in parsed if each.marker]
    return [
        name
        for name, marker in with_markers
        if marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})
    ]
