"""The processor of the pipeline: completed from its parts and checked against the model."""

import os
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer

from .messages_cbvila import shown
from .processing_cbvila import CBViLAProcessor


def complete_processor(model: Any, processor: Any, tokenizer: Any, image_processor: Any) -> CBViLAProcessor:
    """Returns the processor of a pipeline, with the given tokenizer and image processor in place of its own.

    Args:
        model: The model, for messages.
        processor: A processor, or its path or Hub id.
        tokenizer: A tokenizer, or its path or Hub id.
        image_processor: An image processor, or its path or Hub id.

    Raises:
        ValueError: If neither a processor nor both of its parts are given.
    """
    if isinstance(processor, (str, os.PathLike)):
        processor = CBViLAProcessor.from_pretrained(processor)
    if tokenizer is None and image_processor is None and processor is not None:
        return processor
    tokenizer = getattr(processor, "tokenizer", None) if tokenizer is None else tokenizer
    image_processor = getattr(processor, "image_processor", None) if image_processor is None else image_processor
    if tokenizer is None or image_processor is None:
        checkpoint = getattr(model.config, "_name_or_path", "") or "the model's checkpoint"
        raise ValueError(
            f"there is no processor: none was given, and none could be loaded from {shown(checkpoint, 255)} (try "
            "CBViLAProcessor.from_pretrained there to see why). Pass processor=..., or tokenizer=... and "
            "image_processor=..., or save one beside the model with processor.save_pretrained(folder)"
        )
    if isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    if isinstance(image_processor, (str, os.PathLike)):
        image_processor = AutoImageProcessor.from_pretrained(image_processor)
    return CBViLAProcessor(image_processor, tokenizer, add_sep_token=getattr(processor, "add_sep_token", True))


def check_tokenizer(model: Any, tokenizer: Any) -> None:
    """Raises a ValueError unless vocabulary size and special tokens are those of the model."""
    text = model.config.text_config
    if len(tokenizer) > text.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {text.vocab_size}; pass the processor that was "
            "saved with the model"
        )
    ends = text.eos_token_id if isinstance(text.eos_token_id, list) else [text.eos_token_id]
    if tokenizer.sep_token_id not in ends or tokenizer.cls_token_id != text.bos_token_id:
        raise ValueError(
            f"the tokenizer's [CLS] and [SEP] are tokens {tokenizer.cls_token_id} and {tokenizer.sep_token_id}, but "
            f"the model's answers start with {text.bos_token_id} and end with {text.eos_token_id}; pass the processor "
            "that was saved with the model, or set bos_token_id and eos_token_id of its text_config"
        )
