"""The graphs that models are exported as: one for each tower and each head, over the model's own methods.

Shapes: B batch, S visual tokens that texts attend to, N patches, L text tokens, A answer tokens, D hidden, Dv vision
width, E projection width, V vocabulary, ΣK codes of all books, H height and W width, multiples of the patch size, n
images of a statement, C classes.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..model.losses_cbvila import unpatchify
from ..model.messages_cbvila import shown
from ..model.modeling_cbvila import CBViLAModel
from ..model.modeling_cbvila_conditional_generation import CBViLAForConditionalGeneration
from ..model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from ..model.modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from ..model.modeling_cbvila_visual_entailment import CBViLAForVisualEntailment
from ..model.modeling_cbvila_visual_reasoning import CBViLAForVisualReasoning
from ..model.objective_itm_cbvila import CBViLAITM
from ..nearest import nearest

# Sizes of the sample inputs. Different ones, and none of them 1, which tracing would take for a constant.
_BATCH, _TEXT_TOKENS, _ANSWER_TOKENS = 2, 5, 3
_ROWS, _COLUMNS = 4, 6  # of patches


class FreeSize(NamedTuple):
    """A size that is free in a graph: any number, or any multiple of one.

    Args:
        name: The name of the number.
        unit: What it is a multiple of.
    """

    name: str
    unit: int = 1

    def __str__(self) -> str:
        return self.name if self.unit == 1 else f"{self.unit}*{self.name}"


_BATCHES, _TEXTS, _VISUAL = FreeSize("batch"), FreeSize("text_tokens"), FreeSize("image_tokens")


class GraphInput(NamedTuple):
    """An input of a graph.

    Args:
        sample: A tensor of valid values.
        dims: The size of each dimension that is dynamic, by its position.
    """

    sample: Tensor
    dims: Mapping[int, FreeSize]


class Graph(nn.Module):
    """Base class of graphs: a function of tensors by name, which becomes one ONNX file.

    Args:
        model: The model, in evaluation mode.

    Attributes:
        name: Its name, also that of its file.
    """

    name: ClassVar[str]

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @staticmethod
    def why_not(model: Any) -> str | None:
        """Returns why a model of a class that may have this graph has none; None if it has."""
        return None

    def inputs(self) -> dict[str, GraphInput]:
        """Returns sample inputs, in the order of `forward`'s arguments."""
        raise NotImplementedError

    def forward(self, *args: Tensor) -> dict[str, Tensor]:
        """Returns the outputs by name."""
        raise NotImplementedError


class ImageEncoder(Graph):
    """Images (B, 3, H, W) to the states (B, S, Dv) that texts attend to, embeddings (B, E), code indices (B, N).

    Embeddings are there if the model was trained to compare them, indices if it has a codebook.
    """

    name = "image_encoder"

    def inputs(self) -> dict[str, GraphInput]:
        """Returns `pixel_values`."""
        return {"pixel_values": _images(self.model)}

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # by name
        """Encodes images."""
        base = _base(self.model)
        encoded = base(pixel_values=pixel_values, interpolate_pos_encoding=True)
        outputs = {"image_states": base.image_states_for_text(encoded.vision_last_hidden_state)}
        if base.has_contrastive_head:
            outputs["image_embeds"] = encoded.image_embeds
        if base.has_quantizer:
            outputs["codebook_indices"] = encoded.codebook_indices
        return outputs


class TextEncoder(Graph):
    """Texts (B, L) to states (B, L, D), and to embeddings (B, E) if the model was trained to compare them."""

    name = "text_encoder"

    def inputs(self) -> dict[str, GraphInput]:
        """Returns `input_ids` and `attention_mask`."""
        return _texts(self.model)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Encodes texts."""
        base = _base(self.model)
        encoded = base(input_ids=input_ids, attention_mask=attention_mask)
        outputs = {"text_states": encoded.text_last_hidden_state}
        return outputs | ({"text_embeds": encoded.text_embeds} if base.has_contrastive_head else {})


class Matching(Graph):
    """Encoded texts (B, L, D) with encoded images (B, S, Dv), pair by pair, to matching logits (B, 2)."""

    name = "matching"

    @staticmethod
    def why_not(model: Any) -> str | None:
        """Models trained without matching have none."""
        return None if CBViLAITM.name in model.objectives else "it was trained without matching"

    def inputs(self) -> dict[str, GraphInput]:
        """Returns `text_states`, `attention_mask` and `image_states`."""
        return _encoded_texts(self.model) | {"image_states": _encoded_images(self.model)}

    def forward(  # type: ignore[override]
        self, text_states: Tensor, attention_mask: Tensor, image_states: Tensor
    ) -> dict[str, Tensor]:
        """Matches pairs."""
        fused = self.model.cbvila.fusion_model(
            text_states, attention_mask, encoder_hidden_states=image_states, num_queries=1
        )
        return {"itm_logits": self.model.objectives[CBViLAITM.name].head(fused.last_hidden_state[:, 0])}


class Entailment(Graph):
    """Encoded texts (B, L, D) with encoded images (B, S, Dv), pair by pair, to the logits (B, C) of their classes."""

    name = "entailment"

    def inputs(self) -> dict[str, GraphInput]:
        """Returns `text_states`, `attention_mask` and `image_states`."""
        return _encoded_texts(self.model) | {"image_states": _encoded_images(self.model)}

    def forward(  # type: ignore[override]
        self, text_states: Tensor, attention_mask: Tensor, image_states: Tensor
    ) -> dict[str, Tensor]:
        """Classifies pairs."""
        fused = self.model.cbvila.fusion_model(text_states, attention_mask, encoder_hidden_states=image_states)
        return {"logits": self.model.entailment_head(fused.last_hidden_state[:, 0])}


class Reasoning(Graph):
    """Encoded statements (B, L, D) with their encoded images (B, n, S, Dv) to the logits (B, C) of their classes."""

    name = "reasoning"

    def inputs(self) -> dict[str, GraphInput]:
        """Returns `text_states`, `attention_mask` and `image_states`."""
        states = _encoded_images(self.model).sample.unsqueeze(1)
        images = GraphInput(states.repeat(1, self.model.config.num_images, 1, 1), {0: _BATCHES, 2: _VISUAL})
        return _encoded_texts(self.model) | {"image_states": images}

    def forward(  # type: ignore[override]
        self, text_states: Tensor, attention_mask: Tensor, image_states: Tensor
    ) -> dict[str, Tensor]:
        """Classifies statements; twin layers attend to all images of one, other layers to one after the other."""
        images = image_states.shape[1]
        if not self.model.is_twin:
            text_states = text_states.unsqueeze(1).expand(-1, images, -1, -1).flatten(0, 1)
            attention_mask = attention_mask.unsqueeze(1).expand(-1, images, -1).flatten(0, 1)
        fused = self.model.cbvila.fusion_model(
            text_states, attention_mask, encoder_hidden_states=image_states.flatten(0, 1)
        )
        first = fused.last_hidden_state[:, 0]
        joined = first if self.model.is_twin else first.unflatten(0, (-1, images)).flatten(1)
        return {"logits": self.model.reasoning_head(joined)}


class Drawing(Graph):
    """Visual words (B, N) or (B, N, books), of which some are hidden, under captions (B, L, D).

    Gives the logits (B, N, ΣK) of the words and the image (B, 3, H, W) of the visible ones: a step of drawing needs
    the first, and the last one, in which nothing is hidden, the second. Of a sequential MIM head the logits of a book
    are those given the words of the books before, of hidden patches, too: run it once for each book. Images have the
    model's own size, as the number of words does not say in how many rows they are.
    """

    name = "drawing"

    @staticmethod
    def why_not(model: Any) -> str | None:
        """Models that cannot draw images from captions have none."""
        try:
            model.check_draws_images()
        except ValueError as error:
            return str(error).rstrip(".")
        return None

    def inputs(self) -> dict[str, GraphInput]:
        """Returns `codebook_indices`, `bool_masked_pos`, `text_states` and `attention_mask`."""
        books = len(self.model.cbvila.quantizer.book_sizes)
        patches = self.model.config.vision_config.num_patches
        shape = (_BATCH, patches) if books == 1 else (_BATCH, patches, books)
        return {
            "codebook_indices": GraphInput(torch.zeros(shape, dtype=torch.long), {0: _BATCHES}),
            "bool_masked_pos": GraphInput(torch.arange(_BATCH * patches).view(_BATCH, -1) % 2 == 0, {0: _BATCHES}),
            **_encoded_texts(self.model),
        }

    def forward(  # type: ignore[override]
        self, codebook_indices: Tensor, bool_masked_pos: Tensor, text_states: Tensor, attention_mask: Tensor
    ) -> dict[str, Tensor]:
        """Predicts hidden words, and draws."""
        vision = self.model.config.vision_config
        blank = text_states.new_zeros(1, 3, vision.image_size, vision.image_size)  # says the grid of patches
        fuse = self.model.fusion_with(blank, text_states, attention_mask)
        image = self.model.image_of_codes(codebook_indices)
        answer, _ = self.model.ask_for_codes(fuse, image, bool_masked_pos)
        # A fused head reads the answer that MIM reads, so that one pass serves both.
        seen = answer if self.model.pixel.is_fused else self.model.ask_for_pixels(fuse, image)
        pixels = self.model.pixel.predict(seen.states, self.model.patch_grid(blank))
        return {
            "code_logits": self.model.mim.scores(answer.states, image.quantized.codes, codebook_indices),
            "pixel_values": unpatchify(pixels, vision.patch_size, vision.image_size, vision.image_size),
        }


class QuestionEncoder(Graph):
    """Images (B, 3, H, W) and questions (B, L) about them to the states (B, L, D) that the answer decoder reads."""

    name = "question_encoder"

    def inputs(self) -> dict[str, GraphInput]:
        """Returns `pixel_values`, `input_ids` and `attention_mask`."""
        return {"pixel_values": _images(self.model), **_texts(self.model)}

    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> dict[str, Tensor]:
        """Fuses questions with images."""
        states = self.model.encode_question(pixel_values, input_ids, attention_mask, interpolate_pos_encoding=True)
        return {"question_states": states}


class AnswerDecoder(Graph):
    """Answers so far (B, A) to encoded questions (B, L, D): logits (B, A, V) of the token after each of theirs.

    Without a cache: answers are a few tokens long, and a graph with an empty cache to begin with is another graph.
    """

    name = "answer_decoder"

    def inputs(self) -> dict[str, GraphInput]:
        """Returns `input_ids`, `question_states` and `attention_mask`."""
        config = self.model.config.text_config
        start = torch.full((_BATCH, _ANSWER_TOKENS), config.bos_token_id)
        states = torch.zeros(_BATCH, _TEXT_TOKENS, config.hidden_size)
        return {
            "input_ids": GraphInput(start, {0: _BATCHES, 1: FreeSize("answer_tokens")}),
            "question_states": GraphInput(states, {0: _BATCHES, 1: _TEXTS}),
            "attention_mask": _mask(),
        }

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, question_states: Tensor, attention_mask: Tensor
    ) -> dict[str, Tensor]:
        """Scores the next token."""
        decoded = self.model.answer_decoder(
            input_ids,
            encoder_hidden_states=question_states,
            encoder_attention_mask=attention_mask,
            use_cache=False,
        )
        return {"logits": decoded.logits}


_TOWERS: tuple[type[Graph], ...] = (ImageEncoder, TextEncoder)
# The graphs of each class that can be exported.
GRAPHS: dict[Any, tuple[type[Graph], ...]] = {
    CBViLAModel: _TOWERS,
    CBViLAForPreTraining: (*_TOWERS, Matching, Drawing),
    CBViLAForImageTextRetrieval: (*_TOWERS, Matching),
    CBViLAForMaskedImageModeling: (*_TOWERS, Drawing),
    CBViLAForQuestionAnswering: (QuestionEncoder, AnswerDecoder),
    CBViLAForVisualEntailment: (*_TOWERS, Entailment),
    CBViLAForVisualReasoning: (*_TOWERS, Reasoning),
}


def exported_class(name: str) -> Any:
    """Returns the class of a model that can be exported, by its name.

    Raises:
        ValueError: If models of this class are not exported.
    """
    classes: dict[str, Any] = {cls.__name__: cls for cls in GRAPHS}
    if name not in classes:
        way_out = "; transformers.exporters takes it apart" if name == CBViLAForConditionalGeneration.__name__ else ""
        raise ValueError(f"a {name} cannot be exported; {', '.join(sorted(classes))} can{way_out}")
    return classes[name]


def graphs_of(model: Any, names: list[str] | None = None) -> list[Graph]:
    """Returns the graphs of a model.

    Args:
        model: The model.
        names: Which; by default all that it has.

    Raises:
        ValueError: If it lacks one of these; the message says which it has, and why not this one.
    """
    kinds = {kind.name: kind for kind in GRAPHS[type(model)]}
    missing = {name: reason for name, kind in kinds.items() if (reason := kind.why_not(model)) is not None}
    there = [name for name in kinds if name not in missing]
    for name in names or ():
        if name not in there:
            reason = f" ({missing[name]})" if name in missing else ""
            raise ValueError(
                f"this {type(model).__name__} has no graph {shown(name)}{reason}; it has {', '.join(there)}"
                f"{nearest(name, there)}"
            )
    return [kinds[name](model).eval() for name in (names or there)]


def _base(model: Any) -> CBViLAModel:
    return model if isinstance(model, CBViLAModel) else model.cbvila


def _images(model: Any) -> GraphInput:
    patch = model.config.vision_config.patch_size
    sample = torch.zeros(_BATCH, 3, _ROWS * patch, _COLUMNS * patch)
    return GraphInput(sample, {0: _BATCHES, 2: FreeSize("rows", patch), 3: FreeSize("columns", patch)})


def _texts(model: Any) -> dict[str, GraphInput]:
    ids = torch.full((_BATCH, _TEXT_TOKENS), model.config.text_config.bos_token_id)
    return {"input_ids": GraphInput(ids, {0: _BATCHES, 1: _TEXTS}), "attention_mask": _mask()}


def _mask() -> GraphInput:
    mask = torch.ones(_BATCH, _TEXT_TOKENS, dtype=torch.long)
    mask[1, -1] = 0
    return GraphInput(mask, {0: _BATCHES, 1: _TEXTS})


def _encoded_texts(model: Any) -> dict[str, GraphInput]:
    states = torch.zeros(_BATCH, _TEXT_TOKENS, model.config.text_config.hidden_size)
    return {"text_states": GraphInput(states, {0: _BATCHES, 1: _TEXTS}), "attention_mask": _mask()}


def _encoded_images(model: Any) -> GraphInput:
    vision = model.config.vision_config
    with torch.no_grad():
        states = _base(model).image_states_for_text(torch.zeros(_BATCH, 1 + vision.num_patches, vision.hidden_size))
    return GraphInput(states, {0: _BATCHES, 1: _VISUAL})
