"""Explains scores of a model: where in the image each word of the text looks.

Shapes: B texts, n images of a text, L text tokens, S visual tokens, N patches, W words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.feature_extraction_utils import BatchFeature

from ..data.collators import token_limit
from ..model.drawn_images_cbvila import to_pictures
from ..model.explained_cbvila import CBViLAExplained
from ..model.processing_cbvila import CBViLAProcessor
from . import attention_maps
from .explanation import Explanation
from .heads import check_image_counts, require_explained
from .passes import explainable
from .words import Word, words_of_text

METHODS = ("gradcam", "rollout")


def explain(
    model: Any,
    processor: CBViLAProcessor,
    image: Any,
    text: str,
    answer: str | None = None,
    *,
    method: str = "gradcam",
    layer: int | None = None,
) -> Explanation:
    """Explains what a model says of an image and a text.

    Of retrieval and pretraining that is how well they match; of question answering, visual entailment and reasoning,
    an answer. Grad-CAM shows what speaks for it: attention to a patch counts where more of it would raise the score.
    Attention rollout shows what was attended to, whatever the score, in one pass without gradients.

    Args:
        model: A model with a fusion encoder and one of these heads, of any precision and attention back end.
        processor: Its processor.
        image: An image as the processor takes it; for visual reasoning, a list of them.
        text: The caption, question, hypothesis or statement; what is longer than the model reads is cut.
        answer: The answer or class that is explained; the model's own by default.
        method: `"gradcam"` or `"rollout"`.
        layer: The fusion layer whose attention is taken, counted from 0, and negative from the end (ALBEF shows index
            2 of 6); with rollout the last layer that is followed. By default all layers, whose Grad-CAMs are added up:
            which layer binds a word to its place differs from model to model.

    Raises:
        ValueError: If the head cannot be explained, there is no such method, layer or answer, the image cannot be read
            or there are not as many of them as the head takes, the text has no words, or the score does not depend on
            what words see in that layer, such as the last one of a head that reads its first token only.

    Example:
    ```python
    >>> from PIL import Image
    >>> from transformers_cbvila import CBViLAForPreTraining, CBViLAProcessor, bundled_checkpoint, explain

    >>> folder = bundled_checkpoint("cbvila-tiny")
    >>> model, processor = CBViLAForPreTraining.from_pretrained(folder), CBViLAProcessor.from_pretrained(folder)
    >>> explanation = explain(model, processor, Image.new("RGB", (64, 64), "red"), "a red square")
    >>> explanation.words, explanation.maps.shape
    (['a', 'red', 'square'], (3, 4, 4))

    ```
    """
    answers = None if answer is None else [answer]
    return explain_batch(model, processor, [image], [text], answers, method=method, layer=layer)[0]


def explain_batch(
    model: Any,
    processor: CBViLAProcessor,
    images: Sequence[Any],
    texts: Sequence[str],
    answers: Sequence[str] | None = None,
    *,
    method: str = "gradcam",
    layer: int | None = None,
) -> list[Explanation]:
    """Explains several texts with an image each in one pass; see [`explain`]."""
    require_explained(model, type(model).__name__)
    check_image_counts(model, images)
    if method not in METHODS:
        raise ValueError(f"method={method!r}: choose one of {', '.join(METHODS)}.")
    if answers is not None and len(answers) != len(texts):
        raise ValueError(f"Got {len(answers)} answer(s) for {len(texts)} text(s): pass one for each, or none.")
    layers = _layers(model, method, layer)
    encoded = _encoded(model, processor, images, texts)
    lengths = encoded["attention_mask"].sum(1).tolist()
    # before the pass, so that a text without words costs none
    words = [words_of_text(processor, text, length) for text, length in zip(texts, lengths, strict=True)]
    ids = encoded["input_ids"]
    inputs = {name: value.to(model.device) for name, value in encoded.items()}
    pixel_values = inputs["pixel_values"]
    with explainable(model) as running:
        explained = running.explained(
            {**inputs, "interpolate_pos_encoding": True}, processor, None if answers is None else list(answers)
        )
        maps = _token_maps(explained, method, layers, model.explained_images)
    patch = model.config.vision_config.patch_size
    grid = pixel_values.shape[-2] // patch, pixel_values.shape[-1] // patch
    of_patches = attention_maps.on_patches(maps, grid[0] * grid[1]).cpu()
    pictures = to_pictures(processor.image_processor, pixel_values.flatten(0, -4))
    return [
        Explanation(
            text=text,
            words=[word.text for word in words[row]],
            known=[bool((ids[row, word.tokens] != processor.tokenizer.unk_token_id).any()) for word in words[row]],
            **_word_maps(of_patches[row], words[row], grid),
            score=float(explained.scores[row].detach()),
            score_name=explained.score_name,
            probability=float(explained.probabilities[row].detach()),
            answer=None if explained.answers is None else explained.answers[row],
            images=pictures.reshape(len(texts), -1, *pictures.shape[1:])[row],
            method=method,
            layers=list(layers),
        )
        for row, text in enumerate(texts)
    ]


def _encoded(model: Any, processor: CBViLAProcessor, images: Sequence[Any], texts: Sequence[str]) -> BatchFeature:
    """Returns the inputs of the model; texts are cut to what it reads."""
    limit = token_limit(processor, model.config.text_config.max_position_embeddings)
    text_options = {"padding": True, "truncation": True, "max_length": limit}
    return processor(images=list(images), text=list(texts), return_tensors="pt", **text_options)


def _word_maps(maps: Tensor, words: Sequence[Word], grid: tuple[int, int]) -> dict[str, Any]:
    """Returns the normalized maps of words, and their shares of all, for maps (n, L, N) of tokens."""
    of_words = attention_maps.of_words(maps, [word.tokens for word in words])
    sums = of_words.sum(dim=(0, 2))
    return {
        "image_maps": attention_maps.normalized(of_words).unflatten(-1, grid).numpy(),
        "shares": (sums / sums.sum().clamp_min(torch.finfo(sums.dtype).tiny)).numpy(),
    }


def _layers(model: Any, method: str, layer: int | None) -> range:
    """Returns the layers that are explained, counted from 0."""
    layers = len(model.cbvila.fusion_model.layers)
    if layer is None:
        return range(layers)
    if not -layers <= layer < layers:
        raise ValueError(f"layer={layer}: the fusion encoder has {layers} layers, numbered from 0 to {layers - 1}.")
    layer %= layers
    return range(0 if method == "rollout" else layer, layer + 1)


def _token_maps(explained: CBViLAExplained, method: str, layers: range, images: int) -> Tensor:
    """Returns maps (B, n, L, S) of tokens."""
    texts, crosses = explained.scores.shape[0], explained.cross_attentions
    in_turn = images if crosses[0].shape[0] == texts else 1  # twin layers, one after the other for each image
    chosen = slice(layers.start * in_turn, layers.stop * in_turn)
    if method == "rollout":
        with torch.no_grad():
            maps = attention_maps.rollout(explained.attentions[chosen], crosses[chosen], in_turn)
    else:
        maps = _gradcams(explained.scores, crosses[chosen], layers, in_turn)
    return maps.detach().reshape(texts, images, *maps.shape[-2:])


def _gradcams(scores: Tensor, crosses: Sequence[Tensor], layers: range, in_turn: int) -> Tensor:
    """Returns the sum over layers of their Grad-CAMs (B, in_turn, L, S); layers may see several images in turn."""
    gradients = torch.autograd.grad(scores.sum(), tuple(crosses))
    if not any(gradient[:, :, 1:].any() for gradient in gradients):
        if len(layers) > 1:
            raise ValueError("The score does not depend on what words see in any layer: take method='rollout'.")
        raise ValueError(
            f"layer={layers.start}: the score does not depend on what words see in this layer, such as the last of a "
            'head that reads its first token only. Take an earlier layer, or method="rollout".'
        )
    pairs = zip(crosses, gradients, strict=True)
    maps = [attention_maps.gradcam(one.detach(), gradient) for one, gradient in pairs]
    return torch.stack(maps).unflatten(0, (len(layers), in_turn)).sum(dim=0).transpose(0, 1)
