"""Small models, batches and data that many tests share. The text side is narrower than the image side by default."""

import numpy as np
import torch
from PIL import Image
from transformers import BertTokenizer, set_seed

from transformers_cbvila.data.masking import generator_for, mask_patches
from transformers_cbvila.model.configuration_cbvila import CBViLAConfig
from transformers_cbvila.model.image_processing_pil_cbvila import CBViLAImageProcessorPil
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining
from transformers_cbvila.model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from transformers_cbvila.model.processing_cbvila import CBViLAProcessor
from transformers_cbvila.model.quantizer_output_cbvila import CBViLAGradients
from transformers_cbvila.model.quantizers_cbvila import QUANTIZERS

SIDE, PATCH, PATCHES, CODES = 32, 8, 16, 16
PAD, UNK, CLS, SEP, MASK = range(5)
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "grey": (120, 120, 120)}
SHAPES = ["left", "right", "top", "bottom"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *COLOURS, *SHAPES, "a", "half", "is", "it", "?", "yes", "no"]
VOCABULARY = 60  # more than there are words, so that random tokens are words of the model too


def tiny_config(preset="recommended", *, same_width=False, dropout=0.0, text=None, vision=None, fusion=None, **fields):
    """Two layers per encoder, 16 patches, 16 codes."""
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "image_size": SIDE,
        "patch_size": PATCH,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    } | (vision or {})
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32 if same_width else 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 16,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "pad_token_id": PAD,
        "bos_token_id": CLS,
        "eos_token_id": SEP,
    } | (text or {})
    fusion = {"num_hidden_layers": 2} | (fusion or {})
    sizes = {"codebook_size": CODES, "projection_dim": 16}
    if preset == "recommended":
        sizes["codebook_dim"] = 8
    return CBViLAConfig.from_preset(
        preset, vision_config=vision, text_config=text, multimodal_config=fusion, **(sizes | fields)
    )


def build(model_class, config=None, seed=0, **fields):
    """A model in evaluation mode, with larger weights than usual so that nothing drowns in rounding."""
    set_seed(seed)
    config = tiny_config(**fields) if config is None else config
    for part in (config, config.vision_config, config.text_config, config.multimodal_config):
        part.initializer_range = 0.1
    return model_class(config).eval()


def quantizer_of_config(config):
    """The quantizer that a model of this configuration has."""
    gradients = CBViLAGradients(*(config.trains_encoder(tokens) for tokens in CBViLAGradients._fields))
    return QUANTIZERS[config.quantizer_config.type](
        config.quantizer_config, config.vision_config.hidden_size, gradients
    )


def pretraining_model(config=None, **fields):
    return build(CBViLAForPreTraining, config, **fields)


def answering_model(config=None, **fields):
    return build(CBViLAForQuestionAnswering, config, **fields)


def tiny_texts(batch=4, length=7, padding=(0, 2, 1, 3), seed=0):
    """Ids [CLS] words [SEP] and their mask, the last `padding[row]` places padded."""
    ids = torch.randint(5, VOCABULARY, (batch, length), generator=generator_for(seed, 1))
    ids[:, 0] = CLS
    mask = torch.ones_like(ids)
    for row in range(batch):
        end = length - padding[row % len(padding)]
        ids[row, end - 1] = SEP
        ids[row, end:] = PAD
        mask[row, end:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def tiny_images(batch=4, side=SIDE, seed=0):
    return torch.randn(batch, 3, side, side, generator=generator_for(seed, 2))


def tiny_pairs(batch=4, length=7, padding=(0, 2, 1, 3), seed=0, side=SIDE):
    """A pretraining batch with everything in it: images, captions, masked tokens and masked patches."""
    texts = tiny_texts(batch, length, padding, seed)
    masked, labels = texts["input_ids"].clone(), torch.full_like(texts["input_ids"], -100)
    for row in range(batch):
        place = 1 + row % 2
        labels[row, place], masked[row, place] = masked[row, place].clone(), MASK
    patches = (side // PATCH) ** 2
    hidden = torch.stack([mask_patches(patches, generator_for(seed, 3, row)) for row in range(batch)])
    return {
        "pixel_values": tiny_images(batch, side, seed),
        **texts,
        "input_ids_masked": masked,
        "mlm_labels": labels,
        "bool_masked_pos": hidden,
    }


def tiny_answers(batch=4, length=3, seed=0):
    """Labels: words and [SEP], the rows of different lengths padded with -100."""
    labels = torch.randint(5, VOCABULARY, (batch, length), generator=generator_for(seed, 4))
    for row in range(batch):
        end = length - row % 2
        labels[row, end - 1] = SEP
        labels[row, end:] = -100
    return labels


def tiny_tokenizer(words=WORDS, **options):
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)}, **options)


def tiny_processor(words=WORDS, side=SIDE, add_sep_token=True, model_max_length=16, **tokenizer_options):
    tokenizer = tiny_tokenizer(words, model_max_length=model_max_length, **tokenizer_options)
    image_processor = CBViLAImageProcessorPil(size={"height": side, "width": side})
    return CBViLAProcessor(image_processor, tokenizer, add_sep_token=add_sep_token)


def noise_image(size=(40, 30), seed=0):
    """An RGB image (width, height) of independent pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def half_image(colour, half, size=SIDE):
    """A white picture with one half coloured."""
    image, middle = Image.new("RGB", (size, size), "white"), size // 2
    box = {
        "left": (0, 0, middle, size),
        "right": (middle, 0, size, size),
        "top": (0, 0, size, middle),
        "bottom": (0, middle, size, size),
    }[half]
    image.paste(COLOURS[colour], box)
    return image


def tiny_rows(count=8):
    """Rows of a data set for pretraining: pictures that their captions describe."""
    kinds = [(colour, half) for half in SHAPES for colour in COLOURS][:count]
    return [
        {"image": half_image(colour, half), "captions": [f"{half} half {colour}"], "keywords": [colour, half]}
        for colour, half in kinds
    ]


def tiny_labelled_rows(count=8):
    """The same with a `label_map`: the coloured half has the class of its colour, and the white one class 0."""
    rows = tiny_rows(count)
    for number, row in enumerate(rows):
        white = (np.asarray(row["image"]) == 255).all(-1)
        row["label_map"] = np.where(white, 0, 1 + number % 4).astype(np.uint8)
    return rows
