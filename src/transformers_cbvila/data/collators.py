"""Collators for pretraining and question answering. All corruption is decided here, none in the model.

Shapes: B pairs, L text tokens, N patches, C known captions, Q questions, A answer tokens.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..model.messages_cbvila import shown
from ..model.processing_cbvila import UNLIMITED, CBViLAProcessor
from ..nearest import nearest
from .column_names import CAPTION_COLUMNS
from .given_options import default_of, refuse_without
from .label_maps import patch_classes
from .masking import drop, generator_for, mask_patches, mask_patches_by_cosine, mask_tokens, mask_words
from .pairs import stable_id

MASK_SCHEDULES = ("fixed", "cosine")


@dataclass
class CBViLADataCollatorForPreTraining:
    """Batches of [`ImageTextPairs`] with the names [`CBViLAForPreTraining`] takes.

    Args:
        processor: Image processor and tokenizer.
        patch_size: Side of a patch in pixels (`config.vision_config.patch_size`).
        mlm_probability: Share of tokens to predict (15 % in the paper).
        mlm_replace: Share of those that become [MASK]; 0.8 is BERT's recipe, 1.0 the paper's wording.
        mlm_words: Words to choose these tokens from, in captions with any of them; else all may be chosen. A word that
            is masked alone, beside visible names, has to be looked up where the image shows what is named.
        mlm_words_share: Share of captions that this holds for.
        mim_mask_ratio: Share of patches to hide (75 % in the paper).
        mim_mask_schedule: `"fixed"` hides this share in every image; `"cosine"` draws a share for each, from one patch
            to all, as a model needs that is to draw images from nothing.
        text_drop_prob: How often pixels and visual words are predicted with an empty caption, which a model needs to
            have seen to predict them without a text. ITM, MLM and ITC keep the caption.
        max_length: Longest caption in tokens; longer ones are cut.
        seed: Seed of examples without a generator of their own.
        masks_words: Whether to choose words that objectives such as `"lgvq"` predict from an image's codes.
    """

    processor: CBViLAProcessor
    patch_size: int
    mlm_probability: float = 0.15
    mlm_replace: float = 0.8
    mlm_words: Sequence[str] = ()
    mlm_words_share: float = 1.0
    mim_mask_ratio: float = 0.75
    mim_mask_schedule: str = "fixed"
    text_drop_prob: float = 0.0
    max_length: int = 30
    seed: int = 0
    masks_words: bool = False

    def __post_init__(self) -> None:
        check_corruption(self)
        if self.max_length < 3:
            raise ValueError(f"max_length={self.max_length} leaves no room for a word: [CLS], a word, [SEP] are 3.")
        self._word_ids = word_ids(self.processor.tokenizer, self.mlm_words)

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Returns the inputs of a batch: those of the processor, masks and labels, and ids."""
        check_fields(examples, ("image", "text"))
        batch = self.processor(
            images=[example["image"] for example in examples],
            text=[example["text"] for example in examples],
            padding=True,
            truncation=True,
            max_length=token_limit(self.processor, self.max_length),
            return_tensors="pt",
        )
        generators = [e.get("generator") or self._generator(row, e["text"]) for row, e in enumerate(examples)]
        masks, views = self._mask(dict(batch), generators), self._views(examples, batch["pixel_values"])
        negatives = negative_texts(self.processor, examples, self.max_length)
        return {**batch, **masks, **views, **identities(examples), **negatives}

    def _generator(self, row: int, text: str) -> torch.Generator:
        # with the text: rows of all batches have the same numbers, and would have the same masks
        return generator_for(self.seed, row, stable_id(text))

    def _views(self, examples: list[dict[str, Any]], pixel_values: Tensor) -> dict[str, Tensor]:
        """Returns the classes of patches and the other views that examples have, of the size of (B, 3, H, W)."""
        found = {}
        if "other_image" in examples[0]:
            others = self.processor(images=[e["other_image"] for e in examples], return_tensors="pt")
            found["other_pixel_values"] = others["pixel_values"]
        rows, columns = (side // self.patch_size for side in pixel_values.shape[-2:])
        for start in ("", "other_"):
            if f"{start}label_map" in examples[0]:
                maps = [example[f"{start}label_map"] for example in examples]
                classes = [patch_classes(label_map, rows, columns, self.patch_size) for label_map in maps]
                found[f"{start}token_classes"] = torch.stack(classes)
        return found

    def _mask(self, batch: dict[str, Tensor], generators: list[torch.Generator]) -> dict[str, Tensor]:
        tokenizer = self.processor.tokenizer
        special = torch.tensor(tokenizer.all_special_ids)
        maskable = ~torch.isin(batch["input_ids"], special)
        texts = [
            mask_tokens(
                ids,
                self._maskable_for_mlm(ids, allowed, generator),
                tokenizer.mask_token_id,
                len(tokenizer),
                generator,
                self.mlm_probability,
                self.mlm_replace,
            )
            for ids, allowed, generator in zip(batch["input_ids"], maskable, generators, strict=True)
        ]
        height, width = batch["pixel_values"].shape[-2:]
        patches = (height // self.patch_size) * (width // self.patch_size)
        corrupted = {
            "input_ids_masked": torch.stack([ids for ids, _ in texts]),
            "mlm_labels": torch.stack([labels for _, labels in texts]),
            "bool_masked_pos": torch.stack([self._hidden_patches(patches, g) for g in generators]),
        }
        # drawn last, so that masks are the same without them
        if self.text_drop_prob > 0:
            corrupted["caption_dropped"] = torch.tensor([drop(g, self.text_drop_prob) for g in generators])
        if self.masks_words:
            words = [mask_words(*pair) for pair in zip(maskable, generators, strict=True)]
            corrupted["masked_words"] = torch.stack(words)
        return corrupted

    def _hidden_patches(self, patches: int, generator: torch.Generator) -> Tensor:
        if self.mim_mask_schedule == "cosine":
            return mask_patches_by_cosine(patches, generator)
        return mask_patches(patches, generator, self.mim_mask_ratio)

    def _maskable_for_mlm(self, input_ids: Tensor, maskable: Tensor, generator: torch.Generator) -> Tensor:
        """Returns which of a text's tokens (L,) MLM may choose."""
        if self._word_ids is None or not drop(generator, self.mlm_words_share):
            return maskable
        are_words = maskable & torch.isin(input_ids, self._word_ids)
        return are_words if are_words.any() else maskable


def check_corruption(options: Any) -> None:
    """Raises a ValueError for options of masks that are out of range, or that others leave without effect.

    Args:
        options: A dataclass with those of [`CBViLADataCollatorForPreTraining`].
    """
    for name in ("mlm_probability", "mlm_replace", "mlm_words_share", "mim_mask_ratio", "text_drop_prob"):
        share = getattr(options, name)
        if not 0 <= share <= 1:
            raise ValueError(f"{name}={share} must be a share from 0 to 1.")
    if options.mim_mask_schedule not in MASK_SCHEDULES:
        meant = nearest(options.mim_mask_schedule, MASK_SCHEDULES) or "."
        raise ValueError(
            f"mim_mask_schedule={shown(options.mim_mask_schedule)} is none of {', '.join(MASK_SCHEDULES)}{meant}"
        )
    refuse_without(options, "mlm_words", ["mlm_words_share"])
    ratio = options.mim_mask_ratio
    if options.mim_mask_schedule == "cosine" and ratio != default_of(options, "mim_mask_ratio"):
        raise ValueError(
            f"mim_mask_ratio={ratio} is for mim_mask_schedule='fixed': 'cosine' draws a share for each image. Leave "
            "one of them out."
        )


def word_ids(tokenizer: Any, words: Sequence[str]) -> Tensor | None:
    """Returns the ids of the tokens of words; `None` if there are no words.

    Raises:
        ValueError: If a word is unknown to the tokenizer.
    """
    if not words:
        return None
    ids = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in words}
    unknown = [word for word, tokens in ids.items() if not tokens or tokenizer.unk_token_id in tokens]
    if unknown:
        raise ValueError(
            f"mlm_words: the tokenizer does not know {', '.join(map(shown, unknown))}, so that no caption has it; "
            "leave it out, or train a vocabulary on captions that have it."
        )
    return torch.tensor(sorted({token for tokens in ids.values() for token in tokens}))


@dataclass
class CBViLADataCollatorForQuestionAnswering:
    """Batches of questions about images for [`CBViLAForQuestionAnswering`].

    An example is an image with one question (`question` a string) or several (`question` a list), for which the image
    is encoded once. A question has one answer, or a list of those that people gave: each distinct one is weighted by
    the share of people who gave it, as in ALBEF.

    Args:
        processor: Image processor and tokenizer.
        max_length: Longest question in tokens; longer ones are cut. `None` cuts to what the model takes.
    """

    processor: CBViLAProcessor
    max_length: int | None = 25

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Returns the inputs of a batch: `image_index` says which image each of the questions is about."""
        check_fields(examples, ("image", "question"))
        questions: list[str] = []
        owners: list[int] = []
        answers: list[str] = []
        shares: list[float] = []
        for row, example in enumerate(examples):
            asked = _as_list(example["question"])
            answer = example.get("answer")
            given = [answer] * len(asked) if answer is None or isinstance(example["question"], str) else list(answer)
            if len(asked) != len(given):
                raise ValueError(f"Got {len(asked)} question(s) but {len(given)} answer(s) in an example.")
            for question, answered in zip(asked, given, strict=True):
                of_question = answer_shares(_as_list(answered))
                questions += [question] * len(of_question)
                owners += [row] * len(of_question)
                answers += of_question
                shares += of_question.values()
        batch: dict[str, Tensor] = dict(
            self.processor(
                images=[example["image"] for example in examples],
                text=questions,
                image_index=owners,
                padding=True,
                **cut_options(self.processor, self.max_length),
                return_tensors="pt",
            )
        )
        if "answer" in examples[0]:
            batch["labels"] = self.processor.encode_answers(answers, return_tensors="pt")["labels"]
            if any(share < 1 for share in shares):
                batch["answer_weights"] = torch.tensor(shares)
        if "answer_weight" in examples[0]:
            weights = [weight for example in examples for weight in _as_list(example["answer_weight"])]
            batch["answer_weights"] = torch.tensor(weights, dtype=torch.float32)
        return batch


def check_fields(examples: list[dict[str, Any]], fields: tuple[str, ...]) -> None:
    """Raises a ValueError if an example lacks one of the fields."""
    for example in examples:
        missing = [name for name in fields if name not in example]
        if missing:
            of_pairs = fields == ("image", "text") and missing == ["text"] and set(example) & set(CAPTION_COLUMNS)
            rows = " ImageTextPairs(rows) draws such examples from rows with captions." if of_pairs else ""
            raise ValueError(
                f"An example has no {' and no '.join(missing)}, only {shown(list(example), 200)}. Trainer drops what "
                "it does not know of: set remove_unused_columns=False in the training arguments. Otherwise give each "
                f"row {' and '.join(fields)}.{rows}"
            )


def identities(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Returns the ids that the examples have, which keep true matches from being taken for negatives.

    Returns:
        `image_ids` and `text_ids` (B,), and `known_text_ids` (B, C), padded with -1.
    """
    ids = {}
    for name in ("image_id", "text_id"):
        if all(name in example for example in examples):
            ids[f"{name}s"] = torch.tensor([example[name] for example in examples])
    if all("known_text_ids" in example for example in examples):
        longest = max(len(example["known_text_ids"]) for example in examples)
        padded = [
            [*example["known_text_ids"], *[-1] * (longest - len(example["known_text_ids"]))] for example in examples
        ]
        ids["known_text_ids"] = torch.tensor(padded)
    return ids


def negative_texts(
    processor: CBViLAProcessor, examples: list[dict[str, Any]], max_length: int | None
) -> dict[str, Tensor]:
    """Returns the examples' `negative_text`, which is false of their image, as tokens; nothing if none has one.

    Returns:
        `negative_input_ids` and `negative_attention_mask` (B, L); rows of examples without one have a mask of 0.
    """
    given = torch.tensor([bool(example.get("negative_text")) for example in examples]).unsqueeze(1)
    if not given.any():
        return {}
    texts = [example.get("negative_text") or example["text"] for example in examples]
    batch = processor(text=texts, padding=True, **cut_options(processor, max_length), return_tensors="pt")
    return {
        "negative_input_ids": batch["input_ids"],
        "negative_attention_mask": batch["attention_mask"] * given,
    }


def answer_shares(answers: list[str]) -> dict[str, float]:
    """Returns the share of people who gave each answer, in order of first occurrence; blank answers do not count."""
    answers = [answer for answer in answers if answer and answer.strip()] or answers
    return {answer: count / len(answers) for answer, count in Counter(answers).items()}


def token_limit(processor: CBViLAProcessor, max_length: int | None) -> int | None:
    """Returns `max_length`, or the tokenizer's limit if that is less."""
    return None if max_length is None else min(max_length, processor.tokenizer.model_max_length)


def cut_options(processor: CBViLAProcessor, max_length: int | None) -> dict[str, Any]:
    """Returns options of the processor that cut texts to `max_length` tokens, or to the tokenizer's limit."""
    limit = token_limit(processor, UNLIMITED if max_length is None else max_length) or UNLIMITED
    cuts = limit < UNLIMITED
    return {"truncation": cuts, "max_length": limit if cuts else None}


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
