"""Reads the task and the sizes of an ALBEF checkpoint from its tensors and from ALBEF's configuration.

The layers of BERT below `fusion_layer` are the text encoder; the others, with cross-attention, the fusion encoder. For
NLVR2 the latter are doubled.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

TASKS = ("pretrain", "retrieval", "vqa", "entailment", "reasoning")
HEAD_DIM = 64  # of every ViT and BERT that ALBEF was released with
CLASSIFIERS = {"entailment": "entailment_head", "reasoning": "reasoning_head"}  # cls_head in our models


def plain(key: str) -> str:
    """Returns a key of one of ALBEF's BERTs without the prefixes `text_encoder.` or `text_decoder.`, and `bert.`."""
    return re.sub(r"^text_(en|de)coder\.(bert\.)?", "", key)


def layout_of(keys: Mapping[str, Tensor], task: str | None = None) -> str:
    """Returns the task of a checkpoint, one of `TASKS`.

    Args:
        keys: The checkpoint's tensors.
        task: Distinguishes entailment and reasoning, which have the same keys; by default the number of classes does.

    Raises:
        ValueError: If this is not an ALBEF checkpoint, or its task is unknown.
    """
    roots = {key.partition(".")[0] for key in keys}
    if not {"visual_encoder", "text_encoder"} <= roots:
        raise ValueError(
            "This is no ALBEF checkpoint: no keys begin with visual_encoder. and text_encoder.; it has "
            f"{', '.join(sorted(keys)[:3])} and {max(len(keys) - 3, 0)} others."
        )
    if "text_decoder" in roots:
        return "vqa"
    if "cls_head" in roots:
        classes = keys["cls_head.2.weight"].shape[0] if "cls_head.2.weight" in keys else 0
        if task in CLASSIFIERS:
            return str(task)
        if classes not in (2, 3):
            raise ValueError(f"cls_head.2.weight has {classes} classes: say which task it is for (--task).")
        return "entailment" if classes == 3 else "reasoning"
    if "itm_head" not in roots:
        raise ValueError(
            "This ALBEF checkpoint has no itm_head, text_decoder or cls_head: it is of none of the tasks "
            f"{', '.join(TASKS)}."
        )
    return "pretrain" if any(key.startswith("text_encoder.cls.") for key in keys) else "retrieval"


@dataclass(frozen=True)
class Sizes:
    """The sizes of a checkpoint.

    Attributes:
        fields: Sizes by the names of ALBEF's configuration.
        fusion_layers: Number of fusion layers, twin layers of NLVR2 counted once.
        vision_mlp: Hidden size of the image encoder's MLP.
        channels: Channels of an image.
        qkv_bias: Whether the image encoder's attention has biases.
    """

    fields: dict[str, int]
    fusion_layers: int
    vision_mlp: int
    channels: int
    qkv_bias: bool


def sizes_of(tensors: Mapping[str, Tensor], layout: str) -> Sizes:
    """Reads the sizes from the shapes of a checkpoint's tensors.

    Raises:
        ValueError: If a tensor is missing, or its shape is not possible in ALBEF.
    """
    try:
        texts = {plain(key): value for key, value in tensors.items() if key.startswith("text_encoder.")}
        positions = tensors["visual_encoder.pos_embed"]
        patches = tensors["visual_encoder.patch_embed.proj.weight"]
        words = texts["embeddings.word_embeddings.weight"]
        layers = 1 + max(_numbers(texts, r"encoder\.layer\.(\d+)\..*"))
        fusing = sorted(_numbers(texts, r"encoder\.layer\.(\d+)" + r"\.crossattention\.self\.query\.weight"))
        side = int((positions.shape[1] - 1) ** 0.5)
        if side**2 + 1 != positions.shape[1]:
            raise ValueError(f"visual_encoder.pos_embed has {positions.shape[1]} rows: no square grid and one more.")
        if not fusing or fusing != list(range(fusing[0], layers)):
            raise ValueError(
                f"Cross-attention is in the layers {fusing} of {layers}; expected all from one to the last."
            )
        if layout == "reasoning" and len(fusing) % 2:
            raise ValueError(f"An NLVR2 checkpoint has twin fusion layers; this one has {len(fusing)}, an odd number.")
        fields = {
            "vit_dim": patches.shape[0],
            "vision_width": patches.shape[0],
            "vit_depth": 1 + max(_numbers(tensors, r"visual_encoder\.blocks\.(\d+)\..*")),
            "patch_size": patches.shape[-1],
            "image_res": side * patches.shape[-1],
            "vocab_size": words.shape[0],
            "hidden_size": words.shape[1],
            "intermediate_size": texts["encoder.layer.0.intermediate.dense.weight"].shape[0],
            "max_position_embeddings": texts["embeddings.position_embeddings.weight"].shape[0],
            "type_vocab_size": texts["embeddings.token_type_embeddings.weight"].shape[0],
            "num_hidden_layers": layers,
            "fusion_layer": fusing[0],
            "encoder_width": texts[f"encoder.layer.{fusing[0]}.crossattention.self.key.weight"].shape[1],
        }
        if "vision_proj.weight" in tensors:
            fields["embed_dim"] = tensors["vision_proj.weight"].shape[0]
        return Sizes(
            fields,
            fusion_layers=len(fusing) // (2 if layout == "reasoning" else 1),
            vision_mlp=tensors["visual_encoder.blocks.0.mlp.fc1.weight"].shape[0],
            channels=patches.shape[1],
            qkv_bias="visual_encoder.blocks.0.attn.qkv.bias" in tensors,
        )
    except (KeyError, IndexError) as error:
        raise ValueError(f"The checkpoint's sizes cannot be read: {error} is not there as ALBEF has it.") from error


def _numbers(keys: Iterable[str], pattern: str) -> set[int]:
    found = {int(match[1]) for match in (re.fullmatch(pattern, key) for key in keys) if match}
    if not found:
        raise KeyError(pattern.replace("\\", ""))
    return found


def config_fields(sizes: Sizes, given: Mapping[str, Any] | None, image_size: int | None) -> tuple[dict, list[str]]:
    """Returns fields of the `CBViLAConfig`, and notes about what was assumed.

    Args:
        sizes: The checkpoint's sizes.
        given: ALBEF's configuration, `{"albef": {...}, "bert": {...}}`, for what the tensors do not determine.
        image_size: Size of the model's images; by default the configuration's, or the position table's.

    Raises:
        ValueError: If configuration and tensors contradict each other, or the number of heads cannot be inferred.
    """
    albef, bert = _sections(given)
    read = sizes.fields
    # Some configurations count twin layers, some do not.
    layers = {read["num_hidden_layers"], read["fusion_layer"] + sizes.fusion_layers}
    for section, entries in (("albef", albef), ("bert", bert)):
        for name, value in entries.items():
            if name not in read or name == "image_res":
                continue
            right = sorted(layers) if name == "num_hidden_layers" else [read[name]]
            if value not in right:
                raise ValueError(
                    f"The configuration has {section}.{name} = {value}, the checkpoint's tensors {right[0]}."
                )
    notes: list[str] = []
    vision_heads = _heads("albef.vit_heads", albef.get("vit_heads"), read["vit_dim"], notes)
    text_heads = _heads("bert.num_attention_heads", bert.get("num_attention_heads"), read["hidden_size"], notes)
    image_size = image_size or int(albef.get("image_res", read["image_res"]))
    if image_size != read["image_res"]:
        notes.append(f"The position table is resized from images of {read['image_res']} px to {image_size} px.")
    kept = ("hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps", "initializer_range")
    text = {name: bert[name] for name in kept if name in bert} | {
        "vocab_size": read["vocab_size"],
        "hidden_size": read["hidden_size"],
        "num_hidden_layers": read["fusion_layer"],
        "num_attention_heads": text_heads,
        "intermediate_size": read["intermediate_size"],
        "max_position_embeddings": read["max_position_embeddings"],
        "type_vocab_size": read["type_vocab_size"],
    }
    vision = {
        "hidden_size": read["vit_dim"],
        "num_hidden_layers": read["vit_depth"],
        "num_attention_heads": vision_heads,
        "intermediate_size": sizes.vision_mlp,
        "image_size": image_size,
        "patch_size": read["patch_size"],
        "num_channels": sizes.channels,
        "qkv_bias": sizes.qkv_bias,
        "layer_norm_eps": 1e-6,
    }
    fields = {
        "vision_config": vision,
        "text_config": text,
        "multimodal_config": {"num_hidden_layers": sizes.fusion_layers},
    }
    if "embed_dim" in read:
        fields["projection_dim"] = read["embed_dim"]
    return fields, notes


def _sections(given: Mapping[str, Any] | None) -> tuple[dict, dict]:
    if given is None:
        return {}, {}
    sections = [given.get(name) if isinstance(given, Mapping) else None for name in ("albef", "bert")]
    if not all(isinstance(section, Mapping) for section in sections):
        raise ValueError('The ALBEF configuration must have the form {"albef": {...}, "bert": {...}}.')
    return dict(sections[0] or {}), dict(sections[1] or {})


def _heads(name: str, value: Any, width: int, notes: list[str]) -> int:
    if value is not None:
        if not isinstance(value, int) or value < 1 or width % value:
            raise ValueError(f"The configuration has {name} = {value!r}, which does not divide the width {width}.")
        return value
    if width % HEAD_DIM:
        raise ValueError(
            f"No tensor has the number of attention heads, and the width {width} is not a multiple of the usual "
            f"{HEAD_DIM}: give {name} in --albef_config."
        )
    notes.append(
        f"Guessed: {width // HEAD_DIM} attention heads of {HEAD_DIM} ({name} in --albef_config says otherwise)."
    )
    return width // HEAD_DIM
