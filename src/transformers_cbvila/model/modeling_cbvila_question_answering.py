"""Visual question answering (Sec. IV-E): question and image are fused, and a decoder generates the answer.

Shapes: B questions, B' images, L question tokens, A answer tokens, R candidate answers, D hidden, V vocabulary.
"""

import os
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.utils import ModelOutput, logging
from transformers.utils.generic import can_return_tuple

from .answer_lists_cbvila import CBViLAAnswerTrie, check_answer_list, check_answers, distinct_rows
from .answer_ranking_cbvila import CBViLAAnswerRanking, EncodedQuestions, shift_right
from .configuration_cbvila import CBViLAConfig
from .explained_cbvila import CBViLAExplainedAnswers
from .losses_cbvila import answer_loss
from .messages_cbvila import shown
from .modeling_cbvila import PRETRAINING_ONLY, CBViLAModel
from .modeling_cbvila_answer_decoder import CBViLAAnswerDecoder, decoder_config
from .modeling_cbvila_base import CBViLAPreTrainedModel, reorder_fields
from .objective_mlm_cbvila import HEAD_OF_CHECKPOINT

logger = logging.get_logger(__name__)

_NEW_DECODER = (
    "The answer decoder was initialized from the fusion encoder and the text embeddings: it gives no sensible answers "
    "until it is fine-tuned."
)


@dataclass
class CBViLAForQuestionAnsweringOutput(ModelOutput):
    """Output of [`CBViLAForQuestionAnswering`].

    Args:
        loss (`torch.FloatTensor` ()): Negative log-likelihood per answer, when `labels` are given.
        logits (`torch.FloatTensor` (B, A, V)): Scores of each token of the answer, when `labels` are given.
        question_hidden_states (`torch.FloatTensor` (B, L, D)): States of the question fused with the image.
        hidden_states, attentions, cross_attentions (tuples, *optional*): States of the fusion layers.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    question_hidden_states: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


class CBViLAForQuestionAnswering(CBViLAExplainedAnswers, CBViLAPreTrainedModel, GenerationMixin):
    """Generates answers to questions about images, or ranks candidate answers.

    If the checkpoint has no answer decoder (a base or pretraining model), the decoder is initialized from the fusion
    encoder and the text embeddings, as in ALBEF.

    Example:
    ```python
    >>> import torch
    >>> from transformers_cbvila import CBViLAConfig, CBViLAForQuestionAnswering

    >>> small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> config = CBViLAConfig(vision_config={**small, "image_size": 32}, text_config=small, multimodal_config=small)
    >>> model = CBViLAForQuestionAnswering(config).eval()
    >>> question = {"pixel_values": torch.randn(1, 3, 32, 32), "input_ids": torch.tensor([[101, 7, 102]])}
    >>> answers = torch.tensor([[8, 102], [9, 102]])  # tokens and [SEP]; -100 pads
    >>> model(**question, labels=answers[:1]).logits.shape
    torch.Size([1, 2, 30522])
    >>> model.rank_answers(**question, answer_labels=answers).scores.shape
    torch.Size([1, 2])
    >>> int(model.generate(**question, answer_labels=answers)[0, 1]) in (8, 9)
    True

    ```
    """

    _keys_to_ignore_on_load_unexpected = PRETRAINING_ONLY
    # The MLM head of pretraining predicts answer tokens here.
    _names_in_other_checkpoints = {HEAD_OF_CHECKPOINT: "answer_decoder.lm_head."}
    _tied_weights_keys = {
        "answer_decoder.lm_head.decoder.weight": "answer_decoder.embeddings.word_embeddings.weight",
    }

    def __init__(self, config: CBViLAConfig) -> None:
        super().__init__(config)
        self.cbvila = CBViLAModel(config, add_contrastive=False, add_quantizer=False)
        self.answer_decoder = CBViLAAnswerDecoder._from_config(decoder_config(config))
        self.post_init()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Loads a model, which generates with a cache also if it was saved while Trainer had disabled it."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        generation = (loaded[0] if kwargs.get("output_loading_info") else loaded).generation_config
        # Older checkpoints have a generation configuration derived from the `use_cache` that Trainer had set.
        if getattr(generation, "_from_model_config", False) and not generation.use_cache:
            generation.use_cache = True
        return loaded

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Saves the model, with the `use_cache` of its generation configuration."""
        if self.generation_config.use_cache is False:  # chosen by a user: `from_pretrained` keeps it
            self.generation_config._from_model_config = False
        super().save_pretrained(*args, **kwargs)

    def tie_weights(self, missing_keys: set[str] | None = None, recompute_mapping: bool = True) -> None:
        """Ties the embeddings, and initializes the answer decoder if a checkpoint has none."""
        # `from_pretrained` calls this after loading and before it reports missing keys. A decoder that lacks only some
        # weights was trained: it is left as it is.
        if missing_keys:
            decoder = {f"answer_decoder.layers.{name}" for name in self.answer_decoder.layers.state_dict()}
            fusion = {f"cbvila.fusion_model.{name}" for name in self.cbvila.fusion_model.state_dict()}
            if decoder <= missing_keys and not fusion & missing_keys:
                missing_keys -= self.start_decoder_from_fusion()
                logger.warning(_NEW_DECODER)
        super().tie_weights(missing_keys, recompute_mapping)

    def set_attn_implementation(self, *args: Any, **kwargs: Any) -> None:
        """Sets the attention back end; the answer decoder has that of the text encoder."""
        super().set_attn_implementation(*args, **kwargs)
        self.answer_decoder.set_attn_implementation(self.config.text_config._attn_implementation)

    # Tied to the decoder's token embeddings, which PEFT needs to know to adapt and merge them.
    def get_output_embeddings(self) -> nn.Module:
        """Returns the linear layer that scores answer tokens."""
        return self.answer_decoder.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replaces the linear layer that scores answer tokens."""
        self.answer_decoder.set_output_embeddings(value)

    @torch.no_grad()
    def start_decoder_from_fusion(self) -> set[str]:
        """Copies the fusion layers and the text embeddings to the answer decoder.

        If the vision width differs from the text width, the key and value projections of cross-attention do not fit
        and keep their own initialization.

        Returns:
            The names of the weights that were set.

        Raises:
            ValueError: If weights are offloaded.
        """
        parts = {"embeddings": self.cbvila.text_model.embeddings, "layers": self.cbvila.fusion_model.layers}
        source = {f"{part}.{k}": v for part, module in parts.items() for k, v in module.state_dict().items()}
        own = self.answer_decoder.state_dict()
        fitting = {name: value for name, value in source.items() if own[name].shape == value.shape}
        if any(value.is_meta or own[name].is_meta for name, value in fitting.items()):
            raise ValueError(
                "The checkpoint has no answer decoder, and it cannot be copied from the fusion encoder while parts of "
                "either are offloaded. Load the checkpoint without device_map, save it, and load that with device_map."
            )
        self.answer_decoder.load_state_dict(fitting, strict=False)
        return {f"answer_decoder.{name}" for name in fitting}

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Resizes the vocabulary, which questions and answers share."""
        self.answer_decoder.resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        return super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)

    def encode_question(
        self,
        pixel_values: Tensor,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        image_index: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Fuses questions (B, L) with their images (B', 3, H, W) and returns their states (B, L, D)."""
        return self.cbvila.encode_pairs(
            pixel_values,
            input_ids,
            attention_mask,
            inputs_embeds=inputs_embeds,
            image_index=image_index,
            interpolate_pos_encoding=interpolate_pos_encoding,
        ).last_hidden_state

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        answer_weights: Tensor | None = None,
        image_index: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> CBViLAForQuestionAnsweringOutput:
        """Encodes questions and, with labels, scores answers.

        Args:
            pixel_values: (B', 3, H, W) images; B' = B without `image_index`.
            input_ids: (B, L) questions.
            attention_mask: (B, L), 0 on padding.
            labels: (B, A) answer tokens with [SEP] at the end and -100 on padding, as
                [`CBViLAProcessor.encode_answers`] returns. The decoder reads them shifted to the right, after [CLS].
            answer_weights: (B,) weight of each answer in the loss, for several answers to one question.
            image_index: (B,) the image of each question. An image is encoded once for all its questions and answers.
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.
            position_ids: (B, L); counted from 0 when absent.
            inputs_embeds: (B, L, D) token embeddings instead of `input_ids`.
            output_attentions: Whether to return the attention weights of the fusion layers; by default as the
                configuration says.
            output_hidden_states: Whether to return the states of the fusion layers; by default as the configuration
                says.

        Raises:
            ValueError: If image or question is missing, their numbers differ and there is no `image_index`, or labels
                are not one valid answer per question. (On an accelerator, values are only checked in the first batch.)
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
        question = fused.last_hidden_state
        output = CBViLAForQuestionAnsweringOutput(
            question_hidden_states=question,
            hidden_states=fused.hidden_states,
            attentions=fused.attentions,
            cross_attentions=fused.get("cross_attentions"),
        )
        if labels is not None:
            self._check_labels(labels, answer_weights, question.shape[0])
            output.logits = self.answer_decoder(
                shift_right(labels, self.config.text_config),
                encoder_hidden_states=question,
                encoder_attention_mask=attention_mask,
                use_cache=False,
            ).logits
            output.loss = answer_loss(output.logits, labels, answer_weights)
        return reorder_fields(output)

    def _check_labels(self, labels: Tensor, answer_weights: Tensor | None, questions: int) -> None:
        check_answers("labels", labels, self.config.text_config, self)
        if labels.shape[0] != questions:
            raise ValueError(f"Got {labels.shape[0]} answer(s) in labels for {questions} question(s).")
        if answer_weights is not None and tuple(answer_weights.shape) != (questions,):
            raise ValueError(
                f"answer_weights has shape {tuple(answer_weights.shape)}; expected ({questions},), one per answer."
            )

    @torch.no_grad()
    def generate(  # type: ignore[override]  # the arguments of a multimodal model
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        image_index: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        answer_labels: Tensor | None = None,
        labels: Tensor | None = None,
        answer_weights: Tensor | None = None,
        **generate_kwargs: Any,
    ) -> Any:
        """Generates answers.

        Args:
            pixel_values: (B', 3, H, W) images; B' = B without `image_index`.
            input_ids: (B, L) questions.
            attention_mask: (B, L), 0 on padding.
            image_index: (B,) the image of each question.
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.
            answer_labels: (R, A) the only allowed answers, in the form of `labels`. Unlike `rank_answers`, this does
                not score whole answers: greedy search follows the most probable next token, beam search several.
            labels: Not used; accepted to allow batches for training.
            answer_weights: Not used; accepted to allow batches for training.
            generate_kwargs: Options of [`~transformers.GenerationMixin.generate`], which override
                `model.generation_config`. If neither sets a length, `max_new_tokens` is 20, or the length of the
                longest of `answer_labels`; it is always at most the number of positions.

        Returns:
            Answer ids (B, 1 + new tokens) starting with [CLS], or an output with `return_dict_in_generate`.

        Raises:
            ValueError: If `answer_labels` are not valid answers, or are passed with a `prefix_allowed_tokens_fn`.
        """
        question = self.encode_question(pixel_values, input_ids, attention_mask, image_index, interpolate_pos_encoding)
        text = self.config.text_config
        longest = min(20, text.max_position_embeddings)
        if answer_labels is not None:
            if generate_kwargs.get("prefix_allowed_tokens_fn") is not None:
                raise ValueError("Pass answer_labels or prefix_allowed_tokens_fn: both choose the allowed tokens.")
            answer_labels = check_answer_list(answer_labels, text, self, needs_end=True)
            generate_kwargs["prefix_allowed_tokens_fn"] = CBViLAAnswerTrie(answer_labels, text.end_token_id)
            longest = answer_labels.shape[1]
        chosen = deepcopy(generate_kwargs.pop("generation_config", None) or self.generation_config)
        if {"max_length", "max_new_tokens"} & generate_kwargs.keys():
            chosen.max_length = chosen.max_new_tokens = None  # an option of the call overrides either
        elif chosen.max_length is None and chosen.max_new_tokens is None:
            chosen.max_new_tokens = longest
        generate_kwargs = chosen.update(**generate_kwargs)
        if chosen.max_new_tokens is not None:  # pipelines allow more tokens than there are positions
            chosen.max_new_tokens = min(chosen.max_new_tokens, text.max_position_embeddings)
        start = torch.full((question.shape[0], 1), text.bos_token_id, device=question.device)
        return self.answer_decoder.generate(
            input_ids=start,
            attention_mask=torch.ones_like(start),
            encoder_hidden_states=question,
            encoder_attention_mask=attention_mask,
            generation_config=chosen,
            **generate_kwargs,
        )

    @torch.no_grad()
    def rank_answers(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        answer_labels: Tensor,
        image_index: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        chunk_size: int = 1024,
        top_k: int | None = None,
        compat_first_token_twice: bool = False,
    ) -> CBViLAAnswerRanking:
        """Computes the probability of every candidate answer to every question.

        Args:
            pixel_values: (B', 3, H, W) images; B' = B without `image_index`.
            input_ids: (B, L) questions.
            attention_mask: (B, L), 0 on padding.
            answer_labels: (R, A) candidates in the form of `labels`, as [`CBViLAProcessor.encode_candidates`] returns.
                Equal candidates are scored once, and each of them has the probability.
            image_index: (B,) the image of each question.
            interpolate_pos_encoding: Whether to allow image sizes other than the configured one.
            chunk_size: Number of the B * R pairs that are scored at once. Larger chunks need more memory.
            top_k: Number of candidates to score per question, those with the most probable first tokens, as in ALBEF
                (128 of 3,128). The others have a score of 0 and a log-likelihood of -inf. All by default.
            compat_first_token_twice: Whether to count the first token twice, to reproduce the metrics of ALBEF's
                evaluation; `log_likelihoods` are then not log-likelihoods.

        Raises:
            ValueError: If `answer_labels` are not valid answers, `chunk_size` is not positive, or `top_k` is not
                between 1 and R.
        """
        given = check_answer_list(answer_labels, self.config.text_config, self).shape[0]
        if top_k is not None and not 1 <= top_k <= given:
            raise ValueError(f"top_k={shown(top_k)}: there are {given} candidate(s); choose 1 to {given}, or None.")
        answer_labels, indices = distinct_rows(answer_labels)
        if chunk_size < 1:
            raise ValueError(f"chunk_size={chunk_size} must be positive: the (question, answer) pairs scored at once.")
        question = self.encode_question(pixel_values, input_ids, attention_mask, image_index, interpolate_pos_encoding)
        encoded = EncodedQuestions(self.answer_decoder, self.config.text_config, question, attention_mask)
        top_k = None if top_k is None else min(top_k, len(answer_labels))
        ranking = encoded.rank(answer_labels, chunk_size, top_k, compat_first_token_twice)
        return CBViLAAnswerRanking(
            scores=ranking.scores[:, indices], log_likelihoods=ranking.log_likelihoods[:, indices]
        )


__all__ = ["CBViLAForQuestionAnswering"]
