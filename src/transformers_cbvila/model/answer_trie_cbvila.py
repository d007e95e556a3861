"""Generation that can only write answers of a given list."""

from torch import Tensor


class CBViLAAnswerTrie:
    """The `prefix_allowed_tokens_fn` of [`~transformers.GenerationMixin.generate`] for a list of answers.

    Args:
        answer_labels: (R, A) answers in the form of `labels`: their tokens and [SEP], padded with -100.
        end_token_id: [SEP], all that may follow an answer.

    Raises:
        ValueError: If there is no answer, or one without a token.
    """

    def __init__(self, answer_labels: Tensor, end_token_id: int):
        if len(answer_labels) == 0:
            raise ValueError("answer_labels has no answer (0 rows): pass at least one to choose from.")
        self.end_token_id = end_token_id
        self.root: dict[int, dict] = {}
        for row, labels in enumerate(answer_labels.tolist()):
            tokens = [token for token in labels if token != -100]
            if not tokens:
                raise ValueError(f"answer_labels row {row} has no token: {labels}. Leave it out.")
            node = self.root
            for token in tokens:
                node = node.setdefault(token, {})

    def __call__(self, batch_id: int, tokens: Tensor) -> list[int]:
        """Tokens that may follow `tokens` (T,), the token that the decoder starts from and what was written since."""
        node = self.root
        for token in tokens[1:].tolist():
            node = node.get(token, {})
        return list(node) or [self.end_token_id]
