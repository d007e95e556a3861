"""Answers of a model to a data set of questions, image by image, in batches."""

from collections.abc import Sequence
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers.utils import logging

from ..data.collators import CBViLADataCollatorForQuestionAnswering
from ..model.answer_lists_cbvila import indistinct
from ..model.item_lists_cbvila import by_position
from ..model.messages_cbvila import shown
from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from ..model.processing_cbvila import CBViLAProcessor

logger = logging.get_logger(__name__)


@torch.no_grad()
def answer_questions(
    model: CBViLAForQuestionAnswering,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    batch_size: int = 32,
    max_new_tokens: int = 8,
    progress: bool = True,
    answer_list: Sequence[str] | None = None,
    answer_k: int | None = None,
) -> list[list[str]]:
    """Returns answers to the questions of every row: written greedily, or the likeliest of a list.

    Args:
        model: The model.
        processor: Of the model.
        rows: Rows with `image` and `question` (a string or a list of strings).
        batch_size: Rows (images) per batch.
        max_new_tokens: Longest answer in tokens, end token included; longer ones are cut.
        progress: Whether to show a bar with the remaining time.
        answer_list: All answers that may be given. Those that the tokenizer cannot tell from an earlier one, or does
            not know at all, are left out with a warning.
        answer_k: How many of them, those with the likeliest first token, are scored as a whole; `None` or 0: all.

    Returns:
        For each row the answers to its questions, in order.
    """
    rows = by_position(rows, "rows")
    collate = CBViLADataCollatorForQuestionAnswering(processor, max_length=None)
    model.eval()
    labels = None
    if answer_list is not None:
        answer_list = distinct_answers(processor, answer_list)
        labels = processor.encode_candidates(answer_list).to(model.device)
    answers: list[list[str]] = []
    for start in tqdm(range(0, len(rows), batch_size), desc="Answering", disable=not progress):
        batch_rows = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
        batch = collate([{"image": row["image"], "question": row["question"]} for row in batch_rows])
        inputs: dict[str, Any] = {name: tensor.to(model.device) for name, tensor in batch.items()}
        if labels is None or answer_list is None:
            flat = iter(processor.decode_answers(model.generate(**inputs, max_new_tokens=max_new_tokens)))
        else:
            ranking = model.rank_answers(
                **inputs, answer_labels=labels, top_k=min(answer_k, len(labels)) if answer_k else None
            )
            flat = iter([answer_list[best] for best in ranking["log_likelihoods"].argmax(-1).tolist()])
        for row in batch_rows:
            count = 1 if isinstance(row["question"], str) else len(row["question"])
            answers.append([next(flat) for _ in range(count)])
    return answers


def distinct_answers(processor: CBViLAProcessor, answers: Sequence[str]) -> list[str]:
    """The answers of a list that can be told apart; a warning says which cannot.

    A list of thousands may well hold some; ranked, they would be ties with others, or with each other.
    """
    rows = processor.tokenizer(list(answers), add_special_tokens=False, verbose=False)["input_ids"]
    left_out = indistinct(rows, processor.tokenizer.unk_token_id)
    if left_out:
        examples = [
            f"{shown(answers[row])} ({'unknown' if same is None else 'as ' + shown(answers[same])})"
            for row, same in list(left_out.items())[:3]
        ]
        logger.warning(
            f"{len(left_out)} of {len(answers)} answers of the list are left out, as the tokenizer does not know them "
            f"or cannot tell them from others: {', '.join(examples)}{' …' * (len(left_out) > 3)}"
        )
    return [answer for row, answer in enumerate(answers) if row not in left_out]
