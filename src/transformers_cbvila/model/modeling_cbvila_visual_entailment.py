"""Visual entailment (Sec. IV-B): whether an image entails a text, contradicts it, or neither.

Shapes: B batch, B' images, L text tokens, D hidden.
"""

from torch import Tensor
from transformers.utils.generic import can_return_tuple

from .configuration_cbvila import CBViLAConfig
from .explained_cbvila import CBViLAExplainedClasses
from .losses_cbvila import classification_loss
from .modeling_cbvila import PRETRAINING_ONLY, CBViLAModel
from .modeling_cbvila_base import CBViLAPreTrainedModel
from .modeling_cbvila_classification import (
    ENTAILMENT_LABELS,
    CBViLAClassificationHead,
    CBViLAClassificationOutput,
    check_labels,
    label_ids,
    with_labels,
)


class CBViLAForVisualEntailment(CBViLAExplainedClasses, CBViLAPreTrainedModel):
    """Classifies pairs of an image (the premise) and a text (the hypothesis).

    The classes are `entailment`, `neutral` and `contradiction` unless `config.id2label` has others. As data sets
    differ in their order, use names, with [`~CBViLAForVisualEntailment.label_ids`].

    Example:
    ```python
    >>> import torch
    >>> from transformers_cbvila import CBViLAConfig, CBViLAForVisualEntailment

    >>> small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> config = CBViLAConfig(vision_config={**small, "image_size": 32}, text_config=small, multimodal_config=small)
    >>> model = CBViLAForVisualEntailment(config)
    >>> labels = model.label_ids(["neutral", "contradiction"])
    >>> texts = torch.tensor([[101, 7, 102], [101, 8, 102]])
    >>> output = model(torch.zeros(2, 3, 32, 32), input_ids=texts, labels=labels)
    >>> output.logits.shape, model.config.id2label[2]
    (torch.Size([2, 3]), 'contradiction')

    ```
    """

    _keys_to_ignore_on_load_unexpected = PRETRAINING_ONLY

    def __init__(self, config: CBViLAConfig) -> None:
        config = with_labels(config, ENTAILMENT_LABELS, type(self).__name__)
        super().__init__(config)
        size = config.multimodal_config.hidden_size
        self.cbvila = CBViLAModel(config, add_contrastive=False, add_quantizer=False)
        self.entailment_head = CBViLAClassificationHead(size, size, config.num_labels)
        self.post_init()

    def label_ids(self, names: str | list[str]) -> Tensor:
        """Returns `labels` (B,) for class names.

        Raises:
            ValueError: If a name is not among `config.id2label`.
        """
        return label_ids(names, self.config).to(self.device)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        image_index: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> CBViLAClassificationOutput:
        """Classifies pairs of images and texts.

        Args:
            pixel_values: (B', 3, H, W) images; B' = B without `image_index`.
            input_ids: (B, L) texts.
            attention_mask: (B, L), 0 on padding.
            position_ids: (B, L); counted from 0 when absent.
            inputs_embeds: (B, L, D) token embeddings instead of `input_ids`.
            labels: (B,) class ids; the loss ignores -100.
            image_index: (B,) the image of each text.
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.
            output_attentions: Whether to return the attention weights of the fusion layers; by default as the
                configuration says.
            output_hidden_states: Whether to return the states of the fusion layers; by default as the configuration
                says.

        Raises:
            ValueError: If image or text is missing, their numbers differ and there is no `image_index`, or labels are
                not class ids.
        """
        fused = self.cbvila.encode_pairs(
            pixel_values,
            input_ids,
            attention_mask,
            position_ids,
            inputs_embeds,
            image_index,
            interpolate_pos_encoding,
            **self.states_to_return(output_attentions, output_hidden_states),
        )
        logits = self.entailment_head(fused.last_hidden_state[:, 0])
        if labels is not None:
            check_labels(labels, logits.shape[0], self.config, self)
        return CBViLAClassificationOutput(
            loss=None if labels is None else classification_loss(logits, labels),
            logits=logits,
            hidden_states=fused.hidden_states,
            attentions=fused.attentions,
            cross_attentions=fused.get("cross_attentions"),
        )


__all__ = ["CBViLAForVisualEntailment"]
