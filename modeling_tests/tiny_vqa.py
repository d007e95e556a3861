"""A tiny question answering model with random weights, its processor and pictures: what the pipeline's tests share."""

import numpy as np
import torch
from PIL import Image
from transformers import BertTokenizer

from transformers_cbvila import CBViLAConfig, CBViLAForQuestionAnswering, CBViLAImageProcessorPil, CBViLAProcessor

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = """
    what shape color colour is in the a there image picture it does how many of are this that on at above below left
    right red green blue yellow black teal grey brown circle triangle rectangle square yes no one two three ? . ! ##s
"""
VOCABULARY = {word: index for index, word in enumerate(SPECIAL + WORDS.split())}
NUM_POSITIONS = 16


def tiny_config() -> CBViLAConfig:
    return CBViLAConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "image_size": 32,
            "patch_size": 8,
        },
        text_config={
            "vocab_size": len(VOCABULARY),
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": NUM_POSITIONS,
            "pad_token_id": VOCABULARY["[PAD]"],
            "bos_token_id": VOCABULARY["[CLS]"],
            "eos_token_id": VOCABULARY["[SEP]"],
        },
        multimodal_config={"num_hidden_layers": 1},
        codebook_size=8,
        codebook_dim=4,
        projection_dim=8,
    )


def tiny_model(model_class: type = CBViLAForQuestionAnswering, seed: int = 0):
    """In eval mode, with weights so large that its answers depend on image and question."""
    torch.manual_seed(seed)
    model = model_class(tiny_config()).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "codes" not in name:
                parameter.normal_(std=0.4)
        # A random word would hardly ever be the end of an answer.
        model.answer_decoder.lm_head.decoder.bias[VOCABULARY["[SEP]"]] = 4.0
    return model


def tiny_processor(add_sep_token: bool = True, **tokenizer_options) -> CBViLAProcessor:
    tokenizer = BertTokenizer(vocab=VOCABULARY, **tokenizer_options)
    return CBViLAProcessor(CBViLAImageProcessorPil(size=32), tokenizer, add_sep_token=add_sep_token)


def picture(seed: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, size=(*size, 3), dtype=np.uint8)
    return Image.fromarray(noise)
