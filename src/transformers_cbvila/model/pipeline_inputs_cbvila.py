"""Converts the inputs of the pipeline to pairs of one image and one question."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from .image_loading_cbvila import DECODING_ERRORS
from .item_lists_cbvila import by_position, check_item, holds_several, is_by_position, items_of
from .messages_cbvila import shown, shown_error

PAIR = "{'image': ..., 'question': ...}"


class _Rows(Dataset):
    """A torch data set, which pipelines of transformers stream, of rows that are read by position."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


class _Pairs(Dataset):
    """Pairs of images and questions, of which one side may be a single item that is repeated."""

    def __init__(self, images: Any, questions: Any) -> None:
        self.images, self.questions = images, questions
        self.length = max(len(side) for side in (images, questions) if holds_several(side))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, question = (side[index] if holds_several(side) else side for side in (self.images, self.questions))
        return {"image": image, "question": question}


class NumberedRows(Dataset):
    """Rows with their numbers; errors in reading a row have its number."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        try:
            return index, self.rows[index]
        except DECODING_ERRORS as error:
            raise _unreadable(index, error) from error


class NumberedStream(IterableDataset):
    """Rows of an iterable with their numbers; errors in reading a row have its number."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        index, rows = 0, iter(self.rows)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except DECODING_ERRORS as error:
                raise _unreadable(index, error) from error
            yield index, row
            index += 1


def to_pairs(image: Any, question: Any) -> dict[str, Any] | list[dict[str, Any]] | Dataset | Iterator[dict[str, Any]]:
    """Converts the arguments of a call of the pipeline to pairs.

    Args:
        image: An image, or a collection for `items_of`. Without `question`, a pair `{"image": ..., "question": ...}`
            or a collection of pairs.
        question: A question, or as many as there are images. A single image or question is repeated.

    Returns:
        A pair, a list of pairs, a torch data set of pairs that are read on access, or a generator.

    Raises:
        ValueError: If images or questions are missing, their numbers differ, or they are neither an item nor a
            collection.
    """
    if image is None:
        raise ValueError(f"there is no image; pass image=... and question=..., or {PAIR}")
    if question is None:
        return _given_pairs(image)
    if isinstance(image, Mapping):
        raise ValueError(f"got question={shown(question)} and a dictionary, which has its own; pass {PAIR} alone")
    several_images, several_questions = holds_several(image), holds_several(question)
    if not several_images and not several_questions:
        return {"image": image, "question": question}
    if several_images:
        image = items_of(image, "image")
        if not is_by_position(image):
            return _stream(image, question)
    if several_questions:
        question = by_position(question, "question")
    if several_images and several_questions:
        _check_counts(len(image), len(question))
    pairs = _Pairs(image, question)
    is_lazy = any(
        several and not isinstance(side, (list, tuple))
        for side, several in ((image, several_images), (question, several_questions))
    )
    return pairs if is_lazy else [pairs[index] for index in range(len(pairs))]


def check_pair(pair: Any, name: str = "the pair") -> tuple[Any, str]:
    """Returns the image and the question of a pair.

    Args:
        pair: The pair `{"image": ..., "question": ...}`.
        name: What messages call it.

    Raises:
        ValueError: If it is not a dictionary, has no image or several, or its question is missing, empty or not a
            string.
    """
    if not isinstance(pair, Mapping):
        raise ValueError(f"{name}: expected {PAIR}, got {_described(pair)}; or pass the questions as question=...")
    for part in ("image", "question"):
        if part not in pair:
            keys = shown(sorted(map(str, pair)))
            raise ValueError(f"{name}: expected {PAIR}, got no {part!r} among the keys {keys}")
        if pair[part] is None:
            raise ValueError(f"{name} has no {part} (None)")
    image, question = pair["image"], pair["question"]
    check_item(image, f"the image of {name}")
    if not isinstance(question, str):
        raise ValueError(f"{name}: a question must be a string, got {_described(question)}")
    if not question.strip():
        raise ValueError(f"{name}: the question is empty: {shown(question)}; ask with at least one word")
    return image, question


def _given_pairs(pairs: Any) -> Any:
    if isinstance(pairs, Mapping):
        return pairs
    if not holds_several(pairs):
        raise ValueError(f"there is no question about the image {shown(pairs)}: pass question='...'")
    pairs = items_of(pairs, "the pairs")
    if isinstance(pairs, (list, tuple)):
        return list(pairs)
    return _Rows(pairs) if is_by_position(pairs) else (pair for pair in pairs)


def _stream(images: Iterable[Any], question: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(question, str):
        raise ValueError(
            f"images of unknown number take one question, got {_described(question)}; yield {PAIR} for different ones"
        )
    return ({"image": image, "question": question} for image in images)


def _check_counts(images: int, questions: int) -> None:
    if images != questions:
        raise ValueError(
            f"got {images} image(s) and {questions} question(s); pass equal numbers, one image for all questions, one "
            f"question for all images, or a list of {PAIR}"
        )


def _unreadable(index: int, error: Exception) -> ValueError:
    return ValueError(f"pair {index} cannot be read ({shown_error(error)}); leave it out")


def _described(value: Any) -> str:
    """Returns a string shortened, and the type of any other value, for messages."""
    return shown(value) if isinstance(value, str) else f"a value of type {type(value).__name__}"
