"""Maps BERT's names of weights to ours."""

import re
from typing import NamedTuple

_EMBEDDINGS = {
    "word_embeddings": "word_embeddings",
    "position_embeddings": "position_embeddings",
    "token_type_embeddings": "token_type_embeddings",
    "LayerNorm": "layernorm",
}
_LAYER = {
    "attention.self.query": "attention.q_proj",
    "attention.self.key": "attention.k_proj",
    "attention.self.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "attention.output.LayerNorm": "attention_layernorm",
    "crossattention.self.query": "crossattention.q_proj",
    "crossattention.self.key": "crossattention.k_proj",
    "crossattention.self.value": "crossattention.v_proj",
    "crossattention.output.dense": "crossattention.o_proj",
    "crossattention.output.LayerNorm": "crossattention_layernorm",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "output_layernorm",
}
_HEAD = {"transform.dense": "dense", "transform.LayerNorm": "layernorm"}
# gamma and beta: names of layer norms in checkpoints from TensorFlow, such as `bert-base-uncased`.
_ENDINGS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


class BertName(NamedTuple):
    """The part of BERT that a weight is in, and our name for it.

    Attributes:
        part: `"embeddings"`, `"layer"` or `"head"`.
        layer: Number of the layer, or -1.
        name: Our name within that part.
    """

    part: str
    layer: int
    name: str


def bert_name(key: str) -> BertName | None:
    """Returns our name for a key of BERT without its prefix `bert.`, or `None` if we have no such weight."""
    if key == "cls.predictions.bias":
        return BertName("head", -1, "decoder.bias")
    for pattern, part, names in (
        (r"embeddings\.(?P<name>\w+)\.(?P<ending>\w+)", "embeddings", _EMBEDDINGS),
        (r"encoder\.layer\.(?P<layer>\d+)\.(?P<name>[\w.]+)\.(?P<ending>\w+)", "layer", _LAYER),
        (r"cls\.predictions\.(?P<name>[\w.]+)\.(?P<ending>\w+)", "head", _HEAD),
    ):
        match = re.fullmatch(pattern, key)
        if match and match["name"] in names and match["ending"] in _ENDINGS:
            layer = int(match.groupdict().get("layer") or -1)
            return BertName(part, layer, f"{names[match['name']]}.{_ENDINGS[match['ending']]}")
    return None
