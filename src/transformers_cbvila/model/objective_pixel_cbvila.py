"""Pixel reconstruction (first term of Eq. 3): predicts the image from its quantized tokens and the caption.

Shapes: b images, N patches, P pixels of a patch.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from .losses_cbvila import patchify, pixel_loss
from .objective_cbvila import Answer, CBViLAObjective, CBViLAObjectiveOptions, CBViLAStep, Scored, VisualQuery
from .options_cbvila import options, require_range
from .pixel_head_convolutional_cbvila import CBViLAConvolutionalPixelHead
from .quantizer_cbvila import CBViLAQuantizer

_HEAD_LAYERS = 3


@options
class CBViLAPixelOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLAPixel`].

    Args:
        weight: Weight of the term. The default is above 1 because the term is a mean over pixels; 3 harms contrast
            less than 10, and reconstructs nearly as well (docs/study.md, on emoji).
        on: Whether to reconstruct from all quantized tokens, from the visible ones of a mask (scored on masked
            patches), or both.
        likelihood: p(x | z_q(x), l) of Eq. 3: squared (`"gaussian"`) or absolute errors (`"laplace"`).
        reduction: Mean over the pixels of a patch, or their sum, as in a log-likelihood; then a mean over patches.
        sigma: Scale σ of the likelihood: squared errors are divided by 2 σ², absolute ones by σ; neither when `None`.
        grad_to_vit: Whether the term trains the image encoder through the quantized tokens (Sec. IV-F).
        normalize: Whether each patch of the target is normalized (MAE's `norm_pix_loss`).
        head: Predicts pixels from the states of the fusion encoder, as the paper does (`"linear"`), or from the
            quantized tokens alone (`"convolutional"`, the decoder of a VQ-VAE): the fusion encoder then has MIM to
            itself, and a caption changes nothing of how visual words look. Not with `on` other than `"all"`.
        head_layers: Number of blocks of the convolutional head, 3 when `None`.
    """

    weight: float | int = 3.0
    on: Literal["all", "masked", "both"] = "all"
    likelihood: Literal["gaussian", "laplace"] = "gaussian"
    reduction: Literal["mean", "sum_patch"] = "mean"
    sigma: float | int | None = None
    grad_to_vit: bool = True
    normalize: bool = False
    head: Literal["linear", "convolutional"] = "linear"
    head_layers: int | None = None

    flat_names = {
        "pixel_weight": "weight",
        "pixel_on": "on",
        "pixel_likelihood": "likelihood",
        "pixel_reduction": "reduction",
        "pixel_sigma": "sigma",
        "pixel_grad_to_vit": "grad_to_vit",
        "norm_pix_loss": "normalize",
    }
    presets = {"paper": {"weight": 1.0, "on": "both"}, "albef": {"weight": 0.0}, "codis": {"weight": 0.0}}

    def check(self, where: str) -> None:
        """Raises a ValueError for values out of range."""
        super().check(where)
        if self.sigma is not None:
            require_range(where, "sigma", self.sigma, 0, above=True)
        if self.head_layers is not None:
            require_range(where, "head_layers", self.head_layers, 1)
            if self.head == "linear":
                raise ValueError(
                    f"{where}: head_layers={self.head_layers} changes nothing of head='linear': leave it out, or "
                    "choose head='convolutional'."
                )
        if self.head == "convolutional" and self.on != "all":
            raise ValueError(
                f"{where}: head='convolutional' reads the tokens of all patches, and on={self.on!r} hides some: "
                "choose on='all', or head='linear'."
            )


class CBViLAPixel(CBViLAObjective):
    """Predicts the pixels of patches from their quantized tokens, read by the fusion encoder or as they are."""

    name = "pixel"
    options_class = CBViLAPixelOptions
    keys_of_0_1 = {r"^pixel_head\.": "objectives.pixel.head."}
    needs = frozenset({"quantizer", "visual_queries"})
    is_default = True
    reads = "quantized"

    def __init__(self, options: CBViLAPixelOptions, config: Any, quantizer: CBViLAQuantizer | None = None) -> None:
        super().__init__(options, config, quantizer)
        vision = config.vision_config
        self.patch_size = vision.patch_size
        fused_size, num_pixels = config.multimodal_config.hidden_size, vision.num_channels * self.patch_size**2
        self.head: nn.Module
        if self.is_fused:
            self.head = nn.Linear(fused_size, num_pixels)
        else:
            num_layers = _HEAD_LAYERS if options.head_layers is None else options.head_layers
            self.head = CBViLAConvolutionalPixelHead(vision.hidden_size, fused_size, num_layers, num_pixels)

    @classmethod
    def hides_patches(cls, options: Any) -> bool:
        """Returns whether a query masks patches."""
        return options.on != "all"

    @property
    def is_fused(self) -> bool:
        """Whether it predicts from states of the fusion encoder."""
        return self.options.head == "linear"

    @property
    def predicts_whole_patches(self) -> bool:
        """Whether predictions have the mean and contrast of patches."""
        return not self.options.normalize

    @property
    def predicts_visible_patches(self) -> bool:
        """Whether it was trained on patches whose codes are visible."""
        return self.options.on != "masked"

    def visual_queries(self, step: CBViLAStep) -> list[VisualQuery]:
        """Returns the queries with all patches, with masked ones, or both."""
        masks: list[Tensor | None] = [None] if self.options.on in ("all", "both") else []
        if self.options.on in ("masked", "both") and step.bool_masked_pos is not None:
            masks.append(step.bool_masked_pos)
        return [self.query(mask) for mask in masks]

    def query(self, bool_masked_pos: Tensor | None = None) -> VisualQuery:
        """Returns the query for the pixels, with masked patches (b, N) if given."""
        return VisualQuery("quantized", bool_masked_pos, self.options.grad_to_vit, is_fused=self.is_fused)

    def predict(self, states: Tensor, grid: tuple[int, int]) -> Tensor:
        """Returns the pixels (b, N, P) that the answer (b, N, D) to its query says, in a grid of rows and columns."""
        return self.head(states) if self.is_fused else self.head(states, grid)

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Computes the reconstruction loss, the mean over queries."""
        if not answers:
            return {}
        options = self.options
        rows, columns = (side // self.patch_size for side in step.pixel_values.shape[-2:])
        predictions = [self.predict(answer.states, (rows, columns)) for answer in answers]
        losses = [
            self.loss(prediction, step.pixel_values, answer.query.bool_masked_pos)
            for prediction, answer in zip(predictions, answers, strict=True)
        ]
        # With "both", images have equal weights, which is exact if all have as many masked patches.
        counted = step.bool_masked_pos if options.on == "masked" else None
        return {self.name: Scored(torch.stack(losses).mean(), counted, {"pixel_predictions": predictions[0]})}

    def loss(self, predictions: Tensor, pixel_values: Tensor, bool_masked_pos: Tensor | None = None) -> Tensor:
        """Computes the loss () of predicted patches (b, N, P) of images (b, 3, H, W), on masked patches if given."""
        options = self.options
        return pixel_loss(
            predictions,
            patchify(pixel_values, self.patch_size),
            bool_masked_pos,
            normalize=options.normalize,
            likelihood=options.likelihood,
            reduction=options.reduction,
            sigma=options.sigma,
        )
