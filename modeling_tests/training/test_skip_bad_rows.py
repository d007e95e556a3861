"""Bad rows in commands: one line that names the row, or a count; and resumed runs that skip them."""

import datasets
import pytest
import yaml
from equal_tensors import assert_equal_weights
from interrupted_runs import RESUMED, train_until
from source_forms import picture, samples, tar
from tiny import PATCH, half_image, pretraining_model, tiny_processor
from tiny_recipe import TINY_RECIPE
from tiny_trainer import training_arguments

from transformers_cbvila.cli import main
from transformers_cbvila.data.collators import CBViLADataCollatorForPreTraining
from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.data.sources import load_pair_stream
from transformers_cbvila.data.streams import StreamedImageTextPairs
from transformers_cbvila.training.runs.checkpoints import last_complete_checkpoint
from transformers_cbvila.training.trainer import CBViLATrainer

COLOURS = ["red", "green", "blue", "grey"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A file of eight rows, of which row 2 has no picture and row 5 a page of HTML."""
    images = [picture(colour) for colour in COLOURS * 2]
    images[2], images[5] = None, b"<html>404</html>"
    texts = [f"{colour} half" for colour in COLOURS * 2]
    columns = {"image": images, "caption": texts, "question": ["is it red ?"] * 8, "answer": ["yes", "no"] * 4}
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    datasets.Dataset.from_dict(columns).to_parquet(path)
    return str(path)


@pytest.fixture(scope="module")
def answering(pretrained, tmp_path_factory):
    """A model that answers, fine-tuned on one row."""
    folder = tmp_path_factory.mktemp("answering")
    row = {"image": [picture("red")], "question": ["is it red ?"], "answer": ["yes"]}
    datasets.Dataset.from_dict(row).to_parquet(folder / "rows.parquet")
    model, data, out = (str(folder / name) for name in ("", "rows.parquet", "model"))
    assert main(["finetune", "vqa", "--model", pretrained, "--train_data", data, "--output_dir", out, *TRAINING]) == 0
    return out


TRAINING = ["--max_steps", "1", "--per_device_train_batch_size", "8", "--report_to", "none", "--use_cpu", "true"]
TRAINING += ["--disable_tqdm", "true"]


def command(name, rows, pretrained, answering, folder):
    """A command line for these rows."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(TINY_RECIPE | {"report_to": "none", "disable_tqdm": True, "use_cpu": True}))
    out = str(folder / "out")
    return {
        "pretrain": ["pretrain", "--config", str(recipe), "--train_data", rows, "--output_dir", out],
        "streaming": [
            *["pretrain", "--config", str(recipe), "--train_data", rows, "--output_dir", out],
            *["--streaming", "true", "--shuffle_buffer", "0"],
        ],
        "finetune": ["finetune", "vqa", "--model", pretrained, "--train_data", rows, "--output_dir", out, *TRAINING],
        "evaluate": ["evaluate", "vqa", "--model", answering, "--data", rows, "--output", f"{out}.json"],
        "inspect": ["inspect", pretrained, "--data", rows],
    }[name]


NAMES = ["pretrain", "streaming", "finetune", "evaluate", "inspect"]


@pytest.mark.parametrize("name", NAMES)
def test_skip_bad_rows_of_commands_names_or_skips_rows(name, rows, pretrained, answering, tmp_path, capsys):
    line = command(name, rows, pretrained, answering, tmp_path)
    assert main(line) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"cbvila {line[0]}: Row ") and f" of {rows}" in said and "skip_bad_rows" in said
    assert "it has no image (None)" in said or "begins with b'<html>404" in said
    assert main([*line, "--skip_bad_rows"]) == 0
    captured = capsys.readouterr()
    counted = "Another row took the place of a bad one" if name == "streaming" else "Left out 2 bad row(s)"
    assert counted in captured.out + captured.err


def trainer(folder, pairs, seed=0, callbacks=()):
    return CBViLATrainer(
        model=pretraining_model(seed=seed, dropout=0.1),
        args=training_arguments(folder, **RESUMED | {"save_steps": 3}),
        train_dataset=pairs,
        data_collator=CBViLADataCollatorForPreTraining(tiny_processor(), PATCH, max_length=16),
        callbacks=list(callbacks),
    )


def indexed(folder):
    rows = [{"image": half_image(colour, "top"), "captions": [f"{colour} half"]} for colour in COLOURS * 3]
    for number in (1, 6, 7):
        rows[number] = {**rows[number], "image": b"no picture"}
    return ImageTextPairs(rows, crop_scale=0.75, flip=True, skip_bad_rows=True)


def streamed(folder):
    members = [(name, b"no picture" if name == "002.png" else content) for name, content in samples()]
    rows = load_pair_stream(tar(folder / "rows.tar", members))
    return StreamedImageTextPairs(rows, shuffle_buffer=3, crop_scale=0.75, flip=True, skip_bad_rows=True)


@pytest.mark.parametrize("pairs", [indexed, streamed])
def test_skip_bad_rows_resumed_run_equals_unbroken_run(pairs, tmp_path):
    whole = trainer(tmp_path / "whole", pairs(tmp_path))
    whole.train()
    assert whole.train_dataset.bad_rows
    train_until(4, trainer, tmp_path / "broken", pairs(tmp_path))
    resumed = trainer(tmp_path / "broken", pairs(tmp_path), seed=7)
    resumed.train(resume_from_checkpoint=last_complete_checkpoint(tmp_path / "broken"))
    assert_equal_weights(resumed.model, whole.model)


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_training_commands_warn_of_unknown_tokens(name, pretrained, tmp_path, logged):
    columns = {"image": [picture("red")] * 4, "caption": ["红色的圆圈"] * 4, "text": ["圆"] * 4}
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "rows.parquet")
    task = ["finetune", "retrieval"] if name == "finetune" else ["pretrain"]
    data = ["--train_data", str(tmp_path / "rows.parquet"), "--output_dir", str(tmp_path / "out")]
    assert main([*task, "--model", pretrained, *data, *TRAINING]) == 0
    assert "does not know 100% of the tokens" in logged.text
