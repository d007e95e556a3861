import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image
from tiny import half_image

import studies.run
from studies import manners
from studies.artists import split_by_artist
from studies.grid import Study, merged, slug
from studies.manners import scaled
from studies.run import main, run_cells
from studies.table import interval, tables

FOLDER = Path(__file__).parents[2] / "studies"
ENTRIES = {
    "recipe": "cell.yaml",
    "train_artists": ["one", "two"],
    "test_artist": "three",
    "seeds": [0, 1],
    "rerank_k": 2,
    "arms": {"base": {}, "+ pixel": {"model_config": {"pixel_weight": 3.0}}},
}


def write_study(folder, recipe=None, **changes):
    (folder / "cell.yaml").write_text(yaml.safe_dump(recipe or {"max_steps": 3, "model_config": {"mim_weight": 1.0}}))
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**ENTRIES, **changes}, sort_keys=False))
    return path


def test_merged_enters_mappings_and_replaces_values():
    base = {"a": 1, "b": {"c": 2, "d": [3]}}
    assert merged(base, {"b": {"d": [4], "e": 5}, "f": 6}) == {"a": 1, "b": {"c": 2, "d": [4], "e": 5}, "f": 6}
    assert base == {"a": 1, "b": {"c": 2, "d": [3]}}


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"sedes": [1]}, "sedes"), ({"seeds": [1, 1]}, "seeds that differ"), ({"arms": {}}, "at least one arm")],
)
def test_study_rejects_invalid_files(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Study.read(write_study(tmp_path, **changes))


def test_committed_studies_name_existing_options():
    from transformers_cbvila import CBViLAConfig, CBViLATrainingArguments
    from transformers_cbvila.training.pretrain import PretrainingJob

    known = {**PretrainingJob.__dataclass_fields__, **CBViLATrainingArguments.__dataclass_fields__}
    paths = [path for path in FOLDER.glob("*.yaml") if not path.name.startswith("cell")]
    assert paths
    for path in paths:
        for cell in Study.read(path).cells((), "", Path()):
            assert set(cell.options) <= set(known), path
            CBViLAConfig.from_preset(cell.options.get("preset", "recommended"), **cell.options["model_config"])


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


@pytest.mark.slow
def test_study_from_pack_to_table(pack, tmp_path):
    encoder = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    recipe = {
        "model_config": {
            "vision_config": {**encoder, "image_size": 32, "patch_size": 16},
            "text_config": {**encoder, "max_position_embeddings": 64},
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
    study, out = write_study(tmp_path, recipe), tmp_path / "out"
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
