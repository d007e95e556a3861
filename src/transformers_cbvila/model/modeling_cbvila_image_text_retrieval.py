"""Image-text retrieval: similarities of embeddings to search by, and a matching score of pairs to rank the best by.

Shapes: B texts, B' images, L text tokens, D hidden, E projection width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_cbvila import CBViLAConfig
from .losses_cbvila import at_least_fp32, classification_loss, itc_loss
from .modeling_cbvila import CBViLAModel, check_pair_counts
from .modeling_cbvila_layers import CBViLAPreTrainedModel
from .negatives_cbvila import choose_negatives, content_ids, itm_labels, known_matches


@dataclass
class CBViLAForImageTextRetrievalOutput(ModelOutput):
    """Output of [`CBViLAForImageTextRetrieval`].

    Args:
        loss (`torch.FloatTensor` ()): ITC + ITM, with `return_loss=True`.
        itm_logits (`torch.FloatTensor` (B, 2)): Matching score of each text with its image; class 1 is "matches". With
            `return_loss=True` (3B, 2): then each text with a wrong image, and each image with a wrong text.
        logits_per_image, logits_per_text (`torch.FloatTensor` (B', B) and (B, B')): Similarities over the temperature.
        image_embeds, text_embeds (`torch.FloatTensor` (B', E) and (B, E)): Embeddings of length 1.
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
    similar, and order these by `itm_logits[:, 1]`. With `itc_weight=0` there are no projections: similarities come
    from the encoders' first tokens at the initial temperature, and the loss is ITM alone.

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
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> CBViLAForImageTextRetrievalOutput:
        """Compares every image with every text, and matches each text with its image.

        Args:
            pixel_values: (B', 3, H, W) images; B' = B without `image_index`.
            input_ids: (B, L) texts, or `inputs_embeds` (B, L, D) in their place.
            attention_mask: (B, L), 0 on padding.
            position_ids: (B, L); counted from 0 when absent.
            image_index: (B,) for each text its image.
            image_ids: (B',), text_ids: (B,), known_text_ids: (B', C): What is known to match, see [`known_matches`],
                and never is a negative. Equal images and equal texts are found without.
            negative_hardness: How strongly training prefers similar negatives, from 0 (uniform) to 1 (the default). In
                evaluation the most similar are taken.
            return_loss: Whether to compute the loss; ITM then needs three fusion passes instead of one.
            interpolate_pos_encoding: Whether images of another size than the configured one are allowed.
            output_attentions, output_hidden_states: Whether to return those states of the fusion layers; as the
                configuration says when absent.

        Raises:
            ValueError: If image or text is missing, or their numbers differ and there is no `image_index`.
        """
        options = self.states_to_return(output_attentions, output_hidden_states)
        words = input_ids if inputs_embeds is None else inputs_embeds
        if pixel_values is None or words is None:
            missing = "pixel_values" if pixel_values is None else "input_ids"
            raise ValueError(f"Retrieval compares images with texts: {missing} is missing.")
        check_pair_counts(pixel_values, words, image_index)
        image = self.cbvila.get_image_features(pixel_values, interpolate_pos_encoding, return_dict=True)
        text = self.cbvila.get_text_features(
            input_ids, attention_mask, position_ids=position_ids, inputs_embeds=inputs_embeds, return_dict=True
        )
        image_embeds = F.normalize(at_least_fp32(image.pooler_output), dim=-1)
        text_embeds = F.normalize(at_least_fp32(text.pooler_output), dim=-1)
        similarity = self.cbvila.similarity_logits(image_embeds, text_embeds)

        rows = torch.arange(words.shape[0], device=words.device)
        own = rows if image_index is None else image_index  # the image of each text
        queries, images, itc, labels = rows, own, None, None
        if return_loss:
            image_ids = content_ids(pixel_values) if image_ids is None else image_ids
            text_ids = _text_ids(words, attention_mask) if text_ids is None else text_ids
            known = None if known_text_ids is None else known_text_ids.index_select(0, own)
            matches = known_matches(words.shape[0], words.device, image_ids.index_select(0, own), text_ids, known)
            itc, queries, images, labels = self._mismatch(similarity, matches, own, negative_hardness)
        fused = self.cbvila.fuse_text_with_image(
            text.last_hidden_state.index_select(0, queries),
            None if attention_mask is None else attention_mask.index_select(0, queries),
            image.last_hidden_state,
            images,
            **options,
        )
        itm_logits = self.itm_head(fused.last_hidden_state[:, 0])
        itm = None if labels is None else classification_loss(itm_logits, labels)
        return CBViLAForImageTextRetrievalOutput(
            loss=itm if itc is None else itm + itc,
            itm_logits=itm_logits,
            logits_per_image=similarity,
            logits_per_text=None if similarity is None else similarity.T,
            image_embeds=image_embeds,
            text_embeds=text_embeds,
            itc_loss=itc,
            itm_loss=itm,
            hidden_states=fused.hidden_states,
            attentions=fused.attentions,
            cross_attentions=fused.get("cross_attentions"),
        )

    def _mismatch(self, similarity: Tensor | None, matches: Tensor, own: Tensor, hardness: float | None):
        """The contrastive loss (`None` without projections), and the rows that matching is trained on.

        Args:
            similarity: (B', B) logits, `None` if nothing makes images and texts comparable.
            matches: (B, B) bool, texts (columns) known to be true of the images that the rows' texts have.
            own: (B,) the image of each text.

        Returns:
            The loss; text index, image index and label (3B,) of true pairs, wrong images and wrong texts.
        """
        if similarity is None:
            similarity = torch.zeros_like(matches, dtype=torch.float32)
        else:
            similarity = similarity.index_select(0, own)  # each text brings its image: (B, B)
        itc = itc_loss(similarity, matches) if self.cbvila.has_contrastive_head else None
        draw = (1.0 if hardness is None else hardness) if self.training else None
        negatives = choose_negatives(similarity, matches, draw)
        wrong_image, wrong_text = (index.clamp_min(0) for index in negatives)
        rows = torch.arange(own.shape[0], device=own.device)
        images = torch.cat([own, own.index_select(0, wrong_image), own])
        return itc, torch.cat([rows, rows, wrong_text]), images, itm_labels(*negatives)


def _text_ids(words: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Ids (B,) that equal texts share, given as ids (B, L) or as embeddings (B, L, D), whatever their padding."""
    if attention_mask is not None:
        words = words * attention_mask.view(*attention_mask.shape, *[1] * (words.dim() - 2)).to(words.dtype)
    return content_ids(words.detach())


__all__ = ["CBViLAForImageTextRetrieval"]
