"""Queries of several parts: a text, an image, and a text and an image that are not wanted.

Shapes: Q queries, E embedding size.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.item_lists_cbvila import holds_several, items_of
from ..model.messages_cbvila import shown
from ..model.number_checks_cbvila import check_number
from ..nearest import nearest

# What each part counts for by default. What is not wanted counts less: a text shares most of its direction with any
# other text, and so does an image with images.
WEIGHTS = {"text": 1.0, "image": 1.0, "negative_text": 0.5, "negative_image": 0.5}


class QueryPart(NamedTuple):
    """One part of Q queries.

    Args:
        kind: `"images"` or `"texts"`.
        items: The Q images or texts.
        weight: What it counts for; negative for what is not wanted.
    """

    kind: str
    items: list[Any]
    weight: float


class QueryParts(NamedTuple):
    """The parts of Q queries.

    Args:
        parts: The parts, first the one that is matched with items if it is the only one.
        are_several: Whether the caller gave a list, even if of one query.
    """

    parts: list[QueryPart]
    are_several: bool


def query_parts(
    text: Any = None,
    image: Any = None,
    negative_text: Any = None,
    negative_image: Any = None,
    weights: Mapping[str, float] | None = None,
) -> QueryParts:
    """Returns the parts of queries.

    Args:
        text: One text or several.
        image: One image or several.
        negative_text: One text or several that are not wanted.
        negative_image: One image or several that are not wanted.
        weights: What parts count for, by these names.

    Raises:
        ValueError: If neither a text nor an image is given, there are different numbers of them, or a weight is of no
            part or no finite positive number.
    """
    if text is None and image is None:
        raise ValueError("Search by a text, by an image, or by both: give text, image or both of them.")
    given = {"text": text, "image": image, "negative_text": negative_text, "negative_image": negative_image}
    given = {name: value for name, value in given.items() if value is not None}
    for name, weight in (weights or {}).items():
        if name not in given:
            close = nearest(name, tuple(given)) or "."
            raise ValueError(f"weights has {shown(name)}, and the query has {' and '.join(given)}{close}")
        check_number(f"weights[{name!r}]", weight)
        if weight <= 0:
            raise ValueError(f"weights[{name!r}]={weight} must be above 0; leave out what shall not count.")
    if weights and len(given) == 1:
        raise ValueError(
            f"weights={shown(dict(weights))} weigh parts against each other, and the query is {next(iter(given))} "
            "alone; leave them out."
        )
    several = {name: holds_several(value) for name, value in given.items()}
    parts = []
    for name, value in given.items():
        kind = "images" if name.endswith("image") else "texts"
        weight = (weights or {}).get(name, WEIGHTS[name]) * (-1 if name.startswith("negative") else 1)
        parts.append(QueryPart(kind, list(items_of(value, kind)) if several[name] else [value], weight))
    numbers = {name: len(part.items) for name, part in zip(given, parts, strict=True)}
    if len(set(numbers.values())) > 1 or len(set(several.values())) > 1:
        counts = ", ".join(f"{number} of {name}" for name, number in numbers.items())
        raise ValueError(f"Each query has one of every part, and there are {counts}: give as many, all in lists.")
    return QueryParts(parts, any(several.values()))


def combined(embeds: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Returns embeddings (Q, E) of length 1 in the direction of the weighted sum of those of each part, (Q, E)."""
    return F.normalize(torch.stack([w * part for part, w in zip(embeds, weights, strict=True)]).sum(0), dim=-1)
