"""Maps every key of an ALBEF checkpoint.

For NLVR2 the fusion layers are doubled: the even ones attend to the first image, the odd ones to the second, with the
same key and value projections.
"""

import re
from collections.abc import Callable, Mapping

import torch
from albef_sizes import CLASSIFIERS, Sizes, plain
from bert_layout import BertName, bert_name
from key_table import Step
from torch import Tensor
from vit_layout import POSITIONS, timm_names

from transformers_cbvila.model.modeling_cbvila_vision import interpolate_positions

_QUEUES = ("image_queue", "text_queue", "queue_ptr", "idx_queue")


def check_duplicates(tensors: Mapping[str, Tensor], fusion_layer: int, layout: str) -> None:
    """Checks that tensors which ALBEF stores twice are equal, because only one of them is converted.

    Args:
        tensors: The checkpoint's tensors.
        fusion_layer: The first fusion layer.
        layout: The task of the checkpoint.

    Raises:
        ValueError: If a decoder is not tied to its word embeddings, or twin layers have other key or value weights.
    """
    twice = []
    for model in ("text_encoder", "text_decoder"):
        own = {plain(key): key for key in tensors if key.startswith(f"{model}.")}
        pairs = [
            ("cls.predictions.decoder.weight", "embeddings.word_embeddings.weight"),
            ("cls.predictions.decoder.bias", "cls.predictions.bias"),
        ]
        twice += [(own.get(a), own.get(b)) for a, b in pairs]
        if layout == "reasoning" and model == "text_encoder":
            for key in own:
                match = re.fullmatch(r"encoder\.layer\.(\d+)\.(crossattention\.self\.(key|value)\..*)", key)
                if match and (int(match[1]) - fusion_layer) % 2:
                    twice.append((own[key], own.get(f"encoder.layer.{int(match[1]) - 1}.{match[2]}")))
    for second, first in twice:
        if second and first and not torch.equal(tensors[second], tensors[first]):
            raise ValueError(f"{second} and {first} differ; in ALBEF they are one tensor, stored twice.")


def albef_layout(sizes: Sizes, layout: str, task: str, image_size: int) -> Callable[[str], Step | None]:
    """Returns the function that maps the keys of a checkpoint to a model.

    Args:
        sizes: The checkpoint's sizes.
        layout: The task of the checkpoint.
        task: The task of the model.
        image_size: Size of the model's images.
    """
    has_queue = task in ("pretrain", "retrieval")

    def step(key: str) -> Step | None:
        root, _, rest = key.partition(".")
        if root.endswith("_m"):
            return Step(note="momentum encoder: averages of the weights, for training only")
        if root in _QUEUES:
            return Step(note="queue of earlier features, for training only")
        if root == "visual_encoder":
            return _vision_step(rest, image_size // sizes.fields["patch_size"])
        if root == "text_encoder":
            return _text_step(plain(key), sizes.fields["fusion_layer"], layout, task)
        if root == "text_decoder":
            return _bert_step(plain(key), lambda name: _in_decoder(name))
        if root == "cls_head" and rest[:2] in ("0.", "2."):
            return Step((f"{CLASSIFIERS[task]}.{rest}",))
        simple = {
            "vision_proj": f"cbvila.vision_projection.{rest}",
            "text_proj": f"cbvila.text_projection.{rest}",
            "itm_head": f"objectives.itm.head.{rest}",
        }
        if root in simple:
            return Step((simple[root],)) if has_queue else Step(note=f"the model for {task} compares nothing")
        if key == "temp":
            return _temperature_step(has_queue, task)
        return None

    return step


def _vision_step(key: str, side: int) -> Step | None:
    names = tuple(f"cbvila.vision_model.{name}" for name in timm_names(key))
    if not names:
        return None
    if names == (f"cbvila.vision_model.{POSITIONS}",):
        return Step(names, change=lambda table: interpolate_positions(table, (side, side)))
    return Step(names)


def _text_step(key: str, fusion_layer: int, layout: str, task: str) -> Step | None:
    def place(found: BertName) -> str | Step:
        if found.part == "embeddings":
            return f"cbvila.text_model.embeddings.{found.name}"
        if found.part == "head":
            heads = {"pretrain": "objectives.mlm.head", "vqa": "answer_decoder.lm_head"}
            return f"{heads[task]}.{found.name}" if task in heads else Step(note=f"{task} names no tokens")
        if found.layer < fusion_layer:
            return f"cbvila.text_model.layers.{found.layer}.{found.name}"
        number = found.layer - fusion_layer
        if layout != "reasoning":
            return f"cbvila.fusion_model.layers.{number}.{found.name}"
        number, odd = divmod(number, 2)
        if odd and re.match(r"crossattention\.[kv]_proj\.", found.name):
            return Step(note=f"the same tensor as that of layer {found.layer - 1}")
        return f"cbvila.fusion_model.{'twin_layers' if odd else 'layers'}.{number}.{found.name}"

    return _bert_step(key, place)


def _in_decoder(found: BertName) -> str:
    prefix = {"embeddings": "embeddings", "layer": f"layers.{found.layer}", "head": "lm_head"}[found.part]
    return f"answer_decoder.{prefix}.{found.name}"


def _bert_step(key: str, place: Callable[[BertName], str | Step]) -> Step | None:
    """Returns the step for a key without `bert.`; `place` returns the model's name for BERT's, or a step."""
    if key == "embeddings.position_ids":
        return Step(note="0, 1, 2, ...: counted when needed")
    if key == "cls.predictions.decoder.weight":
        return Step(note="tied to the word embeddings")
    if key == "cls.predictions.decoder.bias":
        return Step(note="the same tensor as cls.predictions.bias")
    found = bert_name(key)
    if found is None:
        return None
    placed = place(found)
    return placed if isinstance(placed, Step) else Step((placed,))


def _temperature_step(used: bool, task: str) -> Step:
    if not used:
        return Step(note=f"the model for {task} compares nothing")
    return Step(("cbvila.logit_scale",), note="-ln of the temperature", change=lambda value: -value.log())
