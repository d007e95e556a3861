"""A tiny question answering model with random weights, its processor and pictures: what the pipeline's tests share."""

import tiny
import torch
from PIL import Image

from transformers_cbvila import CBViLAConfig, CBViLAForQuestionAnswering, CBViLAProcessor

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = """
    what shape color colour is in the a there image picture it does how many of are this that on at above below left
    right red green blue yellow black teal grey brown circle triangle rectangle square yes no one two three ? . ! ##s
"""
VOCABULARY = {word: index for index, word in enumerate(SPECIAL + WORDS.split())}
NUM_POSITIONS = 16


def tiny_config() -> CBViLAConfig:
    one_layer = {"num_hidden_layers": 1}
    text = {"vocab_size": len(VOCABULARY), **one_layer}
    return tiny.tiny_config(same_width=True, text=text, vision=one_layer, fusion=one_layer)


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
    options = {"model_max_length": None, **tokenizer_options}
    return tiny.tiny_processor(VOCABULARY, add_sep_token=add_sep_token, **options)


def picture(seed: int = 0, size: tuple[int, int] = (30, 40)) -> Image.Image:
    return tiny.noise_image(size, seed)
