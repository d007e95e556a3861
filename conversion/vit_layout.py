"""Maps the names of a Vision Transformer's weights in timm (DeiT, ALBEF) and transformers (old and new) to ours."""

import re

# transformers: `encoder.layer.N` with these names in older versions, `layers.N` with our names in newer ones.
_OLD_LAYER = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_SAME = ("layernorm_before", "layernorm_after")
_NEW_LAYER = (*_OLD_LAYER.values(), *_SAME)
_TIMM_LAYER = {
    "norm1": ("layernorm_before",),
    "norm2": ("layernorm_after",),
    "attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attn.proj": ("attention.o_proj",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
}
POSITIONS = "embeddings.position_embeddings"
_TRANSFORMERS = {
    "embeddings.cls_token": "embeddings.cls_token",
    "embeddings.position_embeddings": POSITIONS,
    "embeddings.patch_embeddings.projection.weight": "embeddings.patch_embedding.weight",
    "embeddings.patch_embeddings.projection.bias": "embeddings.patch_embedding.bias",
    "layernorm.weight": "layernorm.weight",
    "layernorm.bias": "layernorm.bias",
}
_TIMM = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": POSITIONS,
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}


def timm_names(key: str) -> tuple[str, ...]:
    """Returns the names in `CBViLAVisionModel` for a key of timm; a fused projection is split into three."""
    if key in _TIMM:
        return (_TIMM[key],)
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", key)
    names = _TIMM_LAYER.get(match[2], ()) if match else ()
    return tuple(f"layers.{match[1]}.{name}.{match[3]}" for name in names) if match else ()


def transformers_names(key: str) -> tuple[str, ...]:
    """Returns the name in `CBViLAVisionModel` for a key of transformers' ViT, old or new, without `vit.`."""
    if key in _TRANSFORMERS:
        return (_TRANSFORMERS[key],)
    match = re.fullmatch(r"(encoder\.layer|layers)\.(\d+)\.(.+)\.(weight|bias)", key)
    if not match:
        return ()
    part = match[3]
    if match[1] != "layers" and part not in _SAME:
        part = _OLD_LAYER.get(part, "")
    return (f"layers.{match[2]}.{part}.{match[4]}",) if part in _NEW_LAYER else ()
