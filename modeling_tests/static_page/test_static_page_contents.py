"""What a page is to hold is found and checked before anything is written, and uploaded in one commit."""

import json
import re

import pytest
import tiny
from huggingface_hub import SpaceCard

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForMaskedImageModeling,
    CBViLAForPreTraining,
    CBViLAForQuestionAnswering,
    stage_static_page,
)
from transformers_cbvila.app import models as app_models
from transformers_cbvila.cli import main
from transformers_cbvila.export import onnx_export
from transformers_cbvila.export.preparation import preparation_of
from transformers_cbvila.static_page import publishing, staging
from transformers_cbvila.static_page.contents import check_tokenizer, find_page_contents
from transformers_cbvila.static_page.onnxruntime_web import FILES


@pytest.fixture
def runtime(tmp_path):
    folder = tmp_path / "onnxruntime-web"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def unexported(monkeypatch):
    """No graph is exported: there are files with their names; and the extra `onnx` need not be there."""
    asked = []

    def export(source, target, graphs, int8):
        asked.append((source, graphs, int8))
        target.mkdir()
        described = {name: {"file": f"{name}.onnx"} for name in graphs}
        for name, graph in described.items():
            graph.update({"int8_file": f"{name}_int8.onnx"} if int8 else {})
            for file in graph.values():
                (target / file).write_text(file)
        (target / "export.json").write_text(json.dumps({"graphs": described}))
        (target / "tokenizer.json").write_text("{}")
        return target

    monkeypatch.setattr(staging, "export_onnx", export)
    monkeypatch.setattr(publishing, "require", lambda module: None)
    return asked


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("int8", [False, True])
def test_a_page_has_all_that_it_loads(int8, saved, pictures, runtime, unexported, tmp_path):
    options = {"images": pictures, "examples": ["a <red> half"], "int8": int8, "onnxruntime_web": runtime}
    page = stage_static_page("org/halves", tmp_path / "page", saved(), **options)
    graphs, end = ["text_encoder", "matching", "drawing"], "_int8.onnx" if int8 else ".onnx"
    assert [asked[1:] for asked in unexported] == [(graphs, int8)]
    code = {f"js/{path.name}" for path in staging.CODE_FOLDER.iterdir()}
    assert names(page) == {
        *code,
        *(f"model/{name}{end}" for name in graphs),
        *(f"gallery/{number}.jpg" for number in range(8)),
        *(f"onnxruntime-web/{name}" for name in FILES),
        *("index.html", "README.md", "LICENSE", "model/export.json", "model/tokenizer.json"),
        *(f"gallery/states/{number}.bin" for number in range(8)),
        *("gallery/gallery.json", "gallery/embeds.bin"),
    }
    described = json.loads((page / "model" / "export.json").read_text())["graphs"]
    assert described == {name: {"file": f"{name}{end}"} for name in graphs}
    html, readme = (page / "index.html").read_text(), (page / "README.md").read_text()
    assert "a &lt;red&gt; half" in html and "It knows &lt;nothing&gt;." in html and "Search 8 pictures" in html
    assert "sdk: static" in readme and "whose licence is apache-2.0" in readme and "8 pictures, whose rights" in readme
    items = json.loads((page / "gallery" / "gallery.json").read_text())["items"]
    assert [item["name"] for item in items] == sorted(path.name for path in pictures.iterdir())
    imported = {name for file in code for name in re.findall(r"from '\./(\w+\.js)'", (page / file).read_text())}
    assert {f"js/{name}" for name in imported} <= code


def test_a_model_that_only_searches_draws_nothing(saved, pictures, runtime, unexported, tmp_path):
    model = saved(CBViLAForImageTextRetrieval)
    page = stage_static_page("org/halves", tmp_path / "page", model, images=pictures, onnxruntime_web=runtime)
    html = (page / "index.html").read_text()
    assert 'id="search-form"' in html and 'id="draw-form"' not in html and 'id="search-examples"' not in html
    assert unexported[0][1] == ["text_encoder", "matching"]


def test_a_model_on_the_hub_has_its_card_there(saved, pictures, runtime, unexported, tmp_path, monkeypatch):
    where = {"org/halves": str(saved(CBViLAForImageTextRetrieval))}
    for module in (app_models, onnx_export):
        monkeypatch.setattr(module, "checkpoint_source", where.__getitem__)
    page = stage_static_page("me/halves", tmp_path / "page", "org/halves", images=pictures, onnxruntime_web=runtime)
    card = SpaceCard.load(page / "README.md")
    assert card.data.to_dict()["models"] == ["org/halves"] and card.data.license == "other"
    assert "[org/halves](https://huggingface.co/org/halves)" in card.text and "None" not in card.text
    assert 'id="limits"' not in (page / "index.html").read_text() and unexported[0][0] == "org/halves"


def test_scenes_come_with_examples():
    contents = find_page_contents("cbvila-scenes", None, [])
    assert len(contents.pictures.items) == 96 and len(contents.examples) == 4 and len(contents.drawn) == 3
    assert all(contents.examples) and contents.draws and contents.most_steps == 12
    assert contents.preparation["drawing"] == {"book_sizes": [128], "sequential": False}
    assert find_page_contents("cbvila-scenes", None, ["a ring"]).drawn == ["a ring"]


def no_pictures(folder):
    (folder / "pictures").mkdir()
    return {"images": folder / "pictures"}


def broken_pictures(folder):
    (folder / "pictures").mkdir()
    (folder / "pictures" / "broken.png").write_bytes(b"no picture")
    return {"images": folder / "pictures"}


@pytest.mark.parametrize(
    ("fields", "given", "error", "message"),
    [
        ({"head": CBViLAForQuestionAnswering}, {}, ValueError, "was not trained to compare images with texts"),
        ({"head": CBViLAForMaskedImageModeling}, {}, ValueError, "which the app has no use for"),
        ({"itc_weight": 0}, {}, ValueError, "was not trained to compare images with texts, as a page that searches"),
        ({}, no_pictures, ValueError, "has no image"),
        ({}, broken_pictures, ValueError, "None of the 1 pictures"),
        ({}, {"images": "nowhere"}, ValueError, "'nowhere' is no folder"),
        ({}, {"examples": "a ring"}, ValueError, "examples='a ring': give a list of texts"),
        ({}, {"examples": ["a ring", " "]}, ValueError, "none of them empty"),
        ({}, {"onnxruntime_web": "nowhere"}, FileNotFoundError, "onnxruntime_web='nowhere' has no ort.wasm"),
        ({}, {"repo_id": "halves"}, ValueError, "expected owner/name"),
        (None, {"model": "cbvila-scense"}, FileNotFoundError, "did you mean cbvila-scenes"),
    ],
)
def test_what_cannot_be_a_page_is_refused(fields, given, error, message, saved, runtime, unexported, tmp_path):
    given = given(tmp_path) if callable(given) else dict(given)
    arguments = {"repo_id": "org/halves", "onnxruntime_web": runtime, **given}
    if fields is not None:
        arguments["model"] = saved(**fields)
    with pytest.raises(error, match=re.escape(message)):
        stage_static_page(output_dir=tmp_path / "page", **arguments)
    assert not (tmp_path / "page").exists() and unexported == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"type": "BPE"}}, "the model of this model's tokenizer.json is BPE, and the page computes BERT's"),
        ({"normalizer": None}, "the normalizer of this model's tokenizer.json is None"),
        ({"added_tokens": [{"content": "<x>", "lstrip": True}]}, "the page finds the token '<x>'"),
    ],
)
def test_tokenizers_that_the_page_cannot_compute_are_refused(changes, message):
    tokenizer = json.loads(tiny.tiny_tokenizer().backend_tokenizer.to_str())
    check_tokenizer(tokenizer)
    how = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    changes = {**changes, "added_tokens": [{**how, **token} for token in changes.get("added_tokens", [])]}
    with pytest.raises(ValueError, match=re.escape(message)):
        check_tokenizer({**tokenizer, **changes})


def test_the_command_writes_a_page(saved, pictures, runtime, unexported, tmp_path, capsys):
    arguments = ["--images", str(pictures), "--examples", "a half", "red", "--onnxruntime_web", str(runtime), "--int8"]
    space = ["publish", str(saved()), "--space", "org/halves", "--static", *arguments]
    assert main([*space, "--output_dir", str(tmp_path / "page")]) == 0
    assert capsys.readouterr().out == f"Staged: {tmp_path / 'page'}\n"
    assert (tmp_path / "page" / "model" / "drawing_int8.onnx").is_file()
    assert main([*space, "--output_dir", str(tmp_path / "page")]) == 1
    assert "is there already" in capsys.readouterr().err


def test_the_command_says_what_it_takes(capsys):
    for arguments, sentence in (
        (["--static", "--help"], "unpacked npm package onnxruntime-web"),
        (["cbvila-scenes", "--static"], "--space"),
        (["--space", "org/halves", "--static", "--facts", "facts.yaml"], "there is no option '--facts'"),
        (["--space", "org/halves", "--help"], "--static"),
    ):
        with pytest.raises(SystemExit):
            main(["publish", *arguments])
        said = capsys.readouterr()
        assert sentence in said.out + said.err


@pytest.mark.parametrize("head", ["linear", "sequential"])
def test_a_description_says_how_many_codes_a_book_has(head):
    quantizer = {"type": "residual", "depth": 2, "size": 8, "dim": 8}
    model = tiny.build(CBViLAForPreTraining, quantizer_config=quantizer, objectives={"mim": {"head": head}})
    assert preparation_of(model, tiny.tiny_processor())["drawing"] == {
        "book_sizes": list(model.cbvila.quantizer.book_sizes),
        "sequential": head == "sequential",
    }
    undrawn = tiny.build(CBViLAForPreTraining, mim_weight=0)
    assert "drawing" not in preparation_of(undrawn, tiny.tiny_processor())
