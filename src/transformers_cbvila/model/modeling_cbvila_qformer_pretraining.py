"""The first stage of BLIP-2: a Q-Former learns to read a frozen image encoder from pairs of images and texts.

Shapes: B pairs, B' images, Q queries, L text tokens, S image tokens, D hidden, Dv vision width, E embedding size, V
vocabulary, k negatives.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_cbvila_qformer import CBViLAQFormerConfig
from .label_checks_cbvila import may_read_values
from .losses_cbvila import at_least_fp32, classification_loss
from .modeling_cbvila_base import CBViLAPreTrainedModel, reorder_fields
from .modeling_cbvila_qformer import CBViLAQFormerModel
from .modeling_cbvila_vision import CBViLAVisionModel
from .negatives_cbvila import itm_labels
from .objective_cbvila import Scored
from .objective_itc_cbvila import CBViLAITC
from .objective_itm_cbvila import CBViLAITM
from .pair_ids_cbvila import PairIds, gather_pair_ids
from .pair_similarity_cbvila import itm_batch
from .qformer_losses_cbvila import (
    IGNORED,
    caption_labels,
    caption_loss,
    query_matching_logits,
    query_similarities,
    smoothed_itc_loss,
)
from .qformer_pairs_cbvila import query_pair_similarity
from .text_head_cbvila import CBViLATextHead

ITG = "itg"  # image-grounded text generation


@dataclass
class CBViLAForQFormerPreTrainingOutput(ModelOutput):
    """Output of [`CBViLAForQFormerPreTraining`].

    Args:
        loss (`torch.FloatTensor` ()): Sum of `losses`.
        losses (`dict[str, torch.FloatTensor]`): The terms () by name: contrast (`itc`), matching (`itm`) and
            image-grounded text generation (`itg`). In training on several processes, the mean of a term over the
            processes is its mean over the pairs or tokens of all of them.
        itm_logits (`torch.FloatTensor` ((1 + 2k) B, 2)): Matching logits of true pairs, then of each text with a
            negative image and of each image with a negative text; class 1 is "matches". Without a loss (B, 2).
        logits_per_image, logits_per_text (`torch.FloatTensor` (B, B)): Similarities divided by the temperature.
        image_embeds (`torch.FloatTensor` (B, Q, E)): Embeddings of the queries, of length 1.
        text_embeds (`torch.FloatTensor` (B, E)): Embeddings of the texts, of length 1.
        query_hidden_states (`torch.FloatTensor` (B, Q, D)): States of the queries, which see the image only.
        caption_logits (`torch.FloatTensor` (B, L, V)): Logits of the next token at each token of the text.
        hidden_states, attentions, cross_attentions (tuples, *optional*): States of the pass in which queries read the
            image and texts are generated (without a loss, queries alone): queries first. The cross-attention
            (B, heads, Q, S) says where in the image each query looks.
    """

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    itm_logits: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    query_hidden_states: Tensor | None = None
    caption_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


class CBViLAForQFormerPreTraining(CBViLAPreTrainedModel):
    """A Q-Former with BLIP-2's objectives of stage 1 on a frozen image encoder.

    The image encoder has no gradients and stays in evaluation mode. That of any CB-ViLA checkpoint can be used:
    `CBViLAForQFormerPreTraining.from_pretrained(folder, config=CBViLAQFormerConfig(vision_config=...))`, with the
    `vision_config` of that checkpoint.

    Example:
    ```python
    >>> import torch
    >>> from transformers_cbvila import CBViLAForQFormerPreTraining, CBViLAQFormerConfig

    >>> small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    >>> config = CBViLAQFormerConfig(vision_config={**small, "image_size": 32}, **small, num_query_tokens=4)
    >>> model = CBViLAForQFormerPreTraining(config)
    >>> texts = torch.tensor([[101, 7, 102], [101, 8, 102]])
    >>> output = model(torch.randn(2, 3, 32, 32), texts)
    >>> list(output.losses), output.image_embeds.shape
    (['itc', 'itm', 'itg'], torch.Size([2, 4, 256]))

    ```
    """

    config_class = CBViLAQFormerConfig
    base_model_prefix = "qformer"
    _names_in_other_checkpoints = {r"^cbvila\.vision_model\.": "vision_model."}
    _keys_to_ignore_on_load_unexpected = [
        r"^cbvila\.",
        r"^objectives\.",
        r"^(entailment|reasoning)_head\.",
        r"^answer_decoder\.",
    ]
    _tied_weights_keys = {"lm_head.decoder.weight": "qformer.embeddings.word_embeddings.weight"}
    _keep_in_fp32_modules_strict = ["logit_scale"]
    _no_split_modules = ["CBViLAVisionLayer", "CBViLAQFormerLayer"]
    _supports_flash_attn = False
    _supports_flex_attn = False

    def __init__(self, config: CBViLAQFormerConfig) -> None:
        super().__init__(config)
        self.qformer = CBViLAQFormerModel(config)
        self.vision_model = CBViLAVisionModel._from_config(config.vision_config)
        self.vision_projection = nn.Linear(config.hidden_size, config.projection_dim)
        self.text_projection = nn.Linear(config.hidden_size, config.projection_dim)
        self.logit_scale = nn.Parameter(at_least_fp32(torch.tensor(config.logit_scale_init_value)))
        self.matching_head = nn.Linear(config.hidden_size, 2)
        self.lm_head = CBViLATextHead(config)
        self.post_init()
        self.train(self.training)

    def init_own_weights(self, std: float) -> None:
        """Initializes the temperature."""
        init.constant_(self.logit_scale, self.config.logit_scale_init_value)

    def train(self, mode: bool = True) -> "CBViLAForQFormerPreTraining":
        """Sets training or evaluation mode; the image encoder is frozen and in evaluation mode in both."""
        super().train(mode)
        # Here, as `from_pretrained` makes new parameters with gradients and then sets evaluation mode.
        self.vision_model.eval().requires_grad_(False)
        return self

    def tie_weights(self, missing_keys: set[str] | None = None, recompute_mapping: bool = True) -> None:
        """Ties the output layer to the word embeddings, and starts queries from text where a checkpoint has none."""
        if missing_keys:
            prefix = f"{self.base_model_prefix}."
            own = {name.removeprefix(prefix) for name in missing_keys if name.startswith(prefix)}
            missing_keys -= {f"{prefix}{name}" for name in self.qformer.start_missing_queries(own)}
        super().tie_weights(missing_keys, recompute_mapping)

    def get_input_embeddings(self) -> nn.Module:
        """Returns the word embeddings."""
        return self.qformer.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word embeddings."""
        self.qformer.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Returns the linear layer that scores tokens."""
        return self.lm_head.decoder

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replaces the linear layer that scores tokens."""
        self.lm_head.decoder = value

    def similarity_scale(self) -> Tensor:
        """Returns 1 / temperature."""
        # Temperatures below 0.01 amplify noise (CLIP's clamp); above 0.5 all pairs are similar (ALBEF's).
        return self.logit_scale.exp().clamp(2.0, 100.0)

    @torch.no_grad()
    def encode_images(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """Encodes images (B', 3, H, W) by the frozen image encoder to tokens (B', S, Dv)."""
        return self.vision_model(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding).last_hidden_state

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_ids: Tensor | None = None,
        text_ids: Tensor | None = None,
        known_text_ids: Tensor | None = None,
        negative_hardness: float | None = None,
        negative_seed: int | Tensor | None = None,
        return_loss: bool = True,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> CBViLAForQFormerPreTrainingOutput:
        """Computes the losses of pairs, or only their similarities and matching scores.

        In distributed training, contrast and matching compare the pairs of all processes, and the means over processes
        of losses and gradients are those of one process with all pairs.

        Args:
            pixel_values: (B, 3, H, W) images.
            input_ids: (B, L) their texts, [CLS] first, padded on the right.
            attention_mask: (B, L), 0 on padding.
            image_ids: (B,) ids of images. Pairs known to match are no negatives, see [`known_matches`]. Equal images
                are found without ids; an augmented copy of an image needs its id.
            text_ids: (B,) ids of texts; equal texts are found without ids.
            known_text_ids: (B, C) ids of all texts of each image, padded with -1.
            negative_hardness: How strongly training prefers similar negatives, from 0 (uniform) to 1, the default.
                Evaluation takes the most similar ones.
            negative_seed: Seed of their choice, a number or a tensor () or (1,), the same on all processes; see
                [`choose_negatives`]. By default torch's random state is used.
            return_loss: Whether to compute the losses; matching then encodes each text and each image three times.
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.
            output_attentions: Whether to return attention weights; by default as the configuration says.
            output_hidden_states: Whether to return the states of all layers; by default as the configuration says.

        Raises:
            ValueError: If image or text is missing, their numbers differ, or texts are padded on the left.
        """
        self._check_inputs(pixel_values, input_ids, attention_mask)
        options = self.states_to_return(output_attentions, output_hidden_states)
        images = self.encode_images(pixel_values, interpolate_pos_encoding)
        read = self._read(images, input_ids if return_loss else None, attention_mask, **options)
        queries, caption = read.last_hidden_state.tensor_split([self.config.num_query_tokens], dim=1)
        output = self._similarities(queries, self.qformer(input_ids, attention_mask).pooler_output)
        output.hidden_states, output.attentions = read.hidden_states, read.attentions
        output.cross_attentions = read.cross_attentions
        if not return_loss:
            output.itm_logits = self._match(images, input_ids, attention_mask)
            return output
        given = image_ids, text_ids, known_text_ids
        ids = gather_pair_ids(self.training, pixel_values, input_ids, attention_mask, *given)
        pairs = query_pair_similarity(ids, output.image_embeds, output.text_embeds, self.similarity_scale())
        hardness = (1.0 if negative_hardness is None else negative_hardness) if self.training else None
        negatives = pairs.negatives(hardness, negative_seed)
        scored = {
            CBViLAITC.name: Scored(smoothed_itc_loss(*pairs[:5], smoothing=self.config.label_smoothing)),
            CBViLAITM.name: self._matching(ids, images, input_ids, attention_mask, negatives),
            ITG: self._generation(caption, input_ids, attention_mask),
        }
        output.losses = _scale_for_ranks(scored, ids)
        output.loss = torch.stack(list(output.losses.values())).sum()
        output.itm_logits = scored[CBViLAITM.name].predictions["itm_logits"]
        output.caption_logits = scored[ITG].predictions["caption_logits"]
        return reorder_fields(output)

    def _read(self, images: Tensor, input_ids: Tensor | None, attention_mask: Tensor | None, **options: bool) -> Any:
        """Returns the output of the queries on image tokens (B, S, Dv), with captions (B, L) to generate if given."""
        if input_ids is None:
            return self.qformer(encoder_hidden_states=images, **options)
        # Queries do not see the text where it is generated, so that one pass serves contrast and generation.
        if self.config.dec_token_id is not None:
            start = torch.full_like(input_ids[:, :1], self.config.dec_token_id)
            input_ids = torch.cat([start, input_ids[:, 1:]], dim=1)
        return self.qformer(input_ids, attention_mask, images, attention_pattern="causal", **options)

    def _similarities(self, queries: Tensor, texts: Tensor) -> CBViLAForQFormerPreTrainingOutput:
        """Returns embeddings and similarities of queries (B, Q, D) and texts (B, D)."""
        image_embeds = F.normalize(at_least_fp32(self.vision_projection(queries)), dim=-1)
        text_embeds = F.normalize(at_least_fp32(self.text_projection(texts)), dim=-1)
        per_image = query_similarities(image_embeds, text_embeds) * self.similarity_scale()
        return CBViLAForQFormerPreTrainingOutput(
            logits_per_image=per_image,
            logits_per_text=per_image.T,
            image_embeds=image_embeds,
            text_embeds=text_embeds,
            query_hidden_states=queries,
        )

    def _match(
        self, images: Tensor, texts: Tensor, attention_mask: Tensor | None, image_index: Tensor | None = None
    ) -> Tensor:
        """Returns matching logits (R, 2) of texts (R, L) and their images, rows of image tokens (B', S, Dv)."""
        states = self.qformer(texts, attention_mask, images, image_index).last_hidden_state
        return query_matching_logits(self.matching_head(states[:, : self.config.num_query_tokens]))

    def _matching(
        self,
        ids: PairIds,
        images: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        negatives: tuple[Tensor, Tensor],
    ) -> Scored:
        """Scores true pairs and negatives, of which those of other processes are fetched."""
        rows = torch.arange(input_ids.shape[0], device=input_ids.device)
        batch = itm_batch(ids.processes, images, rows, input_ids, attention_mask, negatives)
        seen = images if batch.fetched_images is None else torch.cat([images, batch.fetched_images])
        logits = self._match(seen, batch.texts, batch.attention_mask, batch.image_index)
        labels = itm_labels(*negatives)
        return Scored(classification_loss(logits, labels), labels != IGNORED, {"itm_logits": logits})

    def _generation(self, caption: Tensor, input_ids: Tensor, attention_mask: Tensor | None) -> Scored:
        """Scores the next token at each token of the captions, whose states are (B, L, D)."""
        logits, labels = self.lm_head(caption), caption_labels(input_ids, attention_mask)
        return Scored(caption_loss(logits, labels), labels != IGNORED, {"caption_logits": logits})

    def _check_inputs(
        self, pixel_values: Tensor | None, input_ids: Tensor | None, attention_mask: Tensor | None
    ) -> None:
        if pixel_values is None or input_ids is None:
            missing = "pixel_values" if pixel_values is None else "input_ids"
            raise ValueError(f"Pretraining needs pairs of an image and a text: {missing} is missing.")
        if pixel_values.shape[0] != input_ids.shape[0]:
            raise ValueError(
                f"Got {pixel_values.shape[0]} image(s) and {input_ids.shape[0]} text(s): they must be pairs."
            )
        if attention_mask is None or not may_read_values("attention_mask", attention_mask, self):
            return
        if not attention_mask[:, 0].all():
            row = int((attention_mask[:, 0] == 0).nonzero()[0])
            raise ValueError(
                f"Text {row} has padding in the place of its first token, which stands for the text; pad on the "
                "right: tokenizer.padding_side='right'."
            )


def _scale_for_ranks(scored: dict[str, Scored], ids: PairIds) -> dict[str, Tensor]:
    """Scales losses so that their mean over processes is the mean over the items of all of them."""
    losses = {name: term.loss for name, term in scored.items()}
    if ids.processes is None:
        return losses
    pairs = torch.ones(ids.num_local, dtype=torch.bool, device=ids.text_ids.device)
    counts = torch.stack([(pairs if term.counted is None else term.counted).sum() for term in scored.values()])
    scales = ids.processes.loss_scales(counts)
    return {name: loss * scale for (name, loss), scale in zip(losses.items(), scales, strict=True)}


__all__ = ["CBViLAForQFormerPreTraining"]
