"""The gradient gap of a quantizer: how much the look-up changes the gradients that tokens receive.

Huh et al., "Straightening out the straight-through estimator" (ICML 2023).
"""

import torch
from torch import Tensor

from ..model.modeling_cbvila_queries import EncodedImage
from ..model.modeling_cbvila_reconstruction import CBViLAModelWithReconstruction
from ..model.modeling_cbvila_vision import tokens_to_quantize
from ..model.quantizer_output_cbvila import CBViLAQuantizerOutput
from ..retrieval.encoding import evaluating


def gradient_gap(
    model: CBViLAModelWithReconstruction,
    pixel_values: Tensor,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
) -> float:
    """Returns the mean over images of ‖∂L/∂z - ∂L/∂q‖, in evaluation mode.

    L is the pixel loss of an image, q its quantized tokens, and z the tokens that the look-up would replace.

    Args:
        model: A model with the pixel objective.
        pixel_values: (B, 3, H, W) images.
        input_ids: (B, L) captions; empty ones when absent.
        attention_mask: (B, L), 0 on padding.

    Raises:
        ValueError: If the model has no pixel objective.
    """
    if input_ids is None:
        input_ids, attention_mask = model.empty_captions(pixel_values), None
    with evaluating(model):
        encoded = model.cbvila.vision_model(pixel_values)
        patches, cls = tokens_to_quantize(encoded), encoded.last_hidden_state[:, 0]
        text = model.cbvila.text_model(input_ids, attention_mask).last_hidden_state
        found = model.cbvila.quantizer(patches)
        unquantized = model.cbvila.quantizer.unquantized(patches)
        fuse, grid = model.fusion_with(pixel_values, text, attention_mask), model.patch_grid(pixel_values)
        gradients = []
        for tokens in (found.quantized, unquantized):
            tokens = tokens.detach().requires_grad_()
            image = EncodedImage(cls, CBViLAQuantizerOutput(quantized=tokens, indices=found.indices))
            with torch.enable_grad():
                predicted = model.pixel.predict(model.ask_for_pixels(fuse, image).states, grid)
                loss = model.pixel.loss(predicted, pixel_values) * len(pixel_values)
            gradients.append(torch.autograd.grad(loss, tokens)[0])
    return float((gradients[0] - gradients[1]).flatten(1).norm(dim=1).mean())
