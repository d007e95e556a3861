"""Image-text retrieval: similarities of embeddings for search, and matching scores of pairs for reranking.

Shapes: B texts, B' images, L text tokens, D hidden, E projection width.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .answer_lists_cbvila import require_distinct
from .configuration_cbvila import CBViLAConfig
from .explained_cbvila import CBViLAExplainedMatching
from .losses_cbvila import at_least_fp32
from .modeling_cbvila import CBViLAModel, check_pair_counts
from .modeling_cbvila_base import reorder_fields
from .modeling_cbvila_objectives import CBViLAModelWithObjectives, weighted_sum
from .objective_cbvila import CBViLAStep
from .objective_itc_cbvila import CBViLAITC
from .objective_itm_cbvila import CBViLAITM
from .pair_ids_cbvila import gather_pair_ids
from .pair_similarity_cbvila import pair_similarity


@dataclass
class CBViLAForImageTextRetrievalOutput(ModelOutput):
    """Output of [`CBViLAForImageTextRetrieval`].

    Args:
        loss (`torch.FloatTensor` ()): ITC + ITM, with `return_loss=True`. In distributed training the mean over ranks
            is the mean over the pairs of all ranks.
        itm_logits (`torch.FloatTensor` (B, 2)): Matching scores of each text with its image; class 1 is "matches".
            With `return_loss=True` ((1 + 2k) B, 2), followed by each text with k wrong images and each image with k
            wrong texts, and B more, of each image with its negative caption, where these are given. `None` for
            candidates, which have no image.
        logits_per_image, logits_per_text (`torch.FloatTensor` (B', B) and (B, B')): Similarities divided by the
            temperature.
        image_embeds, text_embeds (`torch.FloatTensor` (B', E) and (B, E)): Normalized embeddings.
        itc_loss, itm_loss (`torch.FloatTensor` ()): The terms of `loss`.
        hidden_states, attentions, cross_attentions (tuples, *optional*): States of the fusion layers, in the rows of
            `itm_logits`.
    """

    loss: Tensor | None = None
    itm_logits: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    itc_loss: Tensor | None = None
    itm_loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


class CBViLAForImageTextRetrieval(CBViLAExplainedMatching, CBViLAModelWithObjectives):
    """CB-ViLA with the contrastive projections and the matching head.

    To search, embed images and texts once (`model.cbvila.get_image_features`, `get_text_features`), select the most
    similar, and rerank them by `itm_logits.softmax(-1)[:, 1]`, as [`CBViLARetriever`] does. If ITC has a weight of 0
    there are no projections: similarities are those of the encoders' first tokens at the initial temperature, and the
    loss is ITM only.

    Example:
    ```python
    >>> import torch
    >>> from transformers_cbvila import CBViLAConfig, CBViLAForImageTextRetrieval

    >>> small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> config = CBViLAConfig(vision_config={**small, "image_size": 32}, text_config=small, multimodal_config=small)
    >>> model = CBViLAForImageTextRetrieval(config)
    >>> texts = torch.tensor([[101, 7, 102], [101, 8, 102]])
    >>> output = model(torch.randn(2, 3, 32, 32), input_ids=texts)
    >>> output.itm_logits.shape, output.logits_per_image.shape
    (torch.Size([2, 2]), torch.Size([2, 2]))
    >>> model(torch.randn(2, 3, 32, 32), input_ids=texts, return_loss=True).loss.shape
    torch.Size([])

    ```
    """

    _keys_to_ignore_on_load_unexpected = [
        r"quantizer\.",
        r"visual_queries\.",
        r"text_key_projection\.",
        r"patch_mask_token",
        r"twin_layers\.",
    ]

    def __init__(self, config: CBViLAConfig) -> None:
        super().__init__(config)
        self.cbvila = CBViLAModel(config, add_quantizer=False)
        contrast = [CBViLAITC.name] if self.cbvila.has_contrastive_head else []
        self.add_objectives([*contrast, CBViLAITM.name])
        # The weight of each objective is 1, whatever it was in pretraining. (Not computed in forward: it is compiled.)
        self._weights = {
            term: weight
            for objective in self.active_objectives(None)
            for term, weight in objective.loss_weights(replace(objective.options, weight=1.0)).items()
        }
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        image_index: Tensor | None = None,
        image_ids: Tensor | None = None,
        text_ids: Tensor | None = None,
        known_text_ids: Tensor | None = None,
        negative_hardness: float | None = None,
        negative_seed: int | Tensor | None = None,
        negative_input_ids: Tensor | None = None,
        negative_attention_mask: Tensor | None = None,
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> CBViLAForImageTextRetrievalOutput:
        """Computes similarities of all images and texts, and matching scores of each text with its image.

        If the numbers of images and texts differ, without `image_index` and loss, the texts are candidates for every
        image, as in zero-shot classification: only similarities are computed.

        In distributed training the loss includes the pairs of all ranks, which must train at the same time.

        Args:
            pixel_values: (B', 3, H, W) images; B' = B without `image_index`.
            input_ids: (B, L) texts.
            attention_mask: (B, L), 0 on padding.
            position_ids: (B, L); counted from 0 when absent.
            inputs_embeds: (B, L, D) token embeddings instead of `input_ids`.
            image_index: (B,) the image of each text.
            image_ids: (B',) ids of images, of which equal ones are never negatives, see [`known_matches`]. Equal
                inputs are found without ids.
            text_ids: (B,) ids of texts, likewise.
            known_text_ids: (B', C) ids of the texts that match each image.
            negative_hardness: How strongly training prefers similar negatives, from 0 (uniform) to 1; by default as
                the objective's `negative_source` says. Evaluation takes the most similar ones.
            negative_seed: Seed for sampling negatives, a number or a tensor () or (1,), equal on all ranks, see
                [`choose_negatives`]; torch's random state by default.
            negative_input_ids: (B, L) for each text another one that is false of its image, such as the same with two
                words swapped: one more negative of ITM.
            negative_attention_mask: (B, L), 0 on padding; rows of zeros stand where there is none.
            return_loss: Whether to compute the loss; ITM then needs three fusion passes instead of one.
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.
            output_attentions: Whether to return the attention weights of the fusion layers; by default as the
                configuration says.
            output_hidden_states: Whether to return the states of the fusion layers; by default as the configuration
                says.

        Raises:
            ValueError: If image or text is missing; if there is a loss, their numbers differ and there is no
                `image_index`; or if candidates have the same tokens or the model has no projections (ITC has
                weight 0).
        """
        options = self.states_to_return(output_attentions, output_hidden_states)
        texts = input_ids if inputs_embeds is None else inputs_embeds
        self._check_inputs(pixel_values, texts)
        are_candidates = image_index is None and not return_loss and pixel_values.shape[0] != texts.shape[0]
        if are_candidates:
            self._check_candidates(input_ids, attention_mask)
        else:
            check_pair_counts(pixel_values, texts, image_index, self)
        image = self.cbvila.get_image_features(pixel_values, interpolate_pos_encoding, return_dict=True)
        text = self.cbvila.get_text_features(
            input_ids, attention_mask, position_ids=position_ids, inputs_embeds=inputs_embeds, return_dict=True
        )
        output = self._similarities(image.pooler_output, text.pooler_output)
        if are_candidates:
            return output

        rows = torch.arange(texts.shape[0], device=texts.device)
        own = rows if image_index is None else image_index
        if return_loss:
            given = pixel_values, texts, attention_mask, image_ids, text_ids, known_text_ids
            ids = gather_pair_ids(self.training, *given, image_index=own)
            embeds = output.image_embeds.index_select(0, own), output.text_embeds
            step = CBViLAStep(
                weights=self._weights,
                training=self.training,
                pixel_values=pixel_values,
                images=image.last_hidden_state,
                texts=text.last_hidden_state,
                attention_mask=attention_mask,
                image_index=own,
                image_embeds=embeds[0],
                text_embeds=embeds[1],
                pairs=pair_similarity(ids, self.cbvila.similarity_logits, *embeds),
                similarity=self.cbvila.similarity_logits,
                similarity_scale=self.cbvila.similarity_scale(),
                processes=ids.processes,
                negative_texts=self.encode_negative_texts(negative_input_ids, negative_attention_mask, texts.shape[0]),
                negative_hardness=negative_hardness,
                negative_seed=negative_seed,
            )
            fused = self._add_losses(output, step, options)
        else:
            fused = self.cbvila.fuse_text_with_image(
                text.last_hidden_state, attention_mask, image.last_hidden_state, own, **options
            )
            output.itm_logits = self.itm.head(fused.last_hidden_state[:, 0])
        output.hidden_states, output.attentions = fused.hidden_states, fused.attentions
        output.cross_attentions = fused.get("cross_attentions")
        return reorder_fields(output)

    @property
    def itm(self) -> Any:
        """The image-text matching objective."""
        return self.objectives[CBViLAITM.name]

    def _similarities(self, images: Tensor, texts: Tensor) -> CBViLAForImageTextRetrievalOutput:
        """Returns normalized embeddings of images (B', E) and texts (B, E), and their similarities."""
        images, texts = (F.normalize(at_least_fp32(embeds), dim=-1) for embeds in (images, texts))
        similarity = self.cbvila.similarity_logits(images, texts)
        return CBViLAForImageTextRetrievalOutput(
            logits_per_image=similarity,
            logits_per_text=None if similarity is None else similarity.T,
            image_embeds=images,
            text_embeds=texts,
        )

    def _add_losses(self, output: CBViLAForImageTextRetrievalOutput, step: CBViLAStep, options: dict[str, Any]) -> Any:
        """Adds the losses and the ITM logits to the output; returns the output of the fusion encoder."""
        scored, fused = self.score(step, self.active_objectives(None), **options)
        losses = self.scale_for_ranks(step, scored)
        output.loss = weighted_sum(losses, step.weights)
        output.itm_loss, output.itc_loss = losses[CBViLAITM.name], losses.get(CBViLAITC.name)
        output.itm_logits = scored[CBViLAITM.name].predictions["itm_logits"]
        return fused

    def _check_inputs(self, pixel_values: Tensor | None, texts: Tensor | None) -> None:
        if pixel_values is None or texts is None:
            missing = "pixel_values" if pixel_values is None else "input_ids"
            raise ValueError(f"Retrieval needs images and texts: {missing} is missing.")

    def _check_candidates(self, input_ids: Tensor | None, attention_mask: Tensor | None) -> None:
        """Raises a ValueError unless the model compares embeddings and all texts have different tokens."""
        if not self.cbvila.has_contrastive_head:
            raise ValueError(
                "The numbers of images and texts differ, so that they are compared by embeddings, and this model's "
                "were never trained for it (ITC has weight 0). Pass pairs, with image_index, and use itm_logits."
            )
        if input_ids is None or torch.compiler.is_compiling():
            return
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows = [
            [token for token, is_token in zip(*row, strict=True) if is_token]
            for row in zip(input_ids.tolist(), mask.tolist(), strict=True)
        ]
        require_distinct(rows, [f"text {number}" for number in range(len(rows))], "Texts to choose from")


__all__ = ["CBViLAForImageTextRetrieval"]
