"""The tasks of `cbvila finetune` with settings for the data of conftest.py, and arguments of a short run."""

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForQuestionAnswering,
    CBViLAForVisualEntailment,
    CBViLAForVisualReasoning,
    CBViLATrainingArguments,
)
from transformers_cbvila.tasks.entailment import VisualEntailment
from transformers_cbvila.tasks.reasoning import VisualReasoning
from transformers_cbvila.tasks.retrieval import ImageTextRetrieval
from transformers_cbvila.tasks.vqa import VisualQuestionAnswering

# Of each task: its settings, its head, and the metric that a run reports.
TINY_TASKS = {
    "retrieval": (ImageTextRetrieval(rerank_k=2), CBViLAForImageTextRetrieval, "mean_recall_reranked"),
    "vqa": (VisualQuestionAnswering(), CBViLAForQuestionAnswering, "accuracy"),
    "entailment": (VisualEntailment(), CBViLAForVisualEntailment, "accuracy"),
    "reasoning": (
        VisualReasoning(image_column=["image", "other"], label_column="true", group_column="set"),
        CBViLAForVisualReasoning,
        "consistency",
    ),
}


def finetuning_arguments(folder, **options):
    """Arguments of two steps on a CPU with batches of four, logged at every step."""
    defaults = {"max_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 1, "disable_tqdm": True}
    defaults |= {"report_to": "none", "use_cpu": True}
    return CBViLATrainingArguments(str(folder), **{**defaults, **options})
