"""Image-text retrieval: similarities of embeddings to search by, and a matching score of pairs to rank the best by.

Shapes: B texts, B' images, L text tokens, D hidden, E projection width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .answer_lists_cbvila import require_distinct
from .configuration_cbvila import CBViLAConfig
from .distributed_cbvila import Processes
from .losses_cbvila import at_least_fp32, classification_loss
from .modeling_cbvila import CBViLAModel, check_pair_counts
from .modeling_cbvila_layers import CBViLAPreTrainedModel, reorder_fields
from .negatives_cbvila import itm_labels
from .pair_similarity_cbvila import ITMBatch, PairSimilarity, itm_batch, pair_ids, pair_similarity


@dataclass
class CBViLAForImageTextRetrievalOutput(ModelOutput):
    """Output of [`CBViLAForImageTextRetrieval`].

    Args:
        loss (`torch.FloatTensor` ()): ITC + ITM, with `return_loss=True`. In training on several processes, its
            mean over processes is the mean over the pairs of all processes.
        itm_logits (`torch.FloatTensor` (B, 2)): Matching score of each text with its image; class 1 is "matches". With
            `return_loss=True` (3B, 2): followed by each text with a negative image and each image with a negative
            text. `None` for candidates, which are not paired with an image.
        logits_per_image, logits_per_text (`torch.FloatTensor` (B', B) and (B, B')): Similarities over the temperature.
        image_embeds, text_embeds (`torch.FloatTensor` (B', E) and (B, E)): Embeddings of unit length.
        itc_loss, itm_loss (`torch.FloatTensor` ()): The terms of `loss`.
        hidden_states, attentions, cross_attentions (tuples, *optional*): Of the fusion layers; rows as `itm_logits`.
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


class CBViLAForImageTextRetrieval(CBViLAPreTrainedModel):
    """CB-ViLA with the contrastive projections and the matching head.

    To search, embed images and texts once (`model.cbvila.get_image_features`, `get_text_features`), take the most
    similar, and order these by `itm_logits.softmax(-1)[:, 1]`; [`CBViLARetriever`] does. With `itc_weight=0` there are
    no projections: similarities come from the encoders' first tokens at the initial temperature, and the loss is ITM
    alone.

    Example:

    ```python
    >>> import torch
    >>> from transformers_cbvila import CBViLAConfig, CBViLAForImageTextRetrieval

    >>> small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> config = CBViLAConfig(vision_config={**small, "image_size": 32}, text_config=small, fusion_config=small)
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
        r"codebook\.",
        r"visual_queries\.",
        r"text_key_projection\.",
        r"patch_mask_token",
        r"(mlm|mim|mim_cls|pixel)_head\.",
        r"twin_layers\.",
    ]

    def __init__(self, config: CBViLAConfig):
        super().__init__(config)
        self.cbvila = CBViLAModel(config, add_codebook=False)
        self.itm_head = nn.Linear(config.fusion_config.hidden_size, 2)
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
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> CBViLAForImageTextRetrievalOutput:
        """Computes the similarity of every image to every text, and a matching score for each text and its image.

        If the numbers of images and texts differ and there is neither `image_index` nor a loss, texts are candidates
        for every image, as in zero-shot classification: only similarities are computed, no matching scores.

        In training on several processes the loss uses the pairs of all processes, which must call this at the same
        time.

        Args:
            pixel_values: (B', 3, H, W) images; B' = B without `image_index`.
            input_ids: (B, L) texts, or `inputs_embeds` (B, L, D) in their place.
            attention_mask: (B, L), 0 on padding.
            position_ids: (B, L); counted from 0 when absent.
            image_index: (B,) index of each text's image.
            image_ids, text_ids, known_text_ids: (B',), (B,) and (B', C) ids that tell which pairs match, see
                [`known_matches`]; these are never negatives. Equal images and equal texts are recognized without ids.
            negative_hardness: How strongly training prefers similar negatives, from 0 (uniform) to 1 (the default).
                Evaluation uses the most similar ones.
            negative_seed: Seed of the draws, a number or a tensor () or (1,), the same on all processes; see
                [`choose_negatives`]. By default torch's random state is used.
            return_loss: Whether to compute the loss; ITM then needs three fusion passes instead of one.
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.
            output_attentions, output_hidden_states: Whether to return those states of the fusion layers; the default
                is the configuration's.

        Raises:
            ValueError: If image or text is missing; if a loss is asked for, their numbers differ and there is no
                `image_index`; or if candidates are the same tokens, or the model was not trained to compare
                (`itc_weight=0`).
        """
        options = self.states_to_return(output_attentions, output_hidden_states)
        words = input_ids if inputs_embeds is None else inputs_embeds
        if pixel_values is None or words is None:
            missing = "pixel_values" if pixel_values is None else "input_ids"
            raise ValueError(f"Retrieval compares images with texts: {missing} is missing.")
        are_candidates = image_index is None and not return_loss and pixel_values.shape[0] != words.shape[0]
        if are_candidates:
            self._check_candidates(input_ids, attention_mask)
        else:
            check_pair_counts(pixel_values, words, image_index, self)
        image = self.cbvila.get_image_features(pixel_values, interpolate_pos_encoding, return_dict=True)
        text = self.cbvila.get_text_features(
            input_ids, attention_mask, position_ids=position_ids, inputs_embeds=inputs_embeds, return_dict=True
        )
        output = self._similarities(image.pooler_output, text.pooler_output)
        if are_candidates:
            return output

        rows = torch.arange(words.shape[0], device=words.device)
        own = rows if image_index is None else image_index  # the image of each text
        tokens = image.last_hidden_state
        pairs = ITMBatch(text.last_hidden_state, attention_mask, own)
        itc = labels = processes = None
        if return_loss:
            processes = Processes.gather_sizes(self.training, words, known_text_ids)
            ids = pair_ids(pixel_values, words, attention_mask, image_ids, text_ids)
            embeds = output.image_embeds, output.text_embeds
            similarity = self._pair_similarity(processes, own, *embeds, *ids, known_text_ids)
            itc = similarity.itc_loss() if self.cbvila.has_contrastive_head else None
            negatives = similarity.negatives(self._hardness(negative_hardness), negative_seed)
            pairs = itm_batch(processes, tokens, own, text.last_hidden_state, attention_mask, negatives)
            labels = itm_labels(*negatives)
            if pairs.fetched_images is not None:
                tokens = torch.cat([tokens, pairs.fetched_images])
        fused = self.cbvila.fuse_text_with_image(pairs.texts, pairs.mask, tokens, pairs.image_index, **options)
        itm_logits = self.itm_head(fused.last_hidden_state[:, 0])
        itm = None if labels is None else classification_loss(itm_logits, labels)
        if processes is not None:
            scales = processes.loss_scales(torch.stack([(labels != -100).sum(), torch.ones_like(own).sum()]))
            itm, itc = itm * scales[0], None if itc is None else itc * scales[1]
        output.loss, output.itm_loss, output.itc_loss = itm if itc is None else itm + itc, itm, itc
        output.itm_logits = itm_logits
        output.hidden_states, output.attentions = fused.hidden_states, fused.attentions
        output.cross_attentions = fused.get("cross_attentions")
        return reorder_fields(output)

    def _similarities(self, images: Tensor, texts: Tensor) -> CBViLAForImageTextRetrievalOutput:
        """Normalised embeddings of images (B', E) and texts (B, E), and all similarities between them."""
        images, texts = (F.normalize(at_least_fp32(embeds), dim=-1) for embeds in (images, texts))
        similarity = self.cbvila.similarity_logits(images, texts)
        return CBViLAForImageTextRetrievalOutput(
            logits_per_image=similarity,
            logits_per_text=None if similarity is None else similarity.T,
            image_embeds=images,
            text_embeds=texts,
        )

    def _check_candidates(self, input_ids: Tensor | None, attention_mask: Tensor | None) -> None:
        """Raises a ValueError if texts are not distinct, or the model has no embeddings trained to compare."""
        if not self.cbvila.has_contrastive_head:
            raise ValueError(
                "There are other numbers of images and of texts, to be compared by their embeddings, and this model's "
                "were never trained for it (itc_weight=0). Pass pairs, with image_index, and use itm_logits."
            )
        if input_ids is None or torch.compiler.is_compiling():
            return
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows = [
            [token for token, is_word in zip(*row, strict=True) if is_word]
            for row in zip(input_ids.tolist(), mask.tolist(), strict=True)
        ]
        require_distinct(rows, [f"text {number}" for number in range(len(rows))], "Texts to choose from")

    def _pair_similarity(
        self, processes, own: Tensor, images: Tensor, texts: Tensor, image_ids, text_ids, known_text_ids
    ) -> PairSimilarity:
        """Similarity of texts (B, E) and their images (B', E), with index `own` (B,), to those of all processes."""
        known_text_ids = None if known_text_ids is None else known_text_ids.index_select(0, own)
        images, image_ids = images.index_select(0, own), image_ids.index_select(0, own)
        ids = image_ids, text_ids, known_text_ids
        return pair_similarity(processes, self.cbvila.similarity_logits, images, texts, *ids)

    def _hardness(self, requested: float | None) -> float | None:
        """The hardness of negatives: as requested in training, `None` (the most similar) in evaluation."""
        if not self.training:
            return None
        return 1.0 if requested is None else requested


__all__ = ["CBViLAForImageTextRetrieval"]
