"""What runners need to know beside the graphs: how images and texts become inputs, and how search ranks."""

from typing import Any

import torch

from ..model.processing_cbvila import CBViLAProcessor
from .graphs import GRAPHS, Drawing

_STEPS = ("do_convert_rgb", "do_resize", "do_rescale", "do_normalize")


def preparation_of(model: Any, processor: CBViLAProcessor) -> dict[str, Any]:
    """Returns entries of an export's description: `images`, `texts`, and `retrieval` and `drawing` of models that can.

    Raises:
        ValueError: If the image processor does not resize to the model's size, rescale and normalize.
    """
    found = {"images": _images(model, processor), "texts": _texts(model, processor)}
    base = getattr(model, "cbvila", model)
    if base.has_contrastive_head:
        config = model.config
        found["retrieval"] = {
            "rerank_k": config.rerank_k,
            "similarity_weight": config.similarity_weight,
            "similarity_scale": float(torch.as_tensor(base.similarity_scale()).detach()),
            "match_calibration": config.match_calibration,
        }
    if Drawing in GRAPHS.get(type(model), ()) and Drawing.why_not(model) is None:
        found["drawing"] = {
            "book_sizes": list(base.quantizer.book_sizes),
            "sequential": model.mim.is_sequential,
        }
    return found


def _images(model: Any, processor: CBViLAProcessor) -> dict[str, Any]:
    images, side = processor.image_processor, model.config.vision_config.image_size
    left_out = [name for name in _STEPS if not getattr(images, name)]
    size = {name: images.size[name] for name in ("height", "width")} if "height" in images.size else images.size
    if left_out or size != {"height": side, "width": side}:
        what = f"{left_out[0]}=False" if left_out else f"size={dict(images.size)}"
        raise ValueError(
            f"the image processor has {what}, but exported models resize images to {side} x {side} pixels, rescale "
            "and normalize them; save a processor that does so beside the model"
        )
    return {
        **size,
        "resample": int(images.resample),
        "rescale_factor": images.rescale_factor,
        "mean": list(images.image_mean),
        "std": list(images.image_std),
    }


def _texts(model: Any, processor: CBViLAProcessor) -> dict[str, Any]:
    tokenizer, config = processor.tokenizer, model.config.text_config
    return {
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "add_sep_token": processor.add_sep_token,
        "max_length": min(tokenizer.model_max_length, config.max_position_embeddings),
        "answer_start_token_id": config.bos_token_id,
        "answer_end_token_id": config.end_token_id,
    }
