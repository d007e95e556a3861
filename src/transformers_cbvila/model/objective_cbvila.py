"""Interface of objectives, which make queries for two fusion passes and loss terms from their outputs.

Each objective has a file of its own, with one subclass and its options; `objectives_cbvila.py` lists them. A model
encodes a batch once (the step), runs the queries of all objectives in two fusion passes, one per direction, and lets
every objective score the outputs of its own queries (the answers).

Shapes: b local pairs, B pairs of all processes, b' images, N patches, L text tokens, D hidden, Dv vision width, E
embedding width, R rows of a query, S visual tokens, ΣK codes of all books.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from .distributed_cbvila import Processes
from .momentum_cbvila import MomentumTargets
from .options_cbvila import CBViLAOptions, options, require_range
from .pair_similarity_cbvila import PairSimilarity
from .quantizer_cbvila import CBViLAQuantizer
from .quantizer_output_cbvila import CBViLAQuantizerHints, CBViLAQuantizerOutput

Phase = Literal["align", "start", "burn_in", "stable"]

_OF_PAIRS = {"text_features", "masked_words", "other_view"}  # what only pretraining has


class Scored(NamedTuple):
    """A loss term.

    Args:
        loss: (), a mean over items such as patches or tokens.
        counted: Mask of these items, or their numbers to add up; the local pairs when absent. Several processes use it
            to scale the loss, so that it is a mean over the items of all of them.
        predictions: Fields of the model's output.
        metrics: Figures () for the log, by name.
    """

    loss: Tensor
    counted: Tensor | None = None
    predictions: dict[str, Tensor] = {}
    metrics: dict[str, Tensor] = {}


class TextQuery(NamedTuple):
    """Texts that attend to images, for the pass of ITM and MLM.

    Args:
        states: (R, L, D).
        attention_mask: (R, L), 0 on padding.
        image_index: (R,) rows of the step's images, followed by those of `more_images`.
        more_images: (b', S, Dv) visual tokens that are not part of the step.
        labels: Labels for the objective's own use.
    """

    states: Tensor
    attention_mask: Tensor | None
    image_index: Tensor
    more_images: Tensor | None = None
    labels: Tensor | None = None


class OtherView(NamedTuple):
    """Another view of each image.

    Args:
        pixel_values: (b', 3, H, W) images.
        hints: Additional inputs of the quantizer.
    """

    pixel_values: Tensor
    hints: CBViLAQuantizerHints | None = None


class NegativeTexts(NamedTuple):
    """A text for each image that is false of it.

    Args:
        states: (b, L', D).
        attention_mask: (b, L'), 0 on padding.
        are_given: (b,) bool, whether the image has one.
    """

    states: Tensor
    attention_mask: Tensor
    are_given: Tensor


class VisualQuery(NamedTuple):
    """Quantized tokens that attend to the captions, for the pass of the pixel loss and MIM.

    Args:
        tokens: The quantizer's output to use.
        bool_masked_pos: (b, N) patches to mask; none when absent.
        trains_encoder: Whether the [CLS] query passes gradients on to the image encoder.
        quantized: An output of the quantizer in place of the step's, for a query without masked patches.
        is_fused: Whether the fusion encoder answers it; otherwise the tokens themselves are the answer.
    """

    tokens: Literal["quantized", "detached"]
    bool_masked_pos: Tensor | None = None
    trains_encoder: bool = True
    quantized: CBViLAQuantizerOutput | None = None
    is_fused: bool = True


@dataclass(frozen=True)
class CBViLAStep:
    """An encoded batch, with everything that objectives use.

    Args:
        weights: Weight of each term by name.
        training: Whether the model is in training mode.
        pixel_values: (b', 3, H, W) images.
        images: (b', 1 + N, Dv) visual tokens.
        texts: (b, L, D) states of the captions.
        image_index: (b,) row of each text's image.
        image_embeds: (b, E) image embeddings of length 1.
        text_embeds: (b, E) text embeddings of length 1.
        pairs: Similarities of all pairs.
        similarity: Maps embeddings of images and texts to logits, divided by the temperature.
        similarity_scale: 1 / temperature.
        input_ids: (b, L) captions.
        attention_mask: (b, L), 0 on padding.
        masked_texts: (b, L, D) states of the captions with masked tokens.
        mlm_labels: (b, L).
        masked_words: (b, L) bool, words to predict from the image alone.
        word_embeddings: (V, D) embeddings of the vocabulary, without gradient.
        quantizer: The model's quantizer.
        quantized: The quantizer's output for the unmasked images.
        pixel_loss: Maps states (b, N, D) of a visual query without masked patches to the loss () of the pixels
            predicted from them, if the model has the pixel objective.
        pixels_are_fused: Whether these are states of the fusion encoder (`is_fused` of the query).
        hints: Additional inputs of the quantizer.
        other_view: Another view of the images.
        quantize: Encodes and quantizes a view, without counting it in moving averages.
        bool_masked_pos: (b', N) bool.
        caption_dropped: (b,) bool, images that attend to an empty caption.
        mim_targets: (b', N) or (b', N, books) indices that MIM predicts in place of the quantizer's.
        processes: All processes in distributed training; `None` elsewhere.
        momentum: Outputs of a momentum encoder.
        negative_texts: Texts that are false of the images, if the data has some.
        negatives: Indices (b, k) of negative images and (b, k) of negative texts, if the caller chose them.
        negative_hardness: How hard negatives are otherwise, see [`choose_negatives`].
        negative_seed: Seed of their choice.
    """

    weights: dict[str, float]
    training: bool
    pixel_values: Tensor
    images: Tensor
    texts: Tensor
    image_index: Tensor | None = None
    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    pairs: PairSimilarity | None = None
    similarity: Callable[[Tensor, Tensor], Any] | None = None
    similarity_scale: Tensor | float = 1.0
    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    masked_texts: Tensor | None = None
    mlm_labels: Tensor | None = None
    masked_words: Tensor | None = None
    word_embeddings: Tensor | None = None
    quantizer: CBViLAQuantizer | None = None
    quantized: CBViLAQuantizerOutput | None = None
    pixel_loss: Callable[[Tensor], Tensor] | None = None
    pixels_are_fused: bool = True
    hints: CBViLAQuantizerHints | None = None
    other_view: OtherView | None = None
    quantize: Callable[[OtherView], CBViLAQuantizerOutput] | None = None
    bool_masked_pos: Tensor | None = None
    caption_dropped: Tensor | None = None
    mim_targets: Tensor | None = None
    processes: Processes | None = None
    momentum: MomentumTargets | None = None
    negative_texts: NegativeTexts | None = None
    negatives: tuple[Tensor, Tensor] | None = None
    negative_hardness: float | None = None
    negative_seed: int | Tensor | None = None


class Answer(NamedTuple):
    """Output of a fusion pass for one query.

    Args:
        query: The query.
        states: (R, L, D) states of a text query's tokens, or (b, N, D) of a visual query's patches; its tokens
            (b, N, Dv) where it is not fused.
        cls: (b, D) state of a visual query's [CLS], if it has one.
        logits: (b, N, ΣK) scores of codes, where the model has computed them already.
    """

    query: Any
    states: Tensor
    cls: Tensor | None = None
    logits: Tensor | None = None


@options
class CBViLAObjectiveOptions(CBViLAOptions):
    """Options common to all objectives.

    Args:
        weight: Weight of the term in the loss; 0 leaves out the objective and its head.
    """

    weight: float | int = 1.0

    def check(self, where: str) -> None:
        """Raises a ValueError for values out of range."""
        require_range(where, "weight", self.weight, 0)


class CBViLAObjective(nn.Module):
    """Base class of objectives.

    A subclass sets `name` and `options_class`, builds its head from the configuration, and implements `forward` and,
    if it needs a fusion pass, `text_queries` or `visual_queries`.

    Args:
        options: An instance of `options_class`.
        config: The [`CBViLAConfig`] of the model.
        quantizer: The model's quantizer, if it has one.

    Attributes:
        name: Key in `objectives` of the configuration.
        phase: When [`CBViLATrainer`] turns it on: `"align"` from the first step, `"start"` after alignment,
            `"burn_in"` after burn-in, `"stable"` once the codes are stable as well.
        needs: What the model or the trainer has to provide: `"quantizer"`, `"visual_queries"` (their embeddings are
            built), `"projections"` (of the contrastive embeddings, which train the encoders unless
            `trains_encoders` says otherwise), `"other_pairs"` (similarities with all pairs),
            `"hard_negatives"`, `"masked_text"`, `"momentum_pairs"` and `"momentum_tokens"` (from a momentum encoder,
            if there is one), `"momentum_encoder"` (there must be one), `"teacher_view"` (it embeds another view
            of each image), `"code_targets"` (from an EMA teacher, if there is one), `"text_features"` (embeddings of
            the vocabulary and, from a momentum encoder if there is one, states of the captions), `"masked_words"`,
            `"token_classes"` and `"other_view"` (of each image, from the data).
        is_default: Whether a configuration that does not mention it includes it.
        reads: The quantizer's output that its queries use, if its options include `grad_to_vit`.
        must_write: Methods that a subclass has to have.
        keys_of_0_1: Patterns of state-dict keys of version 0.1, with their replacements.
    """

    name: ClassVar[str]
    must_write = ("forward",)
    options_class: ClassVar[type[CBViLAObjectiveOptions]] = CBViLAObjectiveOptions
    phase: ClassVar[Phase] = "start"
    needs: ClassVar[frozenset[str]] = frozenset()
    is_default: ClassVar[bool] = False
    reads: ClassVar[str | None] = None
    keys_of_0_1: ClassVar[dict[str, str]] = {}

    def __init__(self, options: Any, config: Any, quantizer: CBViLAQuantizer | None = None) -> None:
        super().__init__()
        self.options = options

    @classmethod
    def loss_weights(cls, options: Any) -> dict[str, float]:
        """Returns the weight of each term by name: one, unless the objective has several terms."""
        return {cls.name: float(options.weight)}

    @classmethod
    def is_of_images(cls) -> bool:
        """Returns whether it learns from quantized images and captions alone, as masked image modelling does."""
        return "quantizer" in cls.needs and not cls.needs & _OF_PAIRS

    @classmethod
    def hides_patches(cls, options: Any) -> bool:
        """Returns whether its queries mask patches."""
        return False

    @classmethod
    def trains_encoders(cls, options: Any) -> bool:
        """Returns whether contrastive embeddings pass gradients on to the encoders, if it needs their projections."""
        return True

    @classmethod
    def check_with(cls, options: Any, config: Any) -> None:
        """Raises a ValueError if other options of the configuration exclude the objective."""

    def text_queries(self, step: CBViLAStep) -> list[TextQuery]:
        """Returns the texts that attend to images."""
        return []

    def visual_queries(self, step: CBViLAStep) -> list[VisualQuery]:
        """Returns the quantized tokens that attend to captions; equal queries of several objectives run once."""
        return []

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Computes the terms that the batch has inputs for, by name.

        Args:
            step: The encoded batch.
            answers: Outputs of its text queries, then of its visual queries, in their order.
        """
        raise NotImplementedError

    def code_weights(self) -> list[nn.Module]:
        """Returns linear layers with a row of weights per code, to be reset when codes are fitted again."""
        return []

    def prototypes(self) -> Tensor | None:
        """Returns vectors (K, E) of length 1 that images and texts are gathered around, for `cbvila inspect`."""
        return None

    def after_step(self) -> None:
        """Runs without gradients after every optimizer step."""
