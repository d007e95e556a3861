"""Options of commands that other options leave without effect are refused by name, even at their default."""

import pytest
from tiny import build, tiny_processor

from transformers_cbvila import CBViLAForPreTraining
from transformers_cbvila.cli import main

DRAW = ["draw", "M", "a circle", "--output", "x.png"]
WORDS = [*DRAW, "--image", "p.png", "--words", "1=2"]
RESIZE = ["resize-codebook", "M", "--codes", "8", "--output_dir", "O"]
DECODE = ["tokenize", "D", "--decode", "--output_dir", "O"]
STAGED = ["--output_dir", "O"]


@pytest.mark.parametrize(
    ("argv", "option"),
    [
        *[([*DECODE, *given], given[0]) for given in (["--split", "test"], ["--image_column", "image"])],
        *[([*DECODE, *given], given[0]) for given in (["--rows_per_file", "9"], ["--skip_bad_rows"])],
        *[([*RESIZE, given, "x"], given) for given in ("--split", "--image_column", "--caption_column")],
        *[
            (["export", "M", "--output_dir", "O", *given], given[0])
            for given in (["--split", "x"], ["--rows", "1000"])
        ],
        *[([*WORDS, f"--{name}", "2"], f"--{name}") for name in ("samples", "steps", "seed", "guidance", "top_k")],
        ([*WORDS, "--temperature=0.5"], "--temperature"),
        ([*WORDS, "--schedule", "linear"], "--schedule"),
        ([*WORDS, "--show_steps"], "--show_steps"),
        ([*DRAW, "--show_steps", "--samples", "4"], "--samples"),
        ([*DRAW, "--steps", "1", "--temperature", "0", "--seed", "1"], "--seed"),
        (["publish", "M", "o/n", *STAGED, "--private"], "--private"),
        (["publish", "M", "o/n", *STAGED, "--commit_message", "x"], "--commit_message"),
        (["publish", "--space", "o/n", *STAGED, "--private"], "--private"),
        (["publish", "--space", "o/n", "--static", *STAGED, "--commit_message", "x"], "--commit_message"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_options_that_others_leave_without_effect_are_refused(argv, option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(argv)
    (said,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and f"error: {option} changes nothing here: " in said and "leave it out" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        ("without matching", ["--rerank_k", "8"], "--rerank_k=8: the model was trained without matching"),
        ("without codebook", ["--label_column", "x"], "--label_column=x: labels are compared with visual words"),
    ],
)
def test_inspect_refuses_what_its_model_has_no_use_for(model, given, said, tmp_path, capsys):
    off = {"without matching": ["itm"], "without codebook": ["pixel", "mim", "codebook", "commitment"]}[model]
    save_model({name: {"weight": 0.0} for name in off}, tmp_path / "model")
    argv = ["inspect", str(tmp_path / "model"), "--data", "scenes[rows=4]"]
    assert main([*argv, *given]) == 1
    assert said in capsys.readouterr().err
    assert main([*argv, "--output", str(tmp_path / "all.json"), *(["--rerank_k", "0"] if off == ["itm"] else [])]) == 0


@pytest.mark.parametrize(("name", "given"), [("rows", "5"), ("seed", "4")])
def test_scenes_are_written_by_one_number_of(name, given, tmp_path, capsys):
    argv = ["data", f"scenes[rows=4,{'seed=3' if name == 'seed' else 'size=32'}]", "--output_dir", str(tmp_path)]
    assert main([*argv, f"--{name}", given]) == 1
    assert f"{name}={given}: 'scenes[rows=4," in capsys.readouterr().err
    assert main([*argv, f"--{name}", "4" if name == "rows" else "3"]) == 0


def save_model(objectives, folder):
    """Saves a tiny pretrained model with other options of its objectives."""
    build(CBViLAForPreTraining, objectives=objectives).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
