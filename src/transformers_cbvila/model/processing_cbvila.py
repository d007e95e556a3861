"""CB-ViLA's processor: converts images, texts and answers to the model's inputs, and answers back to texts."""

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .answer_lists_cbvila import require_distinct
from .drawn_images_cbvila import to_pictures
from .image_groups_cbvila import check_counts, check_image_index, group_images, has_image_lists
from .item_lists_cbvila import by_position, holds_several
from .label_checks_cbvila import IGNORED_LABEL
from .messages_cbvila import shown
from .processing_options_cbvila import split_options
from .remote_code_cbvila import saved_with_its_code
from .token_rows_cbvila import check_lengths, is_truncation_on, pad, padded_lengths

# Options whose defaults a tokenizer may have.
TOKENIZER_DEFAULTS = ("padding", "truncation", "max_length", "pad_to_multiple_of")
# Without token types, which the models do not take.
MODEL_INPUT_NAMES = ["input_ids", "attention_mask"]
# Chats are asked as questions: the last message of the user is the text, and its images come beside it.
CHAT_TEMPLATE = (
    "{%- set asked = messages | selectattr('role', 'equalto', 'user') | list | last -%}"
    "{%- if asked.content is string -%}{{ asked.content }}{%- else -%}"
    "{{ asked.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join(' ') }}{%- endif -%}"
)
# Tokenizers without a limit have a model_max_length of 1e30.
UNLIMITED = 1_000_000


@saved_with_its_code
class CBViLAProcessor(ProcessorMixin):
    """Combines an image processor and a tokenizer.

    Args:
        image_processor: A `CBViLAImageProcessor` or `CBViLAImageProcessorPil`.
        tokenizer: A BERT-like tokenizer with [CLS], [SEP] and [PAD] tokens.
        add_sep_token: Whether texts end with [SEP]. False is ALBEF's convention, `[CLS] tokens`.
        chat_template: Jinja template of `apply_chat_template`; by default the text of the last message of the user.

    Raises:
        ValueError: If the tokenizer lacks one of the special tokens.

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

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        add_sep_token: bool = True,
        chat_template: str | dict[str, str] | None = None,
    ) -> None:
        super().__init__(
            image_processor, _without_token_types(tokenizer), chat_template=chat_template or CHAT_TEMPLATE
        )
        missing = [name for name in ("cls_token", "sep_token", "pad_token") if getattr(tokenizer, name) is None]
        if missing:
            raise ValueError(
                f"the tokenizer has no {' and no '.join(missing)}; set it, e.g. tokenizer.cls_token = ..."
            )
        self.add_sep_token = add_sep_token

    @property
    def unused_input_names(self) -> list[str]:
        """Names of tokenizer outputs that the models do not take."""
        return ["token_type_ids"]

    def __call__(
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        *,
        image_index: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Processes images, texts or both.

        Args:
            images: An image or a list of I images in all, as the image processor takes them. For visual reasoning, a
                list of lists with the images of each text.
            text: A text or a list of B texts. A single text is a batch of one.
            image_index: B numbers in 0..I-1, the image of each text. Needed if I and B differ, e.g. for several
                questions about one image; otherwise text i belongs to image i.
            **kwargs: Options of the call, single or in `text_kwargs={...}`, `images_kwargs={...}` and
                `common_kwargs={...}` (`videos_kwargs` and `audio_kwargs` are ignored):

                - `return_tensors`: `"pt"`, `"np"`, or None for lists.
                - For texts `padding` (by default True for several texts; always on the right), `truncation`,
                  `max_length`, `pad_to_multiple_of`, `add_special_tokens` and `return_attention_mask`, as in
                  tokenizers, and their other options with values that have no effect.
                - For images the options of the image processor, such as `size` and `do_resize`.

        Returns:
            `pixel_values` (I, 3, height, width), or (B, n, 3, height, width) if each text has a list of n > 1 images;
            `input_ids` and `attention_mask` (B, L); and `image_index` (B,), each if the arguments have it.

        Raises:
            TypeError: If an option is unknown, or in the group of another modality.
            ValueError: If there are neither images nor texts, or there are `videos` or `audio`; an option is given
                twice or has an unsupported value; the numbers of images and texts differ; a text is empty, or too long
                (for `max_length` or the tokenizer's `model_max_length`) without `truncation=True`; or an image cannot
                be read.
            FileNotFoundError: If there is no file at an image's path.
        """
        if images is None and text is None:
            raise ValueError("got neither images nor text; pass at least one")
        image_names = set(self.image_processor.valid_kwargs.__annotations__)
        return_tensors, text_options, image_options = split_options(kwargs, image_names)
        data: dict[str, Any] = {}
        if images is not None:
            data |= self.image_processor(images, return_tensors=return_tensors, **image_options)
        if text is not None:
            # As in all of transformers, a tokenizer may have defaults of its own.
            init_kwargs = self.tokenizer.init_kwargs
            defaults = {name: init_kwargs[name] for name in TOKENIZER_DEFAULTS if name in init_kwargs}
            data |= self._encode_texts(as_list(text, "text"), **{**defaults, **text_options})
        if image_index is not None:
            data["image_index"] = check_image_index(image_index, data)
        elif images is not None and text is not None and has_image_lists(images):
            data["pixel_values"] = group_images(data["pixel_values"], list(map(len, images)), len(data["input_ids"]))
        elif images is not None and text is not None:
            check_counts(data)
        return BatchFeature(data, tensor_type=return_tensors)

    def encode_answers(self, answers: str | list[str], return_tensors: str | None = "pt") -> BatchFeature:
        """Encodes answers as labels for the answer decoder.

        Args:
            answers: B answers.
            return_tensors: `"pt"`, `"np"`, or None for lists.

        Returns:
            `labels` (B, A), the tokens of each answer and [SEP], padded with -100 on the right. They have no [CLS],
            which the model adds when it shifts the labels to the right.

        Raises:
            ValueError: If there are no answers, or one has no tokens or more than the tokenizer's `model_max_length`.
        """
        rows = self._tokenize(as_list(answers, "answers"), "answer")
        rows = [[*row, self.tokenizer.sep_token_id] for row in rows]
        check_lengths(rows, self._length_limit(None), "answer", "shorten it")
        longest = max(map(len, rows))
        labels = [pad(row, longest, IGNORED_LABEL) for row in rows]
        return BatchFeature({"labels": labels}, tensor_type=return_tensors)

    def encode_candidates(self, answers: Any) -> torch.Tensor:
        """Encodes candidate answers.

        Args:
            answers: R answers with different tokens.

        Returns:
            `answer_labels` (R, A) for `rank_answers` and `generate`.

        Raises:
            ValueError: As in `encode_answers`, and if two answers have the same tokens or one has only unknown tokens.
        """
        labels = self.encode_answers(answers)["labels"]
        rows = [[token for token in row if token != IGNORED_LABEL][:-1] for row in labels.tolist()]
        require_distinct(rows, as_list(answers, "answers"), "answers", self.tokenizer.unk_token_id)
        return labels

    def decode_answers(self, ids: Any) -> list[str]:
        """Decodes generated answers, or labels.

        Args:
            ids: (B, A) token ids, with or without the decoder's start token. Each row is decoded up to the first [SEP]
                after its first token, without special tokens and -100.

        Returns:
            B texts, empty for an answer without tokens.

        Raises:
            ValueError: If `ids` are not two-dimensional.
        """
        rows = ids.tolist() if isinstance(ids, (torch.Tensor, np.ndarray)) else ids
        if not all(isinstance(row, (list, tuple)) for row in rows):
            raise ValueError("answer ids must be two-dimensional, (B, A); wrap a single answer as [ids]")
        rows = [self._until_sep([token for token in row if token != IGNORED_LABEL]) for row in rows]
        return [text.strip() for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]

    def postprocess(self, pixel_values: torch.Tensor) -> list[Image.Image]:
        """Converts images that a model draws, as `generate_images` and `reconstruct` do, to pictures.

        Args:
            pixel_values: (B, 3, H, W), normalized as by the image processor, on any device.

        Raises:
            ValueError: If there are other than three channels.
        """
        return [Image.fromarray(levels) for levels in to_pictures(self.image_processor, pixel_values)]

    def _until_sep(self, row: list[int]) -> list[int]:
        sep = self.tokenizer.sep_token_id
        # Some decoders start with [SEP]: the first token is never the end.
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
        if is_truncation_on(truncation):
            rows = self._truncate(rows, limit, add_special_tokens)
        rows = [self._add_special_tokens(row) for row in rows] if add_special_tokens else rows
        check_lengths(rows, limit, "text", "pass truncation=True to cut it, or shorten it")
        lengths = padded_lengths(rows, len(rows) > 1 if padding is None else padding, limit, pad_to_multiple_of)
        pad_id = self.tokenizer.pad_token_id
        encoded = {"input_ids": [pad(row, length, pad_id) for row, length in zip(rows, lengths, strict=True)]}
        if return_attention_mask:
            masks = [pad([1] * len(row), length, 0) for row, length in zip(rows, lengths, strict=True)]
            encoded["attention_mask"] = masks
        return encoded

    def _tokenize(self, texts: list[str], name: str) -> list[list[int]]:
        """Returns the token ids of each text, at least one, without special tokens."""
        rows = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        for index, row in enumerate(rows):
            if not row:
                raise ValueError(
                    f"{name} {index} is empty: {shown(texts[index])}; every {name} needs at least one word"
                )
        return rows

    def _add_special_tokens(self, row: list[int]) -> list[int]:
        # Not by the tokenizer: removing its [SEP] would cost a truncated text one token.
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
        """Returns the maximum number of tokens of a text with its special tokens, None if there is none."""
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
    """Returns a copy of a tokenizer that returns, also after saving and loading, what the models take."""
    if tokenizer is None:
        return None
    own = copy(tokenizer)
    own.model_input_names = list(MODEL_INPUT_NAMES)
    own.init_kwargs = {**own.init_kwargs, "model_input_names": list(MODEL_INPUT_NAMES)}
    return own


def as_list(texts: Any, name: str) -> list[str]:
    """Returns one or several texts as a list.

    Args:
        texts: A string, or a collection of strings.
        name: What messages call them: `"text"`.

    Raises:
        ValueError: If there are none, or anything else is among them.
    """
    if not isinstance(texts, str) and not holds_several(texts) and not isinstance(texts, Mapping):
        raise ValueError(f"{name} must be a string or a list of strings, got {type(texts).__name__}")
    texts = [texts] if isinstance(texts, str) else list(by_position(texts, name))
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{name} must hold strings only, but item {index} is of type {type(text).__name__}")
    if not texts:
        raise ValueError(f"{name} is an empty list; pass at least one string")
    return texts


__all__ = ["CBViLAProcessor"]
