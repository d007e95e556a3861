"""The fusion encoder's pass for matching alone: what [CLS] of each text finds in an image, and nothing else.

The same numbers as a pass of every pair through the whole model, up to rounding, with less to compute: texts follow
each other without padding; the texts of one image ask it together, so that its keys and values are projected once and
never copied; the first layer's attention of a text to itself knows no image and is computed once per text; and the
last layer computes [CLS] only.

Shapes: P texts, N their tokens in all, L tokens of a text, D hidden, H heads, S visual tokens, B' images.
"""

from typing import Any

import torch
from torch import Tensor

from ..model.losses_cbvila import matching_scores
from ..model.objective_itm_cbvila import CBViLAITM

KeysValues = list[tuple[Tensor, Tensor]]


class TextRun:
    """Texts that follow each other without padding, sorted by length and each with its image.

    Args:
        lengths: (P,) tokens of each, not descending.
        images: (P,) the row of each text's image, of the images that are there.
    """

    def __init__(self, lengths: Tensor, images: Tensor, device: torch.device):
        ends = lengths.cumsum(0)
        self.first_tokens = (ends - lengths).to(device)
        sizes, counts = lengths.unique_consecutive(return_counts=True)
        self.blocks = list(zip(counts.tolist(), sizes.tolist(), strict=True))
        self.texts_of_images = [(row, _where(images == row, device)) for row in images.unique().tolist()]
        tokens = images.repeat_interleave(lengths)
        self.tokens_of_images = [(row, _where(tokens == row, device)) for row, _ in self.texts_of_images]


def _where(condition: Tensor, device: torch.device) -> Tensor:
    return condition.nonzero().squeeze(1).to(device)


def attend_to_themselves(layer: Any, hidden: Tensor, run: TextRun, first_only: bool = False) -> Tensor:
    """The first third of a layer, self-attention: (1, N, D) to (1, N, D), or (1, P, D) of the first tokens only."""
    attention, asking = layer.attention, hidden[:, run.first_tokens] if first_only else hidden
    query = attention.split_heads(attention.q_proj(asking))
    key, value = attention.keys_values(hidden)
    mixed, text, token = [], 0, 0
    for count, length in run.blocks:
        questions = (text, count, 1) if first_only else (token, count, length)
        asked = token, count, length
        mixed.append(attention.mix(_block(query, *questions), _block(key, *asked), _block(value, *asked))[0])
        text, token = text + count, token + count * length
    found = torch.cat([block.flatten(0, 1) for block in mixed]).unsqueeze(0)
    return layer.attention_layernorm(asking + attention.o_proj(found))


def _block(heads: Tensor, start: int, count: int, length: int) -> Tensor:
    """(count, H, length, D/H): texts of one length that begin at the token `start` of (1, H, N, D/H)."""
    return heads[0, :, start : start + count * length].unflatten(1, (count, length)).transpose(0, 1)


def _ask_images(layer: Any, hidden: Tensor, keys_values: tuple[Tensor, Tensor], rows: list) -> Tensor:
    """The rest of a layer: cross-attention and feed-forward. `rows`: for each image, who of (1, N, D) asks it."""
    attention, (key, value) = layer.crossattention, keys_values
    if len(rows) == 1:
        image = rows[0][0]
        found, _ = attention.attend(hidden, key[image : image + 1], value[image : image + 1], None)
    else:
        query = attention.split_heads(attention.q_proj(hidden))
        mixed = torch.empty_like(hidden)
        for image, asking in rows:
            one = slice(image, image + 1)
            mixed[:, asking] = attention.mix(query[:, :, asking], key[one], value[one])[0]
        found = attention.o_proj(mixed)
    hidden = layer.crossattention_layernorm(hidden + found)
    return layer.output_layernorm(hidden + layer.mlp(hidden))


def text_questions(model: Any, states: Tensor, mask: Tensor) -> list[Tensor]:
    """What [`match_texts`] starts from, each text's (L, D) without its padding, in the CPU's memory.

    Args:
        states: (B, T, D) of the text encoder; `mask` (B, T) is 0 on padding.
    """
    lengths, order = mask.sum(1).cpu().sort(stable=True)
    shortest_first = order.to(states.device)
    hidden = states[shortest_first][mask[shortest_first].bool()].unsqueeze(0)
    run = TextRun(lengths, torch.zeros_like(lengths), states.device)
    questions = attend_to_themselves(model.cbvila.fusion_model.layers[0], hidden, run)[0].cpu().split(lengths.tolist())
    return [questions[place] for place in order.argsort().tolist()]


def match_texts(model: Any, hidden: Tensor, run: TextRun, keys_values: KeysValues) -> Tensor:
    """Log-odds (P,) of "matches", in at least fp32.

    Args:
        hidden: (1, N, D) of the texts' [`text_questions`], in the order of `run`.
        keys_values: What `fusion_model.keys_values` made of the images (B', S, Dv).
    """
    layers = model.cbvila.fusion_model.layers
    last = len(layers) - 1
    for i, layer in enumerate(layers):
        if i > 0:
            hidden = attend_to_themselves(layer, hidden, run, first_only=i == last)
        elif last == 0:
            hidden = hidden[:, run.first_tokens]
        hidden = _ask_images(layer, hidden, keys_values[i], run.texts_of_images if i == last else run.tokens_of_images)
    return matching_scores(model.objectives[CBViLAITM.name].head(hidden[0]))
