"""Reads a ViT of transformers or timm (including DeiT, which has timm's layout)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from key_table import KeyTable, Step
from safe_loading import load_folder, load_tensors
from sources import find, read_config
from torch import Tensor
from transformers import ViTModel
from vit_layout import POSITIONS, timm_names, transformers_names

from transformers_cbvila import CBViLAVisionConfig, CBViLAVisionModel
from transformers_cbvila.extras import require
from transformers_cbvila.model.modeling_cbvila_vision import interpolate_positions

HEAD_DIM = 64  # of ViT from tiny to large and of DeiT
_HEADS = ("head.", "pre_logits.", "classifier.", "pooler.", "fc_norm.")


@dataclass(frozen=True)
class VisionSource:
    """A ViT.

    Attributes:
        tensors: Its tensors.
        config: Its configuration as ours.
        names: Maps its keys to our names.
        original: Returns the original model to compare with, if it is available.
        notes: Notes about what was assumed.
    """

    tensors: dict[str, Tensor]
    config: CBViLAVisionConfig
    names: Callable[[str], tuple[str, ...]]
    original: Callable[[], torch.nn.Module] | None
    notes: tuple[str, ...] = ()

    def layout(self, image_size: int, prefix: str = "") -> Callable[[str], Step | None]:
        """Returns the function that maps its keys to a tower whose weights have `prefix`, for `image_size`."""
        side = image_size // self.config.patch_size

        def step(key: str) -> Step | None:
            if key.startswith(_HEADS) or key == "embeddings.mask_token":
                return Step(note="not part of the encoder")
            names = self.names(key)
            if names == (POSITIONS,):
                return Step((prefix + POSITIONS,), change=lambda table: interpolate_positions(table, (side, side)))
            return Step(tuple(prefix + name for name in names)) if names else None

        return step

    def check(self) -> float | None:
        """Returns the largest difference in fp64 between the original's states and ours; `None` without an original.

        Raises:
            ValueError: If they differ.
        """
        if self.original is None:
            return None
        ours = CBViLAVisionModel(self.config).eval()
        ours.load_state_dict(KeyTable(self.tensors, self.layout(self.config.image_size)).tensors)
        side = self.config.image_size
        images = torch.randn(2, self.config.num_channels, side, side, dtype=torch.float64)
        with torch.no_grad():
            theirs = self.original().eval().double()
            forward = getattr(theirs, "forward_features", None) or (lambda x: theirs(x).last_hidden_state)
            return difference("image", forward(images), ours.double()(images).last_hidden_state)


def vision_source(name: str, heads: int | None = None) -> VisionSource:
    """Reads a ViT.

    Args:
        name: A folder or Hub id of transformers or timm, a file with timm's names, or `timm:MODEL`.
        heads: Number of attention heads, if no configuration has it.

    Raises:
        ValueError: If it is not a ViT, or not one that our image encoder supports.
    """
    if name.startswith("timm:"):
        model = require("timm").create_model(name.removeprefix("timm:"), pretrained=True)
        return timm_source(model.state_dict(), heads)
    path = find(name)
    if path.is_file():
        return timm_source(load_tensors(path), heads)
    config = read_config(path)
    if "architecture" in config:  # a timm model on the Hub
        return timm_source(load_folder(path), heads)
    if config.get("model_type") != "vit":
        raise ValueError(f"{name} is a model of type {config.get('model_type')!r}; the image encoder is a ViT.")
    return _transformers_source(path, config)


def _transformers_source(folder: Path, config: Mapping[str, Any]) -> VisionSource:
    known = {field: config[field] for field in CBViLAVisionConfig().to_dict() if field in config}
    known.pop("model_type", None)
    # transformers' defaults.
    known = {"layer_norm_eps": 1e-12, "image_size": 224} | known
    tensors = {key.removeprefix("vit."): value for key, value in load_folder(folder).items()}
    return VisionSource(
        tensors,
        CBViLAVisionConfig(**known),
        transformers_names,
        lambda: ViTModel.from_pretrained(folder, add_pooling_layer=False),
    )


def timm_source(tensors: Mapping[str, Tensor], heads: int | None = None) -> VisionSource:
    """Reads a ViT from tensors with timm's names, whose shapes determine its sizes.

    Raises:
        ValueError: If they are not those of a ViT, or the number of heads cannot be inferred.
    """
    tensors = dict(tensors)
    try:
        positions, patches = tensors["pos_embed"], tensors["patch_embed.proj.weight"]
        mlp = tensors["blocks.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise ValueError(f"This is no ViT with timm's names: {error} is not among its keys.") from error
    width, side = patches.shape[0], int((positions.shape[1] - 1) ** 0.5)
    if side**2 + 1 != positions.shape[1]:
        raise ValueError(
            f"pos_embed has {positions.shape[1]} rows: no square grid and one class token (distilled DeiT has two)."
        )
    notes = ()
    if heads is None:
        if width % HEAD_DIM:
            raise ValueError(f"Heads of {HEAD_DIM} do not divide the width {width}: say --vision_heads.")
        heads = width // HEAD_DIM
        notes = (f"Guessed: {heads} attention heads of {HEAD_DIM} in the image encoder (--vision_heads).",)
    config = CBViLAVisionConfig(
        hidden_size=width,
        num_hidden_layers=len({key.split(".")[1] for key in tensors if key.startswith("blocks.")}),
        num_attention_heads=heads,
        intermediate_size=mlp,
        image_size=side * patches.shape[-1],
        patch_size=patches.shape[-1],
        num_channels=patches.shape[1],
        qkv_bias="blocks.0.attn.qkv.bias" in tensors,
    )
    source = VisionSource(tensors, config, timm_names, None, notes)
    if find_spec("timm") is None:
        return replace(source, notes=(*notes, "The image encoder was not compared: timm is not installed."))
    return replace(source, original=lambda: _timm_model(tensors, config))


def _timm_model(tensors: Mapping[str, Tensor], config: CBViLAVisionConfig) -> torch.nn.Module:
    model = require("timm").models.VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        in_chans=config.num_channels,
        num_classes=0,
        embed_dim=config.hidden_size,
        depth=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        mlp_ratio=config.intermediate_size / config.hidden_size,
        qkv_bias=config.qkv_bias,
    )
    model.load_state_dict({key: value for key, value in tensors.items() if not key.startswith(_HEADS)})
    return model


def difference(what: str, theirs: Tensor, ours: Tensor, tolerance: float = 1e-9) -> float:
    """Returns the largest difference of states.

    Raises:
        ValueError: If it is above `tolerance`, whose default is for fp64.
    """
    largest = float((theirs - ours).abs().max())
    if not largest <= tolerance:
        raise ValueError(f"The {what} encoder's states differ from the original's by up to {largest:.1e}.")
    return largest
