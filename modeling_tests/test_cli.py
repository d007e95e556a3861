"""The command line as a user meets it: help with an example, recipes, flags over them, a run on one's own folder."""

import json
import re

import pytest
import yaml

from transformers_cbvila.cli import _parse, main
from transformers_cbvila.evaluation.retrieval_order import better_rerank_k
from transformers_cbvila.training.arguments import CBViLATrainingArguments
from transformers_cbvila.training.pretrain import PretrainingJob

TINY_RECIPE = {
    "model_config": {
        "vision_config": {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "image_size": 16,
            "patch_size": 4,
        },
        "text_config": {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 16,
        },
        "fusion_config": {"num_hidden_layers": 1},
        "codebook_size": 8,
        "projection_dim": 8,
    },
    "vocab_size": 60,
    "max_length": 12,
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "learning_rate": "1e-3",  # as YAML reads 1e-3: a string
    "logging_steps": 1,
    "save_steps": 2,
    "burn_in_steps": 0.5,
    "report_to": "none",
    "use_cpu": True,
}


def parse_pretrain(argv):
    return _parse("pretrain", "", "", [PretrainingJob, CBViLATrainingArguments], argv)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(TINY_RECIPE))
    return str(path)


@pytest.mark.parametrize("command", ["pretrain", "finetune", "evaluate", "inspect", "demo", "publish"])
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"cbvila {command} " in capsys.readouterr().out.partition("example")[2]


def test_help_shows_defaults_and_our_options_before_those_of_transformers(recipe, capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", "--config", recipe, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    ours, _, inherited = said.partition("options of transformers' TrainingArguments")
    assert "Share of patches to hide. (default: 0.75)" in ours
    assert "--burn_in_steps" in ours and "(default: 0.5)" in ours, "the recipe's"
    assert "--weight_decay" not in ours and "--weight_decay" in inherited and "--burn_in_steps" not in inherited


@pytest.mark.parametrize("given, message", [("{codes: 1}", "is no JSON"), ("[1]", "names no fields")])
def test_model_configs_that_are_no_json(given, message):
    with pytest.raises(ValueError, match=message):
        PretrainingJob(train_data=["a"], model_config=given)


def test_an_unknown_command_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        main(["pretrian"])
    assert "pretrain" in capsys.readouterr().err


def test_flags_win_over_the_recipe_and_the_recipe_over_defaults(recipe, tmp_path):
    job, args, rest = parse_pretrain(
        ["--config", recipe, "--train_data", "a", "b", "--output_dir", str(tmp_path), "--max_steps", "9", "--resume"]
    )
    assert job.train_data == ["a", "b"]
    assert job.vocab_size == 60
    assert (args.max_steps, args.save_steps, args.learning_rate) == (9, 2, 1e-3)
    assert rest.resume


def test_an_entry_that_is_no_option_is_named(tmp_path, capsys):
    path = tmp_path / "typo.yaml"
    path.write_text("max_stepz: 3\n")
    with pytest.raises(SystemExit):
        parse_pretrain(["--config", str(path), "--train_data", "a", "--output_dir", str(tmp_path)])
    assert "max_stepz" in capsys.readouterr().err


def test_a_recipe_that_is_not_there_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_pretrain(["--config", "nowhere.yaml", "--train_data", "a", "--output_dir", str(tmp_path)])
    assert "nowhere.yaml" in capsys.readouterr().err


def test_pretraining_on_a_folder_of_ones_own_then_inspecting_it(recipe, picture_folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["pretrain", "--config", recipe, "--train_data", picture_folder, "--caption_column", "text"]
    assert main([*command, "--output_dir", str(out), "--max_steps", "4"]) == 0
    record = json.loads((out / "pretraining.json").read_text())
    logged = {key for entry in record["logs"] for key in entry}
    assert {"loss_pixel", "loss_mim", "loss_itm", "loss_mlm", "loss_itc", "codebook_perplexity"} <= logged
    assert record["steps"] == 4 and record["pairs"] == 8
    assert record["job"]["train_data"] == ["pictures"]
    assert record["preset"] == record["config"]["preset"] == "recommended"
    assert record["config"]["codebook_update"] == "ema" and record["config"]["codebook_size"] == 8
    assert record["arguments"]["burn_in_steps"] == 0.5 and record["arguments"]["negative_hardening"] is None
    assert "output_dir" not in record["arguments"] and str(tmp_path) not in json.dumps(record)
    assert {"torch", "transformers", "accelerate", "datasets"} <= set(record["versions"])
    assert record["world_size"] == 1
    assert record["speed"]["train_runtime"] > 0 and record["speed"]["pairs_per_second"] > 0
    assert record["speed"]["resumed_from_step"] == 0 and record["speed"]["replay_seconds"] is None

    figures = out / "figures.json"
    inspect = ["inspect", str(out), "--data", picture_folder, "--caption_column", "text"]
    page = out / "page.html"
    assert main([*inspect, "--output", str(figures), "--page", str(page), "--rerank_k", "3"]) == 0
    printed = capsys.readouterr().out
    assert "codebook_perplexity" in printed and f"Page: {page}" in printed
    kept = json.loads((out / "config.json").read_text())["rerank_k"]
    assert kept == better_rerank_k(json.loads(figures.read_text()), 3) and f"(rerank_k={kept} in its" in printed
    measured = json.loads(figures.read_text())
    assert (measured["data"], measured["split"]) == ("pictures", "train"), "the only one"
    assert 0 <= measured["text_retrieval_r10"] <= 1
    recall, low, high = (measured[f"image_retrieval_r1_reranked{end}"] for end in ("", "_low", "_high"))
    assert re.search(rf"image_retrieval_r1_reranked +{recall:.4f} +{low:.4f} to {high:.4f}\n", printed)
    assert f"On 8 images of {picture_folder}, train." in page.read_text() and page.read_text().count("<img") > 8 * 5


def assert_says(capsys, argv, *messages):
    """A command says its error in a line, and has the exit status 1."""
    assert main(argv) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith(f"cbvila {argv[0]}: ") and "Traceback" not in said
    for message in messages:
        assert message in said


@pytest.mark.parametrize(
    "command",
    [
        ["pretrain", "--train_data", "./nowhere", "--output_dir", "OUT", "--max_steps", "1", "--use_cpu"],
        ["finetune", "entailment", "--model", "cbvila-tiny", "--train_data", "./nowhere", "--output_dir", "OUT"],
        ["evaluate", "retrieval", "--model", "cbvila-tiny", "--data", "./nowhere", "--output", "OUT.json"],
        ["inspect", "cbvila-tiny", "--data", "./nowhere"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_says_its_error_in_a_line(command, tmp_path, capsys, monkeypatch):
    command = [word.replace("OUT", str(tmp_path / "out")) for word in command]
    assert_says(capsys, command, "./nowhere isn't there")
    monkeypatch.setenv("CBVILA_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        main(command)


def test_a_stream_needs_to_know_its_steps(recipe, picture_folder, tmp_path, capsys):
    command = ["pretrain", "--config", recipe, "--train_data", picture_folder, "--output_dir", str(tmp_path / "out")]
    assert_says(capsys, [*command, "--streaming", "--max_steps", "-1"], "streaming needs max_steps")


def test_a_stream_resumed_by_the_command(recipe, picture_folder, tmp_path, capsys):
    command = ["pretrain", "--config", recipe, "--train_data", picture_folder, "--output_dir", str(tmp_path / "out")]
    assert main([*command, "--streaming", "--resume"]) == 0
    assert "No complete checkpoint yet" in capsys.readouterr().err
    (tmp_path / "out" / "checkpoint-4" / "trainer_state.json").unlink()
    assert main([*command, "--streaming", "--resume"]) == 0
    said = capsys.readouterr().err
    assert "checkpoint-2." in said and "reading past 8 rows" in said and "Training a vocabulary" not in said
    record = json.loads((tmp_path / "out" / "pretraining.json").read_text())
    assert record["speed"]["resumed_from_step"] == 2 and record["speed"]["replay_seconds"] > 0
    assert record["pairs"] is None and record["steps"] == 4


def test_a_missing_column_is_named_with_those_there_are(recipe, picture_folder, tmp_path, capsys):
    command = ["pretrain", "--config", recipe, "--train_data", picture_folder, "--output_dir", str(tmp_path / "out")]
    for option, column in (("caption_column", "words"), ("image_column", "photo")):
        message = f"no column {column!r}; set {option} to one of image, text"
        assert_says(capsys, [*command, f"--{option}", column], message)
