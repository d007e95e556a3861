"""Texts of a task that its tokenizer cannot take, found by row before anything is computed."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..model.messages_cbvila import shown
from ..model.processing_cbvila import UNLIMITED, CBViLAProcessor
from .bad_rows import WAY_OUT
from .collators import token_limit
from .task_rows import Record, TaskRows

_TEXTS = {"captions": "caption", "question": "question", "text": "text"}  # by field, what an error calls one
_AT_A_TIME = 10_000  # texts whose tokens are in memory
_USUAL = 0.995  # share of texts that are not cut: a few are no measure of the others


def check_texts(rows: TaskRows, processor: CBViLAProcessor, skip_bad_rows: bool, training: bool = False) -> TaskRows:
    """The rows whose texts have a token each; too long ones are no fault, as collators cut them.

    Args:
        rows: The rows.
        processor: Of the model.
        skip_bad_rows: Whether to leave bad rows out, and say why in `skipped`, instead of raising an error.
        training: Whether answers are targets: then each, but for blanks, needs a token, too, and nothing cuts it.

    Raises:
        ValueError: If a row is bad, or with `skip_bad_rows` all are; the message names the row.
    """
    counts = _token_counts(processor, {text for r in rows.records for _, text in _texts(r, training)})
    limit = token_limit(processor, UNLIMITED) or UNLIMITED
    kept, skipped = list[Record](), list(rows.skipped)
    for record in rows.records:
        reason = _fault(record, counts, limit, training)
        if reason is None:
            kept.append(record)
        elif skip_bad_rows:
            skipped.append(f"{record.origin}: {reason}")
        else:
            raise ValueError(f"{record.origin}: {reason}. {WAY_OUT}.")
    checked = replace(rows, records=kept, skipped=skipped)
    if not kept:
        raise ValueError(f"There is no row that can be used. {checked.summary_of_skipped()}")
    return checked


def texts_of_rows(rows: TaskRows, training: bool = False) -> Iterator[str]:
    """Every text of rows that the tokenizer is asked for, answers included in training."""
    return (text for record in rows.records for _, text in _texts(record, training))


def usual_length(rows: TaskRows, processor: CBViLAProcessor) -> int:
    """Tokens, special ones among them, that all but the longest of the rows' texts have at most.

    Every so many rows are read, so that millions cost no more than thousands.
    """
    sample = rows.records[:: max(1, len(rows.records) // _AT_A_TIME)]
    counts = _token_counts(processor, {text for record in sample for _, text in _texts(record, training=False)})
    lengths = sorted(counts.values())
    special = processor.tokenizer.num_special_tokens_to_add()
    return lengths[round(_USUAL * (len(lengths) - 1))] + special


def _texts(record: Record, training: bool) -> Iterator[tuple[str, str]]:
    """What each text of a row is, and the text."""
    for field, what in _TEXTS.items():
        value = record.fields.get(field, [])
        yield from ((what, text) for text in ([value] if isinstance(value, str) else value))
    if training:
        yield from (("answer", answer) for given in record.fields.get("answer", []) for answer in given if answer)


def _token_counts(processor: CBViLAProcessor, texts: set[str]) -> dict[str, int]:
    """Tokens of each text, special ones left out."""
    different, counts = list(texts), dict[str, int]()
    for start in range(0, len(different), _AT_A_TIME):
        part = different[start : start + _AT_A_TIME]
        ids = processor.tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
        counts.update(zip(part, map(len, ids), strict=True))
    return counts


def _fault(record: Record, counts: Mapping[str, int], limit: int, training: bool) -> str | None:
    for what, text in _texts(record, training):
        if counts[text] == 0:
            return f"its {what} {shown(text)} has nothing that the tokenizer knows"
        if what == "answer" and counts[text] + 1 > limit:  # with the token that ends it
            return (
                f"its answer {shown(text)} has {counts[text] + 1} tokens with the one that ends it, and the model "
                f"takes {limit}"
            )
    return None
