"""Checks of the inputs of pretraining.

Shapes: B pairs, L text tokens, N patches.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .label_checks_cbvila import check_ids
from .momentum_cbvila import MomentumTargets
from .objective_cbvila import OtherView
from .objectives_cbvila import OBJECTIVES
from .quantizer_output_cbvila import CBViLAQuantizerHints


def check_pairs(
    pixel_values: Tensor | None,
    input_ids: Tensor | None,
    input_ids_masked: Tensor | None,
    mlm_labels: Tensor | None,
    caption_dropped: Tensor | None,
    masked_words: Tensor | None = None,
) -> None:
    """Raises a ValueError for a missing input, or one whose shape does not fit the others."""
    if pixel_values is None or input_ids is None:
        missing = "pixel_values" if pixel_values is None else "input_ids"
        raise ValueError(f"Pretraining needs pairs of an image and a caption: {missing} is missing.")
    images, captions = pixel_values.shape[0], input_ids.shape[0]
    if images != captions:
        raise ValueError(f"Got {images} image(s) and {captions} caption(s): they must be pairs.")
    if (input_ids_masked is None) != (mlm_labels is None):
        raise ValueError("MLM needs both input_ids_masked and mlm_labels, or neither.")
    of_tokens = {"input_ids_masked": input_ids_masked, "mlm_labels": mlm_labels, "masked_words": masked_words}
    for name, value in of_tokens.items():
        if value is not None and value.shape != input_ids.shape:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}; expected that of input_ids, {tuple(input_ids.shape)}."
            )
    if caption_dropped is not None and tuple(caption_dropped.shape) != (captions,):
        raise ValueError(
            f"caption_dropped has shape {tuple(caption_dropped.shape)}; expected ({captions},), one entry per caption."
        )


def check_targets(
    model: Any, mlm_labels: Tensor | None, mim_targets: Tensor | None, bool_masked_pos: Tensor | None
) -> None:
    """Raises a ValueError for labels outside the vocabulary, and targets that are no codes of the quantizer."""
    if mlm_labels is not None:
        vocabulary = model.config.text_config.vocab_size
        rule = f"the vocabulary has {vocabulary} tokens, and -100 stands where none is to be predicted"
        check_ids("mlm_labels", mlm_labels, tuple(mlm_labels.shape), vocabulary, rule, model)
    if mim_targets is None:
        return
    if not model.cbvila.has_quantizer:
        raise ValueError(
            "mim_targets are given, but this model has no quantizer, since no objective needs one: leave them out."
        )
    sizes = model.cbvila.quantizer.book_sizes
    shape = None if bool_masked_pos is None else (*bool_masked_pos.shape, *([len(sizes)] if len(sizes) > 1 else []))
    if tuple(mim_targets.shape) != shape:
        raise ValueError(f"mim_targets has shape {tuple(mim_targets.shape)}; with bool_masked_pos it must be {shape}.")
    for book, size in zip([mim_targets] if len(sizes) == 1 else mim_targets.unbind(-1), sizes, strict=True):
        check_ids("mim_targets", book, tuple(book.shape), size, f"the codebook has {size} codes", model)


def other_view(pixel_values: Tensor | None, token_classes: Tensor | None) -> OtherView | None:
    """Returns another view of the images, if there is one. ValueError for classes (B, N) without it."""
    if pixel_values is None and token_classes is not None:
        raise ValueError("other_token_classes are given without other_pixel_values, whose patches they describe.")
    return None if pixel_values is None else OtherView(pixel_values, CBViLAQuantizerHints.of(token_classes))


def given_negatives(
    negative_image_index: Tensor | None, negative_text_index: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Returns the negatives (B, k) that a caller gave as (B, k) or (B,). ValueError if only one of both is given."""
    if negative_image_index is None and negative_text_index is None:
        return None
    if negative_image_index is None or negative_text_index is None:
        raise ValueError("ITM needs both negative_image_index and negative_text_index, or neither.")
    images, texts = (n if n.dim() == 2 else n.unsqueeze(1) for n in (negative_image_index, negative_text_index))
    if images.shape != texts.shape:
        raise ValueError(
            f"negative_image_index has shape {tuple(negative_image_index.shape)} and negative_text_index "
            f"{tuple(negative_text_index.shape)}; both must be (B,) or (B, k)."
        )
    return images, texts


def check_momentum(model: Any, momentum: MomentumTargets | None, input_ids: Tensor) -> None:
    """Raises a ValueError for momentum pairs that a model without projections cannot use, or ids of another batch."""
    if momentum is not None and momentum.pairs is not None and not model.cbvila.has_contrastive_head:
        raise ValueError(
            "momentum has pairs for ITC to compare with, but this model has no projections: leave them out."
        )
    ids, count = None if momentum is None else momentum.ids, input_ids.shape[0]
    if ids is not None and ids.num_local != count:
        raise ValueError(
            f"momentum has the ids of {ids.num_local} pair(s), and the batch has {count}: pass what gather_pair_ids "
            "returns for this batch, or leave the ids out."
        )


def check_loss_weights(model: Any, changes: Mapping[str, float]) -> None:
    """Raises a ValueError for weights of unknown terms, and of terms that the model was built without."""
    known = [*OBJECTIVES, *(name for name in model.config.loss_weights() if name not in OBJECTIVES)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise ValueError(f"loss_weights names {', '.join(unknown)}; the losses are {', '.join(known)}.")
    built = {name for objective in model.active_objectives(None) for name in objective.loss_weights(objective.options)}
    built |= model.config.quantizer_weights().keys()
    missing = [name for name, weight in changes.items() if weight > 0 and name not in built]
    if missing:
        raise ValueError(
            f"loss_weights asks for {', '.join(missing)}, but this model was built without (weight 0 in its "
            "configuration): set a weight above 0 there."
        )
