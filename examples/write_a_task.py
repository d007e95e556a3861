"""Write a task of your own, fine-tune for it and evaluate: which shape an image shows.

    python examples/write_a_task.py --max_steps 20 --output_dir runs/shapes

A task is its head and one class: its options, how a row is read, its collator, its training set, its metrics. With
them come `cbvila finetune`, `cbvila evaluate`, resuming, intervals, and the error that names a bad row.

Nothing is downloaded: the images are easy-VQA's (the package `easy-vqa`), written to a folder with a metadata.jsonl.
docs/extending.md explains what a task must do.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput

from transformers_cbvila import CBViLAConfig, CBViLAModel, CBViLAProcessor
from transformers_cbvila.cli import main as cbvila
from transformers_cbvila.data.image_views import ImageViews
from transformers_cbvila.data.source_rows import load_rows
from transformers_cbvila.data.task_examples import ViewedRows
from transformers_cbvila.metrics.intervals import mean_with_interval
from transformers_cbvila.model.modeling_cbvila_base import CBViLAPreTrainedModel
from transformers_cbvila.tasks.classification import classify
from transformers_cbvila.tasks.columns import column_option
from transformers_cbvila.tasks.evaluation import Evaluation
from transformers_cbvila.tasks.fields import FieldReader, Fields, Measured
from transformers_cbvila.tasks.label_column import label_reader
from transformers_cbvila.tasks.registry import register_task
from transformers_cbvila.tasks.rows import TaskRows
from transformers_cbvila.tasks.task import Task
from transformers_cbvila.tasks.training_defaults import TrainingDefaults


class CBViLAForImageClassification(CBViLAPreTrainedModel):
    """Classifies images by the [CLS] token of the image encoder."""

    def __init__(self, config: CBViLAConfig) -> None:
        super().__init__(config)
        self.cbvila = CBViLAModel(config, add_contrastive=False, add_quantizer=False)
        self.classifier = nn.Linear(config.vision_config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any) -> ImageClassifierOutput:
        """Returns logits (B, classes) of images (B, 3, H, W) and, with `labels` (B,), the cross-entropy."""
        logits = self.classifier(self.cbvila.vision_model(pixel_values).last_hidden_state[:, 0])
        return ImageClassifierOutput(loss=None if labels is None else F.cross_entropy(logits, labels), logits=logits)


@register_task
@dataclass
class ImageClassification(Task):
    """Image classification: an image, and its class."""

    name = "image-classification"
    head = CBViLAForImageClassification
    card = "base.md"
    hub_task = "image-classification"
    defaults = TrainingDefaults("the classifier is new", 1e-3, 2e-5, batch_size=32, passes=5, least_steps=200)
    columns = {"label_column": ("label",)}
    has_text_baseline = False

    label_column: str | None = column_option("Column with the class", ("label",))
    class_names: list[str] = field(default_factory=lambda: ["0", "1"], metadata={"help": "Names of the classes."})

    def prepare_config(self, config: CBViLAConfig) -> None:
        """Gives a new head the classes of the option."""
        config.id2label = dict(enumerate(self.class_names))

    def classes(self, config: CBViLAConfig) -> tuple[str, ...]:
        """Returns the classes of the model."""
        return tuple(config.id2label.values())

    def field_reader(self, columns: Mapping[str, str], features: Any, classes: Sequence[str]) -> FieldReader:
        """Returns what reads the class of a row, by name or number."""
        label = label_reader(columns["label_column"], features, classes, self.class_names)
        return lambda row: {"label": label(row)}

    def texts(self, fields: Fields) -> Iterator[tuple[str, str]]:
        """Yields nothing: there are no texts."""
        return iter(())

    def training_set(self, rows: TaskRows, seed: int, views: ImageViews) -> ViewedRows:
        """Returns the rows, of whose images another view is drawn in every epoch."""
        return ViewedRows(rows, seed, views)

    def collator(self, processor: CBViLAProcessor, config: CBViLAConfig) -> Any:
        """Returns what makes `pixel_values` and, of rows with a label, `labels`."""

        def collate(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
            batch = dict(processor.image_processor([row["image"] for row in examples], return_tensors="pt"))
            if "label" in examples[0]:
                ids = {name: number for number, name in config.id2label.items()}
                batch["labels"] = batch["pixel_values"].new_tensor([ids[row["label"]] for row in examples]).long()
            return batch

        return collate

    def compared_metrics(self) -> tuple[str, ...]:
        """Returns the name of the metric."""
        return ("accuracy",)

    def measure(self, model: Any, processor: CBViLAProcessor, rows: TaskRows, evaluation: Evaluation) -> Measured:
        """Returns the accuracy with its interval, and what was predicted."""
        labels, collate = rows.column("label"), self.collator(processor, model.config)
        given = classify(model, collate, rows, evaluation.batch_size, evaluation.progress)
        correct = np.asarray([guess == label for guess, label in zip(given, labels, strict=True)])
        predictions = [{"prediction": p, "label": label} for p, label in zip(given, labels, strict=True)]
        return Measured(mean_with_interval("accuracy", correct, evaluation.seed), predictions)


def write_shapes(folder: Path, count: int) -> list[str]:
    """Writes easy-VQA's images with the shape that a question about it was answered with; returns the shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, str]] = []
    rows: Any = load_rows("easy-vqa", f"train[:{count}]", task="vqa")
    for number, row in enumerate(rows):
        shapes = [answer for answer, kind in zip(row["answer"], row["question_type"], strict=True) if kind == "shape"]
        if shapes:
            row["image"].save(folder / f"{number}.png")
            lines.append({"file_name": f"{number}.png", "label": shapes[0]})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return sorted({line["label"] for line in lines})


def main(argv: list[str] | None = None) -> int:
    """Fine-tunes and evaluates, as `cbvila` does; returns the exit status."""
    parser = argparse.ArgumentParser(description="Fine-tune CB-ViLA for a task of your own.")
    parser.add_argument("--output_dir", default="runs/shapes")
    parser.add_argument("--images", type=int, default=400, help="images of easy-VQA")
    parser.add_argument("--max_steps", default="-1")
    options = parser.parse_args(argv)
    data, model = Path(options.output_dir) / "data", str(Path(options.output_dir) / "model")
    classes = write_shapes(data, options.images)
    task = [ImageClassification.name, "--class_names", *classes]
    train = ["--model", "cbvila-tiny", "--train_data", str(data), "--output_dir", model, "--report_to", "none"]
    return cbvila(["finetune", *task, *train, "--max_steps", options.max_steps]) or cbvila(
        ["evaluate", *task, "--model", model, "--data", str(data), "--split", "train"]
    )


if __name__ == "__main__":
    raise SystemExit(main())
