"""`cbvila finetune` for every task: training, metrics, records, evaluation and resuming."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from equal_tensors import assert_equal_tensors
from tiny import half_image, pretraining_model
from tiny_finetuning import TINY_TASKS, finetuning_arguments
from transformers import TrainerCallback

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLATrainingArguments,
)
from transformers_cbvila.cli import main
from transformers_cbvila.cli.job_options import parse_job
from transformers_cbvila.cli.recipe_files import FOLDER
from transformers_cbvila.cli.tasks import task_parts
from transformers_cbvila.retrieval.encoding import GalleryEncoder
from transformers_cbvila.retrieval.retrieval_order import better_order
from transformers_cbvila.tasks.entailment import VisualEntailment
from transformers_cbvila.tasks.evaluate import EvaluationJob, evaluate_task
from transformers_cbvila.tasks.registry import TASKS
from transformers_cbvila.tasks.retrieval import ImageTextRetrieval
from transformers_cbvila.tasks.row_reading import load_task_rows
from transformers_cbvila.tasks.training_rows import sources_of_training
from transformers_cbvila.tasks.vqa import VisualQuestionAnswering
from transformers_cbvila.training.finetune import FinetuningJob, build_trainer, finetune
from transformers_cbvila.training.task_models import starting_model
from transformers_cbvila.weights_digest import weights_digest

RECIPES = sorted(FOLDER.glob("finetune-*.yaml"))
COLOURS = ("red", "green", "blue", "grey")


@pytest.mark.parametrize("task", TINY_TASKS)
def test_finetune_and_evaluate_every_task(task, pretrained, data, tmp_path):
    settings, head, figure = TINY_TASKS[task]
    views = {"crop_scale": 0.5, "flip": True, "distortions": 2}
    start = {"image_size": 40, "dropout": 0.0, "from_scratch": task == "vqa"}
    job = FinetuningJob(pretrained, [data], eval_data=[data], **start, **views)
    folder = finetune(settings, job, finetuning_arguments(tmp_path / "out", eval_strategy="steps", eval_steps=1))
    record = json.loads((folder / "finetuning.json").read_text())
    assert record["job"]["eval_split"] == "validation"
    assert record["task"] == task and record["steps"] == 2 and record["skipped_rows"] == {"train": 0, "eval": 0}
    assert str(tmp_path) not in json.dumps(record) and Path(data).parent.name not in json.dumps(record)
    assert sum(f"eval_{figure}" in log for log in record["logs"]) == 3, "after each step, and at the end"
    model = head.from_pretrained(folder)
    assert model.config.vision_config.image_size == 40
    kept = model.config.rerank_k, model.config.similarity_weight
    assert kept == (better_order(record["figures"], 2, "eval_") or (0, 0.0))
    # the folder alone gives the same figures
    output = tmp_path / "figures.json"
    job = EvaluationJob(str(folder), [data], str(output), train_data=[data] * settings.has_baselines, batch_size=8)
    figures = evaluate_task(settings, job, progress=False)
    assert figures | {"weights": weights_digest(folder)} == json.loads(output.read_text())
    for name, value in record["figures"].items():
        same = figures[name.removeprefix("eval_")]
        assert same == (pytest.approx(value) if isinstance(value, float) else value), name
    said = [figures[name] for name in ("task", "split", "protocol", "zero_shot", "trained_on")]
    assert said == [task, "all", "own", False, True], "a file has no splits"
    assert any(name.endswith("_floor") for name in figures)


def test_evaluate_pretrained_model_zero_shot(pretrained, data, tmp_path):
    job = EvaluationJob(pretrained, [data], str(tmp_path / "a.json"), split="train")
    figures = evaluate_task(ImageTextRetrieval(rerank_k=2), job, progress=False)
    assert figures["zero_shot"] and figures["gallery_images"] == 8
    for task in ("vqa", "entailment"):
        with pytest.raises(ValueError, match=f"CBViLAForPreTraining, which was not trained for {task}"):
            evaluate_task(TINY_TASKS[task][0], job, progress=False)
    with pytest.raises(ValueError, match="train_data=.*: retrieval has no floor that training data change; leave"):
        evaluate_task(ImageTextRetrieval(), replace(job, train_data=[data]))
    with pytest.raises(FileNotFoundError, match="make it first"):
        evaluate_task(ImageTextRetrieval(), replace(job, output=str(tmp_path / "no" / "a.json")))


@pytest.mark.parametrize(
    ("trained", "split", "where", "expected"),
    [
        ({}, "test", [], True),
        ({"train_data": ["other.jsonl"]}, "test", [], False),
        ({"train_split": "train[:50%]"}, "test[50%:]", [], False),
        ({"train_split": "train[:50%]"}, "test[:50%]", [], True),
        ({"train_split": "train[:50%]"}, "test", [], True),
        ({"where": ["part=train"]}, "test", ["part=test"], False),
        ({"where": ["part=train"]}, "test", ["part=train"], True),
    ],
)
def test_sources_of_training_are_those_that_the_record_names(trained, split, where, expected, data, tmp_path):
    job = {"train_data": [Path(data).name], "train_split": "train", **trained}
    record = {"job": job, "settings": {"where": job.pop("where", [])}}
    (tmp_path / "finetuning.json").write_text(json.dumps(record))
    assert sources_of_training(str(tmp_path), [data], split, where) == ([data] if expected else [])


def test_sources_of_training_compare_splits_of_built_in_data(tmp_path):
    job = {"train_data": ["easy-vqa"], "train_split": "train"}
    (tmp_path / "finetuning.json").write_text(json.dumps({"job": job}))
    assert sources_of_training(str(tmp_path), ["easy-vqa"], "test", []) == []
    assert sources_of_training(str(tmp_path), ["easy-vqa"], "train[:10]", []) == ["easy-vqa"]
    assert sources_of_training("cbvila-tiny", ["easy-vqa"], "train", []) == []


def test_evaluate_retrieval_folder_resumes_with_the_same_metrics(pretrained, data, tmp_path, monkeypatch):
    job = EvaluationJob(pretrained, [data], str(tmp_path / "a.json"), split="train")
    figures = evaluate_task(ImageTextRetrieval(rerank_k=2), job, progress=False)
    kept = replace(job, folder=str(tmp_path / "kept"))
    assert evaluate_task(ImageTextRetrieval(rerank_k=2), kept, progress=False) == figures
    monkeypatch.setattr(GalleryEncoder, "batches", lambda *args, **options: pytest.fail("encoded again"))
    assert evaluate_task(ImageTextRetrieval(rerank_k=2), kept, progress=False) == figures
    with pytest.raises(ValueError, match="folder=.*: vqa keeps no finished work"):
        evaluate_task(TINY_TASKS["vqa"][0], kept, progress=False)


def test_evaluate_baselines_come_from_training_rows(pretrained, data, tmp_path):
    lines = [json.loads(line) for line in Path(data).read_text().splitlines()]
    lines = [{**line, "image": str(Path(data).parent / line["image"])} for line in lines]
    for i, line in enumerate(lines):
        line |= {"part": ("train", "test")[i % 2], "label": ("neutral", "entailment")[i % 2]}
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    both, output = [str(tmp_path / "rows.jsonl")], str(tmp_path / "figures.json")
    finetune(VisualEntailment(), FinetuningJob(pretrained, [data]), finetuning_arguments(tmp_path / "out"))
    job = EvaluationJob(str(tmp_path / "out"), both, output, "a", train_data=both, train_split="b")
    settings = VisualEntailment(where=["part=test"])
    floors = [
        evaluate_task(settings, replace(job, train_where=conditions))["accuracy_text_only_floor"]
        for conditions in (["part=train"], ["part=test"], [])
    ]
    assert floors == [0.0, 1.0, 1.0], "texts differ by colour, and each colour is in one part"
    with pytest.raises(ValueError, match="'train' is no condition"):
        evaluate_task(settings, replace(job, train_where=["train"]))
    assert len(load_task_rows(settings, both, "a", ("neutral", "entailment"))) == 4


def test_starting_model_from_scratch_changes_weights_only(pretrained):
    model, processor = starting_model(VisualEntailment(), pretrained)
    fresh, same = starting_model(VisualEntailment(), pretrained, from_scratch=True)
    name = next(name for name in model.state_dict() if name.endswith("q_proj.weight"))
    assert not torch.equal(model.state_dict()[name], fresh.state_dict()[name])
    assert torch.equal(model.state_dict()[name], pretraining_model().state_dict()[name])
    shapes = [{key: value.shape for key, value in m.state_dict().items()} for m in (model, fresh)]
    assert shapes[0] == shapes[1] and model.config.preset == fresh.config.preset
    assert processor.tokenizer.get_vocab() == same.tokenizer.get_vocab()


def test_starting_model_image_size_equals_interpolation(pretrained):
    model, processor = starting_model(ImageTextRetrieval(), pretrained, image_size=48)
    small = starting_model(ImageTextRetrieval(), pretrained)[0]
    inputs = processor(images=half_image("red", "top", 90), text="red half", return_tensors="pt")
    assert inputs["pixel_values"].shape[-1] == 48
    with torch.no_grad():
        resized = model.eval()(**inputs).itm_logits
        interpolated = small.eval()(**inputs, interpolate_pos_encoding=True).itm_logits
    assert torch.allclose(resized, interpolated, atol=1e-5)
    with pytest.raises(ValueError, match="image_size=50 is no multiple of the patch size, 8"):
        starting_model(ImageTextRetrieval(), pretrained, image_size=50)
    with pytest.raises(ValueError, match="dropout=1.0"):
        starting_model(ImageTextRetrieval(), pretrained, dropout=1.0)


def test_finetune_resumed_equals_unbroken_run(pretrained, data, tmp_path):
    job = FinetuningJob(pretrained, [data], crop_scale=0.5, flip=True)
    settings, weights = TINY_TASKS["retrieval"][0], []
    for name in ("whole", "broken"):
        options = {"max_steps": 4, "save_steps": 2, "negative_hardening": "0.0,0.5"}
        args = finetuning_arguments(tmp_path / name, **options)
        if name == "broken":
            trainer = build_trainer(settings, job, args)
            trainer.add_callback(StopAfter(2))
            trainer.train()
            args = finetuning_arguments(tmp_path / name, **options, resume_from_checkpoint="True")
        finetune(settings, job, args)
        weights.append(CBViLAForImageTextRetrieval.from_pretrained(tmp_path / name).state_dict())
    assert_equal_tensors(weights[0], weights[1])


class StopAfter(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


def test_finetune_names_a_broken_image(pretrained, data, tmp_path):
    lines = Path(data).read_text().splitlines()
    broken = [{**json.loads(line), "image": str(Path(data).parent / json.loads(line)["image"])} for line in lines]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken[3]["image"] = str(tmp_path / "broken.png")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, broken)))
    job = FinetuningJob(pretrained, [str(tmp_path / "rows.jsonl")])
    with pytest.raises(ValueError, match="Row 3 of .*rows.jsonl: its image cannot be read"):
        finetune(VisualEntailment(), job, finetuning_arguments(tmp_path / "out", max_steps=4))
    finetune(VisualEntailment(skip_bad_rows=True), job, finetuning_arguments(tmp_path / "out", max_steps=4))
    assert json.loads((tmp_path / "out/finetuning.json").read_text())["skipped_rows"] == {"train": 1}


def test_finetune_checks_texts_before_training(pretrained, data, tmp_path):
    def written(name, **changed):
        lines = [json.loads(line) for line in Path(data).read_text().splitlines()]
        lines = [{**line, "image": str(Path(data).parent / line["image"])} for line in lines]
        lines[3] |= changed
        (tmp_path / name).write_text("\n".join(map(json.dumps, lines)))
        return str(tmp_path / name)

    empty, long = written("empty.jsonl", question="\ufffd"), written("long.jsonl", answers=["no", "a " * 40])
    asked = written("asked.jsonl", question="is it red " * 20)
    skip, args = VisualQuestionAnswering(skip_bad_rows=True), finetuning_arguments(tmp_path / "out", max_steps=1)
    for job, reason in (
        (FinetuningJob(pretrained, [long]), "Row 3 of .*long.jsonl: its answer 'a a .*41 tokens.*takes 16"),
        (
            FinetuningJob(pretrained, [data], eval_data=[empty], eval_split="train"),
            "Row 3 of .*empty.jsonl: its quest",
        ),
    ):
        with pytest.raises(ValueError, match=reason):
            build_trainer(VisualQuestionAnswering(), job, args)
    job = FinetuningJob(pretrained, [long], eval_data=[empty], eval_split="train")
    finetune(skip, job, args)
    record = json.loads((tmp_path / "out/finetuning.json").read_text())
    assert record["skipped_rows"] == {"train": 1, "eval": 1} and record["figures"]["eval_rows"] == 7
    output = str(tmp_path / "figures.json")
    figures = evaluate_task(VisualQuestionAnswering(), EvaluationJob(str(tmp_path / "out"), [asked], output, "train"))
    assert figures["rows"] == 8, "the long question was cut"
    job = EvaluationJob(str(tmp_path / "out"), [empty], output, "train")
    with pytest.raises(ValueError, match="Row 3 of .*empty.jsonl: its question"):
        evaluate_task(VisualQuestionAnswering(), job)
    assert evaluate_task(skip, job)["skipped_rows"] == 1


@pytest.mark.parametrize(
    "answers, message",
    [(None, "answers.txt isn't there"), ("red\n", "none is right for any question"), ("no\n\ufffd\n", "answer 1 is")],
)
def test_finetune_reads_answer_list_before_training(answers, message, pretrained, data, tmp_path):
    path = tmp_path / "answers.txt"
    if answers is not None:
        path.write_text(answers)
    job = FinetuningJob(pretrained, [data], eval_data=[data], eval_split="train")
    with pytest.raises((FileNotFoundError, ValueError), match=f"answer_list.*{message}"):
        build_trainer(VisualQuestionAnswering(answer_list=str(path)), job, finetuning_arguments(tmp_path / "out"))
    path.write_text("no\nYes\n")
    build_trainer(VisualQuestionAnswering(answer_list=str(path)), job, finetuning_arguments(tmp_path / "out"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_finetune_recipes_have_existing_options_and_their_commands(path, tmp_path):
    task = path.stem.split("-")[1]
    kind = TASKS[task]
    end, preset = task_parts(kind, "")
    recipe = yaml.safe_load(path.read_text())
    if "bf16" in recipe:  # what a CPU may lack
        path = tmp_path / path.name
        path.write_text(yaml.safe_dump({**recipe, "bf16": False}))
    argv = [
        "--config",
        str(path),
        "--model",
        "m",
        "--train_data",
        "a",
        "--eval_data",
        "b",
        "--output_dir",
        str(tmp_path),
    ]
    parts = [FinetuningJob, kind, CBViLATrainingArguments]
    job, settings, args, _ = parse_job("finetune", "", end, parts, argv, preset)
    for name, value in recipe.items():
        owner = next(part for part in (job, settings, args) if hasattr(part, name))
        assert getattr(owner, name) == value or name in ("bf16", "metric_for_best_model", "lr_scheduler_kwargs"), name
    head = next(p for p in RECIPES if p.name == path.name).read_text().partition("\n\n")[0]
    assert f"cbvila finetune {task}" in head.replace("transformers_cbvila finetune", "cbvila finetune")
    assert f"recipes/{path.name}" in head and f"cbvila evaluate {task}" in head


def test_protocol_options_are_below_recipe_and_flags(tmp_path):
    def parsed(*argv, recipe="seed: 0\n"):
        (tmp_path / "r.yaml").write_text(recipe)
        end, preset = task_parts(ImageTextRetrieval, "")
        argv = ["--model", "m", "--data", "d", "--output", "o.json", "--config", str(tmp_path / "r.yaml"), *argv]
        return parse_job("evaluate retrieval", "", end, [EvaluationJob, ImageTextRetrieval], argv, preset)[1]

    assert parsed().rerank_k == 64 and not parsed().own_captions_only
    assert parsed("--protocol", "coco-5k").rerank_k == 256 and parsed("--protocol", "coco-5k").own_captions_only
    assert parsed("--protocol", "flickr30k-1k", "--rerank_k", "16").rerank_k == 16
    assert parsed(recipe="protocol: coco-5k\nrerank_k: 8\n").rerank_k == 8
    assert parsed(recipe="caption_column: c\n").caption_column == "c" == parsed("--text_column", "c").caption_column
    with pytest.raises(SystemExit):
        parsed("--protocol", "vqav2")


def test_image_column_may_be_repeated_or_listed(tmp_path):
    base = ["--model", "m", "--data", "d", "--output", "o.json"]
    for given in (["--image_column", "a", "b"], ["--image_column", "a", "--image_column", "b"]):
        parts = [EvaluationJob, TASKS["reasoning"]]
        assert parse_job("evaluate reasoning", "", "", parts, [*base, *given])[1].image_column == ["a", "b"]


def test_finetune_and_evaluate_commands(pretrained, data, tmp_path, capsys):
    out, figures = tmp_path / "out", tmp_path / "figures.json"
    train = ["--model", pretrained, "--train_data", data, "--output_dir", str(out), "--max_steps", "1"]
    train += ["--report_to", "none", "--use_cpu", "--answer_column", "answers", "--disable_tqdm", "true"]
    assert main(["finetune", "vqa", *train]) == 0
    answers = tmp_path / "answers.txt"
    answers.write_text("yes\nno\n")
    test = ["--model", str(out), "--data", data, "--split", "train", "--output", str(figures)]
    assert main(["evaluate", "vqa", *test, "--answer_list", str(answers), "--train_data", data]) == 0
    said, found = capsys.readouterr().out, json.loads(figures.read_text())
    assert f"Trained model: {out}" in said and f"Figures: {figures}" in said and "accuracy_text_only_floor" in said
    assert found["answer_list_ceiling"] == 1.0 and found["metric"] == "any_of" and found["rows"] == 8
    for argv in (["finetune"], ["evaluate", "captioning"]):
        with pytest.raises(SystemExit):
            main(argv)


def test_finetune_prints_metrics_and_evaluate_uses_its_max_length(pretrained, data, tmp_path, capsys):
    out = tmp_path / "out"
    train = ["--model", pretrained, "--train_data", data, "--eval_data", data, "--output_dir", str(out)]
    train += ["--max_steps", "1", "--report_to", "none", "--use_cpu", "--disable_tqdm", "true", "--max_length", "5"]
    assert main(["finetune", "retrieval", *train, "--rerank_k", "2"]) == 0
    printed, record = capsys.readouterr().out, json.loads((out / "finetuning.json").read_text())
    recall, low = (record["figures"][f"eval_image_retrieval_r5{end}"] for end in ("", "_low"))
    line = re.compile(rf"^image_retrieval_r1/5/10 .*[\])]  +{recall:.4f} \[{low:.3f}, ", re.MULTILINE)
    assert line.search(printed) and "eval_image" not in printed.split("}")[-1]
    assert main(["evaluate", "retrieval", "--model", str(out), "--data", data, "--rerank_k", "2"]) == 0
    said = capsys.readouterr().out
    assert f"max_length 5: texts are cut as in the fine-tuning of {out}." in said
    assert line.search(said) and "Figures: " not in said
    assert main(["evaluate", "retrieval", "--model", str(out), "--data", data, "--max_length", "6"]) == 0
    assert "is measured on up to 6: --max_length 5 measures on the same" in capsys.readouterr().out


@pytest.mark.parametrize("task", TINY_TASKS)
def test_evaluate_without_train_data_names_missing_baseline(task, pretrained, data, tmp_path, capsys):
    folder = finetune(
        TINY_TASKS[task][0], FinetuningJob(pretrained, [data]), finetuning_arguments(tmp_path, max_steps=1)
    )
    capsys.readouterr()
    figures = evaluate_task(TINY_TASKS[task][0], EvaluationJob(str(folder), [data]), progress=False)
    said = "Without train_data there is no text-only floor" in capsys.readouterr().out
    assert said == (task != "retrieval") and "accuracy_text_only_floor" not in figures
