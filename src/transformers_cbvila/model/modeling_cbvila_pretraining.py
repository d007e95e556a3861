"""Pretraining of CB-ViLA: all terms of Eq. 7 in one forward pass.

Masked tokens and masked patches are part of the batch. The forward pass is random only in training mode: it samples
ITM negatives and gumbel noise.

Shapes: B batch, N patches, L text tokens, D hidden, Dv vision width, E embedding width, ΣK codes of all books, V
vocabulary, P pixels of a patch.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .codebook_statistics_cbvila import codebook_statistics
from .configuration_cbvila import CBViLAConfig
from .explained_cbvila import CBViLAExplainedMatching
from .losses_cbvila import at_least_fp32, equal_parts
from .modeling_cbvila import CBViLAModel
from .modeling_cbvila_base import reorder_fields
from .modeling_cbvila_objectives import weighted_sum
from .modeling_cbvila_reconstruction import CBViLAModelWithReconstruction
from .modeling_cbvila_vision import tokens_to_quantize
from .momentum_cbvila import MomentumTargets
from .objective_cbvila import CBViLAObjective, CBViLAStep, OtherView, Scored
from .objective_mlm_cbvila import CBViLAMLM
from .pair_ids_cbvila import gather_pair_ids
from .pair_similarity_cbvila import pair_similarity
from .pretraining_inputs_cbvila import (
    check_loss_weights,
    check_momentum,
    check_pairs,
    check_targets,
    given_negatives,
    other_view,
)
from .quantizer_output_cbvila import CBViLAQuantizerHints, CBViLAQuantizerOutput


@dataclass
class CBViLAForPreTrainingOutput(ModelOutput):
    """Output of [`CBViLAForPreTraining`].

    Args:
        loss (`torch.FloatTensor` ()): Weighted sum of `losses`.
        losses (`dict[str, torch.FloatTensor]`): The unweighted terms () by name, of those with a weight above 0 whose
            inputs are given. In training on several processes, the mean of a term over the processes is its mean over
            the labelled tokens, patches or pairs of all of them.
        codebook_indices (`torch.LongTensor` (B, N) or (B, N, books)): Code indices of the images, Eq. 1.
        codebook_counts (`torch.LongTensor` (ΣK,)): How often each code was chosen in the batch, book after book.
        codebook_statistics (`dict`): Usage, perplexity and share of the most frequent code in this batch, and the
            metrics of the quantizer, such as `argmin_share` with gumbel noise, the share of tokens whose sampled code
            is the nearest one.
        metrics (`dict`): Figures () of objectives for the log, such as `codis_usage`.
        itm_logits (`torch.FloatTensor` ((1 + 2k) B, 2)): Logits of true pairs, then of each text with a negative image
            (with its first one, then with its second, up to the k-th), then of each image with a negative text, and
            with its own negative caption where the data gives those; class 1 is "matches".
        mlm_logits (`torch.FloatTensor` (masked tokens, V)): Logits at masked tokens, in the order of
            `mlm_labels != -100`.
        mim_logits (`torch.FloatTensor` (masked patches, ΣK)): Logits at masked patches, in the order of
            `bool_masked_pos`.
        pixel_predictions (`torch.FloatTensor` (B, N, P)): Pixels reconstructed from quantized tokens and text.
        image_embeds, text_embeds (`torch.FloatTensor` (B, E)): Embeddings of length 1.
        hidden_states, attentions, cross_attentions (tuples, *optional*): States of the fusion layers where texts
            attend to images: the rows of `itm_logits` if ITM is on, then the B captions with masked tokens if MLM
            is.
    """

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    codebook_indices: Tensor | None = None
    codebook_counts: Tensor | None = None
    codebook_statistics: dict[str, Tensor] | None = None
    metrics: dict[str, Tensor] | None = None
    itm_logits: Tensor | None = None
    mlm_logits: Tensor | None = None
    mim_logits: Tensor | None = None
    pixel_predictions: Tensor | None = None
    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


class CBViLAForPreTraining(CBViLAExplainedMatching, CBViLAModelWithReconstruction):
    """CB-ViLA with the heads of all pretraining objectives (Sec. III-C).

    Example:
    ```python
    >>> import torch
    >>> from transformers_cbvila import CBViLAConfig, CBViLAForPreTraining

    >>> small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> config = CBViLAConfig(vision_config={**small, "image_size": 32}, text_config=small, multimodal_config=small)
    >>> model = CBViLAForPreTraining(config)
    >>> texts = torch.tensor([[101, 7, 102], [101, 8, 102]])
    >>> masked = torch.tensor([[True, False, True, True], [True, True, False, True]])  # 4 patches per image
    >>> output = model(torch.randn(2, 3, 32, 32), texts, bool_masked_pos=masked)
    >>> list(output.losses)
    ['itm', 'pixel', 'commitment', 'mim', 'itc']

    ```
    """

    _tied_weights_keys = {"objectives.mlm.head.decoder.weight": "cbvila.text_model.embeddings.word_embeddings.weight"}

    def __init__(self, config: CBViLAConfig) -> None:
        super().__init__(config)
        self.cbvila = CBViLAModel(config)
        self.add_objectives(config.active_objectives())
        self.post_init()

    def get_output_embeddings(self) -> nn.Module | None:
        """Returns the output layer of MLM, if the model has one."""
        if CBViLAMLM.name not in self.objectives:
            return None
        mlm: Any = self.objectives[CBViLAMLM.name]
        return mlm.head.decoder

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replaces the output layer of MLM."""
        mlm: Any = self.objectives[CBViLAMLM.name]
        mlm.head.decoder = value

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_ids_masked: Tensor | None = None,
        mlm_labels: Tensor | None = None,
        masked_words: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
        caption_dropped: Tensor | None = None,
        image_ids: Tensor | None = None,
        text_ids: Tensor | None = None,
        known_text_ids: Tensor | None = None,
        negative_image_index: Tensor | None = None,
        negative_text_index: Tensor | None = None,
        negative_hardness: float | None = None,
        negative_seed: int | Tensor | None = None,
        negative_input_ids: Tensor | None = None,
        negative_attention_mask: Tensor | None = None,
        loss_weights: dict[str, float] | None = None,
        mim_targets: Tensor | None = None,
        token_classes: Tensor | None = None,
        other_pixel_values: Tensor | None = None,
        other_token_classes: Tensor | None = None,
        momentum: MomentumTargets | None = None,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> CBViLAForPreTrainingOutput:
        """Computes the losses of all active objectives whose inputs are given.

        In distributed training, ITC and ITM compare the pairs of all processes, and the means over processes of losses
        and gradients are those of one process with all pairs.

        Args:
            pixel_values: (B, 3, H, W) images.
            input_ids: (B, L) their captions, without masked tokens.
            attention_mask: (B, L), 0 on padding.
            input_ids_masked: (B, L) captions with masked tokens, for MLM.
            mlm_labels: (B, L) the original tokens at masked ones, -100 elsewhere.
            masked_words: (B, L) bool, words that objectives predict from the image's codes.
            bool_masked_pos: (B, N) patches to mask, for MIM and, unless it is `on` all patches, the pixel loss.
            caption_dropped: (B,) bool, images that attend to an empty caption in MIM and the pixel loss.
            image_ids: (B,) ids of images. Pairs known to match are no negatives, see [`known_matches`]. Equal images
                are found without ids; an augmented copy of an image needs its id.
            text_ids: (B,) ids of captions; equal captions are found without ids.
            known_text_ids: (B, C) ids of all captions of each image, padded with -1.
            negative_image_index: (B,) or (B, k) ITM negatives, the rows of k negative images for each text (-1: none).
                By default they are chosen by similarity among the pairs of all processes.
            negative_text_index: (B,) or (B, k) the rows of negative texts for each image.
            negative_hardness: How strongly training prefers similar negatives, from 0 (uniform) to 1 (as in the
                paper); by default as the objective's `negative_source` says.
            negative_seed: Seed of their choice, a number or a tensor () or (1,), the same on all processes; see
                [`choose_negatives`]. By default torch's random state is used.
            negative_input_ids: (B, L) a text for each image that is false of it, such as its caption with two words
                swapped: one more negative of ITM.
            negative_attention_mask: (B, L), 0 on padding; rows of zeros stand for images without such a text.
            loss_weights: Weight of each term by name; the configuration's by default. Terms of weight 0 are skipped.
            mim_targets: (B, N) or (B, N, books) code indices that MIM predicts in place of the images' own, such as
                those of an EMA teacher.
            token_classes: (B, N) a class for each patch, -1 where it is not known, for quantizers that use one.
                (transformers' Trainer would treat an argument with `label` in its name as required for evaluation.)
            other_pixel_values: (B, 3, H, W) another view of each image, for objectives that compare both.
            other_token_classes: (B, N) the classes of its patches.
            momentum: Outputs of a momentum encoder, as soft targets for ITC and MLM; see
                [`MomentumTargets`]. ITM negatives stay those of the batch.
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.
            output_attentions: Whether to return the attention weights of the fusion layers; by default as the
                configuration says.
            output_hidden_states: Whether to return the states of the fusion layers; by default as the configuration
                says.

        Raises:
            ValueError: If image or caption is missing, or inputs do not fit each other.
        """
        options = self.states_to_return(output_attentions, output_hidden_states)
        self.warn_without_after_step()
        check_pairs(pixel_values, input_ids, input_ids_masked, mlm_labels, caption_dropped, masked_words)
        self.check_mask(pixel_values, bool_masked_pos)
        check_targets(self, mlm_labels, mim_targets, bool_masked_pos)
        check_momentum(self, momentum, input_ids)
        objectives, weights = self._objectives(loss_weights or {})
        step = self._encode(
            input_ids_masked if any("masked_text" in objective.needs for objective in objectives) else None,
            (image_ids, text_ids, known_text_ids),
            interpolate_pos_encoding,
            weights=weights,
            pixel_values=pixel_values,
            input_ids=input_ids,
            attention_mask=attention_mask,
            mlm_labels=mlm_labels,
            masked_words=masked_words,
            bool_masked_pos=None if bool_masked_pos is None else bool_masked_pos.bool(),
            caption_dropped=caption_dropped,
            hints=CBViLAQuantizerHints.of(token_classes),
            other_view=other_view(other_pixel_values, other_token_classes),
            mim_targets=mim_targets,
            momentum=momentum,
            negative_texts=self.encode_negative_texts(
                negative_input_ids, negative_attention_mask, pixel_values.shape[0]
            ),
            negatives=given_negatives(negative_image_index, negative_text_index),
            negative_hardness=negative_hardness,
            negative_seed=negative_seed,
        )
        scored, fused = self.score(step, objectives, **options)
        return self._output(step, scored, fused)

    def _objectives(self, changes: dict[str, float]) -> tuple[list[CBViLAObjective], dict[str, float]]:
        """Returns the active objectives, and the weights of all terms."""
        check_loss_weights(self, changes)
        weights = {**self.config.loss_weights(), **changes}
        return self.active_objectives(weights), weights

    def _encode(
        self,
        masked_ids: Tensor | None,
        ids: tuple[Tensor | None, Tensor | None, Tensor | None],
        interpolate_pos_encoding: bool,
        **given: Any,
    ) -> CBViLAStep:
        """Encodes a batch; `given` are the fields of the step that are taken as they are."""
        pixel_values, input_ids, attention_mask = (given[n] for n in ("pixel_values", "input_ids", "attention_mask"))
        image = self.cbvila.get_image_features(pixel_values, interpolate_pos_encoding, return_dict=True)
        text, masked_text = self._encode_texts(input_ids, attention_mask, masked_ids)
        quantized = None
        if self.cbvila.has_quantizer:
            quantized = self.cbvila.quantizer(tokens_to_quantize(image), hints=given["hints"])
        momentum: MomentumTargets | None = given["momentum"]
        pair_ids = None if momentum is None else momentum.ids
        if pair_ids is None:
            pair_ids = gather_pair_ids(self.training, pixel_values, input_ids, attention_mask, *ids)
        embeds, similarity = self._embeds(image.pooler_output, text), self.cbvila.similarity_logits
        return CBViLAStep(
            training=self.training,
            images=image.last_hidden_state,
            texts=text,
            masked_texts=masked_text,
            word_embeddings=self.cbvila.get_input_embeddings().weight.detach(),
            image_index=torch.arange(text.shape[0], device=text.device),
            image_embeds=embeds[0],
            text_embeds=embeds[1],
            pairs=pair_similarity(pair_ids, similarity, *embeds),
            similarity=similarity,
            similarity_scale=self.cbvila.similarity_scale(),
            quantizer=self.cbvila.quantizer if self.cbvila.has_quantizer else None,
            quantized=quantized,
            pixel_loss=self.pixel_loss_of(pixel_values),
            pixels_are_fused=self.pixels_are_fused,
            quantize=partial(self._quantize, interpolate_pos_encoding),
            processes=pair_ids.processes,
            **given,
        )

    def _quantize(self, interpolate_pos_encoding: bool, view: OtherView) -> CBViLAQuantizerOutput:
        """Encodes and quantizes another view of the images."""
        image = self.cbvila.vision_model(view.pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        return self.cbvila.quantizer(tokens_to_quantize(image), remember=False, hints=view.hints)

    def _encode_texts(
        self, input_ids: Tensor, attention_mask: Tensor | None, masked: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Encodes captions (B, L) and, in the same pass, those with masked tokens if given, to states (B, L, D)."""
        if masked is None:
            return self.cbvila.text_model(input_ids, attention_mask=attention_mask).last_hidden_state, None
        mask = None if attention_mask is None else attention_mask.repeat(2, 1)
        both = self.cbvila.text_model(torch.cat([input_ids, masked]), attention_mask=mask).last_hidden_state
        text, masked_text = equal_parts(both, 2)
        return text, masked_text

    def _embeds(self, pooled_image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Returns embeddings (B, E) of length 1 of images and texts."""
        pooled_text = text[:, 0]
        if self.cbvila.has_contrastive_head:
            pooled_text = self.cbvila.text_projection(self.cbvila.projected_states(text))
        return F.normalize(at_least_fp32(pooled_image), dim=-1), F.normalize(at_least_fp32(pooled_text), dim=-1)

    def _output(self, step: CBViLAStep, scored: dict[str, Scored], fused: Any) -> CBViLAForPreTrainingOutput:
        output = CBViLAForPreTrainingOutput(
            losses=self.scale_for_ranks(step, scored), image_embeds=step.image_embeds, text_embeds=step.text_embeds
        )
        output.loss = weighted_sum(output.losses, step.weights)
        for term in scored.values():
            for name, value in term.predictions.items():
                setattr(output, name, value)
        output.metrics = {k: v for term in scored.values() for k, v in term.metrics.items()} or None
        if step.quantized is not None:
            output.codebook_indices, output.codebook_counts = step.quantized.indices, step.quantized.counts
            statistics = codebook_statistics(step.quantized.counts, self.cbvila.quantizer.book_sizes)
            output.codebook_statistics = statistics | (step.quantized.metrics or {})
        if fused is not None:
            output.hidden_states, output.attentions = fused.hidden_states, fused.attentions
            output.cross_attentions = fused.get("cross_attentions")
        return reorder_fields(output)


__all__ = ["CBViLAForPreTraining"]
