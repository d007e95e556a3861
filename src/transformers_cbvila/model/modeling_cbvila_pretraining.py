"""Pretraining of CB-ViLA: every term of Eq. 7 in one forward pass, each computed where its inputs meet.

All corruption (masked tokens, masked patches) arrives in the batch; the only draws made here are ITM negatives and
gumbel noise, in training mode.

Shapes: B batch, N patches, L text tokens, D hidden, Dv vision width, K codes, V vocabulary, P pixels of a patch.
"""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_cbvila import CBViLAConfig
from .distributed_cbvila import Processes
from .label_checks_cbvila import check_ids
from .losses_cbvila import (
    at_least_fp32,
    bag_loss,
    classification_loss,
    distilled_loss,
    equal_parts,
    masked_rows,
    take_rows,
)
from .modeling_cbvila import CBViLAModel
from .modeling_cbvila_codebook import CBViLACodebookOutput, codebook_statistics
from .modeling_cbvila_image_objectives import CBViLAImageObjectives, CBViLASeenImage
from .modeling_cbvila_layers import reorder_fields
from .momentum_cbvila import MomentumTargets, momentum_itc_loss
from .negatives_cbvila import itm_labels
from .pair_similarity_cbvila import PairSimilarity, itm_batch, pair_ids, pair_similarity
from .text_head_cbvila import CBViLATextHead


@dataclass
class CBViLALosses(ModelOutput):
    """Unweighted terms: those of Eq. 7, and two more. One is there if its weight is above 0 and its inputs are given.

    In training on several processes, the mean of a term over these is the mean over the labelled tokens, patches or
    pairs of all of them.

    Args:
        pixel: Reconstruction of the image from visual words and text (first term of Eq. 3); needs
            `bool_masked_pos` with `pixel_on="masked"`.
        codebook: Second term of Eq. 3; absent with `codebook_update="ema"`, where nothing descends it.
        commitment: Third term of Eq. 3, without β.
        mim: Masked image modelling on code indices (Eq. 4); needs `bool_masked_pos`.
        itm: Image-text matching with hard negatives (Eq. 5). Its floor is 0.6365 (one match to two mismatches). A pair
            that nothing in the batch is a mismatch for is left out; 0 when that is true of all.
        mlm: Masked language modelling (Eq. 6); needs `input_ids_masked` and `mlm_labels`.
        itc: Image-text contrast over the batch; not in the paper.
        mim_cls_bag: The hidden words from the query [CLS] alone, whatever their order; needs what MIM needs.
    """

    pixel: Tensor | None = None
    codebook: Tensor | None = None
    commitment: Tensor | None = None
    mim: Tensor | None = None
    itm: Tensor | None = None
    mlm: Tensor | None = None
    itc: Tensor | None = None
    mim_cls_bag: Tensor | None = None

    def total(self, weights: dict[str, float]) -> Tensor | None:
        """The weighted sum of the terms that are there; `None` without any."""
        terms = [weights[field.name] * getattr(self, field.name) for field in fields(self) if field.name in self]
        return torch.stack(terms).sum() if terms else None


@dataclass
class CBViLAForPreTrainingOutput(ModelOutput):
    """Output of [`CBViLAForPreTraining`].

    Args:
        loss (`torch.FloatTensor` ()): Weighted sum of `losses`.
        losses ([`CBViLALosses`]): The unweighted terms.
        codebook_indices (`torch.LongTensor` (B, N)): Visual words of the images, Eq. 1.
        codebook_counts (`torch.LongTensor` (K,)): How often each code was chosen in the batch.
        codebook_statistics (`dict`): Usage, perplexity and share of the most frequent code, over this batch only; with
            gumbel noise also `argmin_share`, the share of tokens whose sampled code is the nearest one.
        itm_logits (`torch.FloatTensor` (3B, 2)): True pairs, then each text with a wrong image, then each image with a
            wrong text; class 1 is "matches".
        mlm_logits (`torch.FloatTensor` (masked tokens, V)), mim_logits (`torch.FloatTensor` (masked patches, K)):
            Predictions at the masked places, in the order of `mlm_labels != -100` and `bool_masked_pos`.
        pixel_predictions (`torch.FloatTensor` (B, N, P)): Reconstruction from visual words and text.
        image_embeds, text_embeds (`torch.FloatTensor` (B, E)): Pooled embeddings of length 1.
        hidden_states, attentions, cross_attentions (tuples, *optional*): Of the fusion layers where texts ask images:
            the 3B rows of `itm_logits`, if ITM is on, then the B captions with masked tokens, if MLM is.
    """

    loss: Tensor | None = None
    losses: CBViLALosses | None = None
    codebook_indices: Tensor | None = None
    codebook_counts: Tensor | None = None
    codebook_statistics: dict[str, Tensor] | None = None
    itm_logits: Tensor | None = None
    mlm_logits: Tensor | None = None
    mim_logits: Tensor | None = None
    pixel_predictions: Tensor | None = None
    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


class CBViLAForPreTraining(CBViLAImageObjectives):
    """CB-ViLA with the heads of all pretraining objectives (Sec. III-C).

    Example:

    ```python
    >>> import torch
    >>> from transformers_cbvila import CBViLAConfig, CBViLAForPreTraining

    >>> small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> config = CBViLAConfig(vision_config={**small, "image_size": 32}, text_config=small, fusion_config=small)
    >>> model = CBViLAForPreTraining(config)
    >>> texts = torch.tensor([[101, 7, 102], [101, 8, 102]])
    >>> hidden = torch.tensor([[True, False, True, True], [True, True, False, True]])  # of 4 patches of an image
    >>> output = model(torch.randn(2, 3, 32, 32), texts, bool_masked_pos=hidden)
    >>> list(output.losses)
    ['pixel', 'commitment', 'mim', 'itm', 'itc']

    ```
    """

    _tied_weights_keys = {"mlm_head.decoder.weight": "cbvila.text_model.embeddings.word_embeddings.weight"}

    def __init__(self, config: CBViLAConfig):
        super().__init__(config)
        self.cbvila = CBViLAModel(config)
        self.mlm_head = CBViLATextHead(config.text_config)
        self.itm_head = nn.Linear(config.fusion_config.hidden_size, 2)
        self.add_image_heads()
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.mlm_head.decoder

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.mlm_head.decoder = value  # type: ignore[assignment]

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_ids_masked: Tensor | None = None,
        mlm_labels: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
        caption_dropped: Tensor | None = None,
        image_ids: Tensor | None = None,
        text_ids: Tensor | None = None,
        known_text_ids: Tensor | None = None,
        negative_image_index: Tensor | None = None,
        negative_text_index: Tensor | None = None,
        negative_hardness: float | None = None,
        negative_seed: int | Tensor | None = None,
        loss_weights: dict[str, float] | None = None,
        mim_targets: Tensor | None = None,
        momentum: MomentumTargets | None = None,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> CBViLAForPreTrainingOutput:
        """Computes every objective that is on and whose inputs are there.

        In training on several processes, at the same time, ITC and ITM know the pairs of all, and the means over
        processes of losses and gradients are those of one process with all pairs.

        Args:
            pixel_values: (B, 3, H, W) images.
            input_ids: (B, L) their captions, not corrupted.
            attention_mask: (B, L), 0 on padding.
            input_ids_masked: (B, L) captions with masked tokens, and
            mlm_labels: (B, L) the tokens behind them, -100 elsewhere; for MLM.
            bool_masked_pos: (B, N) patches to hide; for MIM (and the pixel loss with `pixel_on` other than `"all"`).
            caption_dropped: (B,) bool, rows whose images ask an empty caption instead of theirs (pixel loss and MIM).
            image_ids, text_ids, known_text_ids: What is known to match, see [`known_matches`]; never negatives. Equal
                images and equal captions are found without; an augmented copy of an image takes its id to be known.
            negative_image_index, negative_text_index: (B,) ITM negatives, a wrong image for each text and a wrong text
                for each image (-1: none), rows of this batch; chosen by similarity among the pairs of all processes
                when absent.
            negative_hardness: How strongly training prefers similar negatives, from 0 (uniform) to 1 (the paper);
                by default as `negative_source` says.
            negative_seed: Of the draws, a number or a tensor () or (1,), the same on all processes; see
                [`choose_negatives`]. Without, torch's random state decides.
            loss_weights: Weight of each term by name; the configuration's when absent. A term of weight 0 is skipped.
            mim_targets: (B, N) code indices that MIM predicts in place of the images' own, for example those of a
                slower copy of the image encoder.
            momentum: Outputs of momentum copies of the model, as soft targets for ITC and MLM; see
                [`MomentumTargets`]. ITM negatives stay those of the batch.
            interpolate_pos_encoding: Whether images of another size than the configured one are allowed.
            output_attentions, output_hidden_states: Whether to return those states of the fusion layers; as the
                configuration says when absent.

        Raises:
            ValueError: If image or caption is missing, or inputs that belong together do not fit.
        """
        options = self.states_to_return(output_attentions, output_hidden_states)
        self.watch_codes()
        check_pretraining_inputs(pixel_values, input_ids, input_ids_masked, mlm_labels, caption_dropped)
        self.check_mask(pixel_values, bool_masked_pos)
        self._check_targets(mlm_labels, mim_targets, bool_masked_pos)
        self._check_momentum(momentum)
        if (negative_image_index is None) != (negative_text_index is None):
            raise ValueError("ITM needs both negative_image_index and negative_text_index, or neither.")
        weights = self._weights(loss_weights)
        output = CBViLAForPreTrainingOutput(losses=CBViLALosses())
        image = self.cbvila.get_image_features(pixel_values, interpolate_pos_encoding, return_dict=True)
        mlm_on = weights["mlm"] > 0 and input_ids_masked is not None
        text, masked_text = self._encode_texts(input_ids, attention_mask, input_ids_masked if mlm_on else None)
        codebook = self.cbvila.codebook(image.last_hidden_state[:, 1:])
        self._add_codebook_terms(output, codebook, weights)

        ids = pair_ids(pixel_values, input_ids, attention_mask, image_ids, text_ids)
        processes = Processes.gather_sizes(self.training, input_ids, known_text_ids)
        comparison = self._compare(output, processes, image, text, *ids, known_text_ids)
        if self.cbvila.has_contrastive_head and weights["itc"] > 0:
            output.losses.itc = self._contrast(output, comparison, momentum)
        negatives, owners = (negative_image_index, negative_text_index), None
        if weights["itm"] > 0 and negative_image_index is None:
            negatives, owners = comparison.negatives(self._hardness(negative_hardness), negative_seed), processes
        fused = self._ask_image(
            owners, image.last_hidden_state, text, masked_text, attention_mask, negatives, weights, options
        )
        labels = mlm_labels if mlm_on else None
        self._add_itm_and_mlm(output, fused, text.shape[0], negatives, labels, weights, momentum)
        text, attention_mask = self._captions_to_ask(text, attention_mask, caption_dropped)
        seen = CBViLASeenImage(image.last_hidden_state[:, 0], codebook)
        targets = codebook.indices if mim_targets is None else mim_targets
        self._ask_text(output, pixel_values, seen, text, attention_mask, bool_masked_pos, weights, targets)
        output.losses = reorder_fields(output.losses)
        if processes is not None:
            self._share(output.losses, processes, negatives, mlm_labels, bool_masked_pos)
        output.loss = output.losses.total(weights)
        return reorder_fields(output)

    def _check_targets(self, mlm_labels: Tensor | None, mim_targets: Tensor | None, hidden: Tensor | None) -> None:
        """Raises a ValueError unless targets are tokens of the vocabulary and codes of the codebook."""
        if mlm_labels is not None:
            words = self.config.text_config.vocab_size
            rule = f"the vocabulary has {words} tokens, and -100 stands where none is to be predicted"
            check_ids("mlm_labels", mlm_labels, tuple(mlm_labels.shape), words, rule, self)
        if mim_targets is not None:
            shape = None if hidden is None else tuple(hidden.shape)
            if tuple(mim_targets.shape) != shape:
                raise ValueError(f"mim_targets has shape {tuple(mim_targets.shape)}; bool_masked_pos has {shape}.")
            codes = self.config.codebook_size
            check_ids("mim_targets", mim_targets, shape, codes, f"the codebook has {codes} codes", self)

    def _check_momentum(self, momentum: MomentumTargets | None) -> None:
        if momentum is not None and momentum.pairs is not None and not self.cbvila.has_contrastive_head:
            raise ValueError("momentum has pairs for ITC to compare with, and itc_weight=0: leave them out.")

    def _weights(self, changes: dict[str, float] | None) -> dict[str, float]:
        weights = self.config.loss_weights()
        unknown = sorted(set(changes or {}) - set(weights))
        if unknown:
            raise ValueError(f"loss_weights names {', '.join(unknown)}; the losses are {', '.join(weights)}.")
        return {**weights, **(changes or {})}

    def _encode_texts(self, input_ids: Tensor, attention_mask: Tensor | None, masked: Tensor | None):
        """States of the captions and, in the same pass, of their corrupted copies (or None)."""
        if masked is None:
            return self.cbvila.text_model(input_ids, attention_mask=attention_mask).last_hidden_state, None
        mask = None if attention_mask is None else attention_mask.repeat(2, 1)
        both = self.cbvila.text_model(torch.cat([input_ids, masked]), attention_mask=mask).last_hidden_state
        return equal_parts(both, 2)

    def _add_codebook_terms(self, output, codebook: CBViLACodebookOutput, weights: dict[str, float]) -> None:
        if self.config.codebook_update == "loss" and weights["codebook"] > 0:
            output.losses.codebook = codebook.codebook_loss
        if weights["commitment"] > 0:
            output.losses.commitment = codebook.commitment_loss
        output.codebook_indices, output.codebook_counts = codebook.indices, codebook.counts
        output.codebook_statistics = codebook_statistics(codebook.counts)
        if codebook.argmin_share is not None:
            output.codebook_statistics["argmin_share"] = codebook.argmin_share

    def _compare(self, output, processes: Processes | None, image, text: Tensor, *ids) -> PairSimilarity:
        """Similarities of the batch's images with all texts and of its texts with all images."""
        pooled_text = text[:, 0]
        if self.cbvila.has_contrastive_head:
            pooled_text = self.cbvila.text_projection(pooled_text)
        output.image_embeds = F.normalize(at_least_fp32(image.pooler_output), dim=-1)
        output.text_embeds = F.normalize(at_least_fp32(pooled_text), dim=-1)
        embeds = output.image_embeds, output.text_embeds
        return pair_similarity(processes, self.cbvila.similarity_logits, *embeds, *ids)

    def _contrast(self, output, comparison: PairSimilarity, momentum: MomentumTargets | None) -> Tensor:
        """ITC with the batch, or with what momentum copies made of it and of earlier ones."""
        if momentum is None or momentum.pairs is None:
            return comparison.itc_loss()
        embeds = output.image_embeds, output.text_embeds
        return momentum_itc_loss(self.cbvila.similarity_logits, *embeds, momentum, comparison.first)

    def _hardness(self, requested: float | None) -> float | None:
        if not self.training:
            return None
        if requested is not None:
            return requested
        return 1.0 if self.config.negative_source == "similarity" else 0.0

    def _ask_image(self, processes, image, text, masked_text, attention_mask, negatives, weights, options):
        """Text queries, image keys: the true and mismatched pairs of ITM and the texts of MLM, as one fusion pass.

        Args:
            processes: Whom the negatives belong to; `None` if all are of this batch.
        """
        rows = torch.arange(text.shape[0], device=text.device)
        queries, masks, images = [], [], []  # states, their attention mask, which image
        if weights["itm"] > 0:
            batch = itm_batch(processes, image, rows, text, attention_mask, negatives)
            queries, masks, images = [batch.texts], [batch.mask], [batch.image_index]
            if batch.fetched_images is not None:
                image = torch.cat([image, batch.fetched_images])
        if masked_text is not None:
            mask = attention_mask
            if queries and processes is not None:  # as long as the texts of other processes
                mask = torch.ones_like(rows).unsqueeze(1).expand(text.shape[:2]) if mask is None else mask
                masked_text, mask = processes.pad_texts(masked_text), processes.pad_texts(mask)
            queries, masks, images = [*queries, masked_text], [*masks, mask], [*images, rows]
        if not queries:
            return None
        mask = None if masks[-1] is None else torch.cat(masks)
        return self.cbvila.fuse_text_with_image(torch.cat(queries), mask, image, torch.cat(images), **options)

    def _add_itm_and_mlm(self, output, fused, batch: int, negatives, mlm_labels, weights, momentum) -> None:
        """Terms and predictions of the rows that `_ask_image` fused; `mlm_labels` are there if MLM's rows are."""
        if fused is None:
            return
        states = fused.last_hidden_state
        output.hidden_states, output.attentions = fused.hidden_states, fused.attentions
        output.cross_attentions = fused.get("cross_attentions")
        if weights["itm"] > 0:
            output.itm_logits = self.itm_head(states[: 3 * batch, 0])
            output.losses.itm = classification_loss(output.itm_logits, itm_labels(*negatives))
        if mlm_labels is not None:
            masked = masked_rows(mlm_labels != -100)
            output.mlm_logits = self.mlm_head(take_rows(states[-batch:, : mlm_labels.shape[1]], masked))
            output.losses.mlm = classification_loss(output.mlm_logits, take_rows(mlm_labels, masked))
            if momentum is not None:
                targets = momentum.mlm_logits, momentum.alpha
                output.losses.mlm = distilled_loss(output.losses.mlm, output.mlm_logits, *targets)

    def _captions_to_ask(self, text: Tensor, attention_mask: Tensor | None, caption_dropped: Tensor | None):
        """States (B, L, D) and mask (B, L) of the captions, those of dropped ones replaced by an empty caption's.

        Masking a caption's words would not do: the state of its [CLS] has seen them.
        """
        if caption_dropped is None:
            return text, attention_mask
        config, places = self.config.text_config, torch.arange(text.shape[1], device=text.device).unsqueeze(0)
        ids = torch.full_like(places, config.pad_token_id or 0)
        ids = ids.masked_fill(places == 0, config.bos_token_id).masked_fill(places == 1, config.end_token_id)
        empty_mask = (places < 2).to(torch.long if attention_mask is None else attention_mask.dtype)
        empty = self.cbvila.text_model(ids, attention_mask=empty_mask).last_hidden_state
        dropped = caption_dropped.bool().unsqueeze(-1)
        kept_mask = torch.ones_like(empty_mask) if attention_mask is None else attention_mask
        return torch.where(dropped.unsqueeze(-1), empty, text), torch.where(dropped, empty_mask, kept_mask)

    def _ask_text(self, output, pixel_values, whole, text, attention_mask, bool_masked_pos, weights, targets) -> None:
        """Visual-word queries, text keys: pixel reconstruction and MIM, as one fusion pass.

        `whole` is the image without anything hidden, `targets` (B, N) are the codes that MIM predicts.
        """
        hidden = None if bool_masked_pos is None else bool_masked_pos.bool()
        masks = self.pixel_masks(hidden) if weights["pixel"] > 0 else []
        bag_on = self.has_bag_head and weights["mim_cls_bag"] > 0
        mim_on = hidden is not None and (weights["mim"] > 0 or bag_on)
        hides = mim_on or any(mask is not None for mask in masks)
        visible = self.see_visible(pixel_values, whole, hidden) if hides else whole
        queries = [self.pixel_queries(whole if mask is None else visible, mask) for mask in masks]
        if mim_on:
            queries.append(self.mim_queries(visible, hidden))
        if not queries:
            return
        fused = self.ask_texts(queries, self.patch_grid(pixel_values), text, attention_mask)
        states = equal_parts(fused.last_hidden_state, len(queries))
        if masks:
            predictions = [self.pixel_head(self.cbvila.drop_cls(state)) for state in states[: len(masks)]]
            output.losses.pixel = self.pixel_term(predictions, pixel_values, masks)
            output.pixel_predictions = predictions[0]
        if mim_on and weights["mim"] > 0:
            masked = masked_rows(hidden)
            asked = take_rows(self.cbvila.drop_cls(states[-1]), masked)
            output.mim_logits = self.mim_scores(asked, whole.codebook.codes)
            output.losses.mim = classification_loss(output.mim_logits, take_rows(targets, masked))
        if mim_on and bag_on:
            output.losses.mim_cls_bag = bag_loss(self.mim_cls_head(states[-1][:, 0]), targets, hidden)

    def _share(self, losses: CBViLALosses, processes: Processes, negatives, mlm_labels, bool_masked_pos) -> None:
        """Scales means over this batch, so that their mean over processes is the mean over what all have to score.

        With `pixel_on="both"` images count alike, which is exact where all hide as many patches.
        """
        scored = {}  # what a term is a mean over, where that is not the images of the batch
        if "itm" in losses:
            scored["itm"] = itm_labels(*negatives) != -100
        if "mlm" in losses:
            scored["mlm"] = mlm_labels != -100
        scored |= {name: bool_masked_pos for name in ("mim", "mim_cls_bag") if name in losses}
        if "pixel" in losses and self.config.pixel_on == "masked":
            scored["pixel"] = bool_masked_pos
        everything = torch.ones(processes.pairs[processes.rank], dtype=torch.bool, device=self.device)
        counts = [scored.get(name, everything).bool().sum() for name in losses]
        for name, scale in zip(list(losses), processes.loss_scales(torch.stack(counts)), strict=True):
            losses[name] = losses[name] * scale


def check_pretraining_inputs(pixel_values, input_ids, input_ids_masked, mlm_labels, caption_dropped) -> None:
    """Raises a ValueError that names what is missing or does not fit."""
    if pixel_values is None or input_ids is None:
        missing = "pixel_values" if pixel_values is None else "input_ids"
        raise ValueError(f"Pretraining needs pairs of an image and a caption: {missing} is missing.")
    images, captions = pixel_values.shape[0], input_ids.shape[0]
    if images != captions:
        raise ValueError(f"Got {images} image(s) and {captions} caption(s): they must be pairs.")
    if (input_ids_masked is None) != (mlm_labels is None):
        raise ValueError("MLM needs both input_ids_masked and mlm_labels, or neither.")
    for name, value in (("input_ids_masked", input_ids_masked), ("mlm_labels", mlm_labels)):
        if value is not None and value.shape != input_ids.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}; it must be input_ids' {tuple(input_ids.shape)}.")
    if caption_dropped is not None and tuple(caption_dropped.shape) != (captions,):
        raise ValueError(f"caption_dropped has shape {tuple(caption_dropped.shape)} for {captions} caption(s).")


__all__ = ["CBViLAForPreTraining"]
