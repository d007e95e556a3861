"""A module of sentence-transformers by which its `CrossEncoder` scores images and texts with the matching head.

Shapes: B pairs, I different images, L text tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..bundled import checkpoint_source
from ..model.losses_cbvila import matching_scores
from ..model.messages_cbvila import shown
from ..model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from ..model.processing_cbvila import CBViLAProcessor
from .encoding import pixel_values_of, tokens_of

_INPUTS = ("pixel_values", "input_ids", "attention_mask", "image_index")


class CBViLAMatchingModule(nn.Module):
    """Scores pairs of an image and a text, in either order, by the log-odds that they match.

    `CrossEncoder` applies the sigmoid, so that `predict` and `rank` give the probabilities of
    `itm_logits.softmax(-1)[:, 1]`. An image is encoded once for all its texts in a batch.

    Args:
        model: A model with a matching head.
        processor: Its processor.
        max_seq_length: Longest text in tokens; longer ones are cut.

    Raises:
        ValueError: If the model was trained without matching (ITM has weight 0).

    Example:
    ```python
    from sentence_transformers import CrossEncoder
    from transformers_cbvila import CBViLAMatchingModule

    reranker = CrossEncoder(modules=[CBViLAMatchingModule.load("cbvila-tiny")])
    reranker.rank("a blue circle", pictures)  # [{"corpus_id": 2, "score": 0.93}, …]
    ```
    """

    save_in_root = True
    modalities = ["text", "image", ("text", "image"), ("image", "text")]

    def __init__(self, model: Any, processor: CBViLAProcessor, max_seq_length: int = 30) -> None:
        super().__init__()
        if not model.config.needs("hard_negatives"):
            raise ValueError(
                "This model was trained without image-text matching (ITM has weight 0), so that it scores no pairs: "
                "compare embeddings, with SentenceTransformer."
            )
        self.model, self.processor, self.max_seq_length = model, processor, max_seq_length

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> "CBViLAMatchingModule":
        """Loads a checkpoint for pretraining or retrieval.

        Args:
            model_name_or_path: Folder, Hub id, or the name of a bundled checkpoint.
            subfolder: Where in it the model is.
            token: Of the Hub.
            cache_folder: Where downloads are kept.
            revision: Of the repository.
            local_files_only: Whether to download nothing.
            kwargs: What `CrossEncoder` passes to modules of other kinds; `model_kwargs` are options of
                `from_pretrained`.
        """
        source = checkpoint_source(model_name_or_path)
        where: dict[str, Any] = {"subfolder": subfolder, "token": token, "cache_dir": cache_folder}
        where |= {"revision": revision or "main", "local_files_only": local_files_only}
        model = CBViLAForImageTextRetrieval.from_pretrained(source, **where, **(kwargs.get("model_kwargs") or {}))
        return cls(model.eval(), CBViLAProcessor.from_pretrained(source, **where))

    def save(self, output_path: str, **kwargs: Any) -> None:
        """Saves the model and the processor."""
        self.model.save_pretrained(output_path)
        self.processor.save_pretrained(output_path)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the texts."""
        return self.processor.tokenizer

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """Converts B pairs to `pixel_values` (I, 3, H, W), `input_ids`, `attention_mask` (B, L), `image_index` (B,).

        Args:
            inputs: Pairs of an image (of any kind, as `{"image": …}` also a path or URL) and a text.
            prompt: What texts begin with.
            kwargs: What `CrossEncoder` passes to modules of other kinds.

        Raises:
            ValueError: If something is no such pair, or an image cannot be read.
        """
        images, texts = zip(*(_image_and_text(pair, row) for row, pair in enumerate(inputs)), strict=True)
        first: dict[int | str, int] = {}
        index = [first.setdefault(image if isinstance(image, str) else id(image), len(first)) for image in images]
        different = [images[index.index(place)] for place in range(len(first))]
        ids, mask = tokens_of(self.model, self.processor, [(prompt or "") + t for t in texts], self.max_seq_length)
        pixels = pixel_values_of(self.model, self.processor, different)
        return dict(zip(_INPUTS, (pixels, ids, mask, torch.tensor(index)), strict=True))

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Adds the log-odds of a match, `scores` (B, 1), to what `preprocess` returns."""
        logits = self.model(**{name: features[name] for name in _INPUTS}).itm_logits
        return {**features, "scores": matching_scores(logits).unsqueeze(-1)}


def _image_and_text(pair: Any, row: int) -> tuple[Any, str]:
    """Returns the image and the text of a pair, in whichever order they are."""
    by_kind = dict(map(_with_kind, pair)) if isinstance(pair, list | tuple) and len(pair) == 2 else {}
    if by_kind.keys() != {"image", "text"}:
        raise ValueError(
            f"pair {row}: {shown(pair)} is no image with a text; pass a picture and a string, and the path of a "
            'picture as {"image": path}.'
        )
    return by_kind["image"], by_kind["text"]


def _with_kind(value: Any) -> tuple[str, Any]:
    """Returns whether a member of a pair is an "image" or a "text", and what it is."""
    if isinstance(value, Mapping):
        return next(iter(value.items())) if len(value) == 1 else ("both", value)
    return ("text" if isinstance(value, str) else "image"), value
