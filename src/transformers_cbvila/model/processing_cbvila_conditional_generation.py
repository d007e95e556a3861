"""The processor of [`CBViLAForConditionalGeneration`]: prompts of a language model, with images in them."""

import os
from copy import deepcopy
from typing import Any

from transformers import AddedToken, AutoImageProcessor, AutoTokenizer, PreTrainedConfig
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .image_groups_cbvila import has_image_lists
from .image_placeholders_cbvila import IMAGE_TOKEN, check_images_of_texts, check_runs
from .messages_cbvila import shown, shown_error
from .processing_cbvila import MODEL_INPUT_NAMES, CBViLAProcessor, as_list
from .processing_options_cbvila import FIXED_TEXT_OPTIONS, TEXT_OPTIONS, split_options
from .remote_code_cbvila import saved_with_its_code

PROMPT_OPTIONS = (*TEXT_OPTIONS, "padding_side")
FIXED_PROMPT_OPTIONS = {name: fixed for name, fixed in FIXED_TEXT_OPTIONS.items() if name != "padding_side"} | {
    "text_target": (None, "what is to be predicted is part of text; set labels to -100 elsewhere")
}
_OWN_OPTIONS = ("num_image_tokens", "image_token", "chat_template")
# Messages one after the other, as in Frozen's prompts: `<image> this is a dog.<image> this is a`. The name of a role
# would be unknown to a projector that was trained on captions.
CHAT_TEMPLATE = (
    "{%- set last = namespace(exists=false) -%}"
    "{%- for message in messages -%}"
    "{%- set parts = [{'type': 'text', 'text': message.content}] if message.content is string else message.content -%}"
    "{%- for part in parts -%}"
    "{%- if part.type == 'image' -%}<image>"
    "{%- elif part.type == 'text' -%}{{ (' ' if last.exists else '') + part.text | trim }}"
    "{%- endif -%}{%- set last.exists = true -%}"
    "{%- endfor -%}"
    "{%- endfor -%}"
)


@saved_with_its_code
class CBViLAConditionalGenerationProcessor(ProcessorMixin):
    """Combines an image processor and the tokenizer of a language model.

    Each `<image>` in a text stands for an image, in reading order, and becomes k tokens.

    Args:
        image_processor: A `CBViLAImageProcessor` or `CBViLAImageProcessorPil`.
        tokenizer: The language model's tokenizer. The processor has a copy with the image token, which pads on the
            left, as generation needs.
        num_image_tokens: Number k of tokens per image, `config.num_image_tokens` of the model.
        image_token: The token for an image, which is added to the tokenizer if it has none such.
        chat_template: Jinja template of `apply_chat_template`; by default messages one after the other, without roles.

    Raises:
        ValueError: If the tokenizer has neither a padding token nor an end token.

    Example:
    ```python
    >>> from PIL import Image
    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> from transformers import PreTrainedTokenizerFast
    >>> from transformers_cbvila import CBViLAConditionalGenerationProcessor, CBViLAImageProcessorPil

    >>> words = Tokenizer(models.WordLevel({"<eos>": 0, "a": 1, "dog": 2, "cat": 3}, unk_token="<eos>"))
    >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>")
    >>> images = CBViLAImageProcessorPil(size={"height": 64, "width": 64})
    >>> processor = CBViLAConditionalGenerationProcessor(images, tokenizer)
    >>> dog, cat = Image.new("RGB", (80, 60), "red"), Image.new("RGB", (80, 60), "blue")
    >>> batch = processor(images=[dog, cat], text=["<image> a dog <image> a"], return_tensors="pt")
    >>> batch["input_ids"].tolist(), batch["pixel_values"].shape
    ([[4, 4, 1, 2, 4, 4, 1]], torch.Size([2, 3, 64, 64]))

    ```
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        num_image_tokens: int = 2,
        image_token: str = IMAGE_TOKEN,
        chat_template: str | dict[str, str] | None = None,
    ) -> None:
        tokenizer = _prepared(tokenizer, image_token)
        template = chat_template or CHAT_TEMPLATE.replace(IMAGE_TOKEN, image_token)
        super().__init__(image_processor, tokenizer, chat_template=template)
        self.num_image_tokens = num_image_tokens
        self.image_token = image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *args: Any,
        language_model: str | os.PathLike | None = None,
        **kwargs: Any,
    ) -> "CBViLAConditionalGenerationProcessor":
        """Loads a processor as [`~transformers.ProcessorMixin.from_pretrained`] does.

        A folder without a tokenizer takes that of the language model.

        Args:
            pretrained_model_name_or_path: A folder, or a repository of the Hub.
            args: As there.
            language_model: Folder or Hub id whose tokenizer is taken; by default the checkpoint's own, or else that of
                the language model that its config.json names.
            kwargs: As there.

        Raises:
            ValueError: If the checkpoint has no tokenizer, and its language model is not at hand.
        """
        source = pretrained_model_name_or_path
        if language_model is None and not _is_folder_without_tokenizer(source):
            return super().from_pretrained(source, *args, **kwargs)
        name = language_model or PreTrainedConfig.get_config_dict(source)[0].get("language_model")
        own = cls.get_processor_dict(source, **kwargs)[0]
        options = {option: own[option] for option in _OWN_OPTIONS if option in own}
        return cls(
            AutoImageProcessor.from_pretrained(source, **kwargs), _tokenizer_of(name, source, **kwargs), **options
        )

    @classmethod
    def from_vision_language_pretrained(
        cls, vision_model_name_or_path: str, language_model_name_or_path: str, num_image_tokens: int = 2, **kwargs: Any
    ) -> "CBViLAConditionalGenerationProcessor":
        """Combines the image processor of a CB-ViLA checkpoint and the tokenizer of a language model.

        Args:
            vision_model_name_or_path: A checkpoint of any CB-ViLA model.
            language_model_name_or_path: A language model: a folder, or a Hub id.
            num_image_tokens: Number k of tokens per image.
            kwargs: Options of `from_pretrained` for both, such as `token`.
        """
        image_processor = CBViLAProcessor.from_pretrained(vision_model_name_or_path, **kwargs).image_processor
        tokenizer = AutoTokenizer.from_pretrained(language_model_name_or_path, **kwargs)
        return cls(image_processor, tokenizer, num_image_tokens)

    @property
    def unused_input_names(self) -> list[str]:
        """Names of tokenizer outputs that the model does not take."""
        return ["token_type_ids"]

    def replace_image_token(self, *args: Any, **kwargs: Any) -> str:
        """Returns the tokens that stand for an image."""
        return self.image_token * self.num_image_tokens

    def __call__(self, images: Any = None, text: str | list[str] | None = None, **kwargs: Any) -> BatchFeature:
        """Processes images, texts or both.

        Args:
            images: Images in reading order, or a list of images for each text, as the image processor takes them.
            text: A text or a list of B texts, with one `<image>` for each image.
            **kwargs: Options of the call, single or in `text_kwargs={...}`, `images_kwargs={...}` and
                `common_kwargs={...}` (`videos_kwargs` and `audio_kwargs` are ignored):

                - `return_tensors`: `"pt"`, `"np"`, or None for lists.
                - For texts `padding` (by default True for several texts), `padding_side` (by default left),
                  `truncation`, `max_length`, `pad_to_multiple_of`, `add_special_tokens` and `return_attention_mask`.
                - For images the options of the image processor.

        Returns:
            `pixel_values` (b, 3, height, width), and `input_ids` and `attention_mask` (B, T).

        Raises:
            TypeError: If an option is unknown, or in the group of another modality.
            ValueError: If there are neither images nor texts, a text has no tokens, there are more or fewer images
                than `<image>`, or truncation cuts the tokens of an image.
        """
        if images is None and text is None:
            raise ValueError("got neither images nor text; pass at least one")
        image_names = set(self.image_processor.valid_kwargs.__annotations__)
        return_tensors, text_options, image_options = split_options(
            kwargs, image_names, PROMPT_OPTIONS, FIXED_PROMPT_OPTIONS
        )
        data: dict[str, Any] = {}
        groups = [len(group) for group in images] if images is not None and has_image_lists(images) else None
        if images is not None and groups != [0] * len(groups or ()):
            data |= self.image_processor(images, return_tensors=return_tensors, **image_options)
        if text is not None:
            texts = as_list(text, "text")
            counts = [text.count(self.image_token) for text in texts]
            check_images_of_texts(counts, groups, len(data.get("pixel_values", ())), self.image_token)
            data |= self._encode(texts, counts, **text_options)
        return BatchFeature(data, tensor_type=return_tensors)

    def _encode(self, texts: list[str], counts: list[int], **options: Any) -> dict[str, list[list[int]]]:
        """Tokenizes texts, in which each image becomes k tokens."""
        run = self.image_token * self.num_image_tokens
        texts = [text.replace(self.image_token, run) for text in texts]
        options = {"padding": len(texts) > 1, "return_token_type_ids": False, **options}
        encoded = dict(self.tokenizer(texts, **options))
        expected = [count * self.num_image_tokens for count in counts]
        check_runs(encoded["input_ids"], expected, self.image_token_id)
        return {name: encoded[name] for name in MODEL_INPUT_NAMES if name in encoded}


def _is_folder_without_tokenizer(source: str | os.PathLike) -> bool:
    return os.path.isdir(source) and not os.path.isfile(os.path.join(source, "tokenizer_config.json"))


def _tokenizer_of(language_model: str | os.PathLike | None, checkpoint: str | os.PathLike, **kwargs: Any) -> Any:
    try:
        return AutoTokenizer.from_pretrained(str(language_model), **kwargs)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{shown(checkpoint)} has no tokenizer, and that of its language model {shown(language_model)} cannot be "
            f"loaded ({shown_error(error)}): pass language_model=, a folder or a Hub id."
        ) from error


def _prepared(tokenizer: Any, image_token: str) -> Any:
    """Returns a copy of a tokenizer that has the image token and a padding token, and pads on the left."""
    prepared = deepcopy(tokenizer)
    if image_token not in prepared.get_vocab():
        prepared.add_tokens([AddedToken(image_token, special=True, normalized=False)], special_tokens=True)
    if prepared.pad_token is None:
        if prepared.eos_token is None:
            raise ValueError(
                "the tokenizer has no pad_token and no eos_token; set one, e.g. tokenizer.pad_token = ..."
            )
        prepared.pad_token = prepared.eos_token
    prepared.padding_side = "left"
    return prepared


__all__ = ["CBViLAConditionalGenerationProcessor"]
