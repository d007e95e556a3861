"""Hashes and settings by which a stored gallery is recognized: weights, preprocessing and items."""

import json
import os
from typing import Any

import torch

from ..data.pairs import file_identity, stable_id
from ..model.processing_cbvila import CBViLAProcessor
from .encoding import GalleryEncoder

# Settings of an image processor that do not change pixel values.
_NOT_OF_PIXELS = {
    *("image_processor_type", "feature_extractor_type", "processor_class", "_processor_class", "auto_map"),
    *("transformers_version", "_name_or_path"),
    *("data_format", "input_data_format", "return_tensors", "device", "disable_grouping"),
}


def describe(encoder: GalleryEncoder) -> dict[str, Any]:
    """Returns what two galleries must have in common to be searched, or continued, in the same way."""
    config, is_images = encoder.model.config, encoder.kind == "images"
    width = (config.vision_config if is_images else config.text_config).hidden_size
    return {
        "kind": encoder.kind,
        "weights": weights_id(encoder.model),
        "width": width if encoder.keep_states else 0,
        "dtype": str(encoder.model.dtype).removeprefix("torch."),
        "processor": processor_id(encoder.processor, encoder.kind),
    }


def weights_id(model: Any) -> int:
    """Returns a hash of the weights, which differs between other weights and other precisions."""
    tensors = model.state_dict()
    return stable_id(
        *(tensors[name].cpu().contiguous().flatten().view(torch.uint8).numpy() for name in sorted(tensors))
    )


def processor_id(processor: CBViLAProcessor, kind: str) -> int:
    """Returns a hash of the preprocessing, equal if images get the same pixel values or texts the same tokens.

    For texts it covers the size of the vocabulary and whether [SEP] is added; for images every setting of the image
    processor that changes pixel values. The image processors with and without torchvision count as equal.
    """
    settings: dict[str, Any]
    if kind == "images":
        known = processor.image_processor.to_dict()
        settings = {k: v for k, v in known.items() if k not in _NOT_OF_PIXELS and v is not None}
    else:
        settings = {"tokens": len(processor.tokenizer), "add_sep_token": processor.add_sep_token}
    return stable_id(json.dumps(settings, sort_keys=True, default=str))


def content_id(items: Any, kind: str) -> int | None:
    """Returns a hash of strings or paths (with size and time of the files), or the items' own `fingerprint()`.

    None for anything else, which would have to be decoded.
    """
    if hasattr(items, "fingerprint"):
        return items.fingerprint()
    if not isinstance(items, list | tuple) or not all(isinstance(item, str | os.PathLike) for item in items):
        return None
    return stable_id("\0".join(file_identity(item) if kind == "images" else str(item) for item in items))
