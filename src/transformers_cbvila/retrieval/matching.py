"""An efficient pass through the fusion encoder that computes matching scores only.

Its scores are those of a pass of every pair through the whole model, up to rounding, with less computation: texts are
packed without padding; the texts of one image attend to it together, so that its keys and values are projected once
and never copied; the first layer's self-attention does not depend on the image and is computed once per text; and the
last layer computes [CLS] only.

Shapes: P texts, N their tokens in all, L tokens of a text, D hidden, H heads, S visual tokens, B' images.
"""

from typing import Any

import torch
from torch import Tensor

from ..model.losses_cbvila import matching_scores
from ..model.objective_itm_cbvila import CBViLAITM

KeysValues = list[tuple[Tensor, Tensor]]


class PackedTexts:
    """The layout of texts that are packed without padding, sorted by length, each with its image.

    Args:
        lengths: (P,) number of tokens of each text, not descending.
        images: (P,) row of each text's image.
        device: Where the texts are.
    """

    def __init__(self, lengths: Tensor, images: Tensor, device: torch.device) -> None:
        ends = lengths.cumsum(0)
        self.first_tokens = (ends - lengths).to(device)
        sizes, counts = lengths.unique_consecutive(return_counts=True)
        self.blocks = list(zip(counts.tolist(), sizes.tolist(), strict=True))
        self.texts_of_images = [(row, _where(images == row, device)) for row in images.unique().tolist()]
        tokens = images.repeat_interleave(lengths)
        self.tokens_of_images = [(row, _where(tokens == row, device)) for row, _ in self.texts_of_images]


def _where(condition: Tensor, device: torch.device) -> Tensor:
    return condition.nonzero().squeeze(1).to(device)


def _self_attention(layer: Any, hidden: Tensor, texts: PackedTexts, first_only: bool = False) -> Tensor:
    """Applies a layer's self-attention to (1, N, D); with `first_only` for the queries of first tokens, (1, P, D)."""
    attention, residual = layer.attention, hidden[:, texts.first_tokens] if first_only else hidden
    query = attention.split_heads(attention.q_proj(residual))
    key, value = attention.keys_values(hidden)
    mixed, text, token = [], 0, 0
    for count, length in texts.blocks:
        queries = (text, count, 1) if first_only else (token, count, length)
        keys = token, count, length
        mixed.append(attention.mix(_block(query, *queries), _block(key, *keys), _block(value, *keys))[0])
        text, token = text + count, token + count * length
    attended = torch.cat([block.flatten(0, 1) for block in mixed]).unsqueeze(0)
    return layer.attention_layernorm(residual + attention.o_proj(attended))


def _block(heads: Tensor, start: int, count: int, length: int) -> Tensor:
    """Returns (count, H, length, D/H): texts of one length, of which the first begins at token `start` of `heads`."""
    return heads[0, :, start : start + count * length].unflatten(1, (count, length)).transpose(0, 1)


def _cross_attention_and_mlp(
    layer: Any, hidden: Tensor, keys_values: tuple[Tensor, Tensor], rows: list[tuple[int, Tensor]]
) -> Tensor:
    """Applies the rest of a layer. `rows`: for each image, which rows of `hidden` (1, N, D) attend to it."""
    attention, (key, value) = layer.crossattention, keys_values
    if len(rows) == 1:
        image = rows[0][0]
        attended, _ = attention.attend(hidden, key[image : image + 1], value[image : image + 1], None)
    else:
        query = attention.split_heads(attention.q_proj(hidden))
        mixed = torch.empty_like(hidden)
        for image, queries in rows:
            one = slice(image, image + 1)
            mixed[:, queries] = attention.mix(query[:, :, queries], key[one], value[one])[0]
        attended = attention.o_proj(mixed)
    hidden = layer.crossattention_layernorm(hidden + attended)
    return layer.output_layernorm(hidden + layer.mlp(hidden))


def text_query_states(model: Any, states: Tensor, mask: Tensor) -> list[Tensor]:
    """Returns what [`match_texts`] starts from: each text's states after the first self-attention.

    Args:
        model: The model.
        states: (B, T, D) hidden states of the text encoder.
        mask: (B, T) attention mask, 0 on padding.

    Returns:
        For each text (L, D) without padding, in CPU memory.
    """
    lengths, order = mask.sum(1).cpu().sort(stable=True)
    shortest_first = order.to(states.device)
    hidden = states[shortest_first][mask[shortest_first].bool()].unsqueeze(0)
    texts = PackedTexts(lengths, torch.zeros_like(lengths), states.device)
    queries = _self_attention(model.cbvila.fusion_model.layers[0], hidden, texts)[0].cpu().split(lengths.tolist())
    return [queries[place] for place in order.argsort().tolist()]


def match_texts(model: Any, hidden: Tensor, texts: PackedTexts, keys_values: KeysValues) -> Tensor:
    """Returns the log-odds (P,) of "matches", in at least fp32.

    Args:
        model: The model.
        hidden: (1, N, D) the texts' [`text_query_states`], in the order of `texts`.
        texts: Lengths and images of the texts.
        keys_values: What `fusion_model.keys_values` returned for the images (B', S, Dv).
    """
    layers = model.cbvila.fusion_model.layers
    last = len(layers) - 1
    for i, layer in enumerate(layers):
        if i > 0:
            hidden = _self_attention(layer, hidden, texts, first_only=i == last)
        elif last == 0:
            hidden = hidden[:, texts.first_tokens]
        rows = texts.texts_of_images if i == last else texts.tokens_of_images
        hidden = _cross_attention_and_mlp(layer, hidden, keys_values[i], rows)
    return matching_scores(model.objectives[CBViLAITM.name].head(hidden[0]))
