"""Downstream runs of the results page: commands parse, finished runs are kept, the table is checked by hand."""

import json
import shlex
from pathlib import Path

import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

import studies.commands
import studies.downstream as downstream
import transformers_cbvila.tasks.evaluate as task_evaluation
import transformers_cbvila.training.finetune as finetuning
from studies.blank import blank_copy
from studies.downstream import STARTS, TASKS, Run, main, table
from transformers_cbvila import cli

DOCS = Path(__file__).parents[2] / "docs"


def run(name, start, seed=0, folder=Path("out")):
    return Run(name, start, seed, TASKS[name].model, Path("packs"), folder / name / f"{start}-seed{seed}")


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("start", ["text-only-random", "text-only-pretrained", "random", "pretrained"])
def test_downstream_commands_parse(name, start, monkeypatch, tmp_path, capsys):
    trained, measured = [], []
    monkeypatch.setattr(finetuning, "finetune", lambda *call: trained.append(call))
    monkeypatch.setattr(task_evaluation, "evaluate_task", lambda *call, **_: measured.append(call[:2]) or {})
    one = run(name, start, seed=3, folder=tmp_path)
    finetune, *evaluations = one.commands
    assert cli.main(finetune) == 0 and [cli.main(evaluate) for evaluate in evaluations] == [0] * len(one.results)
    (settings, job, args), (measured_by, measurement) = trained[0], measured[-1]
    task = settings.name
    assert task == TASKS[name].task and args.seed == 3 and job.from_scratch == start.endswith("random")
    assert measurement.model == args.output_dir != job.model == TASKS[name].model
    assert [(on.split, on.output) for _, on in measured] == [(split, str(at)) for split, at in one.results.items()]
    if name.startswith("scenes"):
        blank = "[blank=true]" if start.startswith("text-only") else ""
        assert job.train_data == [f"scenes{blank}"] and all(on.data == [f"scenes{blank}"] for _, on in measured)
        assert not job.flip, "left and right matter"
    if name == "scenes-reasoning":
        assert settings.image_column == measured_by.image_column == ["left_image", "right_image"]
        assert settings.group_parts == measured_by.group_parts == [0, 1, 3]
    if task == "retrieval":  # whose default, 30, may be less than the recipe's
        assert settings.max_length <= measured_by.max_length, "nothing is cut in evaluation that was seen in training"
    assert settings.image_data == measured_by.image_data and bool(settings.image_data) == (name == "entailment")


def test_downstream_zero_shot_runs_once_without_new_heads(monkeypatch, tmp_path):
    done = []

    def write(run):
        done.append((run.name, run.start, run.seed))
        figures = {f: 0.5 for name in TASKS[run.name].figures for f in (name, f"{name}_low", f"{name}_high")}
        run.folder.mkdir(parents=True)
        for result in run.results.values():
            result.write_text(json.dumps(figures))

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

    monkeypatch.setattr(studies.commands.subprocess, "run", printing)
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
    found = [
        (run("entailment", *key), "validation", {**figures, "accuracy": value}) for key, value in accuracies.items()
    ]
    assert table(found).splitlines()[2] == (
        "| entailment | accuracy | 50.00 | – | – | – | 55.0 ± 7.07 [40.0, 80.0] | 65.5 ± 7.78 [40.0, 80.0] "
        "| +10.5 [+4.15, +16.9] | 2 |"
    )


def test_downstream_tables_have_a_row_for_each_split():
    figures = {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 1.0, "consistency": 0.5}
    figures |= {"consistency_low": 0.4, "consistency_high": 0.6, "accuracy_text_only_floor": 0.5}
    one = run("scenes-reasoning", "random")
    assert [path.name for path in one.results.values()] == [
        "random-seed0.json",
        "random-seed0-test_compositional.json",
    ]
    found = [(one, "test_compositional", figures | {"accuracy": 0.7}), (one, "test", figures)]
    rows = [line.split(" | ") for line in table(found).splitlines()[2:]]
    assert [(row[0], row[1], row[6]) for row in rows] == [
        ("| scenes-reasoning", "accuracy", "90.0 [80.0, 100.0]"),
        ("| scenes-reasoning", "consistency", "50.0 [40.0, 60.0]"),
        ("| scenes-reasoning, test_compositional", "accuracy", "70.0 [80.0, 100.0]"),
        ("| scenes-reasoning, test_compositional", "consistency", "50.0 [40.0, 60.0]"),
    ]


def test_downstream_tables_know_the_floor_of_every_order():
    names = TASKS["scenes-retrieval"].figures
    assert {"text_retrieval_r1", "text_retrieval_r1_reranked", "text_retrieval_r1_combined"} <= set(names)
    figures = {f"{name}{end}": 0.5 for name in names for end in ("", "_low", "_high")}
    figures |= {f"{name}_floor": 0.001 for name in names if name.endswith(("_r1", "_r10"))}
    rows = table([(run("scenes-retrieval", "zero-shot"), "confusers", figures)]).splitlines()[2:]
    assert len(rows) == len(names) and all("| 0.10 | 50.0 [50.0, 50.0] |" in row for row in rows)


def test_downstream_needs_no_packs_for_what_is_built_in(tmp_path, capsys):
    def tasks(*words):
        options = downstream.command_line().parse_args([*words, "--output_dir", str(tmp_path)])
        return list(dict.fromkeys(one.name for one in downstream.wanted_runs(options)))

    built_in = [name for name in TASKS if name.startswith("scenes") or name == "easy-vqa"]
    assert tasks() == built_in and tasks("--packs", "packs") == list(TASKS)
    assert len(built_in) == 5 and [name for name in TASKS if not TASKS[name].packs] == built_in
    assert TASKS["nlvr1"].packs == ["nlvr1-train-sample", "nlvr1"]
    with pytest.raises(SystemExit):
        main(["--tasks", "scenes-vqa", "emoji", "--output_dir", str(tmp_path)])
    assert "emoji needs emoji: give the folder of these packs with --packs" in capsys.readouterr().err


def test_downstream_looks_for_models_before_anything_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        main(["--tasks", "scenes-vqa", "--model", "nowhere", "--output_dir", str(tmp_path)])
    options = downstream.command_line().parse_args(["--packs", "packs"])
    models = {one.name: one.model for one in downstream.wanted_runs(options)}
    assert models["scenes-vqa"] == "cbvila-scenes" and models["emoji"] == models["easy-vqa"] == "cbvila-tiny"


def test_downstream_text_only_runs_on_scenes_copy_nothing(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(downstream, "run_all", lambda runs, jobs: ran.extend(runs))
    options = ["--tasks", "scenes-entailment", "--model", "cbvila-tiny", "--seeds", "0"]
    assert main([*options, "--output_dir", str(tmp_path)]) == 0
    assert [one.start for one in ran] == list(STARTS[1:]) and not (tmp_path / "blank").exists()


def test_results_page_shows_the_downstream_table():
    options = downstream.command_line().parse_args(["--packs", "packs", "--output_dir", str(DOCS / "downstream")])
    shown = table(downstream.figures_of(list(downstream.wanted_runs(options))))
    assert shown.count("\n") > 2, "figures are there"
    assert shown in (DOCS / "results.md").read_text()
