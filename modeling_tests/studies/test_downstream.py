"""Downstream runs of the results page: commands parse, finished runs are kept, the table is checked by hand."""

import json
import shlex
from pathlib import Path

import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

import studies.downstream as downstream
import transformers_cbvila.tasks.evaluate as task_evaluation
import transformers_cbvila.training.finetune as finetuning
from studies.blank import blank_copy
from studies.downstream import STARTS, TASKS, Run, main, table
from transformers_cbvila import cli

DOCS = Path(__file__).parents[2] / "docs"


def run(name, start, seed=0, folder=Path("out")):
    return Run(name, start, seed, "cbvila-tiny", Path("packs"), folder / name / f"{start}-seed{seed}")


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("start", ["text-only-random", "text-only-pretrained", "random", "pretrained"])
def test_downstream_commands_parse(name, start, monkeypatch, tmp_path, capsys):
    trained, measured = [], []
    monkeypatch.setattr(finetuning, "finetune", lambda *call: trained.append(call))
    monkeypatch.setattr(task_evaluation, "evaluate_task", lambda *call: measured.append(call) or {})
    finetune, evaluate = run(name, start, seed=3, folder=tmp_path).commands
    assert cli.main(finetune) == cli.main(evaluate) == 0
    (settings, job, args), (measured_by, measurement) = trained[0], measured[0]
    task = settings.name
    assert task == TASKS[name].task and args.seed == 3 and job.from_scratch == start.endswith("random")
    assert measurement.model == args.output_dir != job.model == "cbvila-tiny"
    if task == "retrieval":  # whose default, 30, may be less than the recipe's
        assert settings.max_length <= measured_by.max_length, "nothing is cut in evaluation that was seen in training"
    assert settings.image_data == measured_by.image_data and bool(settings.image_data) == (task == "entailment")


def test_downstream_zero_shot_runs_once_without_new_heads(monkeypatch, tmp_path):
    done = []

    def write(run):
        done.append((run.name, run.start, run.seed))
        figures = {f: 0.5 for name in TASKS[run.name].figures for f in (name, f"{name}_low", f"{name}_high")}
        run.folder.mkdir(parents=True)
        run.result.write_text(json.dumps(figures))

    copied = []
    monkeypatch.setattr(downstream, "_run", write)
    monkeypatch.setattr(downstream, "blank_copy", lambda *paths: copied.append(tuple(map(str, paths))))
    options = ["--packs", "packs", "--output_dir", str(tmp_path), "--jobs", "1", "--seeds", "0", "1"]
    options += ["--tasks", "emoji", "nlvr1"]
    assert main(options) == main(options) == 0  # the second time all is there
    starts = {"emoji": STARTS[3:], "nlvr1": STARTS[1:]}
    trained = [(name, start, seed) for seed in (0, 1) for name in starts for start in starts[name]]
    assert done == [("emoji", "zero-shot", 0), *trained]
    blank = tmp_path / "blank"
    packs = [(f"packs/{name}", f"{blank}/{name}") for name in ("nlvr1-train-sample", "nlvr1")]
    assert copied == packs, "each pack once, though a file and its folder are named"
    written = (tmp_path / "table.md").read_text()
    assert f"| nlvr1 | accuracy | – | – |{4 * ' 50.0 [50.0, 50.0] |'}" in written
    assert f"| emoji | text_retrieval_r1 | – | 50.0 [50.0, 50.0] | – | – |{2 * ' 50.0 [50.0, 50.0] |'}" in written


def test_downstream_log_has_commands_and_output(monkeypatch, tmp_path):
    def printing(command, stdout, stderr, env, check):
        assert command[1:3] == ["-m", "transformers_cbvila"] and env["OMP_NUM_THREADS"] == "1" and check
        stdout.write(f"said by {command[3]}\n")

    monkeypatch.setattr(downstream.subprocess, "run", printing)
    one = run("emoji", "pretrained", folder=tmp_path / "with a space")
    downstream.run_all([one], jobs=1)
    lines = (one.folder / "log.txt").read_text().splitlines()
    commands = [shlex.split(line) for line in lines[::2]]
    assert commands == [["cbvila", *arguments] for arguments in one.commands]
    assert lines[1::2] == ["said by finetune", "said by evaluate"]


def test_downstream_text_only_runs_read_blank_packs(tmp_path):
    options = ["--packs", "packs", "--output_dir", str(tmp_path), "--tasks", "entailment", "--seeds", "0"]
    options = downstream.command_line().parse_args(options)
    blank, same, *others = downstream.wanted_runs(options)
    assert (blank.start, blank.packs) == ("text-only-random", tmp_path / "blank")
    assert (same.start, same.packs) == ("text-only-pretrained", tmp_path / "blank")
    read = {
        Path(part)
        for command in [*blank.commands, *same.commands]
        for part in command
        if "snli" in part or "flickr8k" in part
    }
    recipe = downstream.RECIPES / "finetune-entailment-snli-ve.yaml"
    packs = {tmp_path / "blank" / name for name in ("snli-ve-mini", "snli-ve-rest", "flickr8k-rest")}
    assert read == {recipe, *packs}
    assert {other.packs for other in others} == {Path("packs")}


def test_blank_copy_keeps_all_but_the_images(tmp_path):
    features = Features({"image": Image(), "text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    picture = PIL.Image.effect_noise((30, 20), 99).convert("RGB")
    source, target = tmp_path / "pack", tmp_path / "blank" / "pack"
    source.mkdir()
    rows = Dataset.from_dict({"image": [picture, picture], "text": ["a", "b"], "label": [1, 0]}, features=features)
    rows.to_parquet(str(source / "train.parquet"))
    rows.remove_columns("image").to_parquet(str(source / "test.parquet"))
    blank_copy(source, target)
    train, test = (Dataset.from_parquet(str(target / f"{split}.parquet")) for split in ("train", "test"))
    assert train.features == features and train["text"][:] == test["text"][:] == ["a", "b"]
    assert all(row["image"].size == (30, 20) and row["image"].getextrema() == 3 * ((128, 128),) for row in train)
    before = (target / "train.parquet").stat().st_mtime_ns
    blank_copy(source, target)
    assert (target / "train.parquet").stat().st_mtime_ns == before, "a copy that is there is kept"
    assert [path.name for path in target.parent.iterdir()] == ["pack"], "nothing unfinished stays"
    with pytest.raises(ValueError, match="no Parquet files"):
        blank_copy(tmp_path / "elsewhere", tmp_path / "copy")


def test_downstream_table_by_hand():
    figures = {
        "accuracy_low": 0.4,
        "accuracy_high": 0.8,
        "accuracy_majority_floor": 0.43,
        "accuracy_text_only_floor": 0.5,
    }
    accuracies = {("random", 0): 0.5, ("random", 1): 0.6, ("pretrained", 0): 0.6, ("pretrained", 1): 0.71}
    found = [(run("entailment", *key), {**figures, "accuracy": value}) for key, value in accuracies.items()]
    assert table(found).splitlines()[2] == (
        "| entailment | accuracy | 50.00 | – | – | – | 55.0 ± 7.07 [40.0, 80.0] | 65.5 ± 7.78 [40.0, 80.0] "
        "| +10.5 [+4.15, +16.9] | 2 |"
    )


def test_results_page_shows_the_downstream_table():
    options = downstream.command_line().parse_args(["--packs", "packs", "--output_dir", str(DOCS / "downstream")])
    shown = table(downstream.figures_of(list(downstream.wanted_runs(options))))
    assert shown.count("\n") > 2, "figures are there"
    assert shown in (DOCS / "results.md").read_text()
