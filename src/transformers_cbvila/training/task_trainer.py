"""The trainer of downstream tasks: what it evaluates is the task itself, as `cbvila evaluate` would."""

from typing import Any

from ..evaluation.task_figures import TaskEvaluation, comparable_figures
from ..model.messages_cbvila import shown
from .inherited_options import OF_EVALUATION, refuse
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
        refuse(self.args, OF_EVALUATION, "the task is measured as `cbvila evaluate` does, not by Trainer's own loop")
        self.evaluation = evaluation
        self._check_best()

    def _check_best(self) -> None:
        """Raises a ValueError for a figure that no evaluation would give, before anything is trained."""
        best, figures = self.args.metric_for_best_model, comparable_figures(self.evaluation.settings)
        if best is not None and best.removeprefix("eval_") not in figures:
            raise ValueError(f"metric_for_best_model={shown(best)} is none of {', '.join(figures)}.")

    def evaluate(
        self, eval_dataset=None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, Any]:
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        figures = self.evaluation.figures(self.unwrapped_model, self.processing_class, rows)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log({name: value for name, value in metrics.items() if isinstance(value, int | float)})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
