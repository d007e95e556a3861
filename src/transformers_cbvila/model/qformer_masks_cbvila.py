"""Which tokens of a Q-Former attend to which (BLIP-2, Fig. 2).

Shapes: B batch, Q queries, L text tokens, T = Q + L.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from .messages_cbvila import shown

# The attention of contrast (queries and text do not see each other), of matching (all see all), and of generation
# (queries see queries; a text token sees queries and the text up to itself).
AttentionPattern = Literal["unimodal", "bidirectional", "causal"]


def qformer_mask(pattern: AttentionPattern, num_queries: int, text_mask: Tensor) -> Tensor:
    """Returns which tokens (columns) each token (rows) attends to, queries first, as (B, T, T) bool.

    No token attends to padding. Rows of padding are those of any other text token, so that none is empty.

    Args:
        pattern: Which attention.
        num_queries: Q.
        text_mask: (B, L), 0 on padding.

    Raises:
        ValueError: If there is no such pattern.
    """
    place = torch.arange(num_queries + text_mask.shape[1], device=text_mask.device)
    is_query = place < num_queries
    row, column = is_query.unsqueeze(1), is_query.unsqueeze(0)
    if pattern == "unimodal":
        sees = row == column
    elif pattern == "bidirectional":
        sees = torch.ones_like(row == column)
    elif pattern == "causal":
        sees = column | (~row & (place.unsqueeze(0) <= place.unsqueeze(1)))
    else:
        raise ValueError(f"attention_pattern={shown(pattern)} is none of {', '.join(get_args(AttentionPattern))}.")
    queries = text_mask.new_ones(text_mask.shape[0], num_queries)
    is_token = torch.cat([queries, text_mask], dim=1).bool()
    return sees & is_token.unsqueeze(1)


def additive_mask(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the mask (B, 1, T, T) that is added to attention scores: 0 where `sees` (B, T, T), else the minimum."""
    hidden = torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
    return hidden.unsqueeze(1)
