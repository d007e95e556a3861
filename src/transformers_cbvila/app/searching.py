"""Search in the pictures of the app."""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple

from ..explaining.explain import explain
from ..explaining.explanation import Explanation
from ..retrieval.retriever import CBViLARetriever
from .pictures import Picture, Pictures

SHOWN = 12
_EXAMPLES = 4


class Match(NamedTuple):
    """A picture that was found.

    Args:
        number: Its number.
        score: Its score.
        probability: How probably it matches, where the checkpoint is calibrated for such queries.
    """

    number: int
    score: float
    probability: float | None = None


class PictureSearch:
    """Search in pictures, which are encoded here.

    Args:
        retriever: The retriever.
        pictures: The pictures.
        progress: Whether to show a progress bar while pictures are encoded.
    """

    def __init__(self, retriever: CBViLARetriever, pictures: Pictures, progress: bool = False) -> None:
        self.retriever, self.pictures = retriever, pictures
        # Of a folder the paths: its pictures may be more than fit in memory.
        retriever.index([item.source for item in pictures.items], progress=progress)

    @property
    def is_calibrated(self) -> bool:
        """Whether the checkpoint says how probably a picture matches."""
        return self.retriever.model.config.match_calibration is not None

    @property
    def examples(self) -> list[str]:
        """Texts to search for, each of which is true of one of the pictures; none for pictures of a folder."""
        captions = (item.caption for item in self.pictures.items)
        return list(islice((caption for caption in captions if caption), _EXAMPLES))

    def find(
        self, text: str = "", unwanted: str = "", like: int | None = None, min_probability: float = 0.0
    ) -> list[Match]:
        """Finds pictures.

        Args:
            text: What is looked for.
            unwanted: What is not wanted.
            like: Number of a picture that others shall be like.
            min_probability: Least probability of a match; 0 for any.

        Returns:
            The best pictures, at most [`SHOWN`] of them, without the one that they shall be like.

        Raises:
            ValueError: If nothing is looked for, or a least probability is asked of a query of several parts.
        """
        text, unwanted = text.strip(), unwanted.strip()
        if not text and like is None:
            raise ValueError("Write what you are looking for, or choose a picture and press “More like this”.")
        if min_probability and (unwanted or like is not None):
            raise ValueError(
                "A least probability is of a text alone: set it to 0, or leave out the other parts of the search."
            )
        found = self.retriever.search(
            text=text or None,
            image=None if like is None else self.pictures.items[like].source,
            negative_text=unwanted or None,
            min_probability=min_probability or None,
            top_k=SHOWN + (like is not None),
        )
        columns: list[Any] = [found.indices, found.scores]
        if found.probabilities is not None:
            columns.append(found.probabilities)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [Match(*row) for row in rows if row[0] >= 0 and row[0] != like][:SHOWN]

    def why(self, number: int, text: str) -> Explanation | None:
        """Explains how well a text matches a picture; None if the model cannot.

        Raises:
            ValueError: If the text has no words.
        """
        if not self.retriever.model.config.needs("hard_negatives"):
            return None
        return explain(self.retriever.model, self.retriever.processor, self.pictures.items[number].image, text)

    def picture(self, number: int) -> Picture:
        """Returns a picture by its number."""
        return self.pictures.items[number]
