"""A model with objectives: asks their queries in two fusion passes, has them score the answers, and adds up the terms.

Pretraining, masked image modelling and retrieval are sets of the same objectives.

Shapes: b pairs at hand, N patches, L text tokens, D hidden, Dv vision width, R queries.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import logging

from .label_checks_cbvila import ANY_INTEGER, check_ids
from .losses_cbvila import equal_parts
from .modeling_cbvila_base import CBViLAPreTrainedModel
from .objective_cbvila import Answer, CBViLAObjective, CBViLAStep, Scored, TextQuery, VisualQuery
from .objectives_cbvila import OBJECTIVES
from .quantizer_output_cbvila import CBViLAQuantizerHints, CBViLAQuantizerOutput

logger = logging.get_logger(__name__)

_OF_IMAGES = ("quantizer", "visual_queries", "text_key_projection")  # which no objective may need
_WATCHED = 64  # tensors of weights by which a step of an optimizer is noticed


class EncodedImage(NamedTuple):
    """An image, whole or with patches hidden: `cls` (b, Dv), which is never quantized, and its quantized tokens."""

    cls: Tensor
    quantized: CBViLAQuantizerOutput


class CBViLAModelWithObjectives(CBViLAPreTrainedModel):
    """Base of the heads that have objectives; a subclass builds `cbvila` first, and then calls `add_objectives`."""

    cbvila: Any
    objectives: nn.ModuleDict
    _codes_are_watched: bool = True
    _first_weights: Tensor | None = None

    def add_objectives(self, names: Iterable[str]) -> None:
        """Builds the named objectives, in the order of the registry, and lets checkpoints have others."""
        names, quantizer = set(names), getattr(self.cbvila, "quantizer", None)
        self.objectives = nn.ModuleDict(
            {
                name: OBJECTIVES[name](options, self.config, quantizer)
                for name, options in self.config.objectives.items()
                if name in names
            }
        )
        others = "|".join(self.objectives) or "-"
        parts = [rf"{part}\." for part in _OF_IMAGES if not hasattr(self.cbvila, part)]
        ignored = [rf"objectives\.(?!({others})\.)", r"mask_token$", *parts]
        self._keys_to_ignore_on_load_unexpected = [*(type(self)._keys_to_ignore_on_load_unexpected or []), *ignored]
        absent = tuple(f"objectives.{name}." for name in OBJECTIVES if name not in self.objectives)
        tied = type(self)._tied_weights_keys or {}
        self._tied_weights_keys = {name: source for name, source in tied.items() if not name.startswith(absent)}

    @property
    def learns_codes(self) -> bool:
        """Whether an objective trains the quantizer."""
        return self.needs("quantizer")

    def needs(self, what: str, weights: dict[str, float] | None = None) -> bool:
        """Whether an objective that is on needs something, see [`CBViLAObjective`]; any of its own without weights."""
        return any(what in objective.needs for objective in self.active_objectives(weights))

    def after_step(self) -> None:
        """Moves codes that are moving averages, and whatever else an objective moves without gradients.

        Call it after every optimizer step. [`CBViLATrainer`] does.
        """
        if self.learns_codes:
            self.cbvila.quantizer.after_step()
        self.step_objectives()

    @torch.no_grad()
    def step_objectives(self) -> None:
        """The objectives' part of `after_step`."""
        for objective in self.active_objectives(None):
            objective.after_step()

    def update_codebook(self) -> None:
        """[`~CBViLAModelWithObjectives.after_step`] by the name that it had in version 0.1."""
        self.after_step()

    def active_objectives(self, weights: dict[str, float] | None) -> list[CBViLAObjective]:
        """Those with a term that has a weight above 0; all of them without weights."""
        objectives: list[Any] = list(self.objectives.values())
        if weights is None:
            return objectives
        terms = [type(objective).loss_weights(objective.options) for objective in objectives]
        return [o for o, own in zip(objectives, terms, strict=True) if any(weights[name] > 0 for name in own)]

    def score(
        self, step: CBViLAStep, objectives: list[CBViLAObjective], known: Sequence[Answer] = (), **options
    ) -> tuple[dict[str, Scored], Any]:
        """The terms of the objectives, and the output of the pass of text queries (`None` without any).

        Args:
            known: Answers to visual queries that need not be asked again.
            options: Which states of the fusion layers to return.
        """
        text_queries = [objective.text_queries(step) for objective in objectives]
        text_answers, fused = self._fuse_text_queries(step, text_queries, **options)
        visual_queries = [objective.visual_queries(step) for objective in objectives]
        visual_answers = self._answer_visual_queries(step, visual_queries, known)
        scored: dict[str, Scored] = {}
        for objective, of_texts, of_images in zip(objectives, text_answers, visual_answers, strict=True):
            terms = objective(step, [*of_texts, *of_images])
            scored |= {name: term for name, term in terms.items() if step.weights[name] > 0}
        return scored, fused

    def scale_for_ranks(self, step: CBViLAStep, scored: dict[str, Scored]) -> dict[str, Tensor]:
        """The losses by name, scaled so that their mean over processes is the mean over what all have to score."""
        losses = {name: term.loss for name, term in scored.items()}
        if step.processes is None or not losses:
            return losses
        pairs = torch.ones(step.texts.shape[0], dtype=torch.bool, device=step.texts.device)
        counts = [(pairs if term.counted is None else term.counted).sum() for term in scored.values()]
        scales = step.processes.loss_scales(torch.stack(counts))
        return {name: loss * scale for (name, loss), scale in zip(losses.items(), scales, strict=True)}

    def _fuse_text_queries(self, step: CBViLAStep, queries: list[list[TextQuery]], **options):
        """Answers to the text queries of each objective, in one pass, and its output.

        Queries with many rows come first.
        """
        order = sorted((query for own in queries for query in own), key=lambda q: -q.states.shape[0])
        if not order:
            return [[] for _ in queries], None
        states, mask = _padded(order)
        images, index = [step.images], []
        for query in order:
            behind = sum(image.shape[0] for image in images) - step.images.shape[0]
            rows = query.image_index
            index.append(rows if behind == 0 else rows + behind * (rows >= step.images.shape[0]))
            images += [] if query.more_images is None else [query.more_images]
        images_of_all = images[0] if len(images) == 1 else torch.cat(images)
        fused = self.cbvila.fuse_text_with_image(states, mask, images_of_all, torch.cat(index), **options)
        parts = fused.last_hidden_state.split([query.states.shape[0] for query in order])
        found = {id(q): Answer(q, part[:, : q.states.shape[1]]) for q, part in zip(order, parts, strict=True)}
        return [[found[id(query)] for query in own] for own in queries], fused

    def _answer_visual_queries(
        self, step: CBViLAStep, queries: list[list[VisualQuery]], known: Sequence[Answer]
    ) -> list[list[Answer]]:
        """Answers to the visual queries of each objective; equal queries are asked once."""
        asked: list[VisualQuery] = []
        for query in (query for own in queries for query in own):
            if not any(_is_same(query, other) for other in [*asked, *(answer.query for answer in known)]):
                asked.append(query)
        answers = [*known, *(self._ask(step, asked) if asked else [])]
        return [
            [next(answer for answer in answers if _is_same(answer.query, query)) for query in own] for own in queries
        ]

    def _ask(self, step: CBViLAStep, asked: list[VisualQuery]) -> list[Answer]:
        """Answers to visual queries, in one pass."""
        texts, mask = self._captions(step)
        whole = EncodedImage(step.images[:, 0], step.quantized)
        images: list[tuple[Tensor | None, EncodedImage]] = [(None, whole)]  # what each mask leaves visible
        for hidden in (query.bool_masked_pos for query in asked):
            if not any(hidden is mask_of for mask_of, _ in images):
                images.append((hidden, self.encode_visible(step.pixel_values, whole, hidden, step.hints)))
        fused = self.fuse_visual_queries(
            [(next(i for mask_of, i in images if mask_of is query.bool_masked_pos), query) for query in asked],
            self.patch_grid(step.pixel_values),
            texts,
            mask,
        )
        return self.answers_of(asked, fused.last_hidden_state)

    def _captions(self, step: CBViLAStep) -> tuple[Tensor, Tensor | None]:
        """States (b, L, D) and mask (b, L) of the captions, those of dropped ones replaced by an empty caption's.

        Masking a caption's tokens would not do: the state of its [CLS] has seen them.
        """
        text, attention_mask = step.texts, step.attention_mask
        if step.caption_dropped is None:
            return text, attention_mask
        config, places = self.config.text_config, torch.arange(text.shape[1], device=text.device).unsqueeze(0)
        ids = torch.full_like(places, config.pad_token_id or 0)
        ids = ids.masked_fill(places == 0, config.bos_token_id).masked_fill(places == 1, config.end_token_id)
        empty_mask = (places < 2).to(torch.long if attention_mask is None else attention_mask.dtype)
        empty = self.cbvila.text_model(ids, attention_mask=empty_mask).last_hidden_state
        dropped = step.caption_dropped.bool().unsqueeze(-1)
        kept_mask = torch.ones_like(empty_mask) if attention_mask is None else attention_mask
        return torch.where(dropped.unsqueeze(-1), empty, text), torch.where(dropped, empty_mask, kept_mask)

    def answers_of(self, queries: list[VisualQuery], states: Tensor) -> list[Answer]:
        """The states (R · b, 1 + N, D) of a pass of visual queries, by query."""
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
        **options,
    ):
        """Visual queries of images to the same texts (b, L, D) as one fusion pass; states (R · b, 1 + N, D)."""
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
        """The image as queries with hidden patches (b, N) show it.

        With `mask_stage="post"` it is the whole image, whose tokens are hidden in the query itself; with `"pre"` the
        image encoder looks again, and its visible tokens know nothing of the hidden patches.
        """
        if not self.config.masks_before_encoder:
            return whole
        tokens = self.cbvila.encode_visible_patches(pixel_values, bool_masked_pos, interpolate_pos_encoding=True)
        return EncodedImage(tokens[:, 0], self.cbvila.quantizer(tokens[:, 1:], remember=False, hints=hints))

    def patch_grid(self, pixel_values: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of images (b, 3, H, W)."""
        patch = self.config.vision_config.patch_size
        return pixel_values.shape[-2] // patch, pixel_values.shape[-1] // patch

    def check_mask(self, pixel_values: Tensor, bool_masked_pos: Tensor | None) -> None:
        """Raises a ValueError unless `bool_masked_pos`, where given, says of every patch whether it is hidden."""
        rows, columns = self.patch_grid(pixel_values)
        expected = (pixel_values.shape[0], rows * columns)
        if bool_masked_pos is None:
            return
        if tuple(bool_masked_pos.shape) != expected:
            raise ValueError(
                f"bool_masked_pos has shape {tuple(bool_masked_pos.shape)}; expected {expected}, one entry per patch."
            )
        if bool_masked_pos.dtype != torch.bool:
            rule = "1 stands for patches to hide, 0 for others"
            check_ids("bool_masked_pos", bool_masked_pos, expected, 2, rule, self, ignored=False, dtypes=ANY_INTEGER)

    def watch_codes(self) -> None:
        """Warns once if weights have moved since a training forward, and nobody called `after_step`.

        To be called when a forward begins, which costs something until the first step is over. Micro-batches that are
        accumulated change no weight. Values are compared, and not torch's count of changes: fused optimizers, which
        are Trainer's default, do not count.
        """
        if not self._codes_are_watched or torch.compiler.is_compiling() or not self.learns_codes:
            return
        if not (self.training and torch.is_grad_enabled()):
            return
        if self._first_weights is None:
            self._first_weights = self._some_weights()
        elif not self.cbvila.quantizer.waits_for_step:  # somebody moves the codes, or nothing has to
            self._codes_are_watched, self._first_weights = False, None
        elif not torch.equal(self._some_weights(), self._first_weights):
            self._codes_are_watched, self._first_weights = False, None
            logger.warning(
                "A training step has passed without after_step(): the codebook does not learn. Call "
                "model.after_step() after every optimizer step, train with CBViLATrainer, which does, or freeze "
                "it with model.cbvila.quantizer.requires_grad_(False)."
                + (
                    ""
                    if self.cbvila.quantizer.is_fitted
                    else " Its codes are still random: CBViLATrainer fits them to features (k-means)."
                )
            )

    @torch.no_grad()
    def _some_weights(self) -> Tensor:
        """A copy of the smallest weights that learn, in a row: biases and the like, which every step moves."""
        learning = sorted((p for p in self.parameters() if p.requires_grad), key=Tensor.numel)[:_WATCHED]
        own = [p.to_local() if hasattr(p, "to_local") else p for p in learning]  # FSDP2 leaves each process a part
        return torch.cat([torch.zeros(0), *(p.detach().flatten().to("cpu", torch.float32) for p in own)])


def weighted_sum(losses: dict[str, Tensor], weights: dict[str, float]) -> Tensor | None:
    """The loss; `None` without any term."""
    terms = [weights[name] * loss for name, loss in losses.items()]
    return torch.stack(terms).sum() if terms else None


def _is_same(one: VisualQuery, other: VisualQuery) -> bool:
    same_mask = one.bool_masked_pos is other.bool_masked_pos
    return same_mask and (one.tokens, one.trains_encoder) == (other.tokens, other.trains_encoder)


def _padded(queries: list[TextQuery]) -> tuple[Tensor, Tensor | None]:
    """States and mask of queries as long as the longest, one after the other."""
    longest = max(query.states.shape[1] for query in queries)
    states = [F.pad(query.states, (0, 0, 0, longest - query.states.shape[1])) for query in queries]
    masks = [query.attention_mask for query in queries]
    if all(mask is None for mask in masks) and all(query.states.shape[1] == longest for query in queries):
        return torch.cat(states), None
    whole = [
        torch.ones(query.states.shape[:2], dtype=torch.long, device=query.states.device) if mask is None else mask
        for query, mask in zip(queries, masks, strict=True)
    ]
    return torch.cat(states), torch.cat([F.pad(mask, (0, longest - mask.shape[1])) for mask in whole])
