"""The page of a Space: a README.md with the metadata that the Hub builds the Space from."""

from __future__ import annotations

import platform

from huggingface_hub import SpaceCard, SpaceCardData

from .. import __version__
from ..extras import require
from ..hub.cards import cards_folder
from .contents import SpaceContents, SpaceModel

# The licence of this package, whose files the Space holds, as the Hub calls it.
_LICENCE = "apache-2.0"
_TABLE = "| model | what the app does with it | licence |\n|---|---|---|"
_DESCRIPTION = "Search, ask and draw, through visual words"  # at most 60 characters


def render_page(contents: SpaceContents, repo_id: str) -> str:
    """Renders the README.md of a Space.

    Raises:
        ImportError: If Gradio is not installed, whose version the Space gets.
    """
    held = [model for model in contents.models if model.facts is not None]
    card = SpaceCard.from_template(
        _metadata(contents, repo_id),
        template_str=(cards_folder() / "space.md").read_text(encoding="utf-8"),
        name=_name(repo_id),
        models="\n".join([_TABLE, *map(_row, contents.models)]),
        limits="\n".join(f"- `{model.name}`: {model.facts.limits}" for model in held if model.facts),
        pictures=0 if contents.pictures is None else len(contents.pictures.items),
        version=__version__,
        gradio=_gradio(),
    )
    return f"{card}\n"


def _metadata(contents: SpaceContents, repo_id: str) -> SpaceCardData:
    major, minor, _ = platform.python_version_tuple()
    licences = {_LICENCE, *(model.facts.license for model in contents.models if model.facts)}
    return SpaceCardData(
        title=_name(repo_id),
        emoji="🧩",
        colorFrom="indigo",
        colorTo="gray",
        sdk="gradio",
        sdk_version=_gradio(),
        python_version=f"{major}.{minor}",
        app_file="app.py",
        pinned=False,
        license=_LICENCE if len(licences) == 1 else "other",  # the page has that of each model
        short_description=_DESCRIPTION,
        models=[model.name for model in contents.models if model.checkpoint is None] or None,
        tags=["cbvila", "vision-language", "codebook"],
    )


def _row(model: SpaceModel) -> str:
    if model.facts is None:
        return f"| [{model.name}](https://huggingface.co/{model.name}) | {model.use} | its card says it |"
    return f"| `{model.name}` | {model.use} | {model.facts.license} |"


def _name(repo_id: str) -> str:
    return repo_id.rpartition("/")[2]


def _gradio() -> str:
    return require("gradio").__version__
