"""Small Q-Formers and batches for them, which many tests share."""

import tiny
import torch
from transformers import set_seed

from transformers_cbvila.model.configuration_cbvila_qformer import CBViLAQFormerConfig
from transformers_cbvila.model.modeling_cbvila_qformer import CBViLAQFormerModel

QUERIES, WIDTH, VISION_WIDTH = 3, 24, 32
DEC = tiny.VOCABULARY  # the last row


def tiny_qformer_config(dropout=0.0, **fields):
    """Three layers, of which the first and the last attend to images of 16 patches."""
    vision = tiny.tiny_config().vision_config
    sizes = {
        "vocab_size": tiny.VOCABULARY + 1,
        "hidden_size": WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 16,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "num_query_tokens": QUERIES,
        "projection_dim": 16,
        "pad_token_id": tiny.PAD,
        "bos_token_id": tiny.CLS,
        "eos_token_id": tiny.SEP,
        "dec_token_id": DEC,
    }
    return CBViLAQFormerConfig(vision_config=vision, **(sizes | fields))


def build_qformer(model_class=CBViLAQFormerModel, config=None, seed=0, **fields):
    """A model in evaluation mode, with larger weights than usual so that nothing drowns in rounding."""
    set_seed(seed)
    config = tiny_qformer_config(**fields) if config is None else config
    config.initializer_range = config.vision_config.initializer_range = 0.1
    return model_class(config).eval()


def image_tokens(batch=4, patches=tiny.PATCHES, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 1 + patches, VISION_WIDTH, generator=generator, dtype=dtype)
