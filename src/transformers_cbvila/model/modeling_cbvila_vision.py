"""The image encoder of CB-ViLA: a Vision Transformer (Sec. IV-C).

Shapes: B batch, N patches, D hidden.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .arguments_cbvila import takes_no_other_arguments
from .configuration_cbvila import CBViLAVisionConfig
from .modeling_cbvila_base import PARTS_OF_A_MODEL, CBViLAPreTrainedModel
from .modeling_cbvila_layers import CBViLASelfAttention, CBViLAVisionLayer
from .sincos_positions_cbvila import sincos_positions


def interpolate_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resizes position embeddings (1, 1 + N, D) of a square grid, [CLS] first, to another grid (rows, columns).

    As in ALBEF and transformers' ViT, it is bicubic without antialiasing, and keeps the position of [CLS].
    """
    side = int((positions.shape[1] - 1) ** 0.5)
    # Exported graphs with free image sizes resize always: a comparison would make the size that is traced a condition.
    is_free = any(isinstance(length, torch.SymInt) for length in grid)
    if not is_free and (side, side) == tuple(grid):
        return positions
    cls_position, patches = positions[:, :1], positions[:, 1:]
    patches = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    patches = nn.functional.interpolate(patches, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([cls_position, patches.flatten(2).transpose(1, 2).to(cls_position.dtype)], dim=1)


@dataclass
class CBViLAVisionModelOutput(BaseModelOutputWithPooling):
    """Output of an image encoder for a quantizer of several layers.

    Args:
        pyramid (`torch.FloatTensor` (B, N, D)): States of patches in the layer, or the mean of the normalized states
            in several layers.
    """

    pyramid: Tensor | None = None


def tokens_to_quantize(output: BaseModelOutputWithPooling) -> Tensor:
    """Returns the tokens (B, N, D) of patches in an image encoder's output that a quantizer takes."""
    pyramid = output.get("pyramid")
    return output.last_hidden_state[:, 1:] if pyramid is None else pyramid


def _mean_of_layers(features: list[Tensor]) -> Tensor:
    """Returns the mean (B, N, D) of normalized states of layers, as their lengths differ; those of one as they are."""
    return features[0] if len(features) == 1 else torch.stack([F.normalize(each, dim=-1) for each in features]).mean(0)


class CBViLAVisionEmbeddings(nn.Module):
    """Patch embeddings, a class token and learned positions."""

    def __init__(self, config: CBViLAVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + config.num_patches, config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def init_own_weights(self, std: float) -> None:
        init.trunc_normal_(self.cls_token, std=std)
        init.trunc_normal_(self.position_embeddings, std=std)
        if self.config.position_embedding_init == "sincos":
            side = self.config.image_size // self.config.patch_size
            patches = sincos_positions((side, side), self.config.hidden_size)
            random = self.position_embeddings.detach()
            init.copy_(self.position_embeddings, torch.cat([random[:, :1], patches.to(random).unsqueeze(0)], dim=1))

    def forward(
        self,
        pixel_values: Tensor,
        interpolate_pos_encoding: bool = False,
        masked_patches: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Embeds images (B, 3, H, W) to (B, 1 + N, D); `mask_token` (1, 1, D) replaces the masked patches (B, N)."""
        grid = self._checked_grid(pixel_values, interpolate_pos_encoding)
        patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype)).flatten(2).transpose(1, 2)
        if masked_patches is not None and mask_token is not None:
            patches = torch.where(masked_patches.unsqueeze(-1), mask_token.to(patches.dtype), patches)
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)
        return self.dropout(tokens + interpolate_positions(self.position_embeddings, grid))

    def _checked_grid(self, pixel_values: Tensor, interpolate_pos_encoding: bool) -> tuple[int, int]:
        if pixel_values.dim() != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}; expected (batch, {self.config.num_channels}, "
                "height, width), as the image processor returns."
            )
        height, width = pixel_values.shape[-2:]
        size, patch = self.config.image_size, self.config.patch_size
        if not interpolate_pos_encoding and (height, width) != (size, size):
            raise ValueError(
                f"Input image size ({height}x{width}) doesn't match the model ({size}x{size}). Resize the image (the "
                "model's image processor does), or pass interpolate_pos_encoding=True."
            )
        if height % patch or width % patch:
            raise ValueError(f"Input image size ({height}x{width}) is not a multiple of the patch size {patch}.")
        return height // patch, width // patch


class CBViLAVisionModel(CBViLAPreTrainedModel):
    """ViT without a head. The state of the class token is the pooled representation of the image.

    Attributes:
        feature_layers: Layers that a quantizer takes, 0 for the embeddings; see [`tokens_to_quantize`].

    Example:
    ```python
    >>> import torch
    >>> from transformers_cbvila import CBViLAVisionConfig, CBViLAVisionModel

    >>> small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> model = CBViLAVisionModel(CBViLAVisionConfig(**small, image_size=32))
    >>> model(torch.randn(1, 3, 32, 32)).last_hidden_state.shape
    torch.Size([1, 5, 32])

    ```
    """

    config_class = CBViLAVisionConfig
    base_model_prefix = "vision_model"
    _names_in_other_checkpoints = {r"^(?:cbvila\.)?vision_model\.": ""}
    _keys_to_ignore_on_load_unexpected = PARTS_OF_A_MODEL
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _input_embed_layer = "patch_embedding"
    _can_record_outputs = {"hidden_states": CBViLAVisionLayer, "attentions": CBViLASelfAttention}

    def __init__(self, config: CBViLAVisionConfig) -> None:
        super().__init__(config)
        self.embeddings = CBViLAVisionEmbeddings(config)
        self.layers = nn.ModuleList(CBViLAVisionLayer(config, i) for i in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feature_layers: tuple[int, ...] = ()
        self.post_init()

    @takes_no_other_arguments
    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: Tensor,
        interpolate_pos_encoding: bool = False,
        masked_patches: Tensor | None = None,
        mask_token: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Encodes images.

        Args:
            pixel_values: (B, 3, H, W) from the image processor.
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.
            masked_patches: (B, N) bool, patches to mask; needs `mask_token`. (Not `bool_masked_pos`, which tools of
                transformers pass without a mask token.)
            mask_token: (1, 1, D) embedding that replaces the masked patches; needs `masked_patches`.
            kwargs: Options such as `output_attentions` and `output_hidden_states`.

        Returns:
            `last_hidden_state` (B, 1 + N, D), class token first, and `pooler_output` (B, D), the class token.
        """
        if (masked_patches is None) != (mask_token is None):
            missing = "mask_token" if mask_token is None else "masked_patches"
            raise ValueError(f"Masking patches needs both masked_patches and mask_token: {missing} is missing.")
        hidden_states = self.embeddings(pixel_values, interpolate_pos_encoding, masked_patches, mask_token)
        features = [hidden_states[:, 1:]] if 0 in self.feature_layers else []
        for number, layer in enumerate(self.layers, start=1):
            hidden_states = layer(hidden_states, None, **kwargs)
            if number in self.feature_layers:
                features.append(hidden_states[:, 1:])
        hidden_states = self.layernorm(hidden_states)
        outputs = {"last_hidden_state": hidden_states, "pooler_output": hidden_states[:, 0]}
        if features:
            return CBViLAVisionModelOutput(**outputs, pyramid=_mean_of_layers(features))
        return BaseModelOutputWithPooling(**outputs)


__all__ = ["CBViLAVisionModel"]
