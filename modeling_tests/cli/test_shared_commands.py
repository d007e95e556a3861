"""Commands under `accelerate launch`: two processes find and measure what one does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import build, half_image, tiny_processor
from two_processes import run_in_two

import transformers_cbvila
from transformers_cbvila import CBViLAForImageTextRetrieval, CBViLARetriever
from transformers_cbvila.cli import main
from transformers_cbvila.retrieval.encoding import GalleryEncoder
from transformers_cbvila.retrieval.folder_gallery import encode_part, start_parts

HALVES = [(colour, half) for half in ("left", "top") for colour in ("red", "green", "blue", "grey")][:7]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    build(CBViLAForImageTextRetrieval).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def pictures(tmp_path):
    """Seven pictures, one of them twice, and one that cannot be read."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for colour, half in HALVES:
        half_image(colour, half).save(folder / f"{half}-{colour}.png")
    shutil.copy(folder / "left-red.png", folder / "sub" / "again.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def in_a_process(rank, argv, out):
    """What a command prints in each process."""
    from contextlib import redirect_stdout

    with open(f"{out}-{rank}", "w") as file, redirect_stdout(file):
        return main(argv)


def run_shared(folder, argv):
    folder.mkdir(exist_ok=True)
    assert run_in_two(in_a_process, folder, argv, str(folder / "out"), joined=False) == [0, 0]
    return [(folder / f"out-{rank}").read_text() for rank in range(2)]


def test_search_finds_what_one_process_does(model, pictures, tmp_path, capsys):
    def search(index):
        return ["search", str(pictures), "left half red", "--model", model, "--index_dir", str(tmp_path / index)]

    assert main(search("one")) == 0
    expected = capsys.readouterr().out
    assert run_shared(tmp_path / "results", search("two")) == [expected, ""]
    one, two = (CBViLARetriever.from_pretrained(model).load(tmp_path / index) for index in ("one", "two"))
    assert one.files == two.files and len(two.files) == 8 and list(one.left_out) == list(two.left_out)
    torch.testing.assert_close(*(torch.cat(list(each._gallery.blocks)) for each in (one, two)), atol=1e-6, rtol=0)
    assert not list((tmp_path / "two").glob("part-*"))
    (pictures / "left-red.png").unlink()
    assert main(search("one")) == 0
    assert run_shared(tmp_path / "results", search("two")) == [capsys.readouterr().out, ""]


def test_what_killed_processes_encoded_is_not_lost(model, pictures, tmp_path, monkeypatch):
    retriever = CBViLARetriever.from_pretrained(model)
    encoder = GalleryEncoder(retriever.model, retriever.processor, "images", progress=False)
    index = tmp_path / "index"
    start_parts(pictures, index, encoder)
    encode_part(pictures, index, encoder, 1, 2)  # and the run is killed
    encoded = []
    encode_pixels = GalleryEncoder.encode_pixels
    monkeypatch.setattr(
        GalleryEncoder,
        "encode_pixels",
        lambda self, pixels: encoded.append(len(pixels)) or encode_pixels(self, pixels),
    )
    retriever.index(pictures, folder=index, progress=False)
    assert sum(encoded) == 3 and len(retriever.files) == 8  # 3 of 7 contents were still to be encoded


def evaluate(model, data, output, *more):
    return ["evaluate", "retrieval", "--model", model, "--data", str(data), "--output", str(output), *more]


@pytest.fixture
def data(pictures):
    lines = [
        {"image": f"{half}-{colour}.png", "captions": [f"{half} half {colour}", f"a {colour}"]}
        for colour, half in HALVES
    ]
    (pictures / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return pictures / "rows.jsonl"


@pytest.mark.parametrize("batch_size", ["2", "32"])  # of 32, one process has nothing to encode
def test_evaluation_measures_what_one_process_does(model, data, tmp_path, capsys, batch_size):
    options = ["--rerank_k", "3", "--batch_size", batch_size]
    assert main(evaluate(model, data, tmp_path / "one.json", *options)) == 0
    expected = capsys.readouterr().out.replace("one.json", "two.json")
    assert run_shared(tmp_path / "results", evaluate(model, data, tmp_path / "two.json", *options)) == [expected, ""]
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one.keys() == two.keys() and "mean_recall_reranked" in one
    for name, value in one.items():
        assert two[name] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value), name


def failing(rank, argv, out):
    from contextlib import redirect_stderr

    with open(f"{out}-{rank}", "w") as file, redirect_stderr(file):
        return main(argv)


def test_what_processes_do_not_share(model, data, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    argv = evaluate(model, data, tmp_path / "two.json", "--folder", str(tmp_path / "kept"))
    assert run_in_two(failing, folder, argv, str(folder / "err"), joined=False) == [1, 1]
    assert "several processes keep nothing in a folder" in (folder / "err-0").read_text()
    argv = ["evaluate", "vqa", *argv[2:-2]]
    assert run_in_two(failing, folder, argv, str(folder / "err"), joined=False) == [1, 1]
    assert "vqa is evaluated by one process" in (folder / "err-0").read_text()


def launched(argv):
    """What a command prints that `accelerate launch` starts in two processes."""
    source = str(Path(transformers_cbvila.__file__).parents[1])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    options = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [*launch, *options, "-m", "transformers_cbvila", *argv]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_accelerate_launches_search_and_evaluation(model, pictures, data, tmp_path, capsys):
    search = ["search", str(pictures), "left half red", "--model", model, "--index_dir"]
    assert main([*search, str(tmp_path / "one")]) == 0
    assert launched([*search, str(tmp_path / "two")]) == capsys.readouterr().out
    assert main(evaluate(model, data, tmp_path / "one.json")) == 0
    said = capsys.readouterr().out.replace("one.json", "two.json")
    assert launched(evaluate(model, data, tmp_path / "two.json")) == said
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert two == pytest.approx(one, abs=1e-4)
