"""The momentum encoder: a moving average of a pretraining model's encoders (ALBEF's momentum models).

Shapes: b pairs at hand, L text tokens, S visual tokens, D hidden, Dv vision width, E embedding width, V vocabulary.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...model.losses_cbvila import at_least_fp32, masked_rows, take_rows
from ..peft import ids_of_codes

# Of CBViLAModel; the fusion encoder and MLM's head only to predict masked tokens.
_EMBEDDING = ("vision_model", "text_model", "vision_projection", "text_projection")


class MomentumEncoder:
    """A moving average of the encoders and projections, kept outside the model and its published weights.

    Codes, if texts attend to visual words (`itm_kv`), and buffers are copied from the model. Dropout is off, unlike
    in ALBEF, so that no random numbers are drawn.

    Args:
        trainer: The trainer of a [`CBViLAForPreTraining`].
        decay: Decay of the moving average: w ← decay · w + (1 - decay) · model's w.
        predicts: Whether it predicts masked tokens, which takes a fusion encoder.
    """

    def __init__(self, trainer, decay: float, predicts: bool):
        self.trainer, self.decay = trainer, decay
        model = copy.deepcopy(trainer.unwrapped_model)
        kept = {*_EMBEDDING, "fusion_model"} if predicts else {*_EMBEDDING}
        if predicts and model.config.itm_kv != "continuous":
            kept.add("quantizer")
        predicting = {name for name, o in model.objectives.items() if predicts and "momentum_tokens" in o.needs}
        _drop(model.objectives, predicting)
        _drop(model, {"cbvila", "objectives"})
        _drop(model.cbvila, kept)
        self.model = model.requires_grad_(False).eval()

    @torch.no_grad()
    def update(self) -> None:
        """Updates the average; call it once per optimiser step."""
        model = self.trainer.unwrapped_model
        codes = ids_of_codes(model)
        for name, own in self.model.named_parameters():
            followed = model.get_parameter(name)
            if id(followed) in codes:
                own.copy_(followed)
            else:
                own.lerp_(followed, 1 - self.decay)
        for name, own in self.model.named_buffers():
            own.copy_(model.get_buffer(name))

    @torch.no_grad()
    def encode_images(self, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Visual tokens (b, S, Dv) of a batch's images, and their embeddings (b, E) of length 1."""
        with self.trainer.accelerator.autocast():
            image = self.model.cbvila.get_image_features(
                inputs["pixel_values"], inputs.get("interpolate_pos_encoding", False), return_dict=True
            )
        return image.last_hidden_state, F.normalize(at_least_fp32(image.pooler_output), dim=-1)

    @torch.no_grad()
    def embed_texts(self, inputs: dict[str, Any]) -> Tensor:
        """Embeddings (b, E) of length 1 of a batch's captions."""
        with self.trainer.accelerator.autocast():
            text = self.model.cbvila.get_text_features(
                inputs["input_ids"], inputs.get("attention_mask"), return_dict=True
            )
        return F.normalize(at_least_fp32(text.pooler_output), dim=-1)

    @torch.no_grad()
    def predict_tokens(self, images: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Logits (masked tokens, V) for a batch's masked captions, given their visual tokens (b, S, Dv)."""
        base, mask = self.model.cbvila, inputs.get("attention_mask")
        with self.trainer.accelerator.autocast():
            text = base.text_model(inputs["input_ids_masked"], attention_mask=mask).last_hidden_state
            fused = base.fuse_text_with_image(text, mask, images).last_hidden_state
            (objective,) = self.model.objectives.values()
            return objective.head(take_rows(fused, masked_rows(inputs["mlm_labels"] != -100)))

    def state_dict(self) -> dict[str, Any]:
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads a state that may have a fusion encoder where this one has none, or the reverse.

        Weights that are missing, as the run is resumed with other options, stay those of the model.
        """
        self.model.load_state_dict(state, strict=False)


def _drop(module: nn.Module, kept: set[str]) -> None:
    """Removes the children that are not among the kept ones."""
    for name, _ in list(module.named_children()):
        if name not in kept:
            delattr(module, name)
