"""Models with objectives: run the queries of all objectives, let them score the answers, and add up the terms.

Pretraining, masked image modelling and retrieval are sets of the same objectives.

Shapes: b local pairs, N patches.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging

from .label_checks_cbvila import ANY_INTEGER, check_ids
from .modeling_cbvila_base import CBViLAPreTrainedModel
from .modeling_cbvila_queries import CBViLAQueryPasses
from .objective_cbvila import Answer, CBViLAObjective, CBViLAStep, NegativeTexts, Scored
from .objectives_cbvila import OBJECTIVES

logger = logging.get_logger(__name__)

_OPTIONAL_PARTS = ("quantizer", "visual_queries", "text_key_projection")  # parts that only some objectives need
_NUM_COMPARED = 64  # weight tensors by which an optimizer step is noticed


class CBViLAModelWithObjectives(CBViLAPreTrainedModel, CBViLAQueryPasses):
    """Base class of heads with objectives. A subclass builds `cbvila`, and then calls `add_objectives`."""

    cbvila: Any
    objectives: nn.ModuleDict
    _expects_after_step: bool = True
    _first_weights: Tensor | None = None

    def add_objectives(self, names: Iterable[str]) -> None:
        """Builds the named objectives in the order of the registry, and ignores others in checkpoints."""
        names, quantizer = set(names), getattr(self.cbvila, "quantizer", None)
        self.objectives = nn.ModuleDict(
            {
                name: OBJECTIVES[name](options, self.config, quantizer)
                for name, options in self.config.objectives.items()
                if name in names
            }
        )
        others = "|".join(self.objectives) or "-"
        parts = [rf"{part}\." for part in _OPTIONAL_PARTS if not hasattr(self.cbvila, part)]
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
        """Returns whether an active objective needs something, see `needs` of [`CBViLAObjective`].

        Args:
            what: One of the names in `needs`.
            weights: Weight of each term by name, which decides what is active; without it all objectives count.
        """
        return any(what in objective.needs for objective in self.active_objectives(weights))

    def after_step(self) -> None:
        """Updates what moves without gradients, such as codes that are moving averages.

        Call it after every optimizer step. [`CBViLATrainer`] does.
        """
        if self.learns_codes:
            self.cbvila.quantizer.after_step()
        self.step_objectives()

    @torch.no_grad()
    def step_objectives(self) -> None:
        """Calls `after_step` of every objective."""
        for objective in self.active_objectives(None):
            objective.after_step()

    def update_codebook(self) -> None:
        """Calls [`~CBViLAModelWithObjectives.after_step`]; its name in version 0.1."""
        self.after_step()

    def active_objectives(self, weights: dict[str, float] | None) -> list[CBViLAObjective]:
        """Returns the objectives with a term of a weight above 0; all of them without weights."""
        objectives: list[Any] = list(self.objectives.values())
        if weights is None:
            return objectives
        terms = [objective.loss_weights(objective.options) for objective in objectives]
        return [o for o, own in zip(objectives, terms, strict=True) if any(weights[name] > 0 for name in own)]

    def score(
        self, step: CBViLAStep, objectives: list[CBViLAObjective], known: Sequence[Answer] = (), **options: bool
    ) -> tuple[dict[str, Scored], BaseModelOutput | None]:
        """Runs the queries of objectives and scores the answers.

        Args:
            step: The encoded batch.
            objectives: Objectives to score.
            known: Answers to visual queries that need not run again.
            options: Options of the fusion encoder for text queries.

        Returns:
            The terms with a weight above 0 by name, and the output of the pass of text queries (`None` without any).
        """
        text_answers, fused = self.fuse_text_queries(
            step, [objective.text_queries(step) for objective in objectives], **options
        )
        visual_answers = self.answer_visual_queries(
            step, [objective.visual_queries(step) for objective in objectives], known
        )
        scored: dict[str, Scored] = {}
        for objective, of_texts, of_images in zip(objectives, text_answers, visual_answers, strict=True):
            terms = objective(step, [*of_texts, *of_images])
            scored |= {name: term for name, term in terms.items() if step.weights[name] > 0}
        return scored | self._quantizer_terms(step), fused

    def _quantizer_terms(self, step: CBViLAStep) -> dict[str, Scored]:
        """Returns the loss terms that the quantizer weighs itself, those with a weight above 0."""
        terms = (step.quantized and step.quantized.terms) or {}
        own = self.config.quantizer_weights().keys() & terms.keys()
        return {name: Scored(terms[name]) for name in sorted(own) if step.weights[name] > 0}

    def encode_negative_texts(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, num_pairs: int
    ) -> NegativeTexts | None:
        """Encodes a text (B, L) for each pair that is false of its image.

        Args:
            input_ids: (B, L); without, there are none.
            attention_mask: (B, L), 0 on padding; rows of zeros stand where there is none.
            num_pairs: B.

        Raises:
            ValueError: If there are more or fewer texts than pairs, or a mask without texts.
        """
        if input_ids is None:
            if attention_mask is not None:
                raise ValueError("negative_attention_mask is given without negative_input_ids: pass both, or neither.")
            return None
        if input_ids.shape[0] != num_pairs:
            raise ValueError(
                f"Got {input_ids.shape[0]} negative text(s) for {num_pairs} pair(s): there must be one for each; a "
                "row of zeros in negative_attention_mask stands where there is none."
            )
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        are_given = mask.bool().any(1)
        mask = mask.masked_fill(~are_given.unsqueeze(1), 1)  # attention to nothing would not be a number
        states = self.cbvila.text_model(input_ids, attention_mask=mask).last_hidden_state
        return NegativeTexts(states, mask, are_given)

    def scale_for_ranks(self, step: CBViLAStep, scored: dict[str, Scored]) -> dict[str, Tensor]:
        """Scales losses so that their mean over processes is the mean over the items of all of them."""
        losses = {name: term.loss for name, term in scored.items()}
        if step.processes is None or not losses:
            return losses
        pairs = torch.ones(step.texts.shape[0], dtype=torch.bool, device=step.texts.device)
        counts = [(pairs if term.counted is None else term.counted).sum() for term in scored.values()]
        scales = step.processes.loss_scales(torch.stack(counts))
        return {name: loss * scale for (name, loss), scale in zip(losses.items(), scales, strict=True)}

    def check_mask(self, pixel_values: Tensor, bool_masked_pos: Tensor | None) -> None:
        """Raises a ValueError unless `bool_masked_pos` is (b, N) with 0 and 1 for images (b, 3, H, W), or absent."""
        rows, columns = self.patch_grid(pixel_values)
        expected = (pixel_values.shape[0], rows * columns)
        if bool_masked_pos is None:
            return
        if tuple(bool_masked_pos.shape) != expected:
            raise ValueError(
                f"bool_masked_pos has shape {tuple(bool_masked_pos.shape)}; expected {expected}, one entry per patch."
            )
        if bool_masked_pos.dtype != torch.bool:
            rule = "1 stands for masked patches, 0 for visible ones"
            check_ids("bool_masked_pos", bool_masked_pos, expected, 2, rule, self, ignored=False, dtypes=ANY_INTEGER)

    def warn_without_after_step(self) -> None:
        """Warns once if an optimizer step has passed without `after_step`; called at the beginning of a forward.

        It compares weights until the first step is over; accumulating micro-batches changes none. Values are compared
        rather than torch's version counters, which fused optimizers (Trainer's default) do not increase.
        """
        if not self._expects_after_step or torch.compiler.is_compiling() or not self.learns_codes:
            return
        if not (self.training and torch.is_grad_enabled()):
            return
        if self._first_weights is None:
            self._first_weights = self._smallest_weights()
        elif not self.cbvila.quantizer.waits_for_step:  # after_step was called, or is not needed
            self._expects_after_step, self._first_weights = False, None
        elif not torch.equal(self._smallest_weights(), self._first_weights):
            self._expects_after_step, self._first_weights = False, None
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
    def _smallest_weights(self) -> Tensor:
        """Returns a copy of the smallest trained weights, such as biases, as one vector; every step moves them."""
        trained = sorted((p for p in self.parameters() if p.requires_grad), key=Tensor.numel)[:_NUM_COMPARED]
        local = [p.to_local() if hasattr(p, "to_local") else p for p in trained]  # FSDP2 shards parameters
        return torch.cat([torch.zeros(0), *(p.detach().flatten().to("cpu", torch.float32) for p in local)])


def weighted_sum(losses: dict[str, Tensor], weights: dict[str, float]) -> Tensor | None:
    """Returns the weighted sum () of losses; `None` without any."""
    terms = [weights[name] * loss for name, loss in losses.items()]
    return torch.stack(terms).sum() if terms else None
