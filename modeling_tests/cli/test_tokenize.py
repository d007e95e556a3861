"""`cbvila tokenize`: the visual words of data sets as files, and pictures drawn from them."""

import json
from collections import Counter

import pyarrow.parquet
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from tiny import PATCHES, tiny_processor, tiny_rows
from tiny_quantizers import fitted_model
from two_processes import run_in_two

from transformers_cbvila import CBViLAForPreTraining, CBViLAProcessor
from transformers_cbvila.cli import main
from transformers_cbvila.data.image_rows import ImageRows
from transformers_cbvila.inspection.token_files import ids_of, read_tokens
from transformers_cbvila.model.drawn_images_cbvila import to_pictures

COUNT, EACH = 7, 3


@pytest.fixture(scope="module", params=["nearest", "residual"])
def model(request, tmp_path_factory):
    return saved(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def plain_model(tmp_path_factory):
    return saved("nearest", tmp_path_factory.mktemp("plain"))


def saved(kind, folder):
    """A folder with a tiny model and its processor."""
    options = {"type": kind, "size": 16, "dim": 8} | ({"depth": 2} if kind == "residual" else {})
    fitted_model(options).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def pictures(tmp_path):
    """A folder of pictures without captions, in two folders."""
    folder = tmp_path / "pictures"
    for number, row in enumerate(tiny_rows(COUNT)):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        row["image"].save(folder / "ab"[number % 2] / f"{number}.png")
    return folder


def tokenize(data, model, out, *more):
    return ["tokenize", str(data), "--model", model, "--output_dir", str(out), "--rows_per_file", str(EACH), *more]


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def rows_in(folder):
    return [row for rows in read_tokens(folder) for row in rows]


def test_tokenize_writes_the_codes_of_a_folder(model, pictures, tmp_path, capsys):
    out = tmp_path / "words"
    assert main(tokenize(pictures, model, out)) == 0
    assert sorted(contents(out)) == [*(f"tokens-{block:06d}.parquet" for block in range(3)), "tokens.json"]
    rows = rows_in(out)
    assert [row["row"] for row in rows] == list(range(COUNT)) and all(row["grid"] == [4, 4] for row in rows)
    assert {row["source"] for row in rows} == {f"{'ab'[i % 2]}/{i}.png" for i in range(COUNT)}
    loaded, processor = CBViLAForPreTraining.from_pretrained(model).eval(), CBViLAProcessor.from_pretrained(model)
    books = len(loaded.cbvila.quantizer.book_sizes)
    by_name = {f"{'ab'[i % 2]}/{i}.png": row["image"] for i, row in enumerate(tiny_rows(COUNT))}
    pixel_values = processor(images=[by_name[row["source"]] for row in rows], return_tensors="pt")["pixel_values"]
    assert torch.equal(ids_of(rows, books), loaded.tokenize(pixel_values))
    assert pyarrow.parquet.read_schema(out / "tokens-000000.parquet").names == ["row", "source", "grid", "ids"]
    said = capsys.readouterr().out
    assert "7 rows tokenized.\n" in said and f"Visual words: 3 files in {out}\n" in said

    drawn = tmp_path / "drawn"
    assert main(["tokenize", str(out), "--decode", "--output_dir", str(drawn), "--batch_size", "2"]) == 0
    names = [f"row-{row:09d}.png" for row in range(COUNT)]
    assert sorted(contents(drawn)) == ["metadata.jsonl", *names]
    expected = to_pictures(processor.image_processor, loaded.detokenize(ids_of(rows, books)))
    again = [
        row.decoded() for _, block in ImageRows(str(drawn), "train").blocks(COUNT, lambda _: True) for row in block
    ]
    for picture, array in zip(again, expected, strict=True):
        assert abs(torch.tensor(list(picture.tobytes())) - torch.tensor(array.flatten().tolist())).max() <= 1
    described = [json.loads(line) for line in (drawn / "metadata.jsonl").read_text().splitlines()]
    assert [(line["row"], line["source"]) for line in described] == [(row["row"], row["source"]) for row in rows]


def test_tokenize_goes_on_after_an_interruption(plain_model, pictures, tmp_path, monkeypatch, capsys):
    whole, out = tmp_path / "whole", tmp_path / "words"
    assert main(tokenize(pictures, plain_model, whole)) == 0
    calls = Counter()
    write_table = pyarrow.parquet.write_table

    def interrupted(table, file):
        calls["files"] += 1
        write_table(table, file)
        if calls["files"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pyarrow.parquet, "write_table", interrupted)
        assert main(tokenize(pictures, plain_model, out)) == 130
    assert "The same command goes on" in capsys.readouterr().err
    assert sorted(contents(out)) == ["tokens-000000.parquet", "tokens-000001.parquet.unfinished", "tokens.json"]
    first = (out / "tokens-000000.parquet").stat().st_mtime_ns
    assert main(tokenize(pictures, plain_model, out)) == 0
    assert "4 rows tokenized." in capsys.readouterr().out
    assert contents(out) == contents(whole) and (out / "tokens-000000.parquet").stat().st_mtime_ns == first


def in_a_process(rank, argv):
    return main(argv)


def test_two_processes_write_the_same_files(plain_model, pictures, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "words"
    assert main(tokenize(pictures, plain_model, whole)) == 0
    folder = tmp_path / "results"
    folder.mkdir()
    assert run_in_two(in_a_process, folder, tokenize(pictures, plain_model, out), joined=False) == [0, 0]
    assert contents(out) == contents(whole)
    drawn = ["tokenize", str(out), "--decode", "--output_dir"]
    assert run_in_two(in_a_process, folder, [*drawn, str(tmp_path / "two")], joined=False) == [0, 0]
    assert main([*drawn, str(tmp_path / "one")]) == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_tokenize_names_bad_rows_or_leaves_them_out(plain_model, pictures, tmp_path, capsys):
    (pictures / "a" / "2.png").write_bytes(b"<html>")
    out = tmp_path / "words"
    assert main(tokenize(pictures, plain_model, out)) == 1
    said = capsys.readouterr().err
    assert "of " + str(pictures) in said and "its image cannot be read" in said and "skip_bad_rows" in said
    assert main(tokenize(pictures, plain_model, tmp_path / "rest", "--skip_bad_rows")) == 0
    said = capsys.readouterr()
    assert "Left out 1 bad row(s):\n  Row " in said.err and "6 rows tokenized." in said.out
    assert "a/2.png" not in {row["source"] for row in rows_in(tmp_path / "rest")}


def test_tokenize_takes_other_options_while_no_file_is_complete(plain_model, pictures, tmp_path, capsys):
    """The error advises --skip_bad_rows, which is an option that all files of a folder have in common."""
    (pictures / "a" / "0.png").write_bytes(b"<html>")
    out, whole = tmp_path / "words", tmp_path / "whole"
    every_row = ["--rows_per_file", str(COUNT)]
    assert main(tokenize(pictures, plain_model, out, *every_row)) == 1
    assert sorted(contents(out)) == ["tokens.json"]
    (out / "tokens-000000.parquet.unfinished").write_bytes(b"half")
    assert main(tokenize(pictures, plain_model, out, *every_row, "--skip_bad_rows")) == 0, capsys.readouterr().err
    assert main(tokenize(pictures, plain_model, whole, *every_row, "--skip_bad_rows")) == 0
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("description", ["{}", '{"made by": "another program"}'])
def test_tokenize_leaves_descriptions_of_others_alone(description, plain_model, pictures, tmp_path, capsys):
    out = tmp_path / "words"
    out.mkdir()
    (out / "tokens.json").write_text(description)
    assert main(tokenize(pictures, plain_model, out)) == 1
    assert "was written with model=None" in capsys.readouterr().err
    assert (out / "tokens.json").read_text() == description


def test_tokenize_streams_tables(plain_model, tmp_path):
    """Two Parquet files, read as a stream, whose rows have no captions."""
    features = Features({"picture": Image(), "id": Value("int64")})
    for part, some in enumerate((tiny_rows(COUNT)[:4], tiny_rows(COUNT)[4:])):
        rows = {"picture": [row["image"] for row in some], "id": list(range(len(some)))}
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / f"train-{part}.parquet")
    images = ImageRows(str(tmp_path / "data"), "train", "picture")
    assert images.count is None
    wanted = dict(images.blocks(3, lambda block: block != 1))
    assert {block: [row.number for row in rows] for block, rows in wanted.items()} == {0: [0, 1, 2], 2: [6]}
    out = tmp_path / "words"
    assert main(tokenize(tmp_path / "data", plain_model, out, "--image_column", "picture")) == 0
    rows = rows_in(out)
    assert [row["row"] for row in rows] == list(range(COUNT)) and all(len(row["ids"]) == PATCHES for row in rows)


def test_tokenize_of_scenes_with_the_bundled_checkpoint(tmp_path):
    out = tmp_path / "words"
    assert main(tokenize("scenes[rows=4]", "cbvila-tiny", out, "--split", "validation")) == 0
    assert [row["source"].startswith("scenes://validation/") for row in rows_in(out)] == [True] * 4
    description = json.loads((out / "tokens.json").read_text())
    assert (description["data"], description["split"], description["book_sizes"]) == (
        "scenes[rows=4]",
        "validation",
        [128],
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--batch_size", "2"], "was written with --batch_size=64, and this is --batch_size=2"),
        (["--split", "train[:2]"], "was written with split='train', and this is split='train[:2]'"),
    ],
)
def test_tokenize_goes_on_only_with_the_same_options(more, message, plain_model, pictures, tmp_path, capsys):
    out = tmp_path / "words"
    assert main(tokenize(pictures, plain_model, out)) == 0
    assert main(tokenize(pictures, plain_model, out, *more)) == 1
    assert message in capsys.readouterr().err


def test_tokenize_refuses_other_folders_and_models(plain_model, pictures, tmp_path, capsys):
    out = tmp_path / "words"
    assert main(tokenize(pictures, plain_model, pictures)) == 1
    assert "is no folder that cbvila tokenize wrote" in capsys.readouterr().err
    assert main(["tokenize", str(pictures), "--decode", "--output_dir", str(out)]) == 1
    assert "it has no tokens.json" in capsys.readouterr().err
    assert main(tokenize(pictures, plain_model, out)) == 0
    assert main(["tokenize", str(out), "--decode", "--model", "cbvila-tiny", "--output_dir", str(tmp_path / "d")]) == 1
    assert "other weights than these: name the model that wrote it" in capsys.readouterr().err
    for argv, message in (
        (["tokenize", "d", "--output_dir", "o"], "required: --model"),
        (["tokenize", "d", "--output_dir", "o", "--model", "m", "--rows_per_file", "0"], "must be at least 1"),
    ):
        with pytest.raises(SystemExit):
            main(argv)
        assert message in capsys.readouterr().err
