"""The README.md of a page: what it is, with the metadata by which the Hub serves it as a Space."""

from __future__ import annotations

from huggingface_hub import SpaceCard, SpaceCardData

from .. import __version__
from ..hub.cards import cards_folder
from ..hub.facts import Facts
from .onnxruntime_web import VERSION

_LICENCE = "apache-2.0"  # of this package, as the Hub calls it
_DESCRIPTION = "Search and draw pictures in the browser"  # at most 60 characters


def render_readme(title: str, model: str, facts: Facts | None, pictures: int, are_scenes: bool, draws: bool) -> str:
    """Renders the README.md.

    Args:
        title: Title of the page.
        model: The name of the model.
        facts: Its licence and limits; None of a model on the Hub, whose card has them.
        pictures: How many pictures there are to search in.
        are_scenes: Whether they are generated scenes.
        draws: Whether the page draws.
    """
    licence = None if facts is None else facts.license
    card = SpaceCard.from_template(
        SpaceCardData(
            title=title,
            emoji="🧩",
            colorFrom="indigo",
            colorTo="gray",
            sdk="static",
            app_file="index.html",
            pinned=False,
            license=_LICENCE if licence == _LICENCE else "other",  # the page says that of the model
            short_description=_DESCRIPTION,
            models=[model] if facts is None else None,
            tags=["cbvila", "vision-language", "codebook", "onnx"],
        ),
        template_str=(cards_folder() / "static_page.md").read_text(encoding="utf-8"),
        title=title,
        model=model,
        licence=licence,
        limits="" if facts is None else facts.limits,
        pictures=pictures,
        are_scenes=are_scenes,
        draws=draws,
        version=__version__,
        runtime=VERSION,
    )
    return f"{card}\n"
