"""Prototypes with the images and captions that they gather, as an HTML string. Text from data is escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np

from ..inspection.prototypes import Gathered
from .codebook_images import side_by_side
from .document import counted, image_tag, table

_PROTOTYPES, _IMAGES, _CAPTIONS = 16, 8, 4


def prototypes_section(
    gathered: Gathered,
    metrics: Mapping[str, float],
    image_of: Callable[[int], np.ndarray],
    captions: Sequence[str],
) -> str:
    """Shows the prototypes that gather most, each with the images and captions that are most similar to it.

    Args:
        gathered: Similarities of M images and captions with the prototypes.
        metrics: Its `metrics()`; others may be among them.
        image_of: Returns the image (H, W, 3) uint8 of a row.
        captions: The M captions.
    """
    counts, (of_images, of_texts) = gathered.counts(), gathered.nearest()
    rows = []
    for number in np.argsort(-counts, kind="stable")[:_PROTOTYPES].tolist():
        if not counts[number]:
            break
        images = _most_similar(gathered.images[:, number], of_images == number, _IMAGES)
        texts = _most_similar(gathered.texts[:, number], of_texts == number, _CAPTIONS)
        heading = f'{number}<span class="soft">{counted(int((of_images == number).sum()), "image")}</span>'
        heading += f'<span class="soft">{counted(int((of_texts == number).sum()), "caption")}</span>'
        listed = "".join(f"<li>{escape(captions[row])}</li>" for row in texts)
        rows.append(
            f'<tr><th scope="row">{heading}</th><td>{_strip(images, image_of, number)}</td>'
            f"<td><ul>{listed}</ul></td></tr>"
        )
    columns = "".join(f'<th scope="col">{title}</th>' for title in ("prototype", "images", "captions"))
    agreement = " and ".join(f"{100 * metrics[f'prototype_agreement_{end}']:.1f}" for end in ("low", "high"))
    return f"""<section><h2>What prototypes gather</h2>
<p class="soft">Images and captions whose embeddings are most similar to a prototype, the most similar first; the
prototypes that gather most are shown. In {100 * metrics["prototype_agreement"]:.1f}&#8239;% of pairs (95&#8239;%
interval {agreement}) image and caption go to the same one; put together by chance,
{100 * metrics["prototype_agreement_floor"]:.1f}&#8239;% would.</p>
{table("Prototypes with the images and captions that they gather", "".join(rows), columns, "prototypes")}</section>"""


def _most_similar(similarities: np.ndarray, are_nearest: np.ndarray, most: int) -> list[int]:
    """Returns up to `most` of the rows (M,) that are nearest to a prototype, the most similar first."""
    order = np.argsort(-similarities, kind="stable")
    return order[are_nearest[order]][:most].tolist()


def _strip(rows: list[int], image_of: Callable[[int], np.ndarray], number: int) -> str:
    if not rows:
        return ""
    alt = f"{counted(len(rows), 'image')} that prototype {number} gathers"
    return image_tag(side_by_side([image_of(row) for row in rows]), alt)
