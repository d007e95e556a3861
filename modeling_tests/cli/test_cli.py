"""The command line: help, recipes, flags, errors, and runs on an image folder."""

import json
import re
import subprocess
import sys

import pytest
import yaml
from tiny_recipe import TINY_RECIPE, parse_pretrain

from transformers_cbvila import __version__
from transformers_cbvila.cli import COMMANDS, main
from transformers_cbvila.cli.inspect import parse as parse_inspect
from transformers_cbvila.retrieval.retrieval_order import better_order
from transformers_cbvila.tasks.registry import TASKS
from transformers_cbvila.training.option_checks import OF_PRETRAINING
from transformers_cbvila.training.pretrain import PretrainingJob


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(TINY_RECIPE))
    return str(path)


@pytest.mark.parametrize(
    "command",
    [
        "pretrain",
        "finetune",
        "evaluate",
        "inspect",
        "export",
        "resize-codebook",
        "tokenize",
        "demo",
        "publish",
        "search",
        "ask",
    ],
)
def test_help_of_every_command_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"cbvila {command} " in capsys.readouterr().out.partition("example")[2]


def test_help_all_shows_defaults_and_own_options_first(recipe, capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", "--config", recipe, "--help-all"])
    said = " ".join(capsys.readouterr().out.split())
    ours, _, inherited = said.partition("options of transformers' TrainingArguments")
    assert "Share of patches to hide. (default: 0.75)" in ours
    assert "--burn_in_steps" in ours and "(default: 0.5)" in ours, "the recipe's"
    assert "--weight_decay" not in ours and "--weight_decay" in inherited and "--burn_in_steps" not in inherited


@pytest.mark.parametrize("given, message", [("{codes: 1}", "is no JSON"), ("[1]", "names no fields")])
def test_model_config_rejects_other_text(given, message):
    with pytest.raises(ValueError, match=message):
        PretrainingJob(train_data=["a"], model_config=given)


def refusal(capsys, argv):
    """The one line with which a command line is refused."""
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1 and len(said) < 2000
    return said


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["pretrian"], "pretrain"),
        (["fine-tune"], "finetune"),
        (["finetune", "entailmnet"], "entailment"),
        (["evaluate", "VQA"], "vqa"),
        (["finetune", "vqa", "--config", "finetune-vqa-scene"], "finetune-vqa-scenes"),
        (["pretrain", "--config", "recipes/pretrain-tny.yaml"], "pretrain-tiny"),
        (["inspect", "m", "--data", "d", "--rerank", "3"], "--rerank_k"),
        (["inspect", "m", "--dat", "d"], "--data"),
        (["publish", "m", "o/n", "--private_"], "--private"),
        (["demo", "--max_step=3"], "--max_steps"),
        (["pretrain", "--epochs", "3"], "--num_train_epochs"),
        (["pretrain", "--wd", "3"], "--weight_decay"),
        (["finetune", "vqa", "--lr", "3"], "--local_rank or --learning_rate"),
        (["finetune", "vqa", "--train-dat", "3"], "--train_data"),
        (["finetune", "vqa", "--lr_scheduler_type", "cosin"], "cosine"),
        (["evaluate", "vqa", "--answer-kk", "3"], "--answer_k"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_command_line_suggests_the_nearest_name(argv, meant, capsys):
    assert refusal(capsys, argv).endswith(f"; did you mean {meant}?\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nonsense-of-another-kind"], "is none of pretrain, finetune"),
        (["finetune"], "required: TASK, which comes first: one of vqa, retrieval, "),
        (["finetune", "--train_data", "x"], "required: TASK, which comes first: one of vqa, retrieval, "),
        (["evaluate", "--model=m", "vqa"], "required: TASK, which comes first: one of vqa, retrieval, "),
        (["evaluate", "vqa", "--config", "finetune-vqa-easy-2"], "there are none for evaluate vqa"),
        (["pretrain"], "required: --train_data, --output_dir, such as --output_dir runs/mine ("),
        (
            ["pretrain", "--config", "pretrain-tiny", "--train_data", "a"],
            "required: --output_dir, such as --output_dir",
        ),
        (["finetune", "vqa", "--model", "m", "--train_data", "a"], "required: --output_dir, such as --output_dir"),
        (["pretrain", "--train_data"], "--train_data: expected at least one argument"),
        (["pretrain", "--train_data", "a", "--max_steps", "x" * 3000], "(3,000 characters)"),
        (["pretrain", "--train_data", "a", "--max_steps", ""], "--max_steps: invalid int value: '' ("),
        (["pretrain", "--train_data", "a", "--streaming", "y" * 3000], "(3,000 characters)"),
        (["pretrain", "--train_data", "a", "--" + "z" * 3000], "there is no option '--zzz"),
        (["inspect", "a", "b", "--data", "d"], "'b' stands where an option"),
        (["inspect", "a", "--data", "d", "-x"], "there is no option '-x'"),
        (["evaluate", "vqa", "--protocol", "nlvr9"], "none for vqa; there are vqav2"),
        (["pretrain", "--config"], "--config: expected one argument"),
        (["inspect", "m", "--data=--"], "'--data=--': expected a value"),
        (["pretrain", "--train_data", "a", "--lr_scheduler_kwargs", "{"], "is no JSON of names and values"),
        (["pretrain", "--train_data", "a", "--gradient_checkpointing_kwargs", "3"], "is no JSON of names and values"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_command_line_errors_are_one_line(argv, message, capsys):
    assert message in refusal(capsys, argv)


def test_main_without_a_command_prints_help(capsys):
    assert main([]) == 0
    bare = capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0 and capsys.readouterr().out == bare
    assert all(f"  {command} " in bare for command in COMMANDS)


def test_help_of_finetune_names_every_task(capsys):
    main([])
    assert all(task in COMMANDS["finetune"] for task in TASKS)
    assert COMMANDS["finetune"] in " ".join(capsys.readouterr().out.split())


def test_help_of_ask_says_what_its_probability_is(capsys):
    with pytest.raises(SystemExit):
        main(["ask", "--help"])
    assert "the probability of its tokens: how sure the model is, which is not calibrated" in " ".join(
        capsys.readouterr().out.split()
    )


def test_help_of_training_commands_is_short_and_names_help_all(capsys):
    for command in (["pretrain"], ["finetune", "vqa"]):
        for option in ("--help", "--help-all"):
            with pytest.raises(SystemExit):
                main([*command, option])
        ours, everything = (text for text in capsys.readouterr().out.split(f"usage: cbvila {' '.join(command)} ")[1:])
        assert "--help-all" in ours and "--train_data" in ours and "--train-data" not in ours
        for option in ("--weight_decay", "--learning_rate", "--fsdp"):
            assert f"{option} " in everything and f"{option} " not in ours


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], [], ["pretrian"], ["finetune", "vpa"], ["inspect", "m", "--dta"], ["publish", "-h"]],
    ids=" ".join,
)
def test_help_version_and_errors_do_not_import_torch(arguments):
    code = """
import atexit, runpy, sys
heavy = {"torch", "transformers", "numpy", "datasets"}
atexit.register(lambda: print("loaded", [name for name in sys.modules if name in heavy or "modeling_" in name]))
sys.argv = ["-m", *sys.argv[1:]]
sys.orig_argv = ["python", "-m", "transformers_cbvila", *sys.argv[1:]]
runpy.run_module("transformers_cbvila", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "loaded []", done.stderr
    assert "Traceback" not in done.stderr
    if arguments == ["--version"]:
        assert done.stdout.startswith(f"cbvila {__version__}\n")


def test_evaluate_command_registers_classes_in_a_process(picture_folder, tmp_path):
    command = ["evaluate", "vqa", "--model", "cbvila-tiny-easyvqa", "--data", picture_folder, "--output", "o.json"]
    command = [sys.executable, "-m", "transformers_cbvila", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1 and "question" in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("a\n  b"), 1, "cbvila inspect: a b"),
        (FileNotFoundError(2, "No such file", "x"), 1, "cbvila inspect: 'x': No such file"),
        (OSError(36, "File name too long", "x" * 5000), 1, "(5,000 characters): File name too long"),
        (FloatingPointError("weights are NaN"), 1, "weights are NaN"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 70, "too little memory"),
        (ValueError(), 1, "cbvila inspect: ValueError"),
        (ValueError("x" * 5000), 1, "(5,000 characters)"),
        (KeyError("logits"), 70, "this is a fault of cbvila, and not of what it was given"),
        (RuntimeError("shapes"), 70, "(RuntimeError: shapes)"),
        (MemoryError(), 70, "too little memory"),
        (RuntimeError("CUDA out of memory. Tried"), 70, "too little memory"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (KeyboardInterrupt("Interrupted. Half is there."), 130, "Interrupted. Half is there."),
    ],
    ids=repr,
)
def test_exit_status_tells_user_errors_from_faults(error, status, message, capsys, monkeypatch):
    def fail(options):
        raise error

    monkeypatch.setattr("transformers_cbvila.cli.inspect.run", fail)
    assert main(["inspect", "cbvila-tiny", "--data", "d"]) == status
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said and len(said) < 2000


def test_recipe_is_between_flags_and_defaults(recipe, tmp_path):
    job, args, rest = parse_pretrain(
        ["--config", recipe, "--train_data", "a", "b", "--output_dir", str(tmp_path), "--max_steps", "9", "--resume"]
    )
    assert job.train_data == ["a", "b"]
    assert job.vocab_size == 60
    assert (args.max_steps, args.save_steps, args.learning_rate) == (9, 2, 1e-3)
    assert rest.resume


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("max_stepz: 3", "no option: 'max_stepz'; did you mean max_steps?"),
        ("1: 2\nx: 3", "no option: '1', 'x'"),
        ("help: true", "no option: 'help'"),
        ("max_steps: [1, 2]", "--max_steps: [1, 2] stands where one value is expected"),
        ("max_steps: half", "--max_steps: invalid int value: 'half'"),
        ("max_steps: 0.5", "--max_steps: invalid int value: '0.5'"),
        ("streaming: maybe", "--streaming: Truthy value expected: got maybe"),
        ("resume: 3", "--resume: 3 is neither true nor false"),
        ("train_data_weights: [1, {a: b}]", "{'a': 'b'} stands where one value is expected"),
        ("image_column: {a: b}", "{'a': 'b'} stands where one value is expected"),
        ("lr_scheduler_type: cosin", "did you mean cosine?"),
        ("- a", "expected 'option: value' lines"),
        ("", "expected 'option: value' lines"),
        ("a: [", "is no YAML"),
        ("a: \x00", "is no YAML"),
    ],
)
def test_recipe_errors_are_named_in_one_line(recipe, message, tmp_path, capsys):
    path = tmp_path / "typo.yaml"
    path.write_text(recipe)
    with pytest.raises(SystemExit):
        parse_pretrain(["--config", str(path), "--train_data", "a", "--output_dir", str(tmp_path)])
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_recipe_values_are_parsed_like_flags(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "train_data: easy-vqa\ntrain_data_weights: [2]\nmodel_config: {codebook_size: 8}\ncaption_column: 7\n"
        "streaming: true\nmax-steps: 3\nlearning_rate: 1\nlr_scheduler_type: polynomial\n"
        "lr_scheduler_kwargs: {power: 2}\nresume: true\n"
        f"model: null\nreport_to: [none]\noutput_dir: {tmp_path}\n"
    )
    job, args, rest = parse_pretrain(["--config", str(path)])
    assert (job.train_data, job.train_data_weights, job.caption_column) == (["easy-vqa"], [2.0], "7")
    assert (
        job.model_config == {"quantizer_config": {"size": 8}} and job.model is None and job.streaming and rest.resume
    )
    assert (args.max_steps, args.learning_rate, args.lr_scheduler_kwargs["power"]) == (3, 1.0, 2)


@pytest.mark.parametrize("name", ["nowhere.yaml", ".", "x" * 3000])
def test_recipe_missing_is_named(name, tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_pretrain(["--config", name, "--train_data", "a", "--output_dir", str(tmp_path)])
    said = capsys.readouterr().err
    assert name[:70] in said and "pretrain-tiny" in said and len(said) < 900


def test_pretrain_and_inspect_an_image_folder(recipe, picture_folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["pretrain", "--config", recipe, "--train_data", picture_folder, "--caption_column", "text"]
    assert main([*command, "--output_dir", str(out), "--max_steps", "4"]) == 0
    record = json.loads((out / "pretraining.json").read_text())
    logged = {key for entry in record["logs"] for key in entry}
    assert {"loss_pixel", "loss_mim", "loss_itm", "loss_mlm", "loss_itc", "codebook_perplexity"} <= logged
    assert record["steps"] == 4 and record["pairs"] == 8
    assert record["job"]["train_data"] == ["pictures"]
    assert record["preset"] == record["config"]["preset"] == "recommended"
    quantizer = record["config"]["quantizer_config"]
    assert quantizer["update"] == "ema" and quantizer["size"] == 8
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
    kept, chosen = json.loads((out / "config.json").read_text()), better_order(json.loads(figures.read_text()), 3)
    assert (kept["rerank_k"], kept["similarity_weight"]) == chosen and f"(rerank_k={chosen.rerank_k}, " in printed
    measured = json.loads(figures.read_text())
    assert (measured["data"], measured["split"]) == ("pictures", "train"), "the only one"
    assert 0 <= measured["text_retrieval_r10"] <= 1
    recall, low, high = (measured[f"image_retrieval_r1_reranked{end}"] for end in ("", "_low", "_high"))
    assert re.search(rf"image_retrieval_r1/5/10_reranked +{recall:.4f} \[{low:.3f}, {high:.3f}\] ", printed)
    html = page.read_text()
    assert "On 8 images of pictures, train." in html and "Inside the codebook of out<" in html
    assert str(tmp_path) not in html and html.count("<img") > 8 * 5
    assert re.search(r"codebook_window_tokens +128\n", printed)


@pytest.mark.parametrize(
    "argv", [["m", "--data", "d"], ["--data", "d", "m"], ["--split", "test", "m", "--data", "d"], ["--data=d", "m"]]
)
def test_inspect_takes_its_model_before_and_after_one_source(argv):
    (options,) = parse_inspect(argv)
    assert (options.model, options.data) == ("m", ["d"])


def test_inspect_takes_several_sources(capsys):
    (options,) = parse_inspect(["m", "--data", "a", "b", "--split", "test"])
    assert (options.model, options.data) == ("m", ["a", "b"])
    assert "arguments are required: model" in refusal(capsys, ["inspect", "--data", "d"])


def test_pretraining_reads_the_split_that_train_split_names(recipe, picture_folder, tmp_path):
    command = ["pretrain", "--config", recipe, "--train_data", picture_folder, "--train_split", "train[:5]"]
    assert main([*command, "--output_dir", str(tmp_path / "out"), "--max_steps", "1"]) == 0
    record = json.loads((tmp_path / "out" / "pretraining.json").read_text())
    assert record["pairs"] == 5 and record["job"]["train_split"] == "train[:5]"


def test_inspect_reports_what_codes_mean(tmp_path, capsys):
    figures, page = tmp_path / "figures.json", tmp_path / "page.html"
    argv = ["inspect", "cbvila-tiny", "--data", "scenes[rows=24]", "--rerank_k", "0", "--fewer_codes", "8"]
    assert main([*argv, "--output", str(figures), "--page", str(page)]) == 0
    measured = json.loads(figures.read_text())
    for name in ("code_purity", "code_word_mutual_information", "code_probe_accuracy", "code_retrieval_r1"):
        assert measured[f"{name}_low"] <= measured[name] <= measured[f"{name}_high"] and f"{name}_floor" in measured
    assert measured["bits_per_token"] == 7 and 0 < measured["codebook_stability"] <= 1
    assert measured["psnr_8_codes"] < measured["psnr"] and measured["ssim_low"] <= measured["ssim"]
    printed = capsys.readouterr().out
    assert re.search(r"code_purity +0\.\d+ \[0\.\d+, \d\.\d+\]  \(floor 0\.\d+\)\n", printed)
    html = page.read_text()
    assert "Codes of words" in html and 'class="places"' in html and "purity of codes" in html
    refused = ["inspect", "cbvila-tiny", "--data", "scenes[rows=2]", "--label_column", "colours"]
    assert_says(capsys, refused, "label_column=colours: no row of scenes[rows=2] has a label")


def test_inspect_checks_its_output_folder_first(capsys, tmp_path):
    argv = ["inspect", "cbvila-tiny", "--data", "easy-vqa", "--output", str(tmp_path / "nowhere" / "figures.json")]
    assert_says(capsys, argv, "output=", "make it first")


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
def test_command_errors_are_one_line_without_traceback(command, tmp_path, capsys, monkeypatch):
    command = [word.replace("OUT", str(tmp_path / "out")) for word in command]
    assert_says(capsys, command, "./nowhere isn't there")
    monkeypatch.setenv("CBVILA_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        main(command)


def test_pretrain_streaming_needs_max_steps(recipe, picture_folder, tmp_path, capsys):
    command = ["pretrain", "--config", recipe, "--train_data", picture_folder, "--output_dir", str(tmp_path / "out")]
    assert_says(capsys, [*command, "--streaming", "--max_steps", "-1"], "streaming needs --max_steps")


def test_pretrain_streaming_resumes(recipe, picture_folder, tmp_path, capsys):
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


def test_pretrain_names_missing_columns(recipe, picture_folder, tmp_path, capsys):
    command = ["pretrain", "--config", recipe, "--train_data", picture_folder, "--output_dir", str(tmp_path / "out")]
    for option, column in (("caption_column", "words"), ("image_column", "photo")):
        message = f"no column {column!r}; set --{option} to one of image, text"
        assert_says(capsys, [*command, f"--{option}", column], message)


@pytest.mark.parametrize("option", sorted(OF_PRETRAINING))
def test_finetune_names_options_of_pretraining(option, capsys):
    with pytest.raises(SystemExit):
        main(["finetune", "retrieval", "--train_data", "scenes", "--output_dir", "out", f"--{option}", "1"])
    assert f"--{option} is an option of pretraining, and would change nothing here" in capsys.readouterr().err


def test_evaluate_names_options_of_training(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "vqa", "--model", "m", "--data", "d", "--max_length=3"])
    assert "--max_length is an option of training, and would change nothing here" in capsys.readouterr().err
