"""Classes that a model gives to texts about images, row by row, in batches."""

from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm

from ..data.task_collators import CBViLADataCollatorForVisualEntailment, CBViLADataCollatorForVisualReasoning
from ..model.item_lists_cbvila import by_position
from ..model.modeling_cbvila_visual_entailment import CBViLAForVisualEntailment
from ..model.modeling_cbvila_visual_reasoning import CBViLAForVisualReasoning
from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.encoding import evaluating


def classify(
    model: CBViLAForVisualEntailment | CBViLAForVisualReasoning,
    processor: CBViLAProcessor,
    rows: Sequence[dict[str, Any]],
    batch_size: int = 32,
    max_length: int | None = None,
    progress: bool = True,
) -> list[str]:
    """The likeliest class of each row, by its name in `config.id2label`.

    Args:
        rows: Rows with `text`, and `image` (entailment) or `images` (reasoning).
        batch_size: Rows per batch.
        max_length: Longest text in tokens; longer ones are cut.
        progress: Whether to show a bar with the remaining time.

    Raises:
        ValueError: If the logits of a row are not finite.
    """
    rows = by_position(rows, "rows")
    several = isinstance(model, CBViLAForVisualReasoning)
    collator = CBViLADataCollatorForVisualReasoning if several else CBViLADataCollatorForVisualEntailment
    collate, kept = collator(processor, model.config.id2label, max_length), ("text", "images" if several else "image")
    names: list[str] = []
    with evaluating(model):
        for start in tqdm(range(0, len(rows), batch_size), desc="Classifying", disable=not progress):
            part = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
            batch = collate([{name: row[name] for name in kept} for row in part])
            logits = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).logits
            finite = logits.isfinite().all(-1)
            if not finite.all():
                row = start + int((~finite).nonzero()[0])
                raise ValueError(f"The logits of row {row} are not finite: the model's weights are broken.")
            names += [model.config.id2label[number] for number in logits.argmax(-1).tolist()]
    return names
