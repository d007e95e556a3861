"""Optional packages: imported when a function needs them, with the install command in the error."""

import importlib
from types import ModuleType

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
        ImportError: the package is not installed; the message names the extra that brings it. An import that fails
            *inside* an installed package is raised as it is, because installing the extra again would not help.
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
        raise ImportError(
            f'{package!r} is not installed and this needs it: pip install "transformers-cbvila[{extra}]"'
        ) from error
