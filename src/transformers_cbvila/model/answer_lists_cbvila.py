"""Answers as tokens: what they must look like, what tells those of a list apart, and generation of no other ones.

Shapes: R answers, A tokens of the longest.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from .label_checks_cbvila import IGNORED_LABEL, LABEL, may_look_at
from .messages_cbvila import shown

_ADVICE = "processor.encode_answers(answers)['labels'] makes them from texts."


def check_answers(name: str, labels: Any, text_config: Any, owner: nn.Module) -> None:
    """Raises a ValueError unless `labels` (R, A) are answers in the form of [`CBViLAProcessor.encode_answers`].

    Texts in another form would be learned, start token and padding included, without a complaint.

    Args:
        text_config: The text encoder's configuration, which names the vocabulary and the special tokens.
        owner: The model that is given them.
    """
    if not isinstance(labels, Tensor):
        raise ValueError(f"{name} is {type(labels).__name__}; expected an integer tensor (answers, tokens). {_ADVICE}")
    if labels.dim() != 2 or labels.dtype not in LABEL:
        raise ValueError(
            f"{name} is {tuple(labels.shape)}; expected an integer tensor (answers, tokens) of torch.int64, got "
            f"{labels.dtype}. {_ADVICE}"
        )
    for row, tokens in enumerate(labels.tolist() if may_look_at(name, labels, owner) else ()):
        fault = _fault_of(tokens, text_config)
        if fault:
            raise ValueError(f"{name} row {row} is {shown(tokens)}: {fault}. {_ADVICE}")


def check_answer_list(answer_labels: Any, text_config: Any, owner: nn.Module, needs_end: bool = False) -> Tensor:
    """`answer_labels` (R, A) if it is a list of answers to choose from.

    Args:
        needs_end: Whether every answer must end in the end token.

    Raises:
        ValueError: If it is no such tensor, if there is no answer, or if one has no token or lacks its end.
    """
    check_answers("answer_labels", answer_labels, text_config, owner)
    rows = [[token for token in row if token != IGNORED_LABEL] for row in answer_labels.tolist()]
    if not rows:
        raise ValueError("answer_labels has no answer (0 rows): pass at least one to choose from.")
    end = text_config.end_token_id
    for number, tokens in enumerate(rows):
        if not tokens:
            raise ValueError(f"answer_labels row {number} has no token. {_ADVICE}")
        if needs_end and tokens[-1] != end:
            raise ValueError(f"answer_labels row {number} is {shown(tokens)}; its last token must be {end}. {_ADVICE}")
    return answer_labels


def distinct_rows(answer_labels: Tensor) -> tuple[Tensor, Tensor]:
    """The answers (R', A) of a list (R, A), each once, and the place (R,) among them of every answer of the list."""
    rows = answer_labels.tolist()
    same = indistinct(rows)
    kept = [row for row in range(len(rows)) if row not in same]
    place = {row: number for number, row in enumerate(kept)}
    places = [place[row if row in place else same[row]] for row in range(len(rows))]  # type: ignore[index]
    return answer_labels[kept], answer_labels.new_tensor(places)


def require_distinct(
    rows: Iterable[Sequence[int]], texts: Sequence[str], name: str, unknown: int | None = None
) -> None:
    """Raises a ValueError if a list holds what cannot be chosen between, which would be ranked as a tie.

    Args:
        rows: Tokens of each, without padding.
        texts: What messages call each.
        name: What they call the list.
        unknown: The token that stands for whatever the vocabulary does not have.
    """
    for row, same in indistinct(rows, unknown).items():
        if same is None:
            raise ValueError(
                f"{name}: the tokenizer knows nothing of {shown(texts[row])} ([UNK] alone): leave it out, or use a "
                "model whose vocabulary has it."
            )
        if texts[same] == texts[row]:
            raise ValueError(
                f"{name}: {shown(texts[row])} comes twice, and would share its probability: leave one out."
            )
        raise ValueError(
            f"{name}: {shown(texts[same])} and {shown(texts[row])} are the same tokens to this model, so that nothing "
            "can tell them apart: leave one out."
        )


def indistinct(rows: Iterable[Sequence[int]], unknown: int | None = None) -> dict[int, int | None]:
    """The rows that nothing tells from an earlier one, with its number; `None` for one that is `unknown` alone."""
    first: dict[tuple[int, ...], int] = {}
    found: dict[int, int | None] = {}
    for number, row in enumerate(map(tuple, rows)):
        if unknown is not None and row and set(row) == {unknown}:
            found[number] = None
        elif first.setdefault(row, number) != number:
            found[number] = first[row]
    return found


def _fault_of(tokens: list[int], text_config: Any) -> str:
    """What is wrong with the tokens (A,) of an answer, or nothing."""
    start, end, padding = text_config.bos_token_id, text_config.end_token_id, text_config.pad_token_id
    written = [token for token in tokens if token != IGNORED_LABEL]
    if not all(0 <= token < text_config.vocab_size for token in written):
        return f"the vocabulary has {text_config.vocab_size} tokens"
    if tokens[: len(written)] != written:
        return "-100 stands before a token, and pads on the right only"
    if written and written[0] == start != end:
        return f"it begins with {start}, the token that the decoder starts from by itself"
    if padding != end and padding in written:
        return f"it holds {padding}, the padding of texts; answers are padded with -100"
    if end in written[:-1]:
        return f"tokens follow its end, {end}"
    return ""


class CBViLAAnswerTrie:
    """The `prefix_allowed_tokens_fn` of [`~transformers.GenerationMixin.generate`] for a list of answers.

    Args:
        answer_labels: (R, A) answers in the form of `labels`: their tokens and [SEP], padded with -100.
        end_token_id: [SEP], all that may follow an answer.
    """

    def __init__(self, answer_labels: Tensor, end_token_id: int):
        self.end_token_id = end_token_id
        self.root: dict[int, dict] = {}
        for labels in answer_labels.tolist():
            node = self.root
            for token in labels:
                if token != IGNORED_LABEL:
                    node = node.setdefault(token, {})

    def __call__(self, batch_id: int, tokens: Tensor) -> list[int]:
        """Tokens that may follow `tokens` (T,), the token that the decoder starts from and what was written since."""
        node = self.root
        for token in tokens[1:].tolist():
            node = node.get(token, {})
        return list(node) or [self.end_token_id]
