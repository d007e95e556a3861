"""Configurations of BLIP-2 in transformers and of our Q-Former, each from the other."""

from typing import Any

from transformers import Blip2Config, Blip2QFormerConfig

from transformers_cbvila import CBViLAQFormerConfig, CBViLAVisionConfig

_SHARED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
    "cross_attention_frequency",
)
_VISION = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "image_size",
    "patch_size",
    "layer_norm_eps",
    "qkv_bias",
)
# [CLS], [SEP] and [DEC] of bert-base-uncased, to which BLIP-2 added [DEC].
_BERT = {"bos_token_id": 101, "eos_token_id": 102, "dec_token_id": 30522}


def config_from_blip2(theirs: Blip2Config | Blip2QFormerConfig) -> CBViLAQFormerConfig:
    """Returns our configuration for that of `Blip2ForImageTextRetrieval` or `Blip2QFormerModel`.

    The image encoder of the latter is unknown except for its width: it has no layers here.
    """
    whole = isinstance(theirs, Blip2Config)
    qformer: Any = theirs.qformer_config if whole else theirs
    fields = {name: getattr(qformer, name) for name in _SHARED}
    fields |= {name: token if token < qformer.vocab_size else None for name, token in _BERT.items()}
    if not whole:
        width = qformer.encoder_hidden_size
        heads = max(number for number in range(1, 17) if width % number == 0)
        vision = CBViLAVisionConfig(hidden_size=width, num_attention_heads=heads, num_hidden_layers=0)
        return CBViLAQFormerConfig(vision_config=vision, **fields)
    tower: Any = theirs.vision_config
    vision = CBViLAVisionConfig(
        **{name: getattr(tower, name) for name in _VISION}, attention_probs_dropout_prob=tower.attention_dropout
    )
    return CBViLAQFormerConfig(
        vision_config=vision,
        num_query_tokens=theirs.num_query_tokens,
        projection_dim=theirs.image_text_hidden_size,
        **fields,
    )


def qformer_config_of(ours: CBViLAQFormerConfig) -> Blip2QFormerConfig:
    """Returns the configuration of `Blip2QFormerModel` for ours."""
    fields = {name: getattr(ours, name) for name in _SHARED}
    return Blip2QFormerConfig(
        **fields, encoder_hidden_size=ours.vision_config.hidden_size, use_qformer_text_input=True
    )


def blip2_config_of(ours: CBViLAQFormerConfig) -> Blip2Config:
    """Returns the configuration of `Blip2ForImageTextRetrieval` for ours."""
    tower = {name: getattr(ours.vision_config, name) for name in _VISION}
    tower["attention_dropout"] = ours.vision_config.attention_probs_dropout_prob
    return Blip2Config(
        vision_config=tower,
        qformer_config=qformer_config_of(ours).to_dict(),
        num_query_tokens=ours.num_query_tokens,
        image_text_hidden_size=ours.projection_dim,
    )
