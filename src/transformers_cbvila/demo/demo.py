"""The demo: `cbvila finetune vqa` and `cbvila evaluate vqa` on easy-VQA, and a report of what came of them."""

import json
import platform
from collections import defaultdict
from importlib.resources import files
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import transformers

from ..data.easy_vqa.facts import question_type
from ..data.source_rows import load_rows
from ..metric_lines import print_metrics
from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from ..tasks.evaluate import EvaluationJob, evaluate_task
from ..tasks.vqa import VisualQuestionAnswering
from ..training.arguments import CBViLATrainingArguments
from ..training.finetune import RECORD, FinetuningJob, finetune
from .demo_run import DemoRun, Example
from .report import write_report

DATA, SPLIT = "easy-vqa", "test"
PUBLISHED_CNN = 0.938  # the accuracy that easy-VQA's author reports for the tutorial's CNN
METRICS, PREDICTIONS = "evaluation.json", "predictions.jsonl"
_SHOWN_RIGHT, _SHOWN_WRONG = 12, 12


def run_demo(
    task: VisualQuestionAnswering, job: FinetuningJob, args: CBViLATrainingArguments, command: str = ""
) -> Path:
    """Fine-tunes, or goes on with it, evaluates, prints the accuracy, and returns the path of the report.

    Args:
        task: The task, with its options.
        job: What to fine-tune.
        args: How to train; everything is written to its `output_dir`.
        command: The command line, for the report.
    """
    folder = Path(args.output_dir or "runs/demo")
    if not (folder / RECORD).is_file():  # written last: it says that the folder is complete
        finetune(task, job, args)
    output, predictions = folder / METRICS, folder / PREDICTIONS
    test = EvaluationJob(
        str(folder), [DATA], str(output), split=SPLIT, train_data=[DATA], predictions=str(predictions)
    )
    metrics = evaluate_task(VisualQuestionAnswering(), test)
    print_metrics({name: value for name, value in metrics.items() if name.startswith("accuracy")})
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    predicted = [json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines()]
    return write_report(folder, demo_run(record, metrics, predicted, folder, job, command))


def demo_run(
    record: dict[str, Any],
    metrics: dict[str, Any],
    predicted: list[dict[str, Any]],
    folder: Path,
    job: FinetuningJob,
    command: str,
) -> DemoRun:
    """Returns what the report shows, from the record of the training, the metrics and the predictions."""
    scores: dict[str, list[float]] = defaultdict(list)
    for answer in predicted:
        scores[question_type(answer["answers"][0])].append(answer["score"])
    return DemoRun(
        title="CB-ViLA on easy-VQA",
        model_source=_source(job),
        command=command,
        n_parameters=CBViLAForQuestionAnswering.from_pretrained(folder).num_parameters(),
        train_steps=record["steps"],
        train_seconds=record["speed"]["train_runtime"] or 0.0,
        log_history=record["logs"],
        accuracy=metrics["accuracy"],
        accuracy_by_type={kind: mean(values) for kind, values in scores.items()},
        n_by_type={kind: len(values) for kind, values in scores.items()},
        shape_color_accuracy=metrics["accuracy_other"],
        floors={
            "always the most frequent answer": metrics["accuracy_majority_floor"],
            "the question alone": metrics["accuracy_text_only_floor"],
            "published tutorial CNN": PUBLISHED_CNN,
        },
        other_runs=_committed_runs(job),
        examples=_examples(folder, predicted),
        environment={
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "device": f"{record['device']}, {torch.get_num_threads()} threads",
        },
    )


def _source(job: FinetuningJob) -> str:
    if job.from_scratch:
        return "random weights"
    return "the bundled checkpoint cbvila-tiny" if job.model == "cbvila-tiny" else job.model


def _examples(folder: Path, predicted: list[dict[str, Any]]) -> list[Example]:
    """Questions to show, wrong ones first, answered once more through the pipeline of the folder."""
    right = [answer for answer in predicted if answer["score"] == 1]
    wrong = [answer for answer in predicted if answer["score"] < 1]
    shown = wrong[:_SHOWN_WRONG] + right[:: max(1, len(right) // _SHOWN_RIGHT)][:_SHOWN_RIGHT]
    images: Any = load_rows(DATA, SPLIT, task="vqa")
    ask: Any = transformers.pipeline("visual-question-answering", model=str(folder))  # type: ignore[call-overload]
    examples: list[Example] = []
    for asked in shown:
        image = images[asked["row"]]["image"]
        best = ask(image, asked["question"])[0]
        examples.append(
            {
                "image": image,
                "question": asked["question"],
                "answer": asked["answers"][0],
                "prediction": best["answer"],
                "score": best["score"],
            }
        )
    return examples


def _committed_runs(job: FinetuningJob) -> dict[str, Any]:
    """The committed metrics of the run that this one is to be compared with: pretrained against random weights."""
    committed = json.loads((files("transformers_cbvila.demo") / "committed_runs.json").read_text())
    other = "pretrained" if job.from_scratch else "random weights"
    return {other: committed[other]} if other in committed else {}
