"""The forms in which questions about images come to the pipeline, brought to pairs of one image and one question."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

PAIR = "{'image': ..., 'question': ...}"


class _Rows(Dataset):
    """Anything with a length and rows by number, as the torch data set that transformers' pipelines stream."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


class _Pairs(Dataset):
    """Pairs of images and questions, at least one of them many; the other may be a single one, repeated."""

    def __init__(self, images: Any, questions: Any) -> None:
        self.images, self.questions = images, questions
        self.length = max(len(side) for side in (images, questions) if _is_sized(side))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, question = (side[index] if _is_sized(side) else side for side in (self.images, self.questions))
        return {"image": image, "question": question}


def to_pairs(image: Any, question: Any) -> dict[str, Any] | list[dict[str, Any]] | Dataset | Iterator[dict[str, Any]]:
    """
    Bring the two arguments of a call of the pipeline to pairs.

    Args:
        image: one image or many: a list, an array (B, H, W, C), a data set column, a generator. Without `question`,
            one pair `{"image": ..., "question": ...}` or many.
        question: one question, or as many as there are images; one image or question goes with all of the others.

    Returns:
        A pair, a list of pairs, a torch data set of pairs (rows are read when their turn comes), or a generator.

    Raises:
        ValueError: no image or no question, or numbers of images and questions that differ.
    """
    if image is None:
        raise ValueError(f"there is no image; pass image=... and question=..., or {PAIR}")
    if question is None:
        return _given_pairs(image)
    if isinstance(image, Mapping):
        raise ValueError(f"got question={question!r} beside a dictionary, which brings its own; pass {PAIR} alone")
    if isinstance(image, (np.ndarray, torch.Tensor)) and image.ndim == 4:
        image = list(image)
    if not _is_sized(image) and not _is_single_image(image):
        return _stream(image, question)
    if _is_sized(image) and _is_sized(question):
        _check_counts(len(image), len(question))
    if not _is_sized(image) and not _is_sized(question):
        return {"image": image, "question": question}
    pairs = _Pairs(image, question)
    is_lazy = any(_is_sized(side) and not isinstance(side, (list, tuple)) for side in (image, question))
    return pairs if is_lazy else [pairs[index] for index in range(len(pairs))]


def check_pair(pair: Any) -> tuple[Any, str]:
    """
    The image and the question of one pair.

    Raises:
        ValueError: it is no dictionary, lacks one of the two, or its question is no text.
    """
    if not isinstance(pair, Mapping):
        raise ValueError(f"expected {PAIR}, got {_shown(pair)}; or pass the questions as question=...")
    for name in ("image", "question"):
        if pair.get(name) is None:
            raise ValueError(f"expected {PAIR}, got no {name!r} among the keys {sorted(map(str, pair))}")
    question = pair["question"]
    if not isinstance(question, str):
        raise ValueError(f"a question must be a string, got {_shown(question)}")
    if not question.strip():
        raise ValueError(f"the question is empty: {question!r}; ask with at least one word")
    return pair["image"], question


def _given_pairs(pairs: Any) -> Any:
    if isinstance(pairs, (Mapping, Dataset)):
        return pairs
    if isinstance(pairs, (list, tuple)):
        return list(pairs)
    if _is_single_image(pairs):
        raise ValueError(f"there is no question about the image {_shown(pairs)}; pass question=...")
    return _Rows(pairs) if _is_sized(pairs) else (pair for pair in pairs)


def _stream(images: Iterable[Any], question: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(question, str):
        raise ValueError(
            f"images of unknown number take one question, got {_shown(question)}; yield {PAIR} for different ones"
        )
    return ({"image": image, "question": question} for image in images)


def _is_single_image(value: Any) -> bool:
    if isinstance(value, (str, bytes, Image.Image, np.ndarray, torch.Tensor)):
        return True
    return not isinstance(value, (Iterable, Dataset))


def _is_sized(value: Any) -> bool:
    """Whether it holds several things that can be counted and fetched by number."""
    if isinstance(value, (str, bytes, Mapping, Image.Image, np.ndarray, torch.Tensor)):
        return False
    return isinstance(value, Sequence) or (hasattr(value, "__len__") and hasattr(value, "__getitem__"))


def _check_counts(images: int, questions: int) -> None:
    if images != questions:
        raise ValueError(
            f"got {images} image(s) and {questions} question(s); pass equal numbers, one image for all questions, one "
            f"question for all images, or a list of {PAIR}"
        )


def _shown(value: Any) -> str:
    """A value in an error message: the text of a text, the type of anything else."""
    return repr(value) if isinstance(value, str) else f"a value of type {type(value).__name__}"
