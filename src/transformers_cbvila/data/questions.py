"""Questions about images for training: one row of a data set, seen in one epoch, as one training example."""

from collections.abc import Sequence
from typing import Any

import torch

from .epoch_rows import EpochRows

_CLOSED = ("yes", "no")


class SampledQuestions(EpochRows):
    """Rows of one image with many questions, thinned out to a few questions per epoch.

    Most questions about an image can be answered with yes or no. Asked all at once, they drown the few whose answers
    name something, from which the image encoder learns most. So an example keeps all of these and draws some of the
    others, new ones every epoch. Draws depend on (seed, epoch, row) only, so that a resumed run draws what the
    unbroken one would have drawn.

    Args:
        rows: Rows with `image`, `question` (list of strings) and `answer` (list of strings).
        closed_questions: How many yes/no questions an example keeps at most.
        seed: Seed of all draws.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], closed_questions: int, seed: int = 0):
        if closed_questions < 0:
            raise ValueError(f"closed_questions={closed_questions} is negative; 0 leaves all yes/no questions out.")
        super().__init__(rows, seed)
        self.closed_questions = closed_questions

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        answers = row["answer"]
        closed = [i for i, answer in enumerate(answers) if answer in _CLOSED]
        order = torch.randperm(len(closed), generator=self.generator(index)).tolist()
        named = [i for i, answer in enumerate(answers) if answer not in _CLOSED]
        # an image without anything else is asked its first question: every row of a batch needs one
        kept = sorted([*named, *(closed[i] for i in order[: self.closed_questions])]) or [0]
        return {
            "image": row["image"],
            "question": [row["question"][i] for i in kept],
            "answer": [answers[i] for i in kept],
        }
