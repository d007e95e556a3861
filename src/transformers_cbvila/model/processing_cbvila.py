"""CB-ViLA's processor: images and texts in, the model's tensors out; answers to labels and back."""

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy

from .answer_lists_cbvila import require_distinct
from .item_lists_cbvila import by_position, holds_several
from .label_checks_cbvila import IGNORED_LABEL
from .messages_cbvila import shown
from .processing_options_cbvila import split_options
from .remote_code_cbvila import saved_with_its_code

# What a tokenizer may bring defaults of.
TOKENIZER_DEFAULTS = ("padding", "truncation", "max_length", "pad_to_multiple_of")
# Texts are all of type 0, and no model takes token types.
MODEL_INPUT_NAMES = ["input_ids", "attention_mask"]
# Tokenizers without a limit have a model_max_length of 1e30.
UNLIMITED = 1_000_000


@saved_with_its_code
class CBViLAProcessor(ProcessorMixin):
    """An image processor and a tokenizer behind one call.

    Args:
        image_processor: a `CBViLAImageProcessor` or `CBViLAImageProcessorPil`.
        tokenizer: a BERT-like tokenizer; it must have [CLS], [SEP] and [PAD] tokens.
        add_sep_token: whether texts end in [SEP]. False is ALBEF's convention, `[CLS] tokens`.

    Example:
    ```python
    >>> from PIL import Image
    >>> from transformers import BertTokenizer
    >>> from transformers_cbvila import CBViLAImageProcessorPil, CBViLAProcessor

    >>> tokenizer = BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "red": 5})
    >>> processor = CBViLAProcessor(CBViLAImageProcessorPil(size={"height": 64, "width": 64}), tokenizer)
    >>> batch = processor(images=Image.new("RGB", (80, 60), "red"), text=["red", "red red"], return_tensors="pt",
    ...                   image_index=[0, 0])
    >>> batch["pixel_values"].shape, batch["input_ids"].tolist()
    (torch.Size([1, 3, 64, 64]), [[2, 5, 3, 0], [2, 5, 5, 3]])

    ```
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, add_sep_token: bool = True) -> None:
        super().__init__(image_processor, _without_token_types(tokenizer))
        missing = [name for name in ("cls_token", "sep_token", "pad_token") if getattr(tokenizer, name) is None]
        if missing:
            raise ValueError(
                f"the tokenizer has no {' and no '.join(missing)}; set it, e.g. tokenizer.cls_token = ..."
            )
        self.add_sep_token = add_sep_token

    @property
    def unused_input_names(self) -> list[str]:
        """Token types, which the models do not take."""
        return ["token_type_ids"]

    def __call__(
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        *,
        image_index: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Process images, texts or both.

        Args:
            images: one image or a list, as the image processor takes them; I images in all. A list of lists has the
                images of each text, for visual reasoning.
            text: one text or a list; B texts. One text is a batch of one.
            image_index: B image numbers in 0..I-1, the image of each text. Needed where I and B differ, e.g. for
                several questions about one image; without it text i belongs to image i.
            **kwargs: `return_tensors`: "pt", "np", or None for lists. For texts `padding` (default: True for several
                texts; always on the right), `truncation`, `max_length`, `pad_to_multiple_of`, `add_special_tokens` and
                `return_attention_mask`, as tokenizers take them (their other options with the values that change
                nothing); for images the image processor's options, e.g. `size` or `do_resize`. They may also come as
                `text_kwargs={...}`, `images_kwargs={...}` and `common_kwargs={...}`; `videos_kwargs` and
                `audio_kwargs` are passed over.

        Returns:
            What the arguments give of `pixel_values` (I, 3, height, width), or (B, n, 3, height, width) where each
            text has a list of n > 1 images, `input_ids` and `attention_mask` (B, L), and `image_index` (B,).

        Raises:
            TypeError: an unknown option, or one in the group of another modality.
            ValueError: neither images nor text, or `videos` or `audio`; an option given twice, or with a value that
                the models cannot follow; counts that differ; an empty text; a text of more tokens than `max_length` or
                the tokenizer's `model_max_length` without `truncation=True`; an image that cannot be read.
            FileNotFoundError: no file at an image's path.
        """
        if images is None and text is None:
            raise ValueError("got neither images nor text; pass at least one")
        image_names = set(self.image_processor.valid_kwargs.__annotations__)
        return_tensors, text_options, image_options = split_options(kwargs, image_names)
        data: dict[str, Any] = {}
        if images is not None:
            data |= self.image_processor(images, return_tensors=return_tensors, **image_options)
        if text is not None:
            # As everywhere in transformers, a tokenizer may bring defaults of its own.
            brought = self.tokenizer.init_kwargs
            own = {name: brought[name] for name in TOKENIZER_DEFAULTS if name in brought}
            data |= self._encode_texts(_as_list(text, "text"), **{**own, **text_options})
        if image_index is not None:
            data["image_index"] = _check_image_index(image_index, data)
        elif images is not None and text is not None and _are_lists(images):
            data["pixel_values"] = _group(data["pixel_values"], list(map(len, images)), len(data["input_ids"]))
        elif images is not None and text is not None:
            _check_counts(data)
        return BatchFeature(data, tensor_type=return_tensors)

    def encode_answers(self, answers: str | list[str], return_tensors: str | None = "pt") -> BatchFeature:
        """Encode answers as labels for the answer decoder.

        Args:
            answers: B answers.
            return_tensors: "pt", "np", or None for lists.

        Returns:
            `labels` (B, A): each answer's tokens and [SEP], padded with -100 on the right. There is no [CLS]: the
            decoder starts from it by shifting the labels to the right.

        Raises:
            ValueError: no answers, an answer without a token, or one longer than the tokenizer's `model_max_length`.
        """
        rows = self._tokenize(_as_list(answers, "answers"), "answer")
        rows = [[*row, self.tokenizer.sep_token_id] for row in rows]
        _check_lengths(rows, self._length_limit(None), "answer", "shorten it")
        longest = max(map(len, rows))
        labels = [_pad(row, longest, IGNORED_LABEL) for row in rows]
        return BatchFeature({"labels": labels}, tensor_type=return_tensors)

    def encode_candidates(self, answers: Any) -> torch.Tensor:
        """Encode answers to choose from.

        Args:
            answers: R answers, all of them different to the tokenizer.

        Returns:
            `answer_labels` (R, A) of `rank_answers` and `generate`.

        Raises:
            ValueError: as of `encode_answers`, and if two answers are the same tokens or one is unknown altogether.
        """
        labels = self.encode_answers(answers)["labels"]
        rows = [[token for token in row if token != IGNORED_LABEL][:-1] for row in labels.tolist()]
        require_distinct(rows, _as_list(answers, "answers"), "answers", self.tokenizer.unk_token_id)
        return labels

    def decode_answers(self, ids: Any) -> list[str]:
        """Read the texts of generated answers, or of labels.

        Args:
            ids: (B, A) token ids, with or without the token that the decoder starts from. Each row is read up to the
                first [SEP] after its first token; special tokens and -100 are left out.

        Returns:
            B texts, "" for an answer without a token.

        Raises:
            ValueError: `ids` is not two-dimensional.
        """
        rows = ids.tolist() if isinstance(ids, (torch.Tensor, np.ndarray)) else ids
        if not all(isinstance(row, (list, tuple)) for row in rows):
            raise ValueError("answer ids must be two-dimensional, (B, A); wrap a single answer as [ids]")
        rows = [self._until_sep([token for token in row if token != IGNORED_LABEL]) for row in rows]
        return [text.strip() for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]

    def _until_sep(self, row: list[int]) -> list[int]:
        sep = self.tokenizer.sep_token_id
        # Some decoders start from [SEP], so one in the first place ends nothing.
        return row[: row.index(sep, 1)] if sep in row[1:] else row

    def _encode_texts(
        self,
        texts: list[str],
        padding: Any = None,
        truncation: Any = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        add_special_tokens: bool = True,
        return_attention_mask: bool = True,
    ) -> dict[str, list[list[int]]]:
        limit = self._length_limit(max_length)
        rows = self._tokenize(texts, "text")
        if _is_truncation_on(truncation):
            rows = self._truncate(rows, limit, add_special_tokens)
        rows = [self._add_special_tokens(row) for row in rows] if add_special_tokens else rows
        _check_lengths(rows, limit, "text", "pass truncation=True to cut it, or shorten it")
        lengths = _padded_lengths(rows, len(rows) > 1 if padding is None else padding, limit, pad_to_multiple_of)
        pad_id = self.tokenizer.pad_token_id
        encoded = {"input_ids": [_pad(row, length, pad_id) for row, length in zip(rows, lengths, strict=True)]}
        if return_attention_mask:
            masks = [_pad([1] * len(row), length, 0) for row, length in zip(rows, lengths, strict=True)]
            encoded["attention_mask"] = masks
        return encoded

    def _tokenize(self, texts: list[str], name: str) -> list[list[int]]:
        """The token ids of each text without special tokens, at least one."""
        rows = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        for index, row in enumerate(rows):
            if not row:
                raise ValueError(
                    f"{name} {index} is empty: {shown(texts[index])}; every {name} needs at least one word"
                )
        return rows

    def _add_special_tokens(self, row: list[int]) -> list[int]:
        # Not left to the tokenizer: cutting its [SEP] off again would lose a token of a text that is truncated.
        end = [self.tokenizer.sep_token_id] if self.add_sep_token else []
        return [self.tokenizer.cls_token_id, *row, *end]

    def _truncate(self, rows: list[list[int]], limit: int | None, add_special_tokens: bool) -> list[list[int]]:
        if limit is None:
            raise ValueError("truncation=True needs a limit, and the tokenizer sets none; pass max_length=...")
        room = limit - (len(self._add_special_tokens([])) if add_special_tokens else 0)
        if room < 1:
            raise ValueError(f"max_length={limit} leaves no room for a token of the text; pass a larger one")
        return [row[-room:] if self.tokenizer.truncation_side == "left" else row[:room] for row in rows]

    def _length_limit(self, max_length: int | None) -> int | None:
        """The most tokens a text may have with its special tokens, None if nothing sets a limit."""
        model_limit = self.tokenizer.model_max_length
        if model_limit >= UNLIMITED:
            return max_length
        if max_length is not None and max_length > model_limit:
            raise ValueError(
                f"max_length={max_length} is above the {model_limit} tokens that the model takes "
                "(tokenizer.model_max_length); pass a smaller one"
            )
        return model_limit if max_length is None else max_length


def _without_token_types(tokenizer: Any) -> Any:
    """The tokenizer (a copy, as it may serve others), saved and loaded as one whose batches these models take."""
    if tokenizer is None:
        return None
    own = copy(tokenizer)
    own.model_input_names = list(MODEL_INPUT_NAMES)
    own.init_kwargs = {**own.init_kwargs, "model_input_names": list(MODEL_INPUT_NAMES)}
    return own


def _are_lists(images: Any) -> bool:
    """Whether images come as lists, one for each text."""
    return isinstance(images, (list, tuple)) and all(isinstance(group, (list, tuple)) for group in images)


def _group(pixel_values: Any, counts: list[int], num_texts: int) -> Any:
    """Images in a row (I, 3, H, W) as (B, n, 3, H, W) where each text has n > 1 of them; as they are up to n = 1.

    A text may go without an image; then there are fewer images than texts, and models ask for `image_index`.
    """
    n = max(counts)
    if len(counts) != num_texts or n > 1 and min(counts) < n:
        raise ValueError(
            f"got lists of {shown(counts)} image(s) for {num_texts} text(s); pass one list for each "
            "text, all of the same length, or all images in one list and image_index"
        )
    if n < 2:
        return pixel_values
    if isinstance(pixel_values, list):
        return [pixel_values[start : start + n] for start in range(0, len(pixel_values), n)]
    return pixel_values.reshape(-1, n, *pixel_values.shape[1:])


def _as_list(texts: Any, name: str) -> list[str]:
    if not isinstance(texts, str) and not holds_several(texts) and not isinstance(texts, Mapping):
        raise ValueError(f"{name} must be a string or a list of strings, got {type(texts).__name__}")
    texts = [texts] if isinstance(texts, str) else list(by_position(texts, name))
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{name} must hold strings only, but item {index} is of type {type(text).__name__}")
    if not texts:
        raise ValueError(f"{name} is an empty list; pass at least one string")
    return texts


def _check_lengths(rows: list[list[int]], limit: int | None, name: str, way_out: str) -> None:
    for index, row in enumerate(rows):
        if limit is not None and len(row) > limit:
            raise ValueError(
                f"{name} {index} has {len(row)} tokens with its special tokens, the limit is {limit}; {way_out}"
            )


def _check_counts(data: dict[str, Any]) -> None:
    images, texts = len(data["pixel_values"]), len(data["input_ids"])
    if images != texts:
        raise ValueError(
            f"got {images} image(s) and {texts} text(s); pass equal numbers, or say which image each text is about, "
            "e.g. image_index=[0, 0] for two texts about one image, or images=[[first, second]] for a text about two"
        )


def _check_image_index(image_index: Any, data: dict[str, Any]) -> list[int]:
    if not {"pixel_values", "input_ids"} <= data.keys():
        raise ValueError("image_index says which image each text is about; pass images and text with it")
    images, texts = len(data["pixel_values"]), len(data["input_ids"])
    numbers = torch.as_tensor(image_index)
    if numbers.dtype.is_floating_point or numbers.dtype == torch.bool or numbers.shape != (texts,):
        raise ValueError(
            f"image_index must hold {texts} whole numbers, one for each text; "
            f"got shape {tuple(numbers.shape)} of {numbers.dtype}"
        )
    outside = [number for number in numbers.tolist() if not 0 <= number < images]
    if outside:
        raise ValueError(f"image_index holds {outside[0]}, but the {images} image(s) are numbered from 0")
    return numbers.tolist()


def _is_truncation_on(truncation: Any) -> bool:
    if truncation is None or isinstance(truncation, bool):
        return bool(truncation)
    return TruncationStrategy(truncation) != TruncationStrategy.DO_NOT_TRUNCATE


def _padded_lengths(rows: list[list[int]], padding: Any, limit: int | None, multiple: int | None) -> list[int]:
    """The length that each row is to have."""
    lengths = [len(row) for row in rows]
    if padding is False or padding == PaddingStrategy.DO_NOT_PAD:
        return lengths
    strategy = PaddingStrategy.LONGEST if padding is True else PaddingStrategy(padding)
    target: int | None = max(lengths) if strategy == PaddingStrategy.LONGEST else limit
    if target is None:
        raise ValueError("padding='max_length' needs a limit, and the tokenizer sets none; pass max_length=...")
    return [-(-target // multiple) * multiple if multiple else target] * len(rows)


def _pad(row: list[int], length: int, value: int) -> list[int]:
    return row + [value] * (length - len(row))


__all__ = ["CBViLAProcessor"]
