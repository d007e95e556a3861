"""Which heads can be explained."""

from collections.abc import Sequence
from typing import Any


def require_explained(head: Any, name: str) -> None:
    """Raises a ValueError unless a model, or the class of one, called `name` can be explained."""
    if not hasattr(head, "explained"):
        raise ValueError(
            f"A {name} cannot be explained: it has no score of an image and a text with cross-attention between them. "
            "Heads for pretraining, retrieval, question answering, visual entailment and visual reasoning can."
        )


def check_image_counts(model: Any, images: Sequence[Any]) -> None:
    """Raises a ValueError unless each text has as many images as the head takes."""
    for image in images:
        given = len(image) if isinstance(image, list | tuple) else 1
        if given != model.explained_images:
            raise ValueError(
                f"Got {given} image(s) for a text: a {type(model).__name__} takes {model.explained_images}."
            )
