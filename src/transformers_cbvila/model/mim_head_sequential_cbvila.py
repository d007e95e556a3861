"""A head of MIM that predicts a patch's codes one book after the other (as RQ-Transformer, arXiv 2203.01941).

Shapes: D hidden, R books, K codes of a book, ΣK those of all books.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Returns the chosen codes (…) of a book from its logits (…, K) and its number.
Choose = Callable[[Tensor, int], Tensor]


class CBViLASequentialMIMHead(nn.Module):
    """Scores the codes of each book knowing the patch's codes of the books before.

    What a residual code means depends on the code whose residual it is: sampled apart, the two do not fit. Each book
    after the first has a hidden layer that reads the state and the sum of embeddings of the codes before, both
    normalized, so that neither drowns the other.

    Args:
        hidden_size: D.
        book_sizes: K of each book.
    """

    def __init__(self, hidden_size: int, book_sizes: Sequence[int]) -> None:
        super().__init__()
        before, after = book_sizes[:-1], book_sizes[1:]
        self.first = nn.Linear(hidden_size, book_sizes[0])
        self.embeddings = nn.ModuleList(nn.Embedding(size, hidden_size) for size in before)
        self.norm = nn.LayerNorm(hidden_size)
        self.code_norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in after)
        self.denses = nn.ModuleList(nn.Linear(2 * hidden_size, 2 * hidden_size) for _ in after)
        self.others = nn.ModuleList(nn.Linear(2 * hidden_size, size) for size in after)

    def forward(self, states: Tensor, choose: Choose) -> tuple[Tensor, Tensor]:
        """Chooses a code of each book, and scores it.

        Args:
            states: (…, D) states of visual queries.
            choose: Chooses the codes of a book, of which the scores of later books depend.

        Returns:
            The codes (…, R), and logits (…, ΣK), those of a book given the chosen codes of the books before.
        """
        logits = [self.first(states)]
        chosen, normed, before = [choose(logits[0], 0)], self.norm(states), torch.zeros_like(states)
        layers = zip(self.embeddings, self.code_norms, self.denses, self.others, strict=True)
        for book, (embedding, code_norm, dense, classifier) in enumerate(layers, start=1):
            before = before + embedding(chosen[-1])
            hidden = F.gelu(dense(torch.cat((normed, code_norm(before)), dim=-1)))
            logits.append(classifier(hidden))
            chosen.append(choose(logits[-1], book))
        return torch.stack(chosen, dim=-1), torch.cat(logits, dim=-1)
