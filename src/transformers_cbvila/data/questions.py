"""Questions about images for training: some of a row together, or each by itself, as a prompt."""

from collections.abc import Sequence
from typing import Any

import torch

from .epoch_rows import EpochRows
from .image_views import ImageViews
from .row_items import RowItems

_CLOSED = ("yes", "no")


class SampledQuestions(EpochRows):
    """Rows of one image with many questions, thinned out to a few questions per epoch where that is wanted.

    Most questions about an image can be answered with yes or no. Asked all at once, they drown the few whose answers
    name something, from which the image encoder learns most. So an example keeps all of these and draws some of the
    others, new ones every epoch. Draws depend on (seed, epoch, row) only, so that a resumed run draws what the
    unbroken one would have drawn.

    Args:
        rows: Rows with `image`, `question` (list of strings) and `answer` (list; of each question one string, or a
            list of the strings that people gave).
        closed_questions: How many yes/no questions an example keeps at most; `None` keeps all.
        seed: Seed of all draws.
        views: What is seen of images; without, all of them.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        closed_questions: int | None,
        seed: int = 0,
        views: ImageViews | None = None,
    ) -> None:
        if closed_questions is not None and closed_questions < 0:
            raise ValueError(f"closed_questions={closed_questions} is negative; 0 leaves all yes/no questions out.")
        super().__init__(rows, seed)
        self.closed_questions = closed_questions
        self.views = views or ImageViews()

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, generator = self.row(index), self.generator(index)
        answers = row["answer"]
        is_closed = [usual_answer(answer).lower() in _CLOSED for answer in answers]
        closed = [i for i in range(len(answers)) if is_closed[i]]
        order = torch.randperm(len(closed), generator=generator).tolist()
        named = [i for i in range(len(answers)) if not is_closed[i]]
        # an image without anything else is asked its first question: every row of a batch needs one
        kept = sorted([*named, *(closed[i] for i in order[: self.closed_questions])]) or [0]
        return {
            "image": self.views.draw(row["image"], generator),
            "question": [row["question"][i] for i in kept],
            "answer": [answers[i] for i in kept],
        }


class AskedImages(RowItems):
    """One example for every question about every image: the question is a prompt, and its usual answer the text.

    Args:
        rows: Rows with `image`, `question` (list of strings) and `answer` (list; of each question one string, or a
            list of the strings that people gave).
        counts: How many questions each row has.
        seed: Seed of all draws.
        views: What is seen of images; without, all of them.
    """

    def __init__(
        self, rows: Sequence[dict[str, Any]], counts: Sequence[int], seed: int = 0, views: ImageViews | None = None
    ) -> None:
        super().__init__(rows, counts, seed)
        self.views = views or ImageViews()

    def __getitem__(self, index: int) -> dict[str, Any]:
        place, number = self.place(index)
        row = self.row(place)
        image = self.views.draw(row["image"], self.generator(index))
        return {"image": image, "prompt": row["question"][number], "text": usual_answer(row["answer"][number])}


def usual_answer(answer: str | Sequence[str]) -> str:
    """The answer that most people gave, blanks left out; of equally frequent ones the first."""
    if isinstance(answer, str):
        return answer
    given = [text for text in answer if text.strip()] or list(answer)
    return max(given, key=given.count)
