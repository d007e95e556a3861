"""Defaults of fine-tuning by task, width, tokenizer and data; they are printed, and given options win."""

import json
import math

import pytest
import yaml
from tiny_finetuning import TINY_TASKS, finetuning_arguments
from tiny_trainer import training_arguments

from transformers_cbvila import CBViLATrainingArguments
from transformers_cbvila.cli import main
from transformers_cbvila.cli.recipe_files import FOLDER
from transformers_cbvila.tasks.registry import TASKS
from transformers_cbvila.tasks.retrieval import ImageTextRetrieval
from transformers_cbvila.training.finetune import FinetuningJob, build_trainer, finetune
from transformers_cbvila.training.task_defaults import Situation, use_defaults

RECIPES = {path.stem: yaml.safe_load(path.read_text()) for path in FOLDER.glob("finetune-*.yaml")}
OF_TASK = {
    "retrieval": ("finetune-retrieval-flickr8k", "finetune-retrieval-coco-base"),
    "vqa": ("finetune-vqa-easy", "finetune-vqa-base"),
    "entailment": ("finetune-entailment-snli-ve", "finetune-entailment-base"),
    "reasoning": ("finetune-reasoning-nlvr1", "finetune-reasoning-base"),
    "captioning": ("finetune-captioning-scenes", "finetune-captioning-base"),
    "generation": ("finetune-generation-scenes", "finetune-generation-base"),
}


def parts(task, folder, given=None, **options):
    job = FinetuningJob("cbvila-tiny", ["rows"])
    return job, TASKS[task](), CBViLATrainingArguments(str(folder), use_cpu=True, report_to="none", **options)


def situation(task="retrieval", **changes):
    values = {"width": 128, "start": "pretrained", "rows": 40_000, "text_lengths": [41], "text_limit": 64}
    return Situation(TASKS[task].defaults, **(values | changes))


def used(folder, task="retrieval", options=None, **changes):
    """The defaults by name, and the parts that they were set in."""
    of_task = parts(task, folder, **(options or {}))
    found = use_defaults(situation(task, **changes), *of_task)
    assert all(default.reason for default in found)
    return {default.name: default.value for default in found}, of_task


@pytest.mark.parametrize("task", TASKS)
def test_task_defaults_learning_rate_follows_width(task, tmp_path):
    rates = {width: used(tmp_path, task, width=width)[0]["learning_rate"] for width in (16, 128, 256, 768, 1024)}
    narrow, wide = (RECIPES[name]["learning_rate"] for name in OF_TASK[task])
    assert (rates[128], rates[768]) == (pytest.approx(narrow), pytest.approx(wide))
    assert rates[16] == rates[128] > rates[256] > rates[768] > rates[1024] > 0


def test_task_defaults_learning_rate_follows_the_start(tmp_path):
    rates = {
        start: used(tmp_path, "vqa", width=768, start=start)[0]["learning_rate"]
        for start in ("random", "pretrained", "trained")
    }
    assert rates["random"] > rates["pretrained"] > rates["trained"]


@pytest.mark.parametrize(
    ("task", "rows", "batch", "passes"),
    [
        ("retrieval", 38_000, 64, 5),
        ("retrieval", 5_000, 64, 8),  # 600 steps
        ("vqa", 4_000, 32, 8),
        ("vqa", 30, 4, 40),  # a few pictures of one's own: 320 steps
        ("entailment", 6_687, 32, 4),
        ("reasoning", 500_000, 32, 5),
        ("reasoning", 1, 4, 40),
    ],
)
def test_task_defaults_epochs_and_batch_size_follow_rows(task, rows, batch, passes, tmp_path):
    found, (_, _, args) = used(tmp_path, task, rows=rows)
    assert (found["per_device_train_batch_size"], found["num_train_epochs"]) == (batch, passes)
    assert (args.per_device_train_batch_size, args.num_train_epochs) == (batch, passes)


def test_task_defaults_batch_size_is_shared_by_processes(tmp_path):
    found, _ = used(tmp_path, options={"gradient_accumulation_steps": 2}, processes=4)
    assert found["per_device_train_batch_size"] == 8
    assert used(tmp_path)[0]["num_train_epochs"] == found["num_train_epochs"]


def test_task_defaults_max_length_follows_tokenizer_and_data(tmp_path):
    assert used(tmp_path)[0]["max_length"] == 48
    assert used(tmp_path, text_lengths=[400])[0]["max_length"] == 64
    assert used(tmp_path, text_lengths=[5])[1][1].max_length == 8


@pytest.mark.parametrize(
    ("lengths", "value", "reason"),
    [
        ([9] * 13 + [306], 64, "of 14 different training texts 1 longer one is cut; the model takes 64 tokens"),
        ([9] * 3000 + [70] * 3, 16, "of 3,003 different training texts 3 longer ones are cut; the model takes"),
        ([9] * 12 + [64, 64], 64, "of 14 different training texts none is longer; the model takes 64 tokens"),
    ],
)
def test_task_defaults_say_how_many_texts_are_cut(lengths, value, reason, tmp_path):
    found = use_defaults(situation(text_lengths=lengths), *parts("retrieval", tmp_path))
    default = next(default for default in found if default.name == "max_length")
    assert default.value == value and default.reason.startswith(reason)


def test_task_defaults_do_not_mirror_images_whose_texts_say_left_or_right(tmp_path):
    few, (job, _, _) = used(tmp_path, sided=0.02)
    assert few["flip"] is True and few["crop_scale"] == 0.5 and job.flip
    found, (job, _, _) = used(tmp_path, sided=0.3)
    assert found["flip"] is False and found["crop_scale"] == 0.9 and not job.flip
    assert not {"flip", "crop_scale"} & set(used(tmp_path, "vqa", sided=0.3)[0])


def test_task_defaults_keep_given_options(tmp_path):
    options = {"learning_rate": 5e-5, "weight_decay": 0.0, "num_train_epochs": 3, "warmup_steps": 0}
    found, (_, _, args) = used(tmp_path, options=options)
    assert not set(options) & set(found)
    assert {name: getattr(args, name) for name in options} == options
    settings = ImageTextRetrieval(max_length=30)
    names = {
        default.name for default in use_defaults(situation(), FinetuningJob("m", ["d"], flip=False), settings, args)
    }
    assert "crop_scale" in names and not {"flip", "max_length"} & names and settings.max_length == 30


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"max_steps": 9}, {"num_train_epochs"}),
        ({"lr_scheduler_type": "constant"}, {"lr_scheduler_type", "warmup_steps"}),
        ({"lr_scheduler_type": "linear"}, {"lr_scheduler_type"}),
        ({"lr_scheduler_kwargs": {}, "lr_scheduler_type": "cosine"}, {"lr_scheduler_type"}),
    ],
)
def test_task_defaults_conflicting_with_given_options_are_left_out(options, left, tmp_path):
    everything = set(used(tmp_path)[0])
    assert everything - set(used(tmp_path, options=options)[0]) == left


@pytest.mark.parametrize("name", RECIPES)
def test_task_defaults_do_not_apply_to_recipes(name, tmp_path):
    """So that what it reached does not change with the table."""
    task = name.split("-")[1]
    names = set(used(tmp_path, task)[0]) - ({"num_train_epochs"} if "max_steps" in RECIPES[name] else set())
    assert names <= set(RECIPES[name])


@pytest.mark.parametrize("task", TINY_TASKS)
def test_task_defaults_are_printed_and_recorded(task, pretrained, data, tmp_path, capsys):
    job, settings = FinetuningJob(pretrained, [data]), type(TINY_TASKS[task][0])
    settings = TINY_TASKS[task][0] if task == "reasoning" else settings()
    args = CBViLATrainingArguments(str(tmp_path), max_steps=1, report_to="none", use_cpu=True)
    record = json.loads((finetune(settings, job, args) / "finetuning.json").read_text())
    said = capsys.readouterr().err.partition(f"Defaults for {task}, of what was not given:")[2]
    assert f"learning_rate {TASKS[task].defaults.narrow_rate}: width 24; {TASKS[task].defaults.new_parts}" in said
    assert "lr_scheduler_type cosine: " in said and "num_train_epochs" not in said
    assert record["learning_rate"] == TASKS[task].defaults.narrow_rate and record["arguments"]["warmup_steps"] == 0.05
    assert record["settings"]["max_length"] % 8 == 0 or record["settings"]["max_length"] == 12
    assert f"\n  max_length {record['settings']['max_length']}: " in said


def test_task_defaults_of_a_trained_model_are_slower(pretrained, data, tmp_path, capsys):
    job, settings = FinetuningJob(pretrained, [data]), TINY_TASKS["vqa"][0]
    finetune(settings, job, finetuning_arguments(tmp_path / "first"))
    trainer = build_trainer(settings, FinetuningJob(str(tmp_path / "first"), [data]), finetuning_arguments(tmp_path))
    assert trainer.args.learning_rate == pytest.approx(TASKS["vqa"].defaults.narrow_rate / 2)
    assert "trained for the task before" in capsys.readouterr().err


def test_task_defaults_are_below_recipe_and_flags(pretrained, data, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("weight_decay: 0.0\nmax_steps: 1\nreport_to: none\nuse_cpu: true\nmax_length: 9\n")
    command = ["finetune", "retrieval", "--config", str(recipe), "--model", pretrained, "--train_data", data]
    assert main([*command, "--output_dir", str(tmp_path / "out"), "--learning_rate", "5e-5"]) == 0
    record = json.loads((tmp_path / "out" / "finetuning.json").read_text())
    assert (record["learning_rate"], record["weight_decay"], record["settings"]["max_length"]) == (5e-5, 0.0, 9)
    assert record["arguments"]["negative_hardening"] == "0.1,0.5" and record["job"]["flip"] is True
    said = capsys.readouterr().err
    assert "learning_rate 5e-05 (not in the recipe)" in said
    assert (
        "\n  weight_decay" not in said.partition("Defaults")[2] and "\n  learning_rate" not in said.partition("Def")[2]
    )


def test_task_defaults_do_not_change_training_arguments(tmp_path):
    assert training_arguments(tmp_path, learning_rate=5e-5).learning_rate == 5e-5
    assert math.isclose(CBViLATrainingArguments(str(tmp_path), use_cpu=True, report_to="none").learning_rate, 5e-5)
