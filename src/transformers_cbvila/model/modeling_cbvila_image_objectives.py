"""Images that ask texts: how their visual words are shown, and how the answers are scored (Eq. 3, Eq. 4).

Pretraining and masked image modelling share it, and [`~CBViLAImageObjectives.reconstruct`].

Shapes: B batch, N patches, L text tokens, D hidden, Dv vision width, K codes, C code width, P pixels of a patch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import logging

from .autocast_cbvila import without_autocast
from .configuration_cbvila import CBViLAConfig
from .label_checks_cbvila import ANY_INTEGER, check_ids
from .losses_cbvila import at_least_fp32, equal_parts, patch_moments, patchify, pixel_loss, unpatchify
from .modeling_cbvila_codebook import CBViLACodebookOutput
from .modeling_cbvila_layers import CBViLAPreTrainedModel

logger = logging.get_logger(__name__)

_WATCHED = 64  # tensors of weights by which a step of an optimiser is noticed


class CBViLATiedMIMHead(nn.Module):
    """Scores codes by their cosine with a prediction, so that a code that moved keeps its meaning."""

    def __init__(self, config: CBViLAConfig):
        super().__init__()
        self.dense = nn.Linear(config.fusion_config.hidden_size, config.codebook_dim)
        self.scale = nn.Parameter(torch.tensor(2.3026))  # ln 10

    def init_own_weights(self, std: float) -> None:
        init.constant_(self.scale, 2.3026)

    @without_autocast
    def forward(self, hidden_states: Tensor, codes: Tensor) -> Tensor:
        """(M, D) states and (K, C) codes to logits (M, K)."""
        predictions = F.normalize(at_least_fp32(self.dense(hidden_states.to(self.dense.weight.dtype))), dim=-1)
        targets = F.normalize(at_least_fp32(codes.detach()), dim=-1)
        return self.scale.exp().clamp(max=100) * predictions @ targets.to(predictions).T


class CBViLASeenImage(NamedTuple):
    """What the image encoder and the codebook make of an image, whole or with patches hidden.

    `cls` (B, Dv) is the class token, which is never quantised.
    """

    cls: Tensor
    codebook: CBViLACodebookOutput


class CBViLAWordQueries(NamedTuple):
    """A question to the texts: `words` (B, N, Dv) behind a class token `cls` (B, Dv), `mask` (B, N) of them hidden."""

    words: Tensor
    cls: Tensor
    mask: Tensor | None


class CBViLAReconstruction(NamedTuple):
    """An image as its visual words show it: `pixel_values` (B, 3, H, W) as the image processor normalises them.

    `codebook_indices` (B, N) are the words it is drawn from, those that were predicted among them.
    """

    pixel_values: Tensor
    codebook_indices: Tensor


class CBViLAImageObjectives(CBViLAPreTrainedModel):
    """A model with the heads that name pixels and visual words; a subclass builds `cbvila` first."""

    cbvila: Any
    _codes_are_watched: bool = True
    _first_weights: Tensor | None = None

    def add_image_heads(self) -> None:
        """Builds `pixel_head`, `mim_head` and, with `mim_cls_bag_weight`, `mim_cls_head`."""
        config = self.config
        size, vision = config.fusion_config.hidden_size, config.vision_config
        self.pixel_head = nn.Linear(size, vision.num_channels * vision.patch_size**2)
        self.mim_head: nn.Module = (
            CBViLATiedMIMHead(config) if config.mim_head == "tied" else nn.Linear(size, config.codebook_size)
        )
        self.has_bag_head = config.mim_cls_bag_weight > 0
        if self.has_bag_head:
            self.mim_cls_head = nn.Linear(size, config.codebook_size)

    def update_codebook(self) -> None:
        """Moves an EMA codebook; call it after every optimiser step. [`CBViLATrainer`] does."""
        self.cbvila.codebook.update()

    def watch_codes(self) -> None:
        """Warns once if weights have moved since a training forward, and nobody called `update_codebook`.

        To be called when a forward begins, which costs something until the first step is over. Micro-batches that are
        accumulated change no weight. Values are compared, and not torch's count of changes: fused optimisers, which
        are Trainer's default, do not count.
        """
        if not self._codes_are_watched or torch.compiler.is_compiling():
            return
        if not (self.training and torch.is_grad_enabled()):
            return
        if self._first_weights is None:
            self._first_weights = self._some_weights()
        elif not self.cbvila.codebook.waits_for_update:  # somebody moves the codes, or nothing has to
            self._codes_are_watched, self._first_weights = False, None
        elif not torch.equal(self._some_weights(), self._first_weights):
            self._codes_are_watched, self._first_weights = False, None
            fitted = bool(self.cbvila.codebook.initialized)
            logger.warning(
                "A training step has passed without update_codebook(): the codebook does not learn. Call "
                "model.update_codebook() after every optimizer step, train with CBViLATrainer, which does, or freeze "
                "it with model.cbvila.codebook.requires_grad_(False)."
                + ("" if fitted else " Its codes are still random: CBViLATrainer fits them to features (k-means).")
            )

    @torch.no_grad()
    def _some_weights(self) -> Tensor:
        """A copy of the smallest weights that learn, in a row: biases and the like, which every step moves."""
        learning = sorted((p for p in self.parameters() if p.requires_grad), key=Tensor.numel)[:_WATCHED]
        own = [p.to_local() if hasattr(p, "to_local") else p for p in learning]  # FSDP2 leaves each process a part
        return torch.cat([torch.zeros(0), *(p.detach().flatten().to("cpu", torch.float32) for p in own)])

    @torch.no_grad()
    def reconstruct(
        self,
        pixel_values: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
    ) -> CBViLAReconstruction:
        """Draws images from their visual words, as in the paper's Fig. 2; to be called in evaluation mode.

        With `bool_masked_pos` in two passes: MIM names the hidden words (Eq. 4), then the pixel head (Eq. 3) draws the
        image from all words. That head never saw a hidden word, unless `pixel_on="masked"`: then it saw nothing else,
        and draws what is hidden without a name for it.

        Args:
            pixel_values: (B, 3, H, W) images.
            input_ids: (B, L) captions; empty ones when absent.
            attention_mask: (B, L), 0 on padding.
            bool_masked_pos: (B, N) patches to hide; none when absent.
            interpolate_pos_encoding: Whether images of another size than the configured one are allowed.

        Raises:
            ValueError: If `bool_masked_pos` does not say of every patch whether it is hidden.
        """
        self.check_mask(pixel_values, bool_masked_pos)
        if input_ids is None:
            input_ids, attention_mask = self.empty_captions(pixel_values), None
        hidden = None if bool_masked_pos is None else bool_masked_pos.bool()
        tokens = self.cbvila.vision_model(pixel_values, interpolate_pos_encoding).last_hidden_state
        seen = CBViLASeenImage(tokens[:, 0], self.cbvila.codebook(tokens[:, 1:]))
        text = self.cbvila.text_model(input_ids, attention_mask).last_hidden_state
        ask = partial(self.ask_texts, grid=self.patch_grid(pixel_values), text=text, attention_mask=attention_mask)
        indices, logits = seen.codebook.indices, None
        if hidden is not None:
            seen = self.see_visible(pixel_values, seen, hidden)
            states = self.cbvila.drop_cls(ask([self.mim_queries(seen, hidden)]).last_hidden_state)
            logits = self.mim_scores(states, seen.codebook.codes)
            indices = torch.where(hidden, logits.argmax(-1), seen.codebook.indices)
        return CBViLAReconstruction(self.draw(self.words_to_draw(logits, seen, hidden), pixel_values, ask), indices)

    def words_to_draw(self, logits: Tensor | None, seen: CBViLASeenImage, hidden: Tensor | None) -> CBViLAWordQueries:
        """A question about pixels by the words of an image, with the likeliest ones where they are `hidden` (B, N).

        A pixel head that was trained on all words never saw a hidden one, so it is shown the predicted words; one that
        was trained on hidden ones alone sees these.
        """
        words = seen.codebook.words
        if hidden is None or self.config.pixel_on == "masked":
            return CBViLAWordQueries(words, seen.cls, hidden)
        predicted = self.cbvila.codebook.decode(F.embedding(logits.argmax(-1), seen.codebook.codes))
        return CBViLAWordQueries(torch.where(hidden.unsqueeze(-1), predicted, words), seen.cls, None)

    def draw(self, words: CBViLAWordQueries, pixel_values: Tensor, ask: Callable) -> Tensor:
        """Images (B, 3, H, W) from words that ask the captions.

        With `norm_pix_loss` words say what a patch looks like but for its mean and contrast; these come from
        `pixel_values`, as in MAE's pictures.
        """
        (pixels,) = self.pixels(ask, [words])
        patch_size = self.config.vision_config.patch_size
        if self.config.norm_pix_loss:
            mean, deviation = patch_moments(patchify(pixel_values, patch_size))
            pixels = pixels * deviation + mean
        return unpatchify(pixels, patch_size, *pixel_values.shape[-2:])

    def pixels(self, ask: Callable, queries: list[CBViLAWordQueries]) -> tuple[Tensor, ...]:
        """Pixels (B, N, P) that the words of each question stand for once they have asked the captions."""
        return equal_parts(self.pixel_head(self.cbvila.drop_cls(ask(queries).last_hidden_state)), len(queries))

    def empty_captions(self, pixel_values: Tensor) -> Tensor:
        """Ids (B, 2) of captions that say nothing about images (B, 3, H, W): start and end."""
        text = self.config.text_config
        empty = torch.tensor([[text.bos_token_id, text.end_token_id]], device=pixel_values.device)
        return empty.expand(pixel_values.shape[0], -1)

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

    def see_visible(self, pixel_values: Tensor, whole: CBViLASeenImage, hidden: Tensor) -> CBViLASeenImage:
        """The image as questions with `hidden` (B, N) patches show it.

        With `mim_mask_stage="post"` it is the whole image, whose words are hidden in the question itself; with `"pre"`
        the image encoder looks again, and its visible tokens know nothing of the hidden patches.
        """
        if self.config.mim_mask_stage == "post":
            return whole
        tokens = self.cbvila.encode_visible_patches(pixel_values, hidden, interpolate_pos_encoding=True)
        return CBViLASeenImage(tokens[:, 0], self.cbvila.codebook(tokens[:, 1:], remember=False))

    def pixel_masks(self, hidden: Tensor | None) -> list[Tensor | None]:
        """What each question about pixels hides, as `pixel_on` says; `None` hides nothing."""
        masks: list[Tensor | None] = [None] if self.config.pixel_on in ("all", "both") else []
        if self.config.pixel_on in ("masked", "both") and hidden is not None:
            masks.append(hidden)
        return masks

    def pixel_queries(self, seen: CBViLASeenImage, mask: Tensor | None) -> CBViLAWordQueries:
        cls = seen.cls if self.config.pixel_grad_to_vit else seen.cls.detach()
        return CBViLAWordQueries(seen.codebook.words, cls, mask)

    def mim_queries(self, seen: CBViLASeenImage, hidden: Tensor | None) -> CBViLAWordQueries:
        cls = seen.cls if self.config.mim_grad_to_vit else seen.cls.detach()
        return CBViLAWordQueries(seen.codebook.frozen_words, cls, hidden)

    def ask_texts(
        self,
        queries: list[CBViLAWordQueries],
        grid: tuple[int, int],
        text: Tensor,
        attention_mask: Tensor | None,
        **options,
    ):
        """All questions to the same texts (B, L, D) as one fusion pass; states (R * B, 1 + N, D) of R questions."""
        words = torch.cat([query.words for query in queries])
        mask = None
        if any(query.mask is not None for query in queries):
            nothing = torch.zeros(queries[0].words.shape[:2], dtype=torch.bool, device=words.device)
            mask = torch.cat([nothing if query.mask is None else query.mask for query in queries])
        image_cls = None
        if self.config.fusion_visual_cls == "vit":
            image_cls = torch.cat([query.cls for query in queries])
        return self.cbvila.fuse_words(words, grid, text, attention_mask, mask, image_cls, **options)

    def pixel_term(self, predictions: list[Tensor], pixel_values: Tensor, masks: list[Tensor | None]) -> Tensor:
        """The pixel loss of predictions (B, N, P), each scored where its question hid patches (or everywhere)."""
        config = self.config
        targets = patchify(pixel_values, config.vision_config.patch_size)
        terms = [
            pixel_loss(
                prediction,
                targets,
                mask,
                normalize=config.norm_pix_loss,
                likelihood=config.pixel_likelihood,
                reduction=config.pixel_reduction,
                sigma=config.pixel_sigma,
            )
            for prediction, mask in zip(predictions, masks, strict=True)
        ]
        return torch.stack(terms).mean()

    def mim_scores(self, states: Tensor, codes: Tensor) -> Tensor:
        """Scores (…, K) of the codes (K, C) for states (…, D)."""
        if self.config.mim_head == "tied":
            return self.mim_head(states, codes)
        return self.mim_head(states)

    def patch_grid(self, pixel_values: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of images (B, 3, H, W)."""
        patch = self.config.vision_config.patch_size
        return pixel_values.shape[-2] // patch, pixel_values.shape[-1] // patch


__all__ = ["CBViLATiedMIMHead"]
