"""What an explanation holds."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Explanation:
    """Where the words of a text look in its images, for one score of the model.

    Attributes:
        text: The text.
        words: W words of the text, in its order, as often as they are in it.
        known: Of each word, whether the model's vocabulary has it, or parts of it; otherwise the model reads no more
            than that there is some word.
        image_maps: (n, W, rows, columns) maps of the patches of each image, from 0, the least of a word's values in
            any of the images, to 1, the greatest; 0 everywhere if all are equal.
        shares: (W,) what the words' maps add up to before that, as shares of all words.
        score: The score.
        score_name: What the score is.
        probability: The probability that it stands for.
        answer: The answer or class that the score is of; None where the head gives none.
        images: (n, height, width, 3) the images as the model sees them, uint8.
        method: `"gradcam"` or `"rollout"`.
        layers: The fusion layers, counted from 0, whose maps are added up, or with rollout followed.
    """

    text: str
    words: list[str]
    known: list[bool]
    image_maps: np.ndarray
    shares: np.ndarray
    score: float
    score_name: str
    probability: float
    answer: str | None
    images: np.ndarray
    method: str
    layers: list[int]

    @property
    def maps(self) -> np.ndarray:
        """(W, rows, columns) maps of the first image, which is the only one but in visual reasoning."""
        return self.image_maps[0]

    def map_of(self, word: str, image: int = 0) -> np.ndarray:
        """Returns the map (rows, columns) of a word, the mean one if the text has it several times.

        Raises:
            ValueError: If the text has no such word.
        """
        places = [place for place, other in enumerate(self.words) if other.lower() == word.lower()]
        if not places:
            raise ValueError(f"The text has no word {word!r}; its words are {', '.join(self.words)}.")
        return self.image_maps[image, places].mean(axis=0)
