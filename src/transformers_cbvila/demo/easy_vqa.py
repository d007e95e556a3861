"""The demo: fine-tune a pretrained CB-ViLA on easy-VQA, evaluate it, reload it, ask it, and write a report."""

import json
import platform
import shlex
import time
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForVisualQuestionAnswering, AutoProcessor, TrainerCallback, set_seed

from ..data.collators import CBViLADataCollatorForQuestionAnswering
from ..data.easy_vqa import load_easy_vqa
from ..data.questions import SampledQuestions
from ..tasks.answering import answer_questions
from ..metrics.baselines import majority_accuracy, question_only_accuracy
from ..metrics.load_metric import load_vqa_accuracy
from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from ..model.processing_cbvila import CBViLAProcessor
from ..training.arguments import CBViLATrainingArguments
from ..training.runs.checkpoints import last_complete_checkpoint
from ..training.task_models import starting_model
from ..training.trainer import CBViLATrainer
from .demo_run import DemoRun, Example
from .report import write_report

PUBLISHED_CNN = 0.938  # the accuracy that easy-VQA's author reports for the tutorial's CNN
YES_NO = "yes/no"
_SHOWN_RIGHT, _SHOWN_WRONG = 12, 12


@dataclass
class DemoJob:
    """What the demo trains; the defaults are the figures of the README."""

    output_dir: str = field(default="runs/demo", metadata={"help": "Folder of checkpoints, model and report."})
    from_scratch: bool = field(
        default=False, metadata={"help": "Start from random weights, to see what pretraining gives."}
    )
    model: str | None = field(
        default=None, metadata={"help": "Checkpoint to start from; default: bundled cbvila-tiny."}
    )
    epochs: float = field(default=13.0, metadata={"help": "Passes over the 4,000 training images."})
    closed_questions: int = field(
        default=2, metadata={"help": "Yes/no questions per image and epoch, beside all that ask for shape or colour."}
    )
    images_per_batch: int = field(default=32, metadata={"help": "Images per step."})
    learning_rate: float = field(default=4e-4, metadata={"help": "Peak learning rate, after a short warm-up."})
    seed: int = field(default=0, metadata={"help": "Seed of initialisation, order and dropout."})
    max_steps: int = field(default=-1, metadata={"help": "Stop after that many steps (a quick look)."})


def run_demo(job: DemoJob, command: str = "") -> Path:
    """Runs the demo, or goes on with it where it was, and returns the report's path."""
    output_dir = Path(job.output_dir)
    train, test = load_easy_vqa("train"), load_easy_vqa("test")
    trainer = _trainer(job, train)
    model_dir = output_dir / "model"
    if not (model_dir / "training.json").is_file():
        trainer.train(resume_from_checkpoint=last_complete_checkpoint(output_dir))
        trainer.save_model(str(model_dir))
        # written last: its presence says that the folder is complete
        done = {"steps": trainer.state.global_step, "log_history": trainer.state.log_history}
        (model_dir / "training.json").write_text(json.dumps(done))
    training = json.loads((model_dir / "training.json").read_text())
    log_history = training["log_history"]
    model = AutoModelForVisualQuestionAnswering.from_pretrained(model_dir).to(trainer.args.device)
    processor = AutoProcessor.from_pretrained(model_dir)
    answers = answer_questions(model, processor, test)
    run = DemoRun(
        title="CB-ViLA on easy-VQA",
        model_source=_source(job),
        command=command,
        n_parameters=model.num_parameters(),
        train_steps=training["steps"],
        train_seconds=max((entry.get("train_seconds", 0.0) for entry in log_history), default=0.0),
        log_history=log_history,
        other_runs=_committed_runs(job),
        examples=_examples(model_dir, test, answers, trainer.args.device),
        environment=_environment(trainer.args.device),
        **_score(train, test, answers),
    )
    return write_report(output_dir, run)


def _trainer(job: DemoJob, train) -> CBViLATrainer:
    set_seed(job.seed)
    model, processor = _start(job)
    args = CBViLATrainingArguments(
        output_dir=job.output_dir,
        num_train_epochs=job.epochs,
        max_steps=job.max_steps,
        per_device_train_batch_size=job.images_per_batch,
        learning_rate=job.learning_rate,
        weight_decay=0.02,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        logging_steps=25,
        save_steps=100,
        save_total_limit=2,
        seed=job.seed,
        report_to="none",
    )
    return CBViLATrainer(
        model=model,
        args=args,
        train_dataset=SampledQuestions(train, job.closed_questions, job.seed),
        data_collator=CBViLADataCollatorForQuestionAnswering(processor),
        processing_class=processor,
        callbacks=[_Stopwatch()],
    )


def _start(job: DemoJob) -> tuple[CBViLAForQuestionAnswering, CBViLAProcessor]:
    # No dropout: so few passes over so simple data leave nothing to regularise.
    return starting_model("vqa", job.model or "cbvila-tiny", job.from_scratch, dropout=0.0)


def _source(job: DemoJob) -> str:
    if job.from_scratch:
        return "random weights"
    return job.model or "the bundled checkpoint cbvila-tiny"


class _Stopwatch(TrainerCallback):
    """Adds to every log the seconds trained so far, earlier parts of an interrupted run included."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.before = max((entry.get("train_seconds", 0.0) for entry in state.log_history), default=0.0)
        self.start = time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.log_history:
            state.log_history[-1]["train_seconds"] = round(self.before + time.perf_counter() - self.start, 3)


def _score(train, test, answers: list[list[str]]) -> dict[str, Any]:
    """Accuracies and floors, as the fields of [`DemoRun`]."""
    predictions, references = _flat(answers), _flat(test["answer"])
    types = _flat(test["question_type"])
    metric = load_vqa_accuracy()
    scores = metric.compute(predictions=predictions, references=references, groups=types)
    open_ended = [i for i, kind in enumerate(types) if kind != YES_NO]
    shape_color = metric.compute(
        predictions=[predictions[i] for i in open_ended], references=[references[i] for i in open_ended]
    )
    train_answers, train_questions = _flat(train["answer"]), _flat(train["question"])
    return {
        "accuracy": scores["accuracy"],
        "accuracy_by_type": scores["accuracy_by_group"],
        "n_by_type": {kind: types.count(kind) for kind in scores["accuracy_by_group"]},
        "shape_color_accuracy": shape_color["accuracy"],
        "floors": {
            "always the most frequent answer": majority_accuracy(train_answers, references),
            "the question alone": question_only_accuracy(
                train_questions, train_answers, _flat(test["question"]), references
            ),
            "published tutorial CNN": PUBLISHED_CNN,
        },
    }


def _examples(model_dir: Path, test, answers: list[list[str]], device: torch.device) -> list[Example]:
    """Questions to show, wrong ones first, answered once more through the pipeline of the reloaded folder."""
    right: list[tuple[int, int]] = []
    wrong: list[tuple[int, int]] = []
    for row, given in enumerate(answers):
        for position, answer in enumerate(given):
            (right if answer == test[row]["answer"][position] else wrong).append((row, position))
    stride = max(1, len(right) // _SHOWN_RIGHT)
    shown = wrong[:_SHOWN_WRONG] + right[::stride][:_SHOWN_RIGHT]
    ask: Any = transformers.pipeline("visual-question-answering", model=str(model_dir), device=device)  # type: ignore[call-overload]
    examples: list[Example] = []
    for row, position in shown:
        image, question = test[row]["image"], test[row]["question"][position]
        best = ask(image, question)[0]
        examples.append(
            {
                "image": image,
                "question": question,
                "answer": test[row]["answer"][position],
                "prediction": best["answer"],
                "score": best["score"],
            }
        )
    return examples


def _committed_runs(job: DemoJob) -> dict[str, Any]:
    """The committed figures of the run that this one is to be compared with: pretrained against random weights."""
    figures = json.loads((files("transformers_cbvila.demo") / "committed_runs.json").read_text())
    other = "pretrained" if job.from_scratch else "random weights"
    return {other: figures[other]} if other in figures else {}


def _environment(device: torch.device) -> dict[str, object]:
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
    }


def _flat(rows) -> list[str]:
    return [value for row in rows for value in row]


def command_line(argv: list[str]) -> str:
    """The command as a person would type it."""
    return shlex.join(["cbvila", "demo", *argv])
