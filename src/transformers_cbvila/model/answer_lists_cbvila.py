"""Lists of answers to choose from: what they must look like, and generation that can write nothing else.

Shapes: R answers of the list, A tokens of the longest.
"""

from typing import Any

from torch import Tensor


def check_answer_list(answer_labels: Any, vocab_size: int, end_token_id: int | None = None) -> Tensor:
    """`answer_labels` (R, A) if it is a list of answers, as [`CBViLAProcessor.encode_answers`] makes one.

    Raises:
        ValueError: If it is no such tensor, if there is no answer, or if one has no token, one that the vocabulary
            does not have, or does not end in `end_token_id`, where that is asked for.
    """
    advice = "processor.encode_answers(answers)['labels'] makes one from texts."
    if not isinstance(answer_labels, Tensor) or answer_labels.dim() != 2 or answer_labels.is_floating_point():
        found = tuple(answer_labels.shape) if isinstance(answer_labels, Tensor) else type(answer_labels).__name__
        raise ValueError(f"answer_labels is {found}; expected an integer tensor (answers, tokens). {advice}")
    if answer_labels.shape[0] == 0:
        raise ValueError("answer_labels has no answer (0 rows): pass at least one to choose from.")
    for row, labels in enumerate(answer_labels.tolist()):
        tokens = [token for token in labels if token != -100]
        if not tokens:
            raise ValueError(f"answer_labels row {row} has no token: {labels}. {advice}")
        if end_token_id is not None and tokens[-1] != end_token_id:
            raise ValueError(f"answer_labels row {row} is {labels}; its last token must be {end_token_id}. {advice}")
        if not all(0 <= token < vocab_size for token in tokens):
            raise ValueError(f"answer_labels row {row} is {labels}; the vocabulary has {vocab_size} tokens. {advice}")
    return answer_labels


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
                if token != -100:
                    node = node.setdefault(token, {})

    def __call__(self, batch_id: int, tokens: Tensor) -> list[int]:
        """Tokens that may follow `tokens` (T,), the token that the decoder starts from and what was written since."""
        node = self.root
        for token in tokens[1:].tolist():
            node = node.get(token, {})
        return list(node) or [self.end_token_id]
