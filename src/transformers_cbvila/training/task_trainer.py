"""The trainer of downstream tasks: what it evaluates is the task itself, as `cbvila evaluate` would."""

from typing import Any

from ..evaluation.task_figures import TaskEvaluation
from .trainer import CBViLATrainer


class TaskTrainer(CBViLATrainer):
    """[`CBViLATrainer`] whose evaluation gives the figures of a task (`eval_accuracy`, `eval_mean_recall` …).

    They can choose the best checkpoint (`metric_for_best_model`). On several processes each measures everything: the
    gallery of retrieval, for one, is no sum over batches.

    Args:
        evaluation: How the rows of `eval_dataset` are evaluated.
        kwargs: As of [`CBViLATrainer`].
    """

    def __init__(self, *args, evaluation: TaskEvaluation, **kwargs):
        super().__init__(*args, **kwargs)
        self.evaluation = evaluation

    def evaluate(
        self, eval_dataset=None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, Any]:
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        figures = self.evaluation.figures(self.unwrapped_model, self.processing_class, rows)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log({name: value for name, value in metrics.items() if isinstance(value, int | float)})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
