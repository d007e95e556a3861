"""Sequence-to-sequence model from the codes of a codebook to any number of codes, for RAQ (arXiv 2405.14222).

Shapes: K given codes, K' generated codes, C code width.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .autocast_cbvila import without_autocast
from .losses_cbvila import at_least_fp32

Feed = Literal["table", "own"]


class CBViLACodeGenerator(nn.Module):
    """Generates K' codes from K: an LSTM reads the given codes, and the states of another are the new ones.

    The second LSTM's inputs alternate between the given codes, as long as there are any, and rows of a learned table
    (`feed="table"`, as in the authors' code) or its own last output (`"own"`, as in the paper).

    Args:
        dim: C.
        max_codes: Largest K', the number of rows of the table.
        feed: `"table"` or `"own"`.
        unit_norm: Whether codes have length 1. Otherwise they are scaled and shifted, as states are below 1.
        dropout: Dropout of the inputs of every layer.
    """

    def __init__(self, dim: int, max_codes: int, feed: Feed, unit_norm: bool, dropout: float) -> None:
        super().__init__()
        self.max_codes, self.feed, self.unit_norm = max_codes, feed, unit_norm
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.LSTM(dim, dim, num_layers=2, batch_first=True, dropout=dropout)
        self.decoder = nn.LSTM(dim, dim, num_layers=2, batch_first=True, dropout=dropout)
        if feed == "table":
            self.table = nn.Parameter(torch.zeros(max_codes, dim))
        if not unit_norm:
            self.scale = nn.Parameter(torch.ones(dim))
            self.shift = nn.Parameter(torch.zeros(dim))

    def init_own_weights(self, std: float) -> None:
        """Initializes all weights; transformers initializes no LSTM."""
        bound = self.encoder.hidden_size**-0.5
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            init.uniform_(parameter, -bound, bound)
        if self.feed == "table":
            init.normal_(self.table, std=bound)
        if not self.unit_norm:
            init.ones_(self.scale)
            init.zeros_(self.shift)

    @without_autocast
    def forward(self, codes: Tensor, number: int) -> Tensor:
        """Returns `number` codes (K', C) generated from codes (K, C), in at least fp32.

        Raises:
            ValueError: If there are more than `max_codes`, or none.
        """
        if not 1 <= number <= self.max_codes:
            raise ValueError(f"{number} codes were asked for: this model generates 1 to {self.max_codes} (max_codes).")
        given = codes.to(next(self.encoder.parameters()).dtype)
        _, state = self.encoder(self.dropout(given).unsqueeze(0))
        if self.feed == "table":
            states, _ = self.decoder(self.dropout(self._table_inputs(given, number)).unsqueeze(0), state)
        else:
            states = self._own_states(given, number, state)
        generated = at_least_fp32(states.squeeze(0))
        return F.normalize(generated, dim=-1) if self.unit_norm else generated * self.scale + self.shift

    def _table_inputs(self, codes: Tensor, number: int) -> Tensor:
        """Returns inputs (K', C): row 0, then code 0, row 1, code 1, row 3, code 2, row 5 …; at last rows only."""
        places = torch.arange(number - 1, device=codes.device)
        takes_code = ((places % 2 == 0) & (places < 2 * len(codes))).unsqueeze(-1)
        of_codes = codes[(places // 2).clamp(max=len(codes) - 1)]
        return torch.cat([self.table[:1], torch.where(takes_code, of_codes, self.table[: number - 1])])

    def _own_states(self, codes: Tensor, number: int, state: tuple[Tensor, Tensor]) -> Tensor:
        """Returns states (1, K', C), whose inputs are code 0, output 0, code 1, output 2 …; at last outputs only."""
        outputs: list[Tensor] = []
        for place in range(number):
            takes_code = place % 2 == 0 and place < 2 * len(codes)
            fed = codes[place // 2].view(1, 1, -1) if takes_code else outputs[-1]
            output, state = self.decoder(self.dropout(fed), state)
            outputs.append(output)
        return torch.cat(outputs, dim=1)
