"""The trainer of pretraining: what it evaluates is what `cbvila inspect` measures."""

from typing import Any

from accelerate.utils import broadcast_object_list

from ..inspection.measure import LOWER_IS_BETTER, inspect_pretraining
from ..model.messages_cbvila import shown
from .fsdp import require_whole_weights
from .inherited_options import OF_EVALUATION, refuse
from .reconstruction_images import log_reconstructions
from .trainer import CBViLATrainer


class PretrainingTrainer(CBViLATrainer):
    """[`CBViLATrainer`] whose evaluation measures held-out pairs as `cbvila inspect` does, and their losses.

    The metrics (`eval_loss`, `eval_loss_itm` …, `eval_codebook_usage`, `eval_mim_advantage`,
    `eval_image_retrieval_r1` …) can choose the best checkpoint (`metric_for_best_model`). All terms are measured,
    whatever the schedule of training has switched on. Evaluation draws no random numbers and changes no weights.

    On several processes each measures everything without communication, as retrieval is no sum over batches. The main
    process's metrics are then sent to all, so that they agree on the best checkpoint.

    Args:
        args: As of [`CBViLATrainer`]; `eval_dataset` are rows with `image` and `captions`, such as [`MeasuredPairs`].
        rerank_k: How many candidates per query matching re-ranks; `None` or 0: retrieval by similarity only.
        kwargs: As of [`CBViLATrainer`].
    """

    def __init__(self, *args: Any, rerank_k: int | None = 64, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        refuse(self.args, OF_EVALUATION, "pretraining is measured as `cbvila inspect` does, not by Trainer's own loop")
        self.rerank_k = rerank_k
        self._last_measured: tuple[int, dict[str, float]] | None = None  # a global step and its metrics
        if self.eval_dataset is not None:
            self._check_evaluation()

    def _check_evaluation(self) -> None:
        """Raises a ValueError for an evaluation that would fail or mean nothing, before anything is trained."""
        require_whole_weights(self.context, "eval_data is measured with the whole model")
        batch_size = self.args.per_device_eval_batch_size
        if batch_size < 2:
            raise ValueError(
                f"per_device_eval_batch_size={batch_size}: ITC, ITM and the shuffled captions compare the pairs of a "
                "batch; take 2 or more."
            )
        best = self.args.metric_for_best_model
        if best is None:
            return
        name = best.removeprefix("eval_")
        rows: Any = self.eval_dataset
        known = self._measure([rows[i] for i in range(min(batch_size, len(rows)))], progress=False)
        if name not in known:
            raise ValueError(f"metric_for_best_model={shown(best)} is none of {', '.join(known)}.")
        if not self.args.is_given("greater_is_better"):
            self.args.greater_is_better = not (name.startswith("loss") or name in LOWER_IS_BETTER)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Returns and logs the metrics on rows (by default `eval_dataset`); TensorBoard also gets reconstructions."""
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        progress = self.is_world_process_zero() and not self.args.disable_tqdm
        (found,) = broadcast_object_list([self._measure(rows, progress)])
        log_reconstructions(self, rows, f"{metric_key_prefix}/reconstructions")
        metrics = self.report_evaluation(found, metric_key_prefix)
        if eval_dataset is None and metric_key_prefix == "eval":
            self._last_measured = self.state.global_step, metrics
        return metrics

    def final_metrics(self) -> dict[str, float]:
        """Returns the metrics of the trained model, which the last step's evaluation may have measured already."""
        if self._last_measured is not None and not self.args.load_best_model_at_end:
            step, metrics = self._last_measured
            if step == self.state.global_step:
                return metrics
        return self.evaluate()

    def _measure(self, rows: Any, progress: bool) -> dict[str, float]:
        processor: Any = self.processing_class
        return inspect_pretraining(
            self.unwrapped_model,
            processor,
            rows,
            self.args.per_device_eval_batch_size,
            progress=progress,
            rerank_k=self.rerank_k,
            losses=True,
        )
