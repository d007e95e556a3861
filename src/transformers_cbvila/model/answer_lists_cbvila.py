"""Lists of tokenized answers: checks, duplicates and constrained generation.

Shapes: R answers, A tokens of the longest.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from .label_checks_cbvila import IGNORED_LABEL, LABEL, may_read_values
from .messages_cbvila import shown

_ADVICE = "processor.encode_answers(answers)['labels'] makes them from texts."


def check_answers(name: str, labels: Any, text_config: Any, owner: nn.Module) -> None:
    """Raises a ValueError unless `labels` (R, A) have the form of [`CBViLAProcessor.encode_answers`].

    Labels in another form (with a start token, or padded with the padding token) would be learned without an error.

    Args:
        name: Name of the argument, for messages.
        labels: The value to check.
        text_config: The text encoder's configuration, which has the vocabulary size and the special tokens.
        owner: The model that received them.
    """
    if not isinstance(labels, Tensor):
        raise ValueError(f"{name} is {type(labels).__name__}; expected an integer tensor (answers, tokens). {_ADVICE}")
    if labels.dim() != 2 or labels.dtype not in LABEL:
        raise ValueError(
            f"{name} is {tuple(labels.shape)}; expected an integer tensor (answers, tokens) of torch.int64, got "
            f"{labels.dtype}. {_ADVICE}"
        )
    for row, tokens in enumerate(labels.tolist() if may_read_values(name, labels, owner) else ()):
        problem = _find_problem(tokens, text_config)
        if problem:
            raise ValueError(f"{name} row {row} is {shown(tokens)}: {problem}. {_ADVICE}")


def check_answer_list(answer_labels: Any, text_config: Any, owner: nn.Module, needs_end: bool = False) -> Tensor:
    """Returns `answer_labels` (R, A) if they are a valid list of candidate answers.

    Args:
        answer_labels: The value to check.
        text_config: The text encoder's configuration.
        owner: The model that received them.
        needs_end: Whether every answer must end with the end token.

    Raises:
        ValueError: If they do not have the form of labels, there are no answers, or one has no tokens or no end token.
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
    """Returns the distinct answers (R', A) of a list (R, A), and for each answer its index (R,) among them."""
    rows = answer_labels.tolist()
    same = indistinct(rows)
    kept = [row for row in range(len(rows)) if row not in same]
    position: dict[Any, int] = {row: number for number, row in enumerate(kept)}
    indices = [position[row if row in position else same[row]] for row in range(len(rows))]
    return answer_labels[kept], answer_labels.new_tensor(indices)


def require_distinct(
    rows: Iterable[Sequence[int]], texts: Sequence[str], name: str, unknown: int | None = None
) -> None:
    """Raises a ValueError if two texts have the same tokens or one is unknown to the tokenizer: they would be tied.

    Args:
        rows: Tokens of each text, without padding.
        texts: What messages call each text.
        name: What messages call the list.
        unknown: The id of [UNK]; unknown texts are allowed when absent.
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
    """Returns the rows that equal an earlier one, with its index, and those that are `unknown` only, with `None`."""
    first: dict[tuple[int, ...], int] = {}
    found: dict[int, int | None] = {}
    for number, row in enumerate(map(tuple, rows)):
        if unknown is not None and row and set(row) == {unknown}:
            found[number] = None
        elif first.setdefault(row, number) != number:
            found[number] = first[row]
    return found


def _find_problem(tokens: list[int], text_config: Any) -> str:
    """Returns what is wrong with the tokens (A,) of an answer; empty if nothing is."""
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
    """A `prefix_allowed_tokens_fn` for [`~transformers.GenerationMixin.generate`] that only allows given answers.

    Args:
        answer_labels: (R, A) answers in the form of `labels`: their tokens and [SEP], padded with -100.
        end_token_id: The id of [SEP], the only token allowed after a complete answer.
    """

    def __init__(self, answer_labels: Tensor, end_token_id: int) -> None:
        self.end_token_id = end_token_id
        self.root: dict[int, dict] = {}
        for labels in answer_labels.tolist():
            node = self.root
            for token in labels:
                if token != IGNORED_LABEL:
                    node = node.setdefault(token, {})

    def __call__(self, batch_id: int, tokens: Tensor) -> list[int]:
        """Returns the tokens that may follow `tokens` (T,), the start token and what was generated after it."""
        node = self.root
        for token in tokens[1:].tolist():
            node = node.get(token, {})
        return list(node) or [self.end_token_id]
