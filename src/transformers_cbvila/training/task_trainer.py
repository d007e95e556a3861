"""The trainer of downstream tasks: what it evaluates is the task itself, as `cbvila evaluate` would."""

from typing import Any

from ..model.messages_cbvila import shown
from ..tasks.evaluate_rows import evaluate_rows
from ..tasks.evaluation import Evaluation
from ..tasks.task import Task
from .inherited_options import OF_EVALUATION, refuse
from .trainer import CBViLATrainer


class TaskTrainer(CBViLATrainer):
    """[`CBViLATrainer`] whose evaluation gives the metrics of a task (`eval_accuracy`, `eval_mean_recall` …).

    They can choose the best checkpoint (`metric_for_best_model`). On several processes each measures everything: the
    gallery of retrieval, for one, is no sum over batches.

    Args:
        args: As of [`CBViLATrainer`].
        task: The task.
        evaluation: How the rows of `eval_dataset` are evaluated.
        kwargs: As of [`CBViLATrainer`].
    """

    def __init__(self, *args: Any, task: Task, evaluation: Evaluation, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        refuse(self.args, OF_EVALUATION, "the task is measured as `cbvila evaluate` does, not by Trainer's own loop")
        self.task, self.evaluation = task, evaluation
        self._check_best()

    def _check_best(self) -> None:
        """Raises a ValueError for a metric that no evaluation would give, before anything is trained."""
        best, metrics = self.args.metric_for_best_model, self.task.compared_metrics()
        if best is not None and best.removeprefix("eval_") not in metrics:
            raise ValueError(f"metric_for_best_model={shown(best)} is none of {', '.join(metrics)}.")

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, Any]:
        """Returns the task's metrics on the rows of `eval_dataset`, and logs those that are numbers."""
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        processor: Any = self.processing_class
        found = evaluate_rows(self.task, self.unwrapped_model, processor, rows, self.evaluation).metrics
        return self.report_evaluation(found, metric_key_prefix)
