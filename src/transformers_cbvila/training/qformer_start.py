"""The Q-Former that pretraining starts from: on the image encoder of a CB-ViLA checkpoint, or one to go on with."""

from typing import Any

import torch
from transformers import PreTrainedConfig

from ..bundled import checkpoint_source
from ..model.configuration_cbvila import CBViLAConfig
from ..model.configuration_cbvila_qformer import CBViLAQFormerConfig
from ..model.configuration_checks_cbvila import check_spelling
from ..model.modeling_cbvila import CBViLAModel
from ..model.modeling_cbvila_qformer import CBViLAQFormerModel
from ..model.modeling_cbvila_qformer_pretraining import CBViLAForQFormerPreTraining
from ..model.processing_cbvila import CBViLAProcessor

# Sizes that a Q-Former has of the text encoder, unless others are given. Its layers then start from those of the text
# encoder and of the fusion encoder on top of it.
_OF_LAYERS = ("hidden_size", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps")
_OF_TEXT = (
    *_OF_LAYERS,
    *("max_position_embeddings", "hidden_dropout_prob", "attention_probs_dropout_prob"),
    *("initializer_range", "pad_token_id", "bos_token_id", "eos_token_id"),
)
_PARTS = ("attention", "attention_layernorm", "mlp", "output_layernorm")


def starting_qformer(
    name: str, changes: dict[str, Any] | None = None
) -> tuple[CBViLAForQFormerPreTraining, CBViLAProcessor, str]:
    """Returns the Q-Former, its processor, and a sentence that says what of it is trained already.

    Args:
        name: Folder, Hub id, or the name of a bundled checkpoint: of a Q-Former, or of any CB-ViLA model, whose image
            encoder and tokenizer are used.
        changes: Fields of [`CBViLAQFormerConfig`].

    Raises:
        ValueError: If fields do not exist or do not fit the checkpoint.
    """
    source, fields = checkpoint_source(name), dict(changes or {})
    check_spelling(fields, CBViLAQFormerConfig)
    processor = CBViLAProcessor.from_pretrained(source)
    found: Any = PreTrainedConfig.get_config_dict(source)[0]
    if found.get("model_type") == CBViLAQFormerConfig.model_type:
        config = CBViLAQFormerConfig.from_pretrained(source, **fields)
        return CBViLAForQFormerPreTraining.from_pretrained(source, config=config), processor, f"All of it is {name}'s."
    if "vision_config" in fields:
        raise ValueError(f"model_config names a vision_config: the image encoder is that of {name}; leave it out.")
    whole = CBViLAModel.from_pretrained(source)
    config = CBViLAQFormerConfig(**(_fields_for(whole.config) | fields))
    model = CBViLAForQFormerPreTraining(config)
    model.vision_model.load_state_dict(whole.vision_model.state_dict())
    number = start_from_text(model.qformer, whole)
    said = f"The image encoder, which stays frozen, is {name}'s"
    if not number:
        return model, processor, f"{said}; the Q-Former, of other sizes than its text encoder, starts at random."
    layers = f"{number} of {config.num_hidden_layers} layers"
    return model, processor, f"{said}; {layers} start as those of its text and fusion encoders."


def _fields_for(config: CBViLAConfig) -> dict[str, Any]:
    """Returns the fields of a Q-Former's configuration that follow from those of a CB-ViLA model."""
    text: Any = config.text_config
    return {
        **{name: getattr(text, name) for name in _OF_TEXT},
        "vision_config": config.vision_config,
        "num_hidden_layers": text.num_hidden_layers + config.multimodal_config.num_hidden_layers,
        "vocab_size": text.vocab_size + 1,
        "dec_token_id": text.vocab_size,
        "projection_dim": config.projection_dim,
    }


@torch.no_grad()
def start_from_text(qformer: CBViLAQFormerModel, whole: CBViLAModel) -> int:
    """Copies embeddings of words, and layers as far as there are any, from the text side of a CB-ViLA model.

    Layers of other sizes are left as they are.

    Returns:
        The number of layers that were copied.
    """
    ours, theirs = qformer.config, whole.config.text_config
    if any(getattr(ours, name) != getattr(theirs, name) for name in (*_OF_LAYERS, "max_position_embeddings")):
        return 0
    _copy_embeddings(qformer, whole.text_model.embeddings)
    layers: Any = qformer.layers
    sources: list[Any] = [*whole.text_model.layers, *whole.fusion_model.layers]
    pairs = list(zip(layers, sources, strict=False))
    for layer, source in pairs:
        for part in _PARTS:
            getattr(layer, part).load_state_dict(getattr(source, part).state_dict())
        layer.start_queries_from_text()
    return len(pairs)


def _copy_embeddings(qformer: CBViLAQFormerModel, source: Any) -> None:
    own, words = qformer.embeddings, source.word_embeddings.weight
    if len(words) > own.word_embeddings.num_embeddings:
        raise ValueError(
            f"vocab_size={own.word_embeddings.num_embeddings} of model_config is less than the checkpoint's "
            f"{len(words)} tokens; leave it out."
        )
    own.word_embeddings.weight[: len(words)] = words
    start, first = qformer.config.dec_token_id, qformer.config.bos_token_id
    if start is not None and first is not None:
        own.word_embeddings.weight[start] = words[first]
    # Token types, which are all 0 in CB-ViLA, are not part of a Q-Former.
    own.position_embeddings.weight.copy_(source.position_embeddings.weight + source.token_type_embeddings.weight[0])
    own.layernorm.load_state_dict(source.layernorm.state_dict())
