"""A frozen language model that continues texts with images in them, in the shape of LLaVA.

Shapes: B texts, b images, T tokens, k tokens per image, D' width of the language model, V vocabulary.
"""

import os
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import AutoTokenizer, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, can_return_tuple

from .arguments_cbvila import takes_no_other_arguments
from .caching_cbvila import CACHE_NAME, named_cache, one_cache, with_cache_named
from .configuration_cbvila_conditional_generation import CBViLAConditionalGenerationConfig
from .image_placeholders_cbvila import order_of_expanded_images, placeholder_id
from .language_model_cbvila import SHARED_OPTIONS, load_language_model
from .losses_cbvila import next_token_loss
from .modeling_cbvila import CBViLAModel
from .modeling_cbvila_image_language import (
    CBViLAConditionalGenerationModel,
    CBViLAConditionalGenerationPreTrainedModel,
)


@dataclass
class CBViLAForConditionalGenerationOutput(CausalLMOutputWithPast):
    """Output of [`CBViLAForConditionalGeneration`].

    Args:
        loss (`torch.FloatTensor` ()): Mean cross-entropy of labelled tokens, when `labels` are given.
        logits (`torch.FloatTensor` (B, T, V)): Scores of the token after each.
        image_hidden_states (`torch.FloatTensor` (b, k, D')): Embeddings that stand for the images.
    """

    image_hidden_states: Tensor | None = None


class CBViLAForConditionalGeneration(CBViLAConditionalGenerationPreTrainedModel, GenerationMixin):
    """A frozen language model that continues texts with images in them.

    An image stands in the text as k tokens `image_token_id`. Vision tower and projector are trained, and alone in
    checkpoints; the language model is any causal one of transformers.

    Example:
    ```python
    >>> import torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from transformers_cbvila import CBViLAConditionalGenerationConfig, CBViLAForConditionalGeneration

    >>> small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> language = LlamaConfig(**small, vocab_size=50)
    >>> config = CBViLAConditionalGenerationConfig(vision_config={**small, "image_size": 32}, text_config=language)
    >>> model = CBViLAForConditionalGeneration(config).eval()
    >>> model.attach_language_model(LlamaForCausalLM(language))
    >>> prompt = {"input_ids": torch.tensor([[50, 50, 7, 8]]), "pixel_values": torch.randn(1, 3, 32, 32)}
    >>> model(**prompt).logits.shape
    torch.Size([1, 4, 50])
    >>> model.generate(**prompt, max_new_tokens=3, min_new_tokens=3).shape
    torch.Size([1, 7])

    ```
    """

    def __init__(self, config: CBViLAConditionalGenerationConfig) -> None:
        super().__init__(config)
        self.model = CBViLAConditionalGenerationModel(config)
        self.lm_head: Any = None
        self.post_init()

    @classmethod
    def from_vision_language_pretrained(
        cls,
        vision_model_name_or_path: str | os.PathLike,
        language_model_name_or_path: str | os.PathLike | PreTrainedModel,
        projector_config: dict[str, Any] | None = None,
        image_token_id: int | None = None,
        freeze_vision_tower: bool = False,
        projector_start: str | None = None,
        **kwargs: Any,
    ) -> "CBViLAForConditionalGeneration":
        """Creates a model from an image encoder and a language model, with a new projector.

        Args:
            vision_model_name_or_path: A checkpoint of any CB-ViLA model: its image encoder, and its quantizer if the
                projector reads quantized tokens.
            language_model_name_or_path: A causal language model: a folder, a Hub id, or the model itself.
            projector_config: The projector and its options.
            image_token_id: Token that stands for images; by default the one that
                [`CBViLAConditionalGenerationProcessor`] adds to the language model's tokenizer (of a model that is
                passed itself, the first one outside its vocabulary).
            freeze_vision_tower: Whether training leaves the image encoder as it is.
            projector_start: A checkpoint of the projector's first stage of training, if it has one.
            kwargs: Options of `from_pretrained` for the language model, such as `dtype`.

        Raises:
            ValueError: If the language model cannot be loaded or used, or the options do not go together.
        """
        source = language_model_name_or_path
        language_model = load_language_model(source if isinstance(source, PreTrainedModel) else str(source), kwargs)
        if image_token_id is None and not isinstance(source, PreTrainedModel):
            tokenizer_options = {name: kwargs[name] for name in SHARED_OPTIONS if name in kwargs}
            image_token_id = placeholder_id(AutoTokenizer.from_pretrained(str(source), **tokenizer_options))
        whole = CBViLAModel.from_pretrained(vision_model_name_or_path)
        config = CBViLAConditionalGenerationConfig(
            vision_config=whole.config.vision_config,
            text_config=language_model.config,
            projector_config=projector_config,
            quantizer_config=whole.config.quantizer_config if whole.has_quantizer else None,
            language_model=str(source) if not isinstance(source, PreTrainedModel) else source.name_or_path or None,
            image_token_id=image_token_id,
            freeze_vision_tower=freeze_vision_tower,
        )
        model = cls(config)
        model.model.vision_tower.load_state_dict(whole.vision_model.state_dict())
        if model.model.quantizer is not None:
            model.model.quantizer.load_state_dict(whole.quantizer.state_dict())
        else:
            config.quantizer_config = None
        if projector_start is not None:
            model.model.multi_modal_projector.start_from(projector_start, model.model.vision_tower)
        model.attach_language_model(language_model)
        model.generation_config = _generation_config(language_model, config)
        return model.eval()

    def attach_language_model(self, language_model: PreTrainedModel) -> None:
        """Makes a causal language model part of this one: frozen, and left out of its checkpoints.

        Args:
            language_model: The model. Its parameters are frozen in place.

        Raises:
            ValueError: If it has another width or vocabulary than the configuration, or cannot be used.
        """
        self.model.attach_language_model(language_model)
        self._causal_language_model = (language_model,)
        self.lm_head = language_model.get_output_embeddings()
        left_out = {f"lm_head.{name}" for name in self.lm_head.state_dict()}
        self._keys_to_ignore_on_save = left_out | {f"model.{name}" for name in self.model._keys_to_ignore_on_save}

    def get_input_embeddings(self) -> nn.Module:
        """Returns the token embeddings of the language model."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embeddings of the language model."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """Returns the linear layer that scores tokens."""
        return self.lm_head

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Encodes images as [`CBViLAConditionalGenerationModel.get_image_features`] does."""
        return self.model.get_image_features(pixel_values, **kwargs)

    def get_placeholder_mask(self, input_ids: Tensor, image_features: Tensor | None) -> Tensor:
        """Returns where tokens stand for images, as [`CBViLAConditionalGenerationModel.get_placeholder_mask`] does."""
        return self.model.get_placeholder_mask(input_ids, image_features)

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
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        interpolate_pos_encoding: bool = False,
        num_items_in_batch: Tensor | int | None = None,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CBViLAForConditionalGenerationOutput:
        """Scores the token after each token and, with labels, computes the loss.

        Args:
            input_ids: (B, T) tokens, `image_token_id` k times for each image.
            pixel_values: (b, 3, H, W) images in reading order, those of the first text first.
            attention_mask: (B, T), 0 on padding, which is best on the left.
            position_ids: (B, T); counted without padding when absent.
            past_key_values: Keys and values of previous tokens.
            inputs_embeds: (B, T, D') embeddings with images in them, instead of `input_ids` and `pixel_values`.
            labels: (B, T) the tokens to predict, -100 elsewhere. Tokens of images and padding are never predicted.
            use_cache: Whether to return keys and values; by default as the language model's configuration says, and
                not with labels.
            logits_to_keep: Number of last positions to score, 0 for all; or the indices of positions.
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.
            num_items_in_batch: Number of labelled tokens that the loss is a mean over; by default those of `labels`.
            cache: Another name for `past_key_values`.
            kwargs: Options such as `output_attentions` and `output_hidden_states`, of the language model.

        Raises:
            ValueError: If there is no language model, there are not k tokens for each image, labels have another shape
                than `input_ids`, or arguments exclude each other.
        """
        if labels is not None and not (isinstance(logits_to_keep, int) and logits_to_keep == 0):
            raise ValueError("labels need the scores of all positions: leave logits_to_keep out.")
        output = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=one_cache(cache, past_key_values),
            inputs_embeds=inputs_embeds,
            use_cache=False if use_cache is None and labels is not None else use_cache,
            interpolate_pos_encoding=interpolate_pos_encoding,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = next_token_loss(
                logits, self._predicted(labels, input_ids, attention_mask, logits), num_items_in_batch
            )
        return CBViLAForConditionalGenerationOutput(
            loss=loss,
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            image_hidden_states=output.image_hidden_states,
            **named_cache(output.get(CACHE_NAME)),
        )

    def _predicted(
        self, labels: Tensor, input_ids: Tensor | None, attention_mask: Tensor | None, logits: Tensor
    ) -> Tensor:
        """Returns labels without those of images and padding."""
        if labels.shape != logits.shape[:2]:
            raise ValueError(
                f"labels have shape {tuple(labels.shape)}; expected {tuple(logits.shape[:2])}, as the text."
            )
        if input_ids is not None:
            labels = labels.masked_fill(input_ids == self.config.image_token_id, -100)
        return labels if attention_mask is None else labels.masked_fill(attention_mask == 0, -100)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generates as [`~transformers.GenerationMixin.generate`] does, with a cache passed by either name."""
        return super().generate(*args, **with_cache_named(kwargs))

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Any = None, **model_kwargs: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Repeats inputs for beams, the images of a text one after the other."""
        pixel_values = model_kwargs.pop("pixel_values", None)
        # transformers annotates self by a protocol
        expanded_ids, expanded = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        if pixel_values is not None:
            order = order_of_expanded_images(input_ids, self.config, expand_size)
            expanded["pixel_values"] = pixel_values[order.to(pixel_values.device)]
        return expanded_ids, expanded


def _generation_config(language_model: PreTrainedModel, config: CBViLAConditionalGenerationConfig) -> GenerationConfig:
    """Returns the language model's own options of generation; it never writes the token of images."""
    chosen = deepcopy(language_model.generation_config)
    if config.image_token_id < config.text_config.get_text_config().vocab_size:
        chosen.suppress_tokens = [*(chosen.suppress_tokens or ()), config.image_token_id]
    return chosen


__all__ = ["CBViLAForConditionalGeneration"]
