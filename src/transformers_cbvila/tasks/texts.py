"""Texts of a task's rows: which have no token, how long they are, whether they tell left from right."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..data.bad_rows import WAY_OUT
from ..data.collators import token_limit
from ..model.messages_cbvila import shown
from ..model.processing_cbvila import UNLIMITED, CBViLAProcessor
from .rows import Record, TaskRows
from .task import Task

_AT_A_TIME = 10_000  # texts whose tokens are in memory
_SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def check_texts(task: Task, rows: TaskRows, processor: CBViLAProcessor, training: bool = False) -> TaskRows:
    """Returns the rows whose texts have a token each; too long ones are no fault, as collators cut them.

    Args:
        task: The task; its `skip_bad_rows` leaves bad rows out, and says why in `skipped`, instead of an error.
        rows: The rows.
        processor: Of the model.
        training: Whether texts that training predicts count: each needs a token then, and nothing cuts it.

    Raises:
        ValueError: If a row is bad, or with `skip_bad_rows` all are; the message names the row.
    """
    counts = _token_counts(processor, set(texts_of_rows(task, rows, training)))
    limit = token_limit(processor, UNLIMITED) or UNLIMITED
    kept, skipped = list[Record](), list(rows.skipped)
    for record in rows.records:
        reason = _fault(task, record, counts, limit, training)
        if reason is None:
            kept.append(record)
        elif task.skip_bad_rows:
            skipped.append(f"{record.origin}: {reason}")
        else:
            raise ValueError(f"{record.origin}: {reason}. {WAY_OUT}.")
    checked = replace(rows, records=kept, skipped=skipped)
    if not kept:
        raise ValueError(f"There is no row that can be used. {checked.summary_of_skipped()}")
    return checked


def texts_of_rows(task: Task, rows: TaskRows, training: bool = False) -> Iterator[str]:
    """Yields every text of rows that the tokenizer is asked for, in training those that it predicts among them."""
    for record in rows.records:
        yield from (text for _, text in task.texts(record.fields))
        if training:
            yield from (text for _, text in task.targets(record.fields))


def text_lengths(task: Task, rows: TaskRows, processor: CBViLAProcessor) -> list[int]:
    """Returns how many tokens the different texts of rows have, special ones among them, in ascending order."""
    special = processor.tokenizer.num_special_tokens_to_add()
    counts = _token_counts(processor, set(texts_of_rows(task, _sample(rows))))
    return sorted(count + special for count in counts.values())


def share_with_sides(task: Task, rows: TaskRows) -> float:
    """Returns the share of texts that say left or right, and would be wrong of a mirrored image."""
    texts = set(texts_of_rows(task, _sample(rows), training=True))
    return sum(_SIDES.search(text) is not None for text in texts) / max(1, len(texts))


def _sample(rows: TaskRows) -> TaskRows:
    """Returns every so many rows, so that millions cost no more than thousands."""
    return replace(rows, records=rows.records[:: max(1, len(rows.records) // _AT_A_TIME)])


def _token_counts(processor: CBViLAProcessor, texts: set[str]) -> dict[str, int]:
    """Tokens of each text, special ones left out."""
    different, counts = list(texts), dict[str, int]()
    for start in range(0, len(different), _AT_A_TIME):
        part = different[start : start + _AT_A_TIME]
        ids = processor.tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
        counts.update(zip(part, map(len, ids), strict=True))
    return counts


def _fault(task: Task, record: Record, counts: Mapping[str, int], limit: int, training: bool) -> str | None:
    """Why a row cannot be used; None if it can."""
    targets = list(task.targets(record.fields)) if training else []
    for what, text in [*task.texts(record.fields), *targets]:
        if counts[text] == 0:
            return f"its {what} {shown(text)} has nothing that the tokenizer knows"
    for what, text in targets:
        if counts[text] + 1 > limit:  # with the token that ends it
            return (
                f"its {what} {shown(text)} has {counts[text] + 1} tokens with the one that ends it, and the model "
                f"takes {limit}"
            )
    return None
