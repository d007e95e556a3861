"""Weight files are read for their tensors, and no code in them runs."""

import json
import pickle

import pytest
import torch
from safe_loading import load_folder, load_tensors
from safetensors.torch import save_file

WEIGHTS = {"a": torch.arange(3.0), "b": torch.ones(1, dtype=torch.long)}


class Code:
    """What a hostile file holds: unpickling it calls open()."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"model": w, "epoch": 3}, lambda w: {"state_dict": w}])
def test_load_tensors_reads_torch_files(tmp_path, wrap):
    torch.save(wrap(WEIGHTS), tmp_path / "x.pth")
    loaded = load_tensors(tmp_path / "x.pth")
    assert loaded.keys() == WEIGHTS.keys() and all(torch.equal(loaded[name], WEIGHTS[name]) for name in WEIGHTS)


def test_load_tensors_reads_safetensors(tmp_path):
    save_file(WEIGHTS, tmp_path / "x.safetensors")
    assert torch.equal(load_tensors(tmp_path / "x.safetensors")["a"], WEIGHTS["a"])


@pytest.mark.parametrize("legacy", [True, False])
def test_load_tensors_names_code_and_does_not_run_it(tmp_path, legacy):
    torch.save(
        {"model": WEIGHTS, "args": Code(tmp_path / "written")},
        tmp_path / "x.pth",
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(ValueError, match=r"x.pth does not only hold tensors: it asks for \w*\.?open"):
        load_tensors(tmp_path / "x.pth")
    assert not (tmp_path / "written").exists()


def test_load_tensors_rejects_plain_pickle(tmp_path):
    (tmp_path / "x.pth").write_bytes(pickle.dumps(Code(tmp_path / "written")))
    with pytest.raises(ValueError, match=r"x.pth"):
        load_tensors(tmp_path / "x.pth")
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_load_tensors_rejects_truncated_files(tmp_path, legacy, share):
    torch.save({"model": WEIGHTS | {"c": torch.ones(500)}}, tmp_path / "x", _use_new_zipfile_serialization=not legacy)
    whole = (tmp_path / "x").read_bytes()
    (tmp_path / "x.pth").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"x.pth is no complete checkpoint of torch.save \(.*cut short"):
        load_tensors(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [b"", b"<!doctype html>\n<html>404</html>", bytes(range(256)) * 4])
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_load_tensors_rejects_other_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is no complete"):
        load_tensors(tmp_path / name)


@pytest.mark.parametrize(
    "content, complaint",
    [
        ([torch.ones(1)], "x.pth holds a list; expected weights by name"),
        ({}, "x.pth holds nothing"),
        ({"model": {}}, "x.pth holds nothing"),
        ({"epoch": 3, "a": torch.ones(1)}, "x.pth: epoch is no tensor"),
    ],
)
def test_load_tensors_rejects_other_contents(tmp_path, content, complaint):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=complaint):
        load_tensors(tmp_path / "x.pth")


def test_load_tensors_rejects_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x.pth: there is no such file"):
        load_tensors(tmp_path / "x.pth")


def test_load_folder_reads_shards(tmp_path):
    with pytest.raises(ValueError, match="has no model.safetensors and no pytorch_model.bin"):
        load_folder(tmp_path)
    for i, name in enumerate(WEIGHTS):
        save_file({name: WEIGHTS[name]}, tmp_path / f"model-{i}.safetensors")
    places = {name: f"model-{i}.safetensors" for i, name in enumerate(WEIGHTS)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert load_folder(tmp_path).keys() == WEIGHTS.keys()
