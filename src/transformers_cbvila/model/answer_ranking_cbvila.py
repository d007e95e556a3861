"""Ranking of candidate answers by their probability under the answer decoder.

Shapes: B questions, L question tokens, R candidate answers, A answer tokens, D hidden.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import ModelOutput

from .losses_cbvila import at_least_fp32


@dataclass
class CBViLAAnswerRanking(ModelOutput):
    """Output of [`~CBViLAForQuestionAnswering.rank_answers`].

    Args:
        scores (`torch.FloatTensor` (B, R)): Probability of each candidate among the candidates.
        log_likelihoods (`torch.FloatTensor` (B, R)): Log-probability of each candidate, end token included.
    """

    scores: Tensor | None = None
    log_likelihoods: Tensor | None = None


@dataclass
class EncodedQuestions:
    """Questions fused with their images, and the decoder that scores answers to them.

    Args:
        decoder: The answer decoder.
        text_config: The text encoder's configuration, which has the special tokens.
        states: (B, L, D) states of the questions.
        attention_mask: (B, L), 0 on padding.
    """

    decoder: nn.Module
    text_config: Any
    states: Tensor
    attention_mask: Tensor | None

    def rank(
        self, answer_labels: Tensor, chunk_size: int, top_k: int | None, first_token_twice: bool
    ) -> CBViLAAnswerRanking:
        """Scores candidates (R, A) for every question; the arguments are those of `rank_answers`."""
        num_questions, num_answers = self.states.shape[0], answer_labels.shape[0]
        if top_k is None:
            answers = torch.arange(num_answers, device=self.states.device).expand(num_questions, -1)
        else:
            answers = self._most_probable_first_tokens(answer_labels, top_k)
        rows = torch.arange(num_questions, device=self.states.device).unsqueeze(1).expand_as(answers)
        pairs = torch.stack([rows.flatten(), answers.flatten()], dim=1)
        chunks = [
            self._log_likelihoods(answer_labels[chunk[:, 1]], chunk[:, 0], first_token_twice)
            for chunk in pairs.split(chunk_size)
        ]
        scored = torch.cat(chunks)
        log_likelihoods = scored.new_full((num_questions, num_answers), -torch.inf)
        log_likelihoods[pairs[:, 0], pairs[:, 1]] = scored
        return CBViLAAnswerRanking(scores=log_likelihoods.softmax(-1), log_likelihoods=log_likelihoods)

    def _most_probable_first_tokens(self, answer_labels: Tensor, top_k: int) -> Tensor:
        """Returns the indices (B, `top_k`) of the candidates (R, A) with the most probable first tokens."""
        start = torch.full((self.states.shape[0], 1), self.text_config.bos_token_id, device=self.states.device)
        logits = self._logits(start)[:, 0]
        return at_least_fp32(logits)[:, answer_labels[:, 0]].topk(top_k, dim=-1).indices

    def _log_likelihoods(self, labels: Tensor, question_index: Tensor, first_token_twice: bool) -> Tensor:
        """Returns the log-likelihoods (M,) of answers (M, A) to the questions with the indices (M,)."""
        logits = self._logits(shift_right(labels, self.text_config), question_index)
        log_probs = F.log_softmax(at_least_fp32(logits), dim=-1)
        scored = labels != -100
        per_token = log_probs.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
        total = (per_token * scored).sum(-1)
        return total + per_token[:, 0] if first_token_twice else total

    def _logits(self, input_ids: Tensor, question_index: Tensor | None = None) -> Tensor:
        return self.decoder(
            input_ids,
            encoder_hidden_states=self.states,
            encoder_attention_mask=self.attention_mask,
            encoder_index=question_index,
            use_cache=False,
        ).logits


def shift_right(labels: Tensor, text_config: Any) -> Tensor:
    """Returns the decoder's inputs (B, A) for labels (B, A): [CLS] and all but the last token, without -100."""
    shifted = torch.cat([torch.full_like(labels[:, :1], text_config.bos_token_id), labels[:, :-1]], dim=1)
    # Any token can replace padding, where there are no labels.
    return shifted.masked_fill(shifted == -100, text_config.end_token_id)
