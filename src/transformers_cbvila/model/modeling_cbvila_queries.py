"""The two fusion passes that run the queries of objectives: texts attend to images, and quantized tokens to captions.

Shapes: b local pairs, N patches, L text tokens, D hidden, Dv vision width, R queries.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from .losses_cbvila import equal_parts
from .modeling_cbvila_vision import tokens_to_quantize
from .objective_cbvila import Answer, CBViLAStep, TextQuery, VisualQuery
from .quantizer_output_cbvila import CBViLAQuantizerHints, CBViLAQuantizerOutput


class EncodedImage(NamedTuple):
    """Encoded images, without or with masked patches.

    Args:
        cls: (b, Dv) class token, which is never quantized.
        quantized: The quantizer's output for the other tokens.
    """

    cls: Tensor
    quantized: CBViLAQuantizerOutput


class CBViLAQueryPasses:
    """Mixin for models that run text queries and visual queries; they provide `cbvila` and `config`."""

    cbvila: Any
    config: Any

    def fuse_text_queries(
        self, step: CBViLAStep, queries: list[list[TextQuery]], **options: bool
    ) -> tuple[list[list[Answer]], BaseModelOutput | None]:
        """Runs the text queries of all objectives in one fusion pass, those with most rows first.

        Args:
            step: The encoded batch.
            queries: Queries of each objective.
            options: Options of the fusion encoder.

        Returns:
            The answers for each objective, and the output of the pass; `None` if there are no queries.
        """
        order = sorted((query for own in queries for query in own), key=lambda q: -q.states.shape[0])
        if not order:
            return [[] for _ in queries], None
        states, mask = _pad_and_concatenate(order)
        images, index = [step.images], []
        for query in order:
            offset = sum(image.shape[0] for image in images) - step.images.shape[0]
            rows = query.image_index
            index.append(rows if offset == 0 else rows + offset * (rows >= step.images.shape[0]))
            images += [] if query.more_images is None else [query.more_images]
        all_images = images[0] if len(images) == 1 else torch.cat(images)
        fused = self.cbvila.fuse_text_with_image(states, mask, all_images, torch.cat(index), **options)
        parts = fused.last_hidden_state.split([query.states.shape[0] for query in order])
        answers = {id(q): Answer(q, part[:, : q.states.shape[1]]) for q, part in zip(order, parts, strict=True)}
        return [[answers[id(query)] for query in own] for own in queries], fused

    def answer_visual_queries(
        self, step: CBViLAStep, queries: list[list[VisualQuery]], known: Sequence[Answer] = ()
    ) -> list[list[Answer]]:
        """Runs the visual queries of all objectives in one fusion pass, equal ones once.

        Args:
            step: The encoded batch.
            queries: Queries of each objective.
            known: Answers to queries that need not run again.

        Returns:
            The answers for each objective.
        """
        missing: list[VisualQuery] = []
        for query in (query for own in queries for query in own):
            if not any(_is_same(query, other) for other in [*missing, *(answer.query for answer in known)]):
                missing.append(query)
        answers = [*known, *(self._run_visual_queries(step, missing) if missing else [])]
        return [
            [next(answer for answer in answers if _is_same(answer.query, query)) for query in own] for own in queries
        ]

    def _run_visual_queries(self, step: CBViLAStep, queries: list[VisualQuery]) -> list[Answer]:
        whole = EncodedImage(step.images[:, 0], step.quantized)
        images: list[tuple[Tensor | None, EncodedImage]] = [(None, whole)]  # one per mask
        for masked in (query.bool_masked_pos for query in queries):
            if not any(masked is other for other, _ in images):
                images.append((masked, self.encode_visible(step.pixel_values, whole, masked, step.hints)))
        encoded = [next(i for other, i in images if other is query.bool_masked_pos) for query in queries]
        asked = [
            (image if query.quantized is None else image._replace(quantized=query.quantized), query)
            for image, query in zip(encoded, queries, strict=True)
        ]
        answers = [self.unfused_answer(image, query) for image, query in asked if not query.is_fused]
        to_fuse = [(image, query) for image, query in asked if query.is_fused]
        if not to_fuse:
            return answers
        fused = self.fuse_visual_queries(to_fuse, self.patch_grid(step.pixel_values), *self._captions(step))
        return answers + self.answers_of([query for _, query in to_fuse], fused.last_hidden_state)

    def unfused_answer(self, image: EncodedImage, query: VisualQuery) -> Answer:
        """Returns the answer to a query that is not fused: the tokens."""
        return Answer(query, image.quantized[query.tokens])

    def _captions(self, step: CBViLAStep) -> tuple[Tensor, Tensor | None]:
        """Returns states (b, L, D) and mask (b, L) of the captions, where dropped ones are replaced by empty captions.

        Masking a caption's tokens would not suffice: the state of its [CLS] depends on them.
        """
        text, attention_mask = step.texts, step.attention_mask
        if step.caption_dropped is None:
            return text, attention_mask
        config, positions = self.config.text_config, torch.arange(text.shape[1], device=text.device).unsqueeze(0)
        ids = torch.full_like(positions, config.pad_token_id or 0)
        ids = ids.masked_fill(positions == 0, config.bos_token_id).masked_fill(positions == 1, config.end_token_id)
        empty_mask = (positions < 2).to(torch.long if attention_mask is None else attention_mask.dtype)
        empty = self.cbvila.text_model(ids, attention_mask=empty_mask).last_hidden_state
        dropped = step.caption_dropped.bool().unsqueeze(-1)
        kept_mask = torch.ones_like(empty_mask) if attention_mask is None else attention_mask
        return torch.where(dropped.unsqueeze(-1), empty, text), torch.where(dropped, empty_mask, kept_mask)

    def answers_of(self, queries: list[VisualQuery], states: Tensor) -> list[Answer]:
        """Splits the states (R · b, 1 + N, D) of a pass of visual queries into an answer per query."""
        has_cls = self.cbvila.visual_queries.first_patch > 0
        return [
            Answer(query, self.cbvila.drop_cls(part), part[:, 0] if has_cls else None)
            for query, part in zip(queries, equal_parts(states, len(queries)), strict=True)
        ]

    def fuse_visual_queries(
        self,
        queries: list[tuple[EncodedImage, VisualQuery]],
        grid: tuple[int, int],
        texts: Tensor,
        attention_mask: Tensor | None,
        **options: bool,
    ) -> BaseModelOutput:
        """Runs visual queries over the same texts in one fusion pass.

        Args:
            queries: R queries with the images they are about.
            grid: Rows and columns of patches.
            texts: (b, L, D) states of the captions.
            attention_mask: (b, L), 0 on padding.
            options: Options of the fusion encoder.

        Returns:
            The output of the fusion encoder, with states (R · b, 1 + N, D).
        """
        tokens = torch.cat([image.quantized[query.tokens] for image, query in queries])
        masks = [query.bool_masked_pos for _, query in queries]
        mask = None
        if any(part is not None for part in masks):
            nothing = torch.zeros(queries[0][0].quantized.indices.shape[:2], dtype=torch.bool, device=tokens.device)
            mask = torch.cat([nothing if part is None else part for part in masks])
        image_cls = None
        if self.config.fusion_visual_cls == "vit":
            image_cls = torch.cat([i.cls if query.trains_encoder else i.cls.detach() for i, query in queries])
        return self.cbvila.fuse_visual_queries(tokens, grid, texts, attention_mask, mask, image_cls, **options)

    def encode_visible(
        self,
        pixel_values: Tensor,
        whole: EncodedImage,
        bool_masked_pos: Tensor,
        hints: CBViLAQuantizerHints | None = None,
    ) -> EncodedImage:
        """Encodes images for queries with masked patches.

        With `mask_stage="post"` these are the whole images, whose tokens the query masks. With `"pre"` a second pass
        of the image encoder masks patches of its input, so that visible tokens do not depend on masked patches.

        Args:
            pixel_values: (b, 3, H, W) images.
            whole: Their encoding without a mask.
            bool_masked_pos: (b, N) bool.
            hints: Additional inputs of the quantizer.
        """
        if not self.config.masks_before_encoder:
            return whole
        image = self.cbvila.encode_visible_patches(pixel_values, bool_masked_pos, interpolate_pos_encoding=True)
        quantized = self.cbvila.quantizer(tokens_to_quantize(image), remember=False, hints=hints)
        return EncodedImage(image.last_hidden_state[:, 0], quantized)

    def patch_grid(self, pixel_values: Tensor) -> tuple[int, int]:
        """Returns rows and columns of patches of images (b, 3, H, W)."""
        patch = self.config.vision_config.patch_size
        return pixel_values.shape[-2] // patch, pixel_values.shape[-1] // patch


def _is_same(one: VisualQuery, other: VisualQuery) -> bool:
    same_tensors = one.bool_masked_pos is other.bool_masked_pos and one.quantized is other.quantized
    settings = [(query.tokens, query.trains_encoder, query.is_fused) for query in (one, other)]
    return same_tensors and settings[0] == settings[1]


def _pad_and_concatenate(queries: list[TextQuery]) -> tuple[Tensor, Tensor | None]:
    """Returns states and mask of all queries, padded to the longest."""
    longest = max(query.states.shape[1] for query in queries)
    states = [F.pad(query.states, (0, 0, 0, longest - query.states.shape[1])) for query in queries]
    masks = [query.attention_mask for query in queries]
    if all(mask is None for mask in masks) and all(query.states.shape[1] == longest for query in queries):
        return torch.cat(states), None
    own_masks = [
        torch.ones(query.states.shape[:2], dtype=torch.long, device=query.states.device) if mask is None else mask
        for query, mask in zip(queries, masks, strict=True)
    ]
    return torch.cat(states), torch.cat([F.pad(mask, (0, longest - mask.shape[1])) for mask in own_masks])
