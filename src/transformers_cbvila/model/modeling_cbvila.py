"""CB-ViLA without a head: image encoder, text encoder, fusion encoder and quantizer (Fig. 1).

Shapes: B batch, N patches, L text tokens, D hidden, Dv vision width, E projection width.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput
from transformers.utils.generic import TransformersKwargs, can_return_tuple

from .arguments_cbvila import takes_no_other_arguments
from .configuration_cbvila import CBViLAConfig
from .label_checks_cbvila import INDEX, check_ids
from .losses_cbvila import at_least_fp32, similarities
from .modeling_cbvila_base import CBViLAPreTrainedModel, reorder_fields
from .modeling_cbvila_fusion import CBViLAFusionModel
from .modeling_cbvila_text import CBViLATextModel
from .modeling_cbvila_vision import CBViLAVisionModel, tokens_to_quantize
from .modeling_cbvila_visual_queries import CBViLAVisualQueries
from .quantizer_output_cbvila import CBViLAGradients
from .quantizers_cbvila import build_quantizer

# Weights of a pretraining checkpoint (or one for visual reasoning, `twin_layers`) that heads for pairs do not have, as
# their losses would not train them. Loading does not warn about them.
PRETRAINING_ONLY = [
    r"quantizer\.",
    r"visual_queries\.",
    r"text_key_projection\.",
    r"patch_mask_token",
    r"(vision|text)_projection\.",
    r"logit_scale",
    r"objectives\.",
    r"twin_layers\.",
]


@dataclass
class CBViLAModelOutput(ModelOutput):
    """Output of [`CBViLAModel`]. Fields of a modality that was not given are `None`.

    Args:
        last_hidden_state (`torch.FloatTensor` (B, L, D)): Text tokens fused with the image; with one modality only,
            `vision_last_hidden_state` or `text_last_hidden_state`.
        pooler_output (`torch.FloatTensor` (B, D)): Its first token, the joint representation of the pair; with one
            modality only, the `pooler_output` (B, E) of `get_image_features` or `get_text_features`.
        image_embeds, text_embeds (`torch.FloatTensor` (B, E)): Normalized embeddings of images and texts, whose
            products are cosine similarities.
        logits_per_image, logits_per_text (`torch.FloatTensor` (B, B)): Similarities divided by the temperature.
        vision_last_hidden_state (`torch.FloatTensor` (B, 1 + N, Dv)): Visual tokens, class token first.
        text_last_hidden_state (`torch.FloatTensor` (B, L, D)): Text tokens before fusion.
        codebook_indices (`torch.LongTensor` (B, N) or (B, N, books)): Code indices of the image's patches, Eq. 1.
        hidden_states, attentions, cross_attentions (tuples, *optional*): States of the fusion layers.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    vision_last_hidden_state: Tensor | None = None
    text_last_hidden_state: Tensor | None = None
    codebook_indices: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


class CBViLAModel(CBViLAPreTrainedModel):
    """The encoders and the quantizer, without a head.

    Args:
        config: The configuration.
        add_contrastive: Whether to build the projections of the contrastive loss, if an objective needs them.
        add_quantizer: Whether to build the quantizer and the visual queries, if an objective needs them. Heads in
            which texts attend to images leave both out, as their losses would not train them. (Unless `itm_kv` is
            `"continuous"`, texts attend to quantized tokens, and the quantizer is always built.)
        hides_patches: Whether to build the mask embeddings even if no active objective masks patches.
        fusion_class: The class of the fusion encoder.

    Example:
    ```python
    >>> import torch
    >>> from transformers_cbvila import CBViLAConfig, CBViLAModel

    >>> small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> config = CBViLAConfig(vision_config={**small, "image_size": 32}, text_config=small, multimodal_config=small)
    >>> model = CBViLAModel(config)
    >>> output = model(torch.randn(1, 3, 32, 32), torch.tensor([[101, 7, 102]]))
    >>> output.last_hidden_state.shape, output.codebook_indices.shape, output.logits_per_image.shape
    (torch.Size([1, 3, 32]), torch.Size([1, 4]), torch.Size([1, 1]))

    ```
    """

    _tied_weights_keys: dict[str, str] = {}
    _keys_to_ignore_on_load_unexpected = [
        r"objectives\.",
        r"(entailment|reasoning)_head\.",
        r"answer_decoder\.",
        r"twin_layers\.",
    ]

    def __init__(
        self,
        config: CBViLAConfig,
        add_contrastive: bool = True,
        add_quantizer: bool = True,
        hides_patches: bool = False,
        fusion_class: type[CBViLAFusionModel] = CBViLAFusionModel,
    ) -> None:
        super().__init__(config)
        vision, text = config.vision_config, config.text_config
        self.vision_model = CBViLAVisionModel._from_config(vision)
        self.text_model = CBViLATextModel._from_config(text)
        self.fusion_model = fusion_class._from_config(config.multimodal_config)
        self.has_contrastive_head = add_contrastive and config.has_contrastive_head
        self.embeddings_train_encoders = config.embeddings_train_encoders
        if self.has_contrastive_head:
            self.vision_projection = nn.Linear(vision.hidden_size, config.projection_dim)
            self.text_projection = nn.Linear(text.hidden_size, config.projection_dim)
            self.logit_scale = nn.Parameter(at_least_fp32(torch.tensor(config.logit_scale_init_value)))
        self.has_quantizer = config.has_quantizer and (add_quantizer or config.itm_kv != "continuous")
        if self.has_quantizer:
            gradients = CBViLAGradients(*(config.trains_encoder(tokens) for tokens in CBViLAGradients._fields))
            self.quantizer = build_quantizer(config, gradients)
            self.vision_model.feature_layers = config.feature_layers()
            self._no_split_modules = [*type(self)._no_split_modules, type(self.quantizer).__name__]
        if add_quantizer and config.needs("visual_queries"):
            hides_patches = config.hides_patches or hides_patches
            if hides_patches and config.masks_before_encoder:
                self.patch_mask_token = nn.Parameter(torch.zeros(1, 1, vision.hidden_size))
            self.visual_queries = CBViLAVisualQueries(config, hides_patches)
            same = vision.hidden_size == text.hidden_size
            self.text_key_projection = nn.Identity() if same else nn.Linear(text.hidden_size, vision.hidden_size)
        # Distances, statistics and the temperature need fp32. They are listed by tensor: the name of the whole
        # codebook would also convert its bool buffer. (Heads copy the list in their `post_init`.)
        kept = {name: tensor for name, tensor in self.state_dict().items() if tensor.is_floating_point()}
        self._keep_in_fp32_modules_strict = [name for name in kept if re.match(r"quantizer\.|logit_scale$", name)]
        self.post_init()

    def init_own_weights(self, std: float) -> None:
        """Initializes the temperature and the mask token."""
        if self.has_contrastive_head:
            init.constant_(self.logit_scale, self.config.logit_scale_init_value)
        if hasattr(self, "patch_mask_token"):
            init.normal_(self.patch_mask_token, std=std)

    def require_quantizer(self) -> nn.Module:
        """Returns the quantizer.

        Raises:
            ValueError: If the model has none.
        """
        if not self.has_quantizer:
            raise ValueError("This model has no codebook: no objective of its configuration needs one.")
        return self.quantizer

    def get_input_embeddings(self) -> nn.Module:
        """Returns the token embeddings of the text encoder."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embeddings of the text encoder."""
        self.text_model.set_input_embeddings(value)

    @takes_no_other_arguments
    @can_return_tuple
    def get_image_features(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool = False, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """Encodes images (B, 3, H, W); `pooler_output` (B, E) is the embedding before normalization."""
        output = self.vision_model(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs)
        if self.has_contrastive_head:
            output.pooler_output = self.vision_projection(self.projected_states(output.last_hidden_state))
        return output

    @takes_no_other_arguments
    @can_return_tuple
    def get_text_features(  # type: ignore[misc]  # position_ids is also a key of TransformersKwargs
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Encodes texts (B, L), or their `inputs_embeds` (B, L, D).

        `pooler_output` (B, E) is the embedding before normalization.
        """
        output = self.text_model(input_ids, attention_mask, position_ids, inputs_embeds, **kwargs)
        if self.has_contrastive_head:
            output.pooler_output = self.text_projection(self.projected_states(output.last_hidden_state))
        return output

    def projected_states(self, states: Tensor) -> Tensor:
        """Returns the [CLS] states (B, D) of states (B, T, D) that are projected to embeddings."""
        pooled = states[:, 0]
        return pooled if self.embeddings_train_encoders else pooled.detach()

    def similarity_logits(self, image_embeds: Tensor, text_embeds: Tensor) -> Tensor | None:
        """Returns similarities (B, B) of normalized embeddings over the temperature, images in rows, in at least fp32.

        Without the contrastive head the temperature is the initial one (with 1, ITM negatives sampled by similarity
        would be almost uniform), and the result is `None` if the widths differ.
        """
        if image_embeds.shape[-1] != text_embeds.shape[-1]:
            return None
        return similarities(image_embeds, text_embeds) * self.similarity_scale()

    def similarity_scale(self) -> Tensor | float:
        """Returns 1 / temperature."""
        if not self.has_contrastive_head:
            return math.exp(self.config.logit_scale_init_value)
        # Temperatures below 0.01 amplify noise (CLIP's clamp); above 0.5 all pairs are similar (ALBEF's).
        return self.logit_scale.exp().clamp(2.0, 100.0)

    def fuse_text_with_image(
        self,
        text: Tensor,
        attention_mask: Tensor | None,
        image: Tensor,
        image_index: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Fuses texts (B, L, D), which attend to visual tokens (B', 1 + N, Dv), for ITM, MLM and most heads.

        Returns the output of the fusion encoder, with states (B, L, D).
        """
        states = self.image_states_for_text(image)
        if image_index is not None:  # the twin fusion encoder has no such argument
            kwargs["encoder_index"] = image_index
        return self.fusion_model(text, attention_mask, encoder_hidden_states=states, **kwargs)

    def image_states_for_text(self, image: Tensor) -> Tensor:
        """Returns the states (B', 1 + N or 2 + 2 N, Dv) for visual tokens (B', 1 + N, Dv), as `itm_kv` says."""
        if self.config.itm_kv == "continuous":
            return image
        patches = self.quantizer(image[:, 1:], remember=False).quantized.to(image.dtype)
        quantized = torch.cat([image[:, :1], patches], dim=1)
        return quantized if self.config.itm_kv == "quantized" else torch.cat([image, quantized], dim=1)

    def encode_visible_patches(
        self, pixel_values: Tensor, bool_masked_pos: Tensor, interpolate_pos_encoding: bool = False
    ) -> BaseModelOutputWithPooling:
        """Encodes images (B, 3, H, W) with the mask token in place of masked patches (B, N)."""
        return self.vision_model(
            pixel_values,
            interpolate_pos_encoding=interpolate_pos_encoding,
            masked_patches=bool_masked_pos,
            mask_token=self.patch_mask_token,
        )

    def fuse_visual_queries(
        self,
        tokens: Tensor,
        grid: tuple[int, int],
        text: Tensor,
        attention_mask: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
        image_cls: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Fuses quantized tokens, which attend to texts, for MIM and the pixel loss.

        Args:
            tokens: (R * B, N, Dv) quantized tokens; R successive blocks of rows may attend to the same texts.
            grid: Rows and columns of patches.
            text: (B, L, D) states of the texts.
            attention_mask: (B, L), 0 on padding.
            bool_masked_pos: (R * B, N) tokens to mask.
            image_cls: (R * B, Dv) the image encoder's class token, for `fusion_visual_cls="vit"`.
            kwargs: Options of the fusion encoder.

        Returns:
            The output of the fusion encoder, with states (R * B, 1 + N, D); N without a [CLS] query.
        """
        queries = self.visual_queries(tokens, grid, bool_masked_pos, image_cls)
        repeats, index = queries.shape[0] // text.shape[0], None
        if repeats > 1:
            index = torch.arange(text.shape[0], device=text.device).repeat(repeats)
        return self.fusion_model(
            queries,
            encoder_hidden_states=self.text_key_projection(text),
            encoder_attention_mask=attention_mask,
            encoder_index=index,
            **kwargs,
        )

    def drop_cls(self, states: Tensor) -> Tensor:
        """Returns the states (B, N, D) of patches in those of [`fuse_visual_queries`], without the [CLS] query."""
        return states[:, self.visual_queries.first_patch :]

    def encode_pairs(
        self,
        pixel_values: Tensor | None,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        image_index: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        **options: Any,
    ) -> Any:
        """Encodes and fuses texts (B, L) with their images (B', 3, H, W).

        The arguments are those of `forward`, and `options` those of the fusion encoder.

        Returns:
            The output of the fusion encoder, with states (B, L, D).

        Raises:
            ValueError: If image or text is missing, or their numbers differ and there is no `image_index`.
        """
        has_text = input_ids is not None or inputs_embeds is not None
        if pixel_values is None or not has_text:
            missing = "pixel_values" if pixel_values is None else "input_ids"
            raise ValueError(f"The model needs an image and a text: {missing} is missing.")
        check_pair_counts(pixel_values, input_ids if inputs_embeds is None else inputs_embeds, image_index, self)
        image = self.vision_model(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        text = self.text_model(input_ids, attention_mask, position_ids=position_ids, inputs_embeds=inputs_embeds)
        return self.fuse_text_with_image(
            text.last_hidden_state, attention_mask, image.last_hidden_state, image_index, **options
        )

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        image_index: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> CBViLAModelOutput:
        """Encodes images, texts, or pairs of them.

        Args:
            pixel_values: (B', 3, H, W) images; B' = B without `image_index`.
            input_ids: (B, L) token ids.
            attention_mask: (B, L), 0 on padding.
            position_ids: (B, L); counted from 0 when absent.
            inputs_embeds: (B, L, D) token embeddings instead of `input_ids`.
            image_index: (B,) the image of each text.
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.
            output_attentions: Whether to return the attention weights of the fusion layers; by default as the
                configuration says.
            output_hidden_states: Whether to return the states of the fusion layers; by default as the configuration
                says.

        Raises:
            ValueError: If neither image nor text is given, or their numbers differ and there is no `image_index`.
        """
        options = self.states_to_return(output_attentions, output_hidden_states)
        has_text = input_ids is not None or inputs_embeds is not None
        if pixel_values is None and not has_text:
            raise ValueError("Nothing to encode: pass pixel_values, input_ids (or inputs_embeds), or both.")
        output = CBViLAModelOutput()
        if pixel_values is not None:
            vision = self.get_image_features(pixel_values, interpolate_pos_encoding, return_dict=True)
            output.vision_last_hidden_state = vision.last_hidden_state
            output.image_embeds = F.normalize(at_least_fp32(vision.pooler_output), dim=-1)
            if self.has_quantizer:
                # `forward`, whose hooks load offloaded weights, and without gradients, so that the assignments are not
                # collected for an EMA update.
                with torch.no_grad():
                    output.codebook_indices = self.quantizer(tokens_to_quantize(vision)).indices
        if has_text:
            text = self.get_text_features(
                input_ids,
                attention_mask,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
                return_dict=True,
            )
            output.text_last_hidden_state = text.last_hidden_state
            output.text_embeds = F.normalize(at_least_fp32(text.pooler_output), dim=-1)
        if pixel_values is not None and has_text:
            check_pair_counts(pixel_values, text.last_hidden_state, image_index, self)
            output.logits_per_image = self.similarity_logits(output.image_embeds, output.text_embeds)
            output.logits_per_text = None if output.logits_per_image is None else output.logits_per_image.T
            fused = self.fuse_text_with_image(
                text.last_hidden_state, attention_mask, vision.last_hidden_state, image_index, **options
            )
            output.last_hidden_state, output.pooler_output = fused.last_hidden_state, fused.last_hidden_state[:, 0]
            output.hidden_states, output.attentions = fused.hidden_states, fused.attentions
            output.cross_attentions = fused.get("cross_attentions")
        else:
            single = text if has_text else vision
            output.last_hidden_state, output.pooler_output = single.last_hidden_state, single.pooler_output
        return reorder_fields(output)


def check_pair_counts(images: Tensor, texts: Tensor, image_index: Tensor | None, owner: nn.Module) -> None:
    """Raises a ValueError unless each of the texts (B, …) has one of the images (B', …)."""
    num_images, num_texts = images.shape[0], texts.shape[0]
    if image_index is None and num_images != num_texts:
        raise ValueError(
            f"Got {num_images} image(s) and {num_texts} text(s): pass as many images as texts, or image_index with, "
            "for each text, the position of its image."
        )
    if image_index is None:
        return
    if tuple(image_index.shape) != (num_texts,):
        raise ValueError(
            f"image_index has shape {tuple(image_index.shape)} for {num_texts} text(s): it needs one entry per text."
        )
    rule = f"there are {num_images} image(s), numbered from 0"
    check_ids("image_index", image_index, (num_texts,), num_images, rule, owner, ignored=False, dtypes=INDEX)


__all__ = ["CBViLAModel"]
