"""The contract of an objective: what it asks of the two fusion passes, and the loss terms it makes of the answers.

An objective is one file with one subclass and its options; `objectives_cbvila.py` names those that there are. A model
encodes a batch once (the step), asks the queries of all objectives in two fusion passes, one for each direction, and
has every objective score its answers. Objectives know of nothing else.

Shapes: b pairs at hand, B pairs of all processes, N patches, L text tokens, D hidden, Dv vision width, E embedding
width, R rows of a query.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from .distributed_cbvila import Processes
from .momentum_cbvila import MomentumTargets
from .options_cbvila import CBViLAOptions, options, require_range
from .pair_similarity_cbvila import PairSimilarity
from .quantizer_output_cbvila import CBViLAQuantizerHints, CBViLAQuantizerOutput

Phase = Literal["align", "start", "burn_in", "stable"]


class Scored(NamedTuple):
    """A loss term.

    Args:
        loss: (), a mean.
        counted: What it is a mean over, as a mask or as numbers to add up; the pairs at hand when absent. With it the
            mean over processes becomes the mean over what all of them have.
        predictions: Fields of the model's output.
    """

    loss: Tensor
    counted: Tensor | None = None
    predictions: dict[str, Tensor] = {}


class TextQuery(NamedTuple):
    """Texts that attend to images, for the pass of ITM and MLM.

    Args:
        states: (R, L, D).
        attention_mask: (R, L), 0 on padding.
        image_index: (R,) rows of the step's images, and behind these of `more_images`.
        more_images: (b', S, Dv) visual tokens that the step does not have.
        labels: Whatever the objective compares the answers with.
    """

    states: Tensor
    attention_mask: Tensor | None
    image_index: Tensor
    more_images: Tensor | None = None
    labels: Tensor | None = None


class VisualQuery(NamedTuple):
    """Quantized tokens that attend to the captions, for the pass of the pixel loss and MIM.

    Args:
        tokens: Which output of the quantizer: `"quantized"` or `"detached"`.
        bool_masked_pos: (b, N) patches to hide; `None` hides nothing.
        trains_encoder: Whether the class token in front passes gradients on to the image encoder.
    """

    tokens: Literal["quantized", "detached"]
    bool_masked_pos: Tensor | None = None
    trains_encoder: bool = True


@dataclass(frozen=True)
class CBViLAStep:
    """What is known of a batch once it is encoded.

    Args:
        weights: Weight of each term by name.
        training: Whether the model is in training mode.
        pixel_values, input_ids, attention_mask: The pairs.
        images: (b', 1 + N, Dv) visual tokens.
        texts, masked_texts: (b, L, D) states of the captions, and of those with masked tokens.
        image_index: (b,) the row of each text's image.
        mlm_labels: (b, L).
        quantized: Of the whole images.
        hints: What the quantizer was told of them.
        bool_masked_pos: (b', N) bool.
        caption_dropped: (b,) bool, images that attend to an empty caption.
        mim_targets: (b', N) or (b', N, books) indices that MIM predicts in place of the quantizer's.
        image_embeds, text_embeds: (b, E) of length 1.
        pairs: How alike all pairs are.
        similarity: Logits (b, B) of embeddings; the temperature is in it.
        processes: The other processes, if there are any in training.
        momentum: What a momentum encoder makes of the batch.
        negatives: (b,) wrong images and (b,) wrong texts that the caller chose.
        negative_hardness, negative_seed: How to choose them otherwise.
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
    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    masked_texts: Tensor | None = None
    mlm_labels: Tensor | None = None
    quantized: CBViLAQuantizerOutput | None = None
    hints: CBViLAQuantizerHints | None = None
    bool_masked_pos: Tensor | None = None
    caption_dropped: Tensor | None = None
    mim_targets: Tensor | None = None
    processes: Processes | None = None
    momentum: MomentumTargets | None = None
    negatives: tuple[Tensor, Tensor] | None = None
    negative_hardness: float | None = None
    negative_seed: int | Tensor | None = None


class Answer(NamedTuple):
    """What a fusion pass makes of a query.

    `states` (R, L, D) are of its tokens; of a visual query (b, N, D) those of the patches, and `cls` (b, D) that of
    the query [CLS], if there is one. `logits` (b, N, ΣK) are scores of codes, where a model has computed them already.
    """

    query: Any
    states: Tensor
    cls: Tensor | None = None
    logits: Tensor | None = None


@options
class CBViLAObjectiveOptions(CBViLAOptions):
    """Options that every objective has.

    Args:
        weight: Of its term in the loss; 0 leaves the objective and its head out.
    """

    weight: float | int = 1.0

    def check(self, where: str) -> None:
        require_range(where, "weight", self.weight, 0)


class CBViLAObjective(nn.Module):
    """Base class of objectives.

    A subclass sets `name` and `options_class`, builds its head from the configuration, and implements `forward`, and
    one of the two kinds of queries if it needs an answer.

    Args:
        options: An `options_class`.
        config: The configuration of the model.
        quantizer: Its quantizer, `None` where there is none.

    Attributes:
        name: Its key in `objectives` of the configuration.
        phase: From when it is on in [`CBViLATrainer`]: `"align"` from the first step, `"start"` after alignment,
            `"burn_in"` after burn-in, `"stable"` when the codes are stable, too.
        needs: What others provide because of it, of `"quantizer"` (which is built), `"visual_queries"` (to be asked),
            `"projections"` (of contrast), `"other_pairs"` (to compare with), `"hard_negatives"`, `"masked_text"`,
            `"momentum_pairs"`, `"momentum_tokens"` (of a momentum encoder, if one is kept), `"code_targets"` (of a
            slower copy of the image encoder, if one is kept).
        is_default: Whether a model has it when nothing is said of it.
        reads: Which output of the quantizer its queries are, if it has `grad_to_vit` among its options.
        keys_of_0_1: Patterns of keys in checkpoints of version 0.1, with what they are called now.
    """

    name: ClassVar[str]
    options_class: ClassVar[type[CBViLAObjectiveOptions]] = CBViLAObjectiveOptions
    phase: ClassVar[Phase] = "start"
    needs: ClassVar[frozenset[str]] = frozenset()
    is_default: ClassVar[bool] = False
    reads: ClassVar[str | None] = None
    keys_of_0_1: ClassVar[dict[str, str]] = {}

    def __init__(self, options: Any, config: Any, quantizer: nn.Module | None = None):
        super().__init__()
        self.options = options

    @classmethod
    def loss_weights(cls, options: Any) -> dict[str, float]:
        """Weight of each of its terms by name; an objective with several terms has several."""
        return {cls.name: float(options.weight)}

    @classmethod
    def hides_patches(cls, options: Any) -> bool:
        """Whether its queries hide patches."""
        return False

    @classmethod
    def check_with(cls, options: Any, config: Any) -> None:
        """Raises a ValueError where other choices of the configuration exclude the objective."""

    def text_queries(self, step: CBViLAStep) -> list[TextQuery]:
        """Texts that are to attend to images."""
        return []

    def visual_queries(self, step: CBViLAStep) -> list[VisualQuery]:
        """Quantized tokens that are to attend to captions; equal ones of several objectives are asked once."""
        return []

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Its terms by name, those for which the batch has inputs.

        Args:
            answers: To its queries, in their order.
        """
        raise NotImplementedError

    def code_weights(self) -> list[nn.Module]:
        """Linear layers with a row of weights for each code, which mean nothing once codes are fitted anew."""
        return []

    def after_step(self) -> None:
        """Called without gradients after every optimizer step."""
