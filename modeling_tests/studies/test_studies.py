import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image
from tiny import half_image

import studies.cell
import studies.run
import transformers_cbvila.tasks.evaluate as task_evaluation
import transformers_cbvila.training.finetune as finetuning
from studies import manners
from studies.artists import split_by_artist
from studies.fine_tuning import FineTuning
from studies.grid import Study, merged, slug
from studies.manners import scaled
from studies.run import main, run_cells
from studies.table import interval, tables
from transformers_cbvila import CBViLAConfig, CBViLATrainingArguments, cli
from transformers_cbvila.training.pretrain import PretrainingJob

FOLDER = Path(__file__).parents[2] / "studies"
COMMITTED = sorted(path for path in FOLDER.glob("*.yaml") if not path.name.startswith("cell"))
ENTRIES = {
    "recipe": "cell.yaml",
    "train_artists": ["one", "two"],
    "test_artist": "three",
    "seeds": [0, 1],
    "rerank_k": 2,
    "arms": {"base": {}, "+ pixel": {"model_config": {"pixel_weight": 3.0}}},
}


def write_study(folder, recipe=None, **changes):
    return write_entries(folder, {**ENTRIES, **changes}, recipe)


def write_entries(folder, entries, recipe=None):
    (folder / "cell.yaml").write_text(yaml.safe_dump(recipe or {"max_steps": 3, "model_config": {"mim_weight": 1.0}}))
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    return path


def test_merged_enters_mappings_and_replaces_values():
    base = {"a": 1, "b": {"c": 2, "d": [3]}}
    assert merged(base, {"b": {"d": [4], "e": 5}, "f": 6}) == {"a": 1, "b": {"c": 2, "d": [4], "e": 5}, "f": 6}
    assert base == {"a": 1, "b": {"c": 2, "d": [3]}}


def test_merged_replaces_mappings_of_another_type():
    base = {"quantizer_config": {"size": 128}}
    changed = merged(base, {"quantizer_config": {"type": "fsq", "levels": [5, 5]}})
    assert changed == {"quantizer_config": {"type": "fsq", "levels": [5, 5]}}
    assert merged(changed, {"quantizer_config": {"type": "fsq", "levels": [4]}})["quantizer_config"]["levels"] == [4]


def test_study_cells_go_seed_by_seed(tmp_path):
    cells = list(Study.read(write_study(tmp_path)).cells(("train",), "test", tmp_path))
    assert [(cell.arm, cell.seed) for cell in cells] == [("base", 0), ("+ pixel", 0), ("base", 1), ("+ pixel", 1)]
    assert cells[0].options == {"max_steps": 3, "model_config": {"mim_weight": 1.0}}
    assert cells[1].options == {"max_steps": 3, "model_config": {"mim_weight": 1.0, "pixel_weight": 3.0}}
    assert len({cell.result for cell in cells}) == 4 and slug("+ Pixel + MIM") == "pixel-mim"


def test_study_arms_of_a_seed_share_their_start(tmp_path, monkeypatch):
    path = write_study(tmp_path, start={"max_steps": 9, "model_config": {"itm_weight": 0.5}})
    cells = list(Study.read(path).cells(("train",), "test", tmp_path))
    assert [cell.options["model"] for cell in cells] == [
        str(tmp_path / "small" / f"start-seed{n}") for n in (0, 0, 1, 1)
    ]
    assert all(cell.start.options["max_steps"] == 9 and cell.options["max_steps"] == 3 for cell in cells)
    assert cells[1].start.options["model_config"] == {"mim_weight": 1.0, "itm_weight": 0.5}
    run = []
    monkeypatch.setattr(studies.run, "_run", lambda cells, jobs: run.append([cell.result.stem for cell in cells]))
    cells[0].result.parent.mkdir()
    cells[0].result.write_text("{}")
    run_cells(cells[:3], jobs=1)
    assert run == [["start-seed0", "start-seed1"], ["01-pixel-seed0", "00-base-seed1"]]


def test_study_starts_in_stages_with_recipes_and_data_of_their_own(tmp_path, monkeypatch):
    stages = [{"recipe": "first.yaml", "train_data": "scenes[captions=places]"}, {"max_steps": 4}]
    (tmp_path / "first.yaml").write_text(yaml.safe_dump({"max_steps": 2, "mlm_words": ["left"]}))
    study = Study.read(write_study(tmp_path, start=stages))
    cells = list(study.cells(("train",), "test", tmp_path))
    second = cells[0].start
    first = second.start
    assert cells[0].options["model"] == str(second.folder) and second.options["model"] == str(first.folder)
    assert (first.result.parent.name, second.result.stem) == ("starts", "start-2-seed0")
    assert first.options == {"max_steps": 2, "mlm_words": ["left"]} and first.train_data == (
        "scenes[captions=places]",
    )
    assert first.test_data is None, "it knows too little to be measured"
    assert second.options["max_steps"] == 4 and second.train_data == ("train",) and second.test_data == "test"
    run = []
    monkeypatch.setattr(studies.run, "_run", lambda cells, jobs: run.append([cell.result.stem for cell in cells]))
    run_cells(cells[:2], jobs=1)
    assert run == [[first.result.stem], ["start-2-seed0"], ["00-base-seed0", "01-pixel-seed0"]]


def test_study_shares_a_start_on_other_data_with_studies_that_begin_alike(tmp_path):
    def starts(max_steps=2, **changes):
        stages = [{"max_steps": max_steps, "train_data": "scenes[captions=places]"}, {"train_data": "scenes[seed=1]"}]
        study = Study.read(write_study(tmp_path, start=stages, **changes))
        second = next(study.cells(("train",), "test", tmp_path)).start
        return second.start.result, second.result

    assert starts() == starts(arms={"another": {}}, rerank_k=9)
    assert len({*starts(), *starts(max_steps=3)}) == 4, "what goes on from another start is another one"


def test_study_like_another_has_its_entries(tmp_path):
    shared = {name: ENTRIES[name] for name in ("recipe", "train_artists", "test_artist", "seeds")}
    (tmp_path / "shared.yaml").write_text(yaml.safe_dump(shared))
    own = {"like": "shared.yaml", "seeds": [7], "rerank_k": 2, "arms": {"base": {}}}
    study = Study.read(write_entries(tmp_path, own))
    assert (study.seeds, study.test_artist, study.recipe["max_steps"]) == ([7], "three", 3)


def on_sources(**changes):
    """Entries of a study on built-in sources."""
    entries = {name: value for name, value in ENTRIES.items() if "artist" not in name}
    return {**entries, "train_data": ["scenes"], "test_data": "scenes", "test_split": "confusers", **changes}


def test_study_on_sources_says_its_split_and_what_follows(tmp_path):
    then = {"task": "vqa", "train_data": "scenes", "data": "scenes", "split": "test", "max_steps": 7}
    entries = on_sources(train_data="scenes", then=then, options={"max_steps": 5, "model_config": {"itm_weight": 2.0}})
    study = Study.read(write_entries(tmp_path, entries))
    assert study.train_data == ["scenes"]
    first, second, *_ = study.cells(("scenes",), "scenes", tmp_path)
    assert (first.test_data, first.test_split, first.then) == ("scenes", "confusers", study.then)
    assert first.options == {"max_steps": 5, "model_config": {"mim_weight": 1.0, "itm_weight": 2.0}}
    assert second.options["model_config"] == {"mim_weight": 1.0, "itm_weight": 2.0, "pixel_weight": 3.0}
    assert study.then == FineTuning("vqa", ("scenes",), "scenes", "test", {"max_steps": 7})


def test_fine_tuning_commands_have_all_options(tmp_path):
    then = FineTuning("reasoning", ("one", "two"), "three", "dev", {"image_column": ["a", "b"], "lr_kwargs": {"c": 1}})
    finetune, evaluate = then.commands(Path("model"), 3, tmp_path / "x-reasoning.json")
    joined = " ".join(finetune)
    assert joined.startswith("finetune reasoning --model model --train_data one two --seed 3 --output_dir ")
    assert joined.endswith('x-reasoning --resume --report_to none --image_column a b --lr_kwargs {"c": 1}')
    assert evaluate[:8] == [
        *("evaluate", "reasoning", "--model", str(tmp_path / "x-reasoning"), "--data", "three"),
        *("--split", "dev"),
    ]
    assert evaluate[8:] == ["--train_data", "one", "two", "--output", str(tmp_path / "x-reasoning.json")]
    _, evaluate = replace(then, task="retrieval").commands(Path("model"), 3, tmp_path / "x.json")
    assert "--train_data" not in evaluate


def test_cell_is_finished_when_its_fine_tuned_model_is_measured(tmp_path, monkeypatch):
    then = {"task": "vqa", "train_data": "scenes", "data": "scenes", "split": "test"}
    cell = next(Study.read(write_entries(tmp_path, on_sources(then=then))).cells(("scenes",), "scenes", tmp_path))
    pretrained, run = [], []
    monkeypatch.setattr(studies.cell, "_pretrain", lambda cell, threads: pretrained.append(cell))
    monkeypatch.setattr(studies.cell, "run_commands", lambda commands, folder: run.append((list(commands), folder)))
    assert cell.found() is None and not cell.is_finished
    cell.result.parent.mkdir()
    cell.result.write_text('{"seed": 0}')
    assert cell.found() == {"seed": 0, "then": None} and not cell.is_finished
    studies.cell.run_cell(cell)
    result = cell.result.with_name("00-base-seed0-vqa.json")
    expected = list(cell.then.commands(cell.folder, 0, result)), result.with_suffix("")
    assert pretrained == [] and run == [expected], "what is there is not done again"
    result.write_text('{"accuracy": 0.5}')
    assert cell.found() == {"seed": 0, "then": {"accuracy": 0.5}} and cell.is_finished
    studies.cell.run_cell(cell)
    assert len(run) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_data": ["scenes"]}, "give either train_artists and test_artist, or train_data and test_data"),
        ({"train_data": ["scenes"], "test_data": "scenes"}, "give either"),
        ({"then": {"task": "vqa", "data": "scenes"}}, "then lacks train_data, split"),
    ],
)
def test_study_names_what_its_data_lack(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Study.read(write_study(tmp_path, **changes))


def test_missing_study_names_the_others(capsys):
    with pytest.raises(SystemExit):
        main([str(FOLDER / "table5.yaml")])
    said = capsys.readouterr().err
    assert "no study" in said and "table4-scenes-none, table4-scenes-stopped, together" in said and "cell" not in said


def test_unknown_arm_names_those_that_there_are(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(write_entries(tmp_path, on_sources())), "--arms", "base", "+ pixels"])
    assert "there is no arm + pixels; there are base, + pixel" in capsys.readouterr().err


def test_study_by_artist_needs_the_emoji(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(write_study(tmp_path)), "--output_dir", str(tmp_path / "out")])
    assert stop.value.code == 2 and "small splits the emoji by artist: give their folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"sedes": [1]}, "sedes"), ({"seeds": [1, 1]}, "seeds that differ"), ({"arms": {}}, "at least one arm")],
)
def test_study_rejects_invalid_files(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Study.read(write_study(tmp_path, **changes))


def test_committed_studies_name_existing_options():
    known = {**PretrainingJob.__dataclass_fields__, **CBViLATrainingArguments.__dataclass_fields__}
    assert COMMITTED
    for path in COMMITTED:
        for cell in Study.read(path).cells((), "", Path()):
            assert set(cell.options) <= set(known), path
            CBViLAConfig.from_preset(cell.options.get("preset", "recommended"), **cell.options["model_config"])


@pytest.mark.parametrize("study", list(map(Study.read, COMMITTED)), ids=lambda study: study.name)
def test_arms_of_studies_can_be_trained(study, pack, tmp_path):
    """Their options fit together and the model that they start from, as far as is known before the first step."""
    datasets.disable_progress_bars()
    source = str(pack) if study.train_data is None else "scenes[rows=40]"
    for cell in study.cells((source,), "", tmp_path):
        if cell.seed == 0:
            config = build_from_start(cell, source).model.config
            alone = CBViLAConfig.from_preset(config.preset, **cell.options["model_config"])
            assert config.loss_weights() == alone.loss_weights(), "a start leaves no weights of its own to an arm"


def build_from_start(cell, source):
    """A trainer before its first step, with the model that the cell starts from as it was before its own."""
    if cell.start is not None and not cell.start.folder.is_dir():
        build_from_start(cell.start, source).save_model()
    return studies.cell._trainer(replace(cell, train_data=(source,)))


def test_the_error_of_a_cell_is_shown_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def ran(cell):
        if cell.arm == "base":
            raise ValueError("no such thing")
        cell.result.parent.mkdir(parents=True, exist_ok=True)
        cell.result.write_text(json.dumps(cell_result(cell.arm, cell.seed, 0.5)))
        return json.loads(cell.result.read_text())

    monkeypatch.setattr(studies.run, "run_cell", ran)
    monkeypatch.setattr(studies.run, "ProcessPoolExecutor", lambda *given, **more: ThreadPoolExecutor(1))
    path = write_entries(tmp_path, on_sources())
    assert main([str(path), "--output_dir", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().out
    assert "base, seed 0: Traceback" in printed and "ValueError: no such thing" in printed
    assert "+ pixel, seed 1: 60 CPU-seconds" in printed and "| + pixel | 2 |" in printed


def test_committed_studies_fine_tune_by_commands_that_parse(monkeypatch, tmp_path):
    trained, measured = [], []
    monkeypatch.setattr(finetuning, "finetune", lambda *call: trained.append(call))
    monkeypatch.setattr(task_evaluation, "evaluate_task", lambda *call: measured.append(call) or {})
    studies_with_tasks = [study for study in map(Study.read, COMMITTED) if study.then is not None]
    assert studies_with_tasks
    for study in studies_with_tasks:
        finetune, evaluate = study.then.commands(tmp_path, 4, tmp_path / "x.json")
        assert cli.main(finetune) == cli.main(evaluate) == 0
        assert trained[-1][2].max_steps == study.then.options["max_steps"] and trained[-1][2].seed == 4
        assert measured[-1][1].model == trained[-1][2].output_dir


@pytest.mark.parametrize("name", ["none", "stopped", "contrast"])
def test_table_4_on_scenes_has_its_regime_in_every_arm(name):
    study = Study.read(FOLDER / f"table4-scenes-{name}.yaml")
    expected = {"none": (0.0, True), "stopped": (1.0, False), "contrast": (1.0, True)}[name]
    assert len(study.seeds) == 5 and list(study.arms) == ["MLM + ITM", "+ Pixel", "+ Pixel + MIM"]
    for cell in study.cells(tuple(study.train_data), study.test_data, Path()):
        config = CBViLAConfig.from_preset("recommended", **cell.options["model_config"])
        itc = config.objectives["itc"]
        assert (itc.weight, itc.grad_to_encoders) == expected
        active = set(config.active_objectives()) - {"itc", "codebook"}
        assert active == {"itm", "mlm"} | ({"pixel", "commitment"} if "Pixel" in cell.arm else set()) | (
            {"mim"} if "MIM" in cell.arm else set()
        )
        assert cell.options["align_steps"] == (0.4 if name == "contrast" else 0)


def test_interval_by_hand():
    # mean 2, standard deviation 1, so 4.303 / sqrt(3) = 2.484 on either side
    assert interval([1.0, 2.0, 3.0]) == "+2.00 [-0.484, +4.48]"
    assert interval([0.5]) == "+0.500"
    assert interval([]) == "–"


def cell_result(arm, seed, recall, usage=0.5):
    return {
        "arm": arm,
        "seed": seed,
        "steps": 3,
        "train_teraflops": 1.0,
        "train_cpu_seconds": 60.0,
        "figures": {"text_retrieval_r1": recall, "codebook_usage": usage},
        "log": [{"codebook_stability": 0.1}, {"codebook_stability": 0.9}, {"loss": 1.0}],
    }


def test_tables_pair_by_seed_and_skip_missing_cells(tmp_path):
    study = Study.read(write_study(tmp_path))
    found = [cell_result("base", 0, 0.10), cell_result("base", 1, 0.20), cell_result("+ pixel", 1, 0.25)]
    text = tables(study, found)
    assert "3 of 4 cells" in text
    retrieval = text.split("## Retrieval")[1].split("##")[0].strip().splitlines()
    base = retrieval[2].strip("| ").split(" | ")
    assert base[2] == "15.0 ± 7.07" and base[3] == "–"
    difference = text.split("## Less")[1].strip().splitlines()[-1].strip("| ").split(" | ")
    assert difference[:3] == ["+ pixel", "1", "+5.00"]  # of seed 1 alone, 25 - 20
    assert "| 90.0 |" in text  # the last stability, the same of both seeds
    assert "| 3 | 1.00 | 1.00 |" in text  # steps, TFLOP, minutes


def test_tables_have_the_fine_tuned_models(tmp_path):
    then = {"task": "vqa", "train_data": "scenes", "data": "scenes", "split": "test"}
    study = Study.read(write_entries(tmp_path, on_sources(then=then)))
    accuracies = {("base", 0): 0.5, ("base", 1): 0.6, ("+ pixel", 0): 0.52, ("+ pixel", 1): 0.64}
    found = [
        cell_result(*key, 0.1) | {"then": {"accuracy": value, "accuracy_low": 0.0, "accuracy_text_only_floor": 0.4}}
        for key, value in accuracies.items()
    ]
    text = tables(study, found)
    assert "## Fine-tuned for vqa\n\n| arm | seeds | accuracy % | accuracy text only floor % |" in text
    assert "| base | 2 | 55.0 ± 7.07 | 40.0 |" in text
    assert text.strip().endswith("| +3.00 [-9.71, +15.7] |"), "differences of accuracy, and none of its floor"
    unfinished = tables(study, [found[0] | {"then": None}, *found[1:]])
    assert "| base | 2 | – | – |" in unfinished


def test_tables_without_finished_cells(tmp_path):
    assert "No cell" in tables(Study.read(write_study(tmp_path)), [])


@pytest.fixture
def pack(tmp_path):
    import datasets

    rows = [
        {"image": Image.new("RGB", (32, 32), (shade, 90, 10 * n)), "caption": f"thing {n}", "tags": ["x"], "artist": a}
        for a, shade in (("one", 10), ("two", 120), ("three", 240))
        for n in range(6)
    ]
    (tmp_path / "pack").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "pack" / "train.parquet")
    return tmp_path / "pack"


def test_split_by_artist_holds_one_artist_out(pack, tmp_path):
    import datasets

    folder = split_by_artist(pack, ["one", "two"], "three", tmp_path / "data")
    splits = datasets.load_dataset(str(folder))
    assert set(splits["train"]["artist"]) == {"one", "two"} and len(splits["train"]) == 12
    assert splits["test"]["artist"] == ["three"] * 6 and splits["test"]["caption"][0] == "thing 0"
    assert split_by_artist(pack, ["one", "two"], "three", tmp_path / "data") == folder
    with pytest.raises(ValueError, match="no pictures by four, but by one, three, two"):
        split_by_artist(pack, ["one"], "four", tmp_path / "other")


def test_run_cells_skips_finished_cells(tmp_path, monkeypatch, capsys):
    cells = list(Study.read(write_study(tmp_path)).cells(("nowhere",), "nowhere", tmp_path))
    for cell in cells:
        cell.result.parent.mkdir(parents=True, exist_ok=True)
        cell.result.write_text("{}")
    started = []
    monkeypatch.setattr(studies.run, "_run", lambda cells, jobs: started.append([cell.result for cell in cells]))
    run_cells(cells, jobs=1)
    assert started == [] and f"{len(cells)} of {len(cells)} cells are there; 0 to run." in capsys.readouterr().err
    cells[-1].result.unlink()
    run_cells(cells, jobs=1)
    assert started == [[cells[-1].result]]


ENCODER = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
TINY_RECIPE = {
    "model_config": {
        "vision_config": {**ENCODER, "image_size": 32, "patch_size": 16},
        "text_config": {**ENCODER, "max_position_embeddings": 64},
        "multimodal_config": {"num_hidden_layers": 1},
        "codebook_size": 4,
        "projection_dim": 16,
    },
    "vocab_size": 60,
    "max_steps": 4,
    "burn_in_steps": 2,
    "per_device_train_batch_size": 4,
    "logging_steps": 2,
}


def test_study_without_contrast_orders_the_whole_gallery(tmp_path, monkeypatch):
    monkeypatch.setattr(studies.run, "_run", lambda cells, jobs: all([studies.cell.run_cell(cell) for cell in cells]))
    then = {"task": "vqa", "train_data": "scenes[rows=8]", "data": "scenes[rows=4]", "split": "test"}
    entries = on_sources(
        train_data=["scenes[rows=40]"], test_data="scenes[rows=12]", rerank_k=12, seeds=[0], then=then
    )
    entries["options"] = {"model_config": {"itc_weight": 0.0}}
    entries["arms"] = {"all": {}}
    ran = []
    monkeypatch.setattr(studies.cell, "run_commands", lambda commands, folder: ran.append(list(commands)))
    path, out = write_entries(tmp_path, entries, TINY_RECIPE), tmp_path / "out"
    assert main([str(path), "--output_dir", str(out)]) == 0
    found = json.loads((out / "small" / "00-all-seed0.json").read_text())
    assert found["steps"] == 4 and found["train_teraflops"] >= 0 and len(ran) == 1
    recalls = [found["figures"][f"text_retrieval_r{k}_reranked"] for k in (1, 5, 10)]
    assert recalls == sorted(recalls) and 0 <= recalls[0] <= 1
    assert not any("itc" in name for entry in found["log"] for name in entry)
    assert "1 of 1 cells" in (out / "small" / "table.md").read_text()


def test_study_of_codebooks_measures_what_they_mean(tmp_path, monkeypatch):
    monkeypatch.setattr(studies.run, "_run", lambda cells, jobs: all([studies.cell.run_cell(cell) for cell in cells]))
    entries = on_sources(train_data=["scenes[rows=40]"], test_data="scenes[rows=24]", rerank_k=0, seeds=[0])
    entries["fewer_codes"] = [2]
    entries["arms"] = {
        "nearest": {"model_config": {"objectives": {"raq": {"min_codes": 2, "max_codes": 8}}}},
        "FSQ": {"model_config": {"quantizer_config": {"type": "fsq", "levels": [2, 2]}}},
    }
    recipe = {**TINY_RECIPE, "model_config": {**TINY_RECIPE["model_config"], "quantizer_config": {"size": 4}}}
    recipe["model_config"].pop("codebook_size")
    path, out = write_entries(tmp_path, entries, recipe), tmp_path / "out"
    assert main([str(path), "--output_dir", str(out)]) == 0
    nearest, fsq = (json.loads(file.read_text())["figures"] for file in sorted((out / "small").glob("*.json")))
    assert nearest["bits_per_token"] == fsq["bits_per_token"] == 2
    assert 0 < nearest["code_purity"] <= 1 and nearest["psnr_low"] <= nearest["psnr"] <= nearest["psnr_high"]
    rates = {"psnr_2_codes", "psnr_2_codes_most_used", "psnr_2_codes_raq"}
    assert rates <= set(nearest) and not rates & set(fsq)
    table = (out / "small" / "table.md").read_text()
    assert "## What codes mean" in table and "| 2 codes most used |" in table


@pytest.mark.parametrize("name, labels", [("codebooks", ("objects",)), ("codebooks-emoji", ["tags"])])
def test_studies_of_codebooks_ask_for_the_labels_that_their_data_have(name, labels, monkeypatch):
    asked = []
    monkeypatch.setattr(studies.cell, "load_pairs", lambda *given, **more: asked.append(more))
    for measure in ("inspect_pretraining", "codebook_figures"):
        monkeypatch.setattr(studies.cell, measure, lambda *given, **more: {})
    cell = next(Study.read(FOLDER / f"{name}.yaml").cells((), "data", Path()))
    studies.cell._measure(SimpleNamespace(model=None, processing_class=None), cell, "data")
    assert asked[-1] == {"keyword_columns": labels}


@pytest.mark.slow
def test_study_from_pack_to_table(pack, tmp_path):
    study, out = write_study(tmp_path, TINY_RECIPE), tmp_path / "out"
    arguments = [str(study), "--emoji", str(pack), "--output_dir", str(out), "--jobs", "1"]
    assert main([*arguments, "--seeds", "0"]) == 0
    results = sorted((out / "small").glob("*.json"))
    assert len(results) == 2 and "2 of 4 cells" in (out / "small" / "table.md").read_text()
    first, second = (json.loads(path.read_text()) for path in results)
    assert first["steps"] == 4 and 0 <= first["figures"]["text_retrieval_r1_reranked"] <= 1
    assert second["arm"] == "+ pixel" and second["options"]["model_config"]["pixel_weight"] == 3.0


def test_scaled_changes_the_size_of_a_drawing():
    image = Image.new("RGB", (40, 40), "white")
    image.paste((255, 0, 0), (10, 10, 30, 30))
    red = {share: (np.asarray(scaled(image, share))[..., 1] < 128).sum() for share in (0.5, 1.0, 2.0)}
    assert red == {0.5: 100, 1.0: 400, 2.0: 1600}
    assert scaled(image, 1.0).tobytes() == image.tobytes()


@pytest.mark.parametrize("artist", ["one", "three"])
def test_manners_measure_retrieval_in_every_style(artist, tmp_path, capsys):
    datasets.Dataset.from_list(
        [
            {"image": half_image(colour, "top"), "caption": colour, "tags": ["thing"], "artist": who}
            for who in ("one", "three")
            for colour in ("red", "green", "blue")
        ]
    ).to_parquet(tmp_path / "train.parquet")
    assert manners.main(["--emoji", str(tmp_path), "--artist", artist]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].startswith(f"| {artist} | TR@1 %") and len(lines) == 2 + len(manners.STYLES)
    assert all(line.endswith("| 100.0 |") and "| 100.0 | " in line for line in lines[2:])  # three are all in ten
