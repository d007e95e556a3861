"""Texts that a language model writes about images, and how likely it finds those that people wrote."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..data.conditional_generation_collator import CBViLADataCollatorForConditionalGeneration
from ..model.label_checks_cbvila import IGNORED_LABEL
from ..model.losses_cbvila import at_least_fp32
from ..model.modeling_cbvila_conditional_generation import CBViLAForConditionalGeneration
from ..model.processing_cbvila_conditional_generation import CBViLAConditionalGenerationProcessor


class Prompt(NamedTuple):
    """A text with the images that its image tokens stand for, in reading order."""

    images: list[Image.Image]
    text: str


@torch.no_grad()
def write_texts(
    model: CBViLAForConditionalGeneration,
    processor: CBViLAConditionalGenerationProcessor,
    prompts: Iterable[Prompt],
    total: int,
    batch_size: int = 32,
    max_new_tokens: int = 40,
    progress: bool = True,
) -> list[str]:
    """Returns how each prompt is continued, greedily.

    Args:
        model: The model.
        processor: Of the model.
        prompts: The prompts, which may be made as they are asked for.
        total: How many there are.
        batch_size: Prompts per batch.
        max_new_tokens: Longest text in tokens, end token included; longer ones are cut.
        progress: Whether to show a bar with the remaining time.
    """
    model.eval()
    texts: list[str] = []
    left = iter(prompts)
    with tqdm(total=total, desc="Writing", unit="text", disable=not progress) as bar:
        while some := list(islice(left, batch_size)):
            images = [prompt.images for prompt in some]
            batch = processor(images=images, text=[prompt.text for prompt in some], return_tensors="pt")
            written = model.generate(**batch.to(model.device), max_new_tokens=max_new_tokens, do_sample=False)
            new = written[:, batch["input_ids"].shape[1] :]
            texts += [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]
            bar.update(len(some))
    return texts


@torch.no_grad()
def caption_log_likelihoods(
    model: CBViLAForConditionalGeneration,
    collate: CBViLADataCollatorForConditionalGeneration,
    rows: Sequence[dict[str, Any]],
    batch_size: int = 32,
    shift: int = 0,
    progress: bool = True,
) -> Tensor:
    """Returns the mean log-likelihood of a token of the first caption of each row, (rows,).

    Args:
        model: The model.
        collate: The collator that it is trained with.
        rows: Rows with `image` and `captions`.
        batch_size: Rows per batch.
        shift: How many rows further the image is from: with 0 the row's own, otherwise another one.
        progress: Whether to show a bar with the remaining time.
    """
    model.eval()
    found = []
    name = "Scoring captions" if shift == 0 else "Scoring captions of other images"
    for start in tqdm(range(0, len(rows), batch_size), desc=name, disable=not progress):
        numbers = range(start, min(start + batch_size, len(rows)))
        images = [rows[(number + shift) % len(rows)]["image"] for number in numbers]
        texts = [rows[number]["captions"][0] for number in numbers]
        batch = collate([{"image": image, "text": text} for image, text in zip(images, texts, strict=True)])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        labels = batch.pop("labels")[:, 1:]
        scores = at_least_fp32(model(**batch).logits[:, :-1]).transpose(1, 2)
        losses = F.cross_entropy(scores, labels, ignore_index=IGNORED_LABEL, reduction="none")
        found.append(-losses.sum(-1) / (labels != IGNORED_LABEL).sum(-1))
    return torch.cat(found).cpu()
