"""The head that predicts tokens, for masked language modelling and answers.

Shapes: D hidden size, V vocabulary size.
"""

from torch import Tensor, nn
from transformers import PreTrainedConfig

from .activations_cbvila import activation


class CBViLATextHead(nn.Module):
    """BERT's prediction head: a transform, then logits over the vocabulary by the tied word embeddings."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = activation(config.hidden_act)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Maps states (…, D) to logits (…, V)."""
        return self.decoder(self.layernorm(self.activation(self.dense(hidden_states))))
