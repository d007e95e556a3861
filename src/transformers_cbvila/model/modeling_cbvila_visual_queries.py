"""The queries of the fusion encoder that are made of quantized tokens.

Shapes: B batch, N patches, D fusion width, Dv vision width.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_cbvila import CBViLAConfig
from .modeling_cbvila_vision import interpolate_positions


class CBViLAVisualQueries(nn.Module):
    """Turns quantized tokens into queries of the fusion encoder.

    A code has no position, and a masked token has no content either: without positions all masked queries would be
    equal. The paper does not say how they differ. By default there are learned positions, a learned mask embedding and
    a [CLS] query (`fusion_visual_pos` and `fusion_visual_cls` of the configuration).

    Args:
        config: The configuration.
        hides_patches: Whether to build the mask embedding.
    """

    def __init__(self, config: CBViLAConfig, hides_patches: bool = True) -> None:
        super().__init__()
        vision, size = config.vision_config, config.multimodal_config.hidden_size
        same = vision.hidden_size == size
        self.cls_source = config.fusion_visual_cls
        self.has_positions = config.fusion_visual_pos == "learned"
        self.projection = nn.Identity() if same else nn.Linear(vision.hidden_size, size)
        if self.cls_source == "learned":
            self.cls_token = nn.Parameter(torch.zeros(1, 1, size))
        if hides_patches:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, size))
        if self.has_positions:
            # Always with a position for [CLS], so that checkpoints fit whichever `fusion_visual_cls`.
            self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + vision.num_patches, size))
        self.layernorm = nn.LayerNorm(size, eps=config.multimodal_config.layer_norm_eps)
        self.dropout = nn.Dropout(config.multimodal_config.hidden_dropout_prob)

    def init_own_weights(self, std: float) -> None:
        """Initializes [CLS], the mask embedding and the positions."""
        for parameter in self.parameters(recurse=False):
            init.normal_(parameter, std=std)

    @property
    def first_patch(self) -> int:
        """Index of the first patch among the queries: 1 after a [CLS], otherwise 0."""
        return 0 if self.cls_source == "none" else 1

    def forward(
        self,
        tokens: Tensor,
        grid: tuple[int, int],
        bool_masked_pos: Tensor | None = None,
        image_cls: Tensor | None = None,
    ) -> Tensor:
        """Computes the queries of an image.

        Args:
            tokens: (B, N, Dv) quantized tokens.
            grid: Rows and columns of patches.
            bool_masked_pos: (B, N) tokens that the mask embedding replaces.
            image_cls: (B, Dv) the image encoder's class token, for `fusion_visual_cls="vit"`.

        Returns:
            Queries (B, 1 + N, D); (B, N, D) with `fusion_visual_cls="none"`.

        Raises:
            ValueError: If `image_cls` is missing.
        """
        dtype = self.layernorm.weight.dtype
        queries = self.projection(tokens.to(dtype))
        if bool_masked_pos is not None:
            queries = torch.where(bool_masked_pos.unsqueeze(-1), self.mask_token.to(queries.dtype), queries)
        if self.cls_source == "learned":
            queries = torch.cat([self.cls_token.expand(queries.shape[0], -1, -1), queries], dim=1)
        elif self.cls_source == "vit":
            if image_cls is None:
                raise ValueError("fusion_visual_cls='vit' needs image_cls, the image encoder's class token; pass it.")
            queries = torch.cat([self.projection(image_cls.unsqueeze(1).to(dtype)), queries], dim=1)
        if self.has_positions:
            positions = interpolate_positions(self.position_embeddings, grid)
            queries = queries + positions[:, 1 - self.first_patch :]
        return self.dropout(self.layernorm(queries))
