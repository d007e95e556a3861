"""Options of the source `scenes`."""

from dataclasses import dataclass

from ...model.messages_cbvila import shown
from ...nearest import nearest

STYLES = ("flat", "striped", "noisy", "mixed")
SPLITS = ("train", "validation", "test", "test_compositional", "confusers")
TASKS = ("pretraining", "retrieval", "vqa", "entailment", "reasoning")
GALLERY_TASKS = ("pretraining", "retrieval")  # that the split of confusers is for
QUESTIONS = ("all", "where")
CAPTIONS = ("all", "full", "pairs", "ordered", "places", "relations")
PLACES = 4  # two rows of two of the largest objects always fit
SMALLEST, LARGEST = 32, 1024  # pixels; in 32 a small object has 6 or 7, which show its shape just so
_ROWS = {"train": 24_000, "validation": 1_000, "test": 2_000, "test_compositional": 2_000, "confusers": 1_000}
_MOST_ROWS = 2**40
_MOST_CONFUSERS = 2_000  # captions that are true of one image are hard to find in larger galleries


@dataclass(frozen=True)
class SceneOptions:
    """Which scenes are drawn.

    Args:
        size: Width and height of images in pixels.
        objects: Largest number of objects in an image.
        fewest: Smallest number of objects in an image for pretraining, retrieval and vqa. With one, captions such as
            "a big red circle" are true of many images, which contrast and matching then take for negatives.
        style: The ground: `flat`, `striped`, `noisy`, or `mixed`, one of these for each image.
        rows: Rows of every split; default: 24,000 for training, 2,000 for each test, else 1,000.
        seed: Seed of everything that is drawn.
        captions: `all`, or for pretraining and retrieval only `full` ones, which name every object, those of how
            `pairs` of objects lie, the same `ordered` as we read, from the left or from above, those of `places`, or
            all that tell places or `relations`. From the last two a model learns first what to look for and where,
            from full ones what to draw, and from ordered ones a frozen language model to write (docs/study.md).
        questions: `all`, or for vqa only `where` an object lies, seen from another: one question of each image. A
            frozen language model learns relations from these (docs/study.md).
        blank: Whether every image is grey, to train and measure what the texts alone tell. Texts and truth stay.

    Raises:
        ValueError: If no such scenes can be drawn.
    """

    size: int = 64
    objects: int = 3
    fewest: int = 2
    style: str = "flat"
    rows: int | None = None
    seed: int = 0
    captions: str = "all"
    questions: str = "all"
    blank: bool = False

    def __post_init__(self) -> None:
        if not SMALLEST <= self.size <= LARGEST:
            raise ValueError(
                f"size={self.size} is no size of scenes; give {SMALLEST} to {LARGEST} pixels. In smaller images no "
                "object fits whose shape can be seen."
            )
        if not 1 <= self.objects <= PLACES:
            raise ValueError(
                f"objects={self.objects}: an image has places for 1 to {PLACES} objects without overlap; give one of "
                "these numbers."
            )
        if not 1 <= self.fewest <= self.objects:
            raise ValueError(
                f"fewest={self.fewest} must be from 1 to objects={self.objects}; lower it, or give more objects."
            )
        for name, value, values in (
            ("style", self.style, STYLES),
            ("captions", self.captions, CAPTIONS),
            ("questions", self.questions, QUESTIONS),
        ):
            if value not in values:
                meant = nearest(value, values) or "."
                raise ValueError(f"{name}={shown(value)} is none of {', '.join(values)}{meant}")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows={self.rows} must be at least 1; leave it out for the usual numbers.")

    def rows_of(self, split: str) -> int:
        """Returns the number of rows of a split.

        Raises:
            ValueError: If there is no such split, or it cannot have so many rows.
        """
        if split not in SPLITS:
            raise ValueError(
                f"scenes has no split {shown(split)}; it has {', '.join(SPLITS)}{nearest(split, SPLITS) or '.'}"
            )
        rows, most = _ROWS[split] if self.rows is None else self.rows, self.most_rows(split)
        if rows > most:
            raise ValueError(f"rows={rows} is more than the split {split} can have; give at most {most}.")
        return rows

    def most_rows(self, split: str) -> int:
        """Returns the largest number of rows of a split."""
        return _MOST_CONFUSERS if split == "confusers" else _MOST_ROWS

    def check_task(self, split: str, task: str) -> None:
        """Raises a ValueError if a split has no rows for a task."""
        if task not in TASKS:
            raise ValueError(f"scenes has no rows for {shown(task)}; it has rows for {', '.join(TASKS)}.")
        if split == "confusers" and task not in GALLERY_TASKS:
            raise ValueError(
                f"The split confusers is a gallery for retrieval and has no rows for {task}; take "
                f"{', '.join(SPLITS[:-1])}."
            )
        if self.captions != "all" and (split == "confusers" or task not in GALLERY_TASKS):
            what = "the split confusers has captions of its own" if split == "confusers" else f"{task} has no captions"
            raise ValueError(f"captions={self.captions}: {what}; leave it out.")
        if self.questions != "all" and (task != "vqa" or self.fewest < 2):
            what = f"{task} has no questions" if task != "vqa" else f"with fewest={self.fewest} some images have none"
            raise ValueError(f"questions={self.questions}: {what}; leave it out.")
        if self.objects < 2 and (split == "confusers" or task in ("entailment", "reasoning")):
            what = "confusers" if split == "confusers" else task
            raise ValueError(f"objects={self.objects}: {what} is about two objects; give at least objects=2.")
        if self.fewest != type(self).fewest and task in ("entailment", "reasoning"):
            raise ValueError(f"fewest={self.fewest}: the text of {task} says what an image has; leave it out.")
        if self.fewest < 2 and split == "confusers":
            raise ValueError(f"fewest={self.fewest}: confusers have two objects or more; leave it out.")
