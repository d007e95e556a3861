"""The momentum encoder: a moving average of a pretraining model's encoders (ALBEF's momentum models).

Shapes: b local pairs, L text tokens, S visual tokens, D hidden, Dv vision width, E embedding width, V vocabulary.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...model.losses_cbvila import at_least_fp32, masked_rows, take_rows
from ...model.momentum_cbvila import MomentumTexts
from ..context import TrainingContext
from ..moving_average import MovingAverage
from ..peft import ids_of_codes

# Of CBViLAModel; the fusion encoder and MLM's head only to predict masked tokens.
_EMBEDDING = ("vision_model", "text_model", "vision_projection", "text_projection")


class MomentumEncoder:
    """A moving average of the encoders and projections.

    Codes, if texts attend to visual words (`itm_kv`), and buffers are copied from the model. Dropout is off, unlike
    in ALBEF, so that no random numbers are drawn.

    Args:
        context: The context of a run of a [`CBViLAForPreTraining`].
        decay: Decay of the moving average.
        predicts: Whether it predicts masked tokens, which takes a fusion encoder.
    """

    def __init__(self, context: TrainingContext, decay: float, predicts: bool) -> None:
        self.context = context
        self.average = MovingAverage(_encoders_of(context.model, predicts), decay)

    @property
    def model(self) -> Any:
        """The averaged part of the model."""
        return self.average.module

    def update(self) -> None:
        """Updates the average; call it once per optimizer step."""
        model = self.context.model
        self.average.update(model, copied=ids_of_codes(model))

    @torch.no_grad()
    def encode_images(self, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Returns visual tokens (b, S, Dv) of a batch's images, and their embeddings (b, E) of length 1."""
        with self.context.accelerator.autocast():
            image = self.model.cbvila.get_image_features(
                inputs["pixel_values"], inputs.get("interpolate_pos_encoding", False), return_dict=True
            )
        return image.last_hidden_state, F.normalize(at_least_fp32(image.pooler_output), dim=-1)

    @torch.no_grad()
    def embed_texts(self, inputs: dict[str, Any]) -> Tensor:
        """Returns embeddings (b, E) of length 1 of a batch's captions."""
        with self.context.accelerator.autocast():
            text = self.model.cbvila.get_text_features(
                inputs["input_ids"], inputs.get("attention_mask"), return_dict=True
            )
        return F.normalize(at_least_fp32(text.pooler_output), dim=-1)

    @torch.no_grad()
    def encode_texts(self, inputs: dict[str, Any]) -> MomentumTexts:
        """Returns the states of a batch's captions, and the embeddings of the vocabulary."""
        base = self.model.cbvila
        with self.context.accelerator.autocast():
            text = base.text_model(inputs["input_ids"], attention_mask=inputs.get("attention_mask"))
        return MomentumTexts(text.last_hidden_state, base.get_input_embeddings().weight)

    @torch.no_grad()
    def predict_tokens(self, images: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Returns logits (masked tokens, V) for a batch's masked captions, given their visual tokens (b, S, Dv)."""
        base, mask = self.model.cbvila, inputs.get("attention_mask")
        with self.context.accelerator.autocast():
            text = base.text_model(inputs["input_ids_masked"], attention_mask=mask).last_hidden_state
            fused = base.fuse_text_with_image(text, mask, images).last_hidden_state
            (objective,) = self.model.objectives.values()
            return objective.head(take_rows(fused, masked_rows(inputs["mlm_labels"] != -100)))

    def state_dict(self) -> dict[str, Any]:
        """Returns the averaged weights by name."""
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads averaged weights; those that are missing, as the run has other options now, stay the model's."""
        self.average.load_state_dict(state, strict=False)


def _encoders_of(model: Any, predicts: bool) -> nn.Module:
    """A copy of the model without what the momentum encoder does not use."""
    model, kept = copy.deepcopy(model), set(_EMBEDDING)
    if predicts:
        kept |= {"fusion_model"} if model.config.itm_kv == "continuous" else {"fusion_model", "quantizer"}
    predicting = {name for name, o in model.objectives.items() if predicts and "momentum_tokens" in o.needs}
    _keep_children(model.objectives, predicting)
    _keep_children(model, {"cbvila", "objectives"})
    _keep_children(model.cbvila, kept)
    return model


def _keep_children(module: nn.Module, kept: set[str]) -> None:
    for name, _ in list(module.named_children()):
        if name not in kept:
            delattr(module, name)
