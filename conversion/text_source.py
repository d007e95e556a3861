"""Reads a BERT whose lower layers become the text encoder and the others the fusion encoder."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bert_layout import bert_name
from key_table import Step
from safe_loading import load_folder
from sources import find, read_config
from torch import Tensor
from transformers import BertModel
from vision_source import difference

from transformers_cbvila import CBViLAFusionModel, CBViLATextConfig, CBViLATextModel
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining

_NO_USE = {
    "pooler.": "the state of the first token is used",
    "cls.seq_relationship.": "nothing predicts the next sentence",
    "embeddings.position_ids": "0, 1, 2, ...: counted when needed",
    "embeddings.token_type_ids": "all texts are of type 0",
    "cls.predictions.decoder.weight": "tied to the word embeddings",
    "cls.predictions.decoder.bias": "the same tensor as cls.predictions.bias",
}


@dataclass(frozen=True)
class TextSource:
    """A BERT's tensors, its configuration as ours, and which of its layers become which encoder."""

    folder: Path
    tensors: dict[str, Tensor]
    config: CBViLATextConfig
    text_layers: tuple[int, ...]
    fusion_layers: tuple[int, ...]

    @property
    def has_head(self) -> bool:
        """Whether it has a head for masked tokens."""
        return any(key.startswith("cls.predictions.") for key in self.tensors)

    def layout(self) -> Callable[[str], Step | None]:
        """Returns the function that maps its keys to [`CBViLAForPreTraining`]."""
        places = {layer: f"text_model.layers.{i}" for i, layer in enumerate(self.text_layers)}
        places |= {layer: f"fusion_model.layers.{i}" for i, layer in enumerate(self.fusion_layers)}

        def step(key: str) -> Step | None:
            for start, reason in _NO_USE.items():
                if key.startswith(start):
                    return Step(note=reason)
            found = bert_name(key)
            if found is None:
                return None
            if found.part == "embeddings":
                return Step((f"cbvila.text_model.embeddings.{found.name}",))
            if found.part == "head":
                return Step((f"objectives.mlm.head.{found.name}",))
            if found.layer not in places:
                return Step(note=f"layer {found.layer} was not chosen")
            return Step((f"cbvila.{places[found.layer]}.{found.name}",))

        return step

    def check(self, model: CBViLAForPreTraining) -> float:
        """Returns the largest difference in fp64 between BERT's states and those of text and fusion encoder in a row.

        Cross-attention, which BERT does not have, is left out.

        Raises:
            ValueError: If they differ.
        """
        theirs = BertModel.from_pretrained(self.folder, add_pooling_layer=False).eval().double()
        chosen = [theirs.encoder.layer[i] for i in (*self.text_layers, *self.fusion_layers)]
        theirs.encoder.layer = torch.nn.ModuleList(chosen)
        config = deepcopy(model.config.text_config)
        text, fusion = model.cbvila.text_model, model.cbvila.fusion_model
        config.num_hidden_layers = len(chosen)
        ours, below = CBViLATextModel(config).eval().double(), len(self.text_layers)
        above = {f"layers.{below + int(n)}.{name}": value for n, name, value in _layer_weights(fusion)}
        ours.load_state_dict(text.state_dict() | above)
        ids = torch.randint(config.vocab_size, (2, min(12, config.max_position_embeddings)))
        mask = torch.ones_like(ids)
        mask[1, ids.shape[1] // 2 :] = 0
        with torch.no_grad():
            real = mask.bool()
            their_states = theirs(ids, attention_mask=mask).last_hidden_state[real]
            return difference("text", their_states, ours(ids, attention_mask=mask).last_hidden_state[real])


def _layer_weights(fusion: CBViLAFusionModel) -> Iterator[tuple[str, str, Tensor]]:
    for name, value in fusion.layers.state_dict().items():
        number, _, rest = name.partition(".")
        if not rest.startswith("crossattention"):
            yield number, rest, value


def text_source(name: str, text_layers: str | None = None, fusion_layers: str | None = None) -> TextSource:
    """Reads a BERT from a folder or the Hub.

    Args:
        name: Its folder or Hub id.
        text_layers: Layers of the text encoder, see [`chosen_layers`]; by default the lower half.
        fusion_layers: Layers of the fusion encoder; by default the upper half.

    Raises:
        ValueError: If it is not a BERT, or does not have these layers.
    """
    folder = find(name)
    config = read_config(folder) if folder.is_dir() else {}
    if config.get("model_type") != "bert":
        raise ValueError(f"{name} is a model of type {config.get('model_type')!r}; the text encoder is a BERT.")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"{name} has {config['position_embedding_type']} positions; ours are absolute.")
    tensors = {key.removeprefix("bert."): value for key, value in load_folder(folder).items()}
    _check_tied(tensors)
    below, above = chosen_layers(text_layers, fusion_layers, int(config.get("num_hidden_layers", 12)))
    return TextSource(folder, tensors, _text_config(config, len(below)), below, above)


def _text_config(config: Mapping[str, Any], layers: int) -> CBViLATextConfig:
    known = {field: config[field] for field in CBViLATextConfig().to_dict() if field in config}
    for name in ("model_type", "bos_token_id", "eos_token_id", "is_decoder", "tie_word_embeddings"):
        known.pop(name, None)
    return CBViLATextConfig(**known | {"num_hidden_layers": layers})


def _check_tied(tensors: Mapping[str, Tensor]) -> None:
    pairs = (
        ("cls.predictions.decoder.weight", "embeddings.word_embeddings.weight"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    )
    for second, first in pairs:
        if second in tensors and first in tensors and not torch.equal(tensors[second], tensors[first]):
            raise ValueError(f"{second} and {first} differ; in BERT they are one tensor.")


def chosen_layers(text: str | None, fusion: str | None, layers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the numbers of the layers that become text encoder and fusion encoder.

    Args:
        text: How many layers (`"6"`: the lowest six), or which (`"0-2,5"`; a single one as `"5-5"`); half by default.
        fusion: The same for the layers after those; the rest by default.
        layers: How many layers there are.

    Raises:
        ValueError: If there are no such layers, none are chosen, or one is chosen for both.
    """
    below = _numbers("text_layers", text or str(layers // 2), 0, layers)
    following = below[-1] + 1
    above = _numbers("fusion_layers", fusion or str(layers - following), following, layers)
    twice = sorted(set(below) & set(above)) or sorted(n for n in {*below, *above} if (below + above).count(n) > 1)
    if twice:
        raise ValueError(f"Layer {twice[0]} is chosen twice: a layer is of the text encoder or of the fusion encoder.")
    return below, above


def _numbers(name: str, text: str, first: int, layers: int) -> tuple[int, ...]:
    if text.isdigit():
        chosen = tuple(range(first, first + int(text)))
    else:
        try:
            spans = [[int(number) for number in part.split("-")] for part in text.split(",")]
        except ValueError as error:
            raise ValueError(f"--{name} {text!r} names no layers: write a number (6) or which (0-2,5).") from error
        chosen = tuple(number for span in spans for number in range(span[0], span[-1] + 1))
    if not chosen or max(chosen) >= layers:
        raise ValueError(f"--{name} are {list(chosen)}; BERT has the layers 0 to {layers - 1}.")
    return chosen
