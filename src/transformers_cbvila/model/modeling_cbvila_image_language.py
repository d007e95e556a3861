"""Vision tower, projector and the layers of a language model, which is attached after loading.

Shapes: B texts, b images, T tokens, n patches, k tokens per image, D vision width, D' width of the language model.
"""

import os
import re
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, can_return_tuple

from .arguments_cbvila import takes_no_other_arguments
from .caching_cbvila import CACHE_NAME, named_cache, one_cache
from .configuration_cbvila_conditional_generation import CBViLAConditionalGenerationConfig
from .image_placeholders_cbvila import check_image_tokens
from .language_model_adapter_cbvila import (
    ADAPTER_FOLDER,
    add_adapter,
    load_adapter,
    save_adapter,
    train_adapter,
    weights_of,
)
from .language_model_cbvila import check_sizes, load_language_model, split_language_model
from .modeling_cbvila_base import CBViLAPreTrainedModel
from .modeling_cbvila_vision import CBViLAVisionModel, tokens_to_quantize
from .quantizers_cbvila import build_quantizer


@dataclass
class CBViLAConditionalGenerationModelOutput(BaseModelOutputWithPast):
    """Output of [`CBViLAConditionalGenerationModel`].

    Args:
        image_hidden_states (`torch.FloatTensor` (b, k, D')): Embeddings that stand for the images.
    """

    image_hidden_states: Tensor | None = None


class CBViLAConditionalGenerationPreTrainedModel(CBViLAPreTrainedModel):
    """Base class of models with a language model, which is attached after their own weights are loaded."""

    config_class = CBViLAConditionalGenerationConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    # The loss is a mean over labelled tokens, whose number Trainer counts over micro-batches and processes.
    accepts_loss_kwargs = True
    # The causal language model as a whole, of which only parts are modules of this one; in a tuple so that it is none.
    _causal_language_model: tuple[PreTrainedModel, ...] = ()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Loads a model as [`~transformers.PreTrainedModel.from_pretrained`] does, its language model and adapter.

        Args:
            pretrained_model_name_or_path: A folder, or a repository of the Hub.
            args: Passed to the method of transformers.
            kwargs: Passed to the method of transformers. `language_model` is a folder, a Hub id or a loaded causal
                language model; by default the one that the configuration names. Those of `SHARED_OPTIONS`, such as
                `dtype`, hold for it as well.

        Raises:
            ImportError: If the checkpoint has an adapter of the language model, and PEFT is not installed.
            ValueError: If the language model is not there, or has another width or vocabulary than the one that the
                checkpoint was trained with.
        """
        source = kwargs.pop("language_model", None)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if kwargs.get("output_loading_info") else loaded
        if isinstance(source, str):
            model.config.language_model = source
        language_model = load_language_model(model.config.language_model if source is None else source, kwargs)
        adapter = model.config.language_model_adapter
        if adapter is not None:
            load_adapter(language_model, pretrained_model_name_or_path, adapter, kwargs)
        model.attach_language_model(language_model)
        return loaded

    def save_pretrained(  # type: ignore[override]  # the other options go on as they are
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves as [`~transformers.PreTrainedModel.save_pretrained`] does; an adapter in a folder of its own.

        Args:
            save_directory: The folder of the checkpoint.
            is_main_process: Whether this process writes.
            state_dict: Weights in place of the model's.
            kwargs: Passed to the method of transformers.
        """
        # Before anything else is written: whatever has the weights of a checkpoint then has its adapter.
        if self.config.language_model_adapter is not None and is_main_process:
            language_model = self.require_causal_language_model()
            layers = "language_model." if self.base_model is self else f"{self.base_model_prefix}.language_model."
            save_adapter(
                language_model,
                os.path.join(save_directory, self.config.language_model_adapter),
                self.config.language_model,
                None if state_dict is None else weights_of(language_model, state_dict, layers),
            )
        super().save_pretrained(save_directory, is_main_process=is_main_process, state_dict=state_dict, **kwargs)

    def _get_files_timestamps(self, working_dir: str | os.PathLike) -> dict[str, float]:
        """Returns which files were there before saving, which pushes others; the adapter's have just been written."""
        times: dict[str, float] = super()._get_files_timestamps(working_dir)
        return {name: time for name, time in times.items() if name != self.config.language_model_adapter}

    def add_language_model_adapter(self, adapter_config: Any) -> None:
        """Adds an adapter of PEFT to the language model, which is trained with the rest and saved with it.

        The language model itself stays as it is, and outside the checkpoint.

        Args:
            adapter_config: A configuration of PEFT such as `LoraConfig`, whose `target_modules` are of the causal
                language model.

        Raises:
            ImportError: If PEFT is not installed.
            ValueError: If there is no language model, or it has an adapter already.
        """
        language_model = self.require_causal_language_model()
        add_adapter(language_model, adapter_config)
        self.config.language_model_adapter = ADAPTER_FOLDER
        self.attach_language_model(language_model)
        self.train_language_model_adapter()

    def train_language_model_adapter(self) -> None:
        """Makes the adapter of the language model trainable, which one that was loaded is not.

        Raises:
            ValueError: If there is none.
        """
        train_adapter(self.require_causal_language_model())

    def require_causal_language_model(self) -> PreTrainedModel:
        """Returns the causal language model whose layers are part of this model.

        Raises:
            ValueError: If none is attached.
        """
        if not self._causal_language_model:
            raise ValueError(
                f"{type(self).__name__} has no language model, which is kept outside checkpoints: load it with "
                "from_pretrained, or call attach_language_model."
            )
        return self._causal_language_model[0]

    def attach_language_model(self, language_model: PreTrainedModel) -> None:
        """Makes a causal language model part of this one: frozen, and left out of its checkpoints.

        Raises:
            ValueError: If it has another width or vocabulary than the configuration, or cannot be used.
        """
        raise NotImplementedError

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Raises a ValueError: the language model is frozen, and images take no row of its table."""
        raise ValueError(
            f"The token embeddings of {type(self).__name__} are those of a frozen language model: resize them before "
            "it is attached. Images need no row of them."
        )


class CBViLAConditionalGenerationModel(CBViLAConditionalGenerationPreTrainedModel):
    """Vision tower, projector and the layers of the language model, without the layer that scores tokens.

    Attributes:
        vision_tower: The image encoder.
        quantizer: A frozen quantizer, for projectors that read quantized tokens, else `None`.
        multi_modal_projector: The projector.
        language_model: The layers of the language model, `None` until it is attached.
    """

    def __init__(self, config: CBViLAConditionalGenerationConfig) -> None:
        super().__init__(config)
        width = config.vision_config.hidden_size
        self.vision_tower = CBViLAVisionModel._from_config(config.vision_config)
        self.quantizer: nn.Module | None = None
        if config.reads_words:
            self.quantizer = build_quantizer(config)
            self.vision_tower.feature_layers = self.quantizer.feature_layers(config.quantizer_config)
        self.multi_modal_projector = config.projector_class(
            config.projector_config, width, config.text_config.get_text_config().hidden_size
        )
        self.language_model: Any = None
        kept = {name: tensor for name, tensor in self.state_dict().items() if tensor.is_floating_point()}
        self._keep_in_fp32_modules_strict = [name for name in kept if re.match(r"quantizer\.", name)]
        self.post_init()
        self._freeze()

    def attach_language_model(self, language_model: PreTrainedModel) -> None:
        """Makes the layers of a causal language model part of this model, frozen."""
        check_sizes(language_model, self.config.text_config.get_text_config())
        self._causal_language_model = (language_model,)
        self.language_model, _ = split_language_model(language_model)
        self._keys_to_ignore_on_save = {f"language_model.{name}" for name in self.language_model.state_dict()}
        self.config.text_config = language_model.config
        if getattr(language_model, "hf_device_map", None) is None:
            language_model.to(self.vision_tower.device)
        language_model.requires_grad_(False)
        self._freeze()

    def _freeze(self) -> None:
        """Freezes what training leaves as it is, again after loading has replaced parameters."""
        if self.quantizer is not None:
            self.quantizer.requires_grad_(False)
        if self.config.freeze_vision_tower:
            self.vision_tower.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "CBViLAConditionalGenerationModel":
        """Sets the mode; frozen parts stay in evaluation mode, without dropout. Adapters put an end to that."""
        super().train(mode)
        for part in (self.vision_tower, self.quantizer, self.language_model):
            if part is not None and not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self

    def require_language_model(self) -> Any:
        """Returns the layers of the language model.

        Raises:
            ValueError: If none is attached.
        """
        self.require_causal_language_model()
        return self.language_model

    def get_input_embeddings(self) -> nn.Module:
        """Returns the token embeddings of the language model."""
        return self.require_language_model().get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embeddings of the language model."""
        self.require_language_model().set_input_embeddings(value)

    @can_return_tuple
    def get_image_features(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool = False, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """Encodes images for the language model.

        Args:
            pixel_values: (b, 3, H, W) images.
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.
            kwargs: Options such as `output_attentions` and `output_hidden_states`, of the vision tower.

        Returns:
            `last_hidden_state` (b, 1 + n, D) of the vision tower, and `pooler_output` (b, k, D') of the projector.
        """
        output = self.vision_tower(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs)
        tokens = output.last_hidden_state
        if self.quantizer is not None:
            quantized = self.quantizer(tokens_to_quantize(output), remember=False).quantized
            tokens = torch.cat([tokens[:, :1], quantized.to(tokens.dtype)], dim=1)
        return BaseModelOutputWithPooling(
            last_hidden_state=output.last_hidden_state,
            pooler_output=self.multi_modal_projector(tokens),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def get_placeholder_mask(self, input_ids: Tensor, image_features: Tensor | None) -> Tensor:
        """Returns where tokens stand for images, (B, T).

        Args:
            input_ids: (B, T) tokens.
            image_features: (b, k, D') embeddings of the images, if there are any.

        Raises:
            ValueError: If there are not k such tokens for each image.
        """
        mask = input_ids == self.config.image_token_id
        if not torch.compiler.is_compiling():
            images = 0 if image_features is None else image_features.shape[0]
            check_image_tokens(int(mask.sum()), images, self.config)
        return mask

    def embed_inputs(self, input_ids: Tensor, image_features: Tensor | None = None) -> Tensor:
        """Returns embeddings (B, T, D') of tokens, those of images in the place of their tokens.

        Args:
            input_ids: (B, T) tokens, `image_token_id` k times for each image in reading order.
            image_features: (b, k, D') embeddings of the images.
        """
        mask = self.get_placeholder_mask(input_ids, image_features)
        # Tokens of images may be outside the table.
        embeddings = self.get_input_embeddings()(input_ids.masked_fill(mask, 0))
        if image_features is None:
            return embeddings
        return embeddings.masked_scatter(
            mask.unsqueeze(-1), image_features.to(embeddings.device, embeddings.dtype).flatten(0, 1)
        )

    @takes_no_other_arguments
    @can_return_tuple
    def forward(  # type: ignore[misc]  # position_ids is also a key of TransformersKwargs
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        interpolate_pos_encoding: bool = False,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CBViLAConditionalGenerationModelOutput:
        """Encodes texts with images; arguments as of [`CBViLAForConditionalGeneration`]."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass input_ids or inputs_embeds, and not both.")
        if pixel_values is not None and input_ids is None:
            raise ValueError(
                "pixel_values need input_ids, which say where images are; inputs_embeds have them in them already "
                "(embed_inputs)."
            )
        features = None
        if pixel_values is not None:
            features = self.get_image_features(pixel_values, interpolate_pos_encoding).pooler_output
        if inputs_embeds is None:
            inputs_embeds = self.embed_inputs(input_ids, features)
        options = {
            "position_ids": self._positions(attention_mask, position_ids, inputs_embeds.shape[1]),
            "use_cache": use_cache,
        }
        output = self.require_language_model()(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            **named_cache(one_cache(cache, past_key_values)),
            **{name: value for name, value in {**kwargs, **options}.items() if value is not None},
        )
        return CBViLAConditionalGenerationModelOutput(
            last_hidden_state=output.last_hidden_state,
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
            image_hidden_states=features,
            **named_cache(output.get(CACHE_NAME)),
        )

    def _positions(self, mask: Tensor | None, position_ids: Tensor | None, length: int) -> Tensor | None:
        """Returns the positions of tokens (B, T), counted without padding, if the language model takes any."""
        if "position_ids" not in signature(self.language_model.forward).parameters:
            return None
        if position_ids is not None or mask is None or mask.dim() != 2:
            return position_ids
        return (mask.long().cumsum(-1) - 1).clamp_min(0)[:, -length:]


__all__ = ["CBViLAConditionalGenerationModel"]
