"""The downstream tasks of the results page: what is learned from which data, and what is measured."""

from dataclasses import dataclass
from pathlib import Path

from transformers_cbvila.data.builtin_sources import find_builtin
from transformers_cbvila.retrieval.recall_names import ORDERS

BY_MATCHING = ORDERS[1:]  # endings of recalls of another order than by similarity


def _recalls(*endings: str) -> tuple[str, ...]:
    return tuple(f"{way}_retrieval_r{k}{ending}" for ending in endings for way in ("text", "image") for k in (1, 10))


RECALLS = _recalls("", "_combined")


@dataclass(frozen=True)
class Task:
    """What is learned from which data, and what is measured.

    Args:
        task: Of `cbvila finetune` and `cbvila evaluate`.
        recipe: In recipes/.
        train_data: Folders or files in the folder of packs, or built-in sources.
        data: What is measured on, likewise.
        splits: Those of `data` that are measured.
        figures: Of what `cbvila evaluate` writes.
        options: Of both commands.
        image_data: The pack whose photos the rows are joined with, if they have none of their own.
        text_only: Whether both starts are also fine-tuned with blank pictures: floors for texts that differ, where
            the most frequent answer to each text is no floor.
        model: The pretrained model, unless another one is asked for.
    """

    task: str
    recipe: str
    train_data: tuple[str, ...]
    data: str
    splits: tuple[str, ...]
    figures: tuple[str, ...]
    options: tuple[str, ...] = ()
    image_data: str | None = None
    text_only: bool = False
    model: str = "cbvila-tiny"

    @property
    def packs(self) -> list[str]:
        """The packs that are read, each once: the first folder of the sources that are not built in."""
        sources = [name for name in (*self.train_data, self.data, self.image_data) if name]
        return list(dict.fromkeys(Path(name).parts[0] for name in sources if find_builtin(name) is None))


def _on_scenes(task: str, splits: tuple[str, ...], figures: tuple[str, ...], *options: str) -> Task:
    """Returns a task on scenes; the texts alone are measured where there is an answer or a label to guess."""
    return Task(
        task,
        f"finetune-{task}-scenes",
        ("scenes",),
        "scenes",
        splits,
        figures,
        options,
        text_only=task != "retrieval",
        model="cbvila-scenes",
    )


_FLICKR8K = ("flickr8k-700", "flickr8k-rest")
_TESTS = ("test", "test_compositional")
_TWO_IMAGES = ("--image_column", "left_image", "right_image", "--group_column", "identifier", "--group_parts", *"013")
TASKS = {
    "scenes-retrieval": _on_scenes("retrieval", ("confusers",), _recalls("", *BY_MATCHING), "--max_length", "32"),
    "scenes-vqa": _on_scenes("vqa", _TESTS, ("accuracy", "accuracy_yes_no", "accuracy_other")),
    "scenes-entailment": _on_scenes("entailment", _TESTS, ("accuracy",)),
    "scenes-reasoning": _on_scenes("reasoning", _TESTS, ("accuracy", "consistency"), *_TWO_IMAGES),
    "emoji": Task("retrieval", "finetune-retrieval-emoji", ("emoji",), "emoji", ("test",), RECALLS),
    "openclipart": Task(
        "retrieval", "finetune-retrieval-openclipart", ("openclipart",), "openclipart", ("test",), RECALLS
    ),
    "flickr8k": Task(
        "retrieval",
        "finetune-retrieval-flickr8k",
        _FLICKR8K,
        _FLICKR8K[0],
        ("validation",),
        RECALLS,
        options=("--max_length", "48"),  # as the recipe, which only the first command reads
    ),
    "entailment": Task(
        "entailment",
        "finetune-entailment-snli-ve",
        ("snli-ve-mini", "snli-ve-rest"),
        "snli-ve-mini",
        ("validation",),
        ("accuracy",),
        options=("--image_id_column", "image_id"),
        image_data="flickr8k-rest",
        text_only=True,
    ),
    "nlvr1": Task(
        "reasoning",
        "finetune-reasoning-nlvr1",
        ("nlvr1-train-sample", "nlvr1/test.parquet"),
        "nlvr1",
        ("validation",),
        ("accuracy", "consistency"),
        options=("--protocol", "nlvr1"),
        text_only=True,
    ),
    "easy-vqa": Task("vqa", "finetune-vqa-easy", ("easy-vqa",), "easy-vqa", ("test",), ("accuracy", "accuracy_other")),
}
