"""Maps the names of BLIP-2's weights in transformers to ours."""

import re

_QFORMER_LAYER = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "attention.output.LayerNorm": "attention_layernorm",
    "crossattention.attention.query": "crossattention.q_proj",
    "crossattention.attention.key": "crossattention.k_proj",
    "crossattention.attention.value": "crossattention.v_proj",
    "crossattention.output.dense": "crossattention.o_proj",
    "crossattention.output.LayerNorm": "crossattention_layernorm",
    "intermediate_query.dense": "query_mlp.fc1",
    "output_query.dense": "query_mlp.fc2",
    "output_query.LayerNorm": "query_layernorm",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "output_layernorm",
}
_VISION_LAYER = {
    "layer_norm1": ("layernorm_before",),
    "layer_norm2": ("layernorm_after",),
    "self_attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "self_attn.projection": ("attention.o_proj",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
}
_VISION = {
    "embeddings.class_embedding": "embeddings.cls_token",
    "embeddings.position_embedding": "embeddings.position_embeddings",
    "embeddings.patch_embedding.weight": "embeddings.patch_embedding.weight",
    "embeddings.patch_embedding.bias": "embeddings.patch_embedding.bias",
    "post_layernorm.weight": "layernorm.weight",
    "post_layernorm.bias": "layernorm.bias",
}

_OF_HEADS = {
    "query_tokens": "qformer.embeddings.query_tokens",
    "embeddings.word_embeddings.weight": "qformer.embeddings.word_embeddings.weight",
    "embeddings.position_embeddings.weight": "qformer.embeddings.position_embeddings.weight",
    **{
        f"{theirs}.{ending}": f"{ours}.{ending}"
        for theirs, ours in (
            ("vision_projection", "vision_projection"),
            ("text_projection", "text_projection"),
            ("itm_head", "matching_head"),
        )
        for ending in ("weight", "bias")
    },
}


def qformer_names(key: str) -> tuple[str, ...]:
    """Returns the name in `CBViLAQFormerModel` for a key of `Blip2QFormerModel`; none for an unknown one."""
    match = re.fullmatch(r"(?:encoder\.layer\.(\d+)\.)?(.+)\.(weight|bias)", key)
    if match is None:
        return ()
    layer, part, ending = match.groups()
    if layer is None:
        return (f"embeddings.layernorm.{ending}",) if part == "layernorm" else ()
    return (f"layers.{layer}.{_QFORMER_LAYER[part]}.{ending}",) if part in _QFORMER_LAYER else ()


def retrieval_names(key: str) -> tuple[str, ...]:
    """Returns the names in `CBViLAForQFormerPreTraining` for a key of `Blip2ForImageTextRetrieval`.

    These are three for the fused projection of the image encoder's attention, and none for an unknown key.
    """
    if key in _OF_HEADS:
        return (_OF_HEADS[key],)
    part, _, rest = key.partition(".")
    names = {"qformer": qformer_names, "vision_model": _vision_names}.get(part, lambda key: ())(rest)
    return tuple(f"{part}.{name}" for name in names)


def _vision_names(key: str) -> tuple[str, ...]:
    if key in _VISION:
        return (_VISION[key],)
    match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", key)
    names = _VISION_LAYER.get(match[2], ()) if match else ()
    return tuple(f"layers.{match[1]}.{name}.{match[3]}" for name in names) if match else ()
