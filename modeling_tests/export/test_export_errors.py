"""What cannot be exported or run is an error that says why and the way out; nothing is written then."""

import json
import sys

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from tiny_heads import build_head

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForMaskedImageModeling,
    CBViLAForPreTraining,
    CBViLAForQFormerPreTraining,
    CBViLAForVisualEntailment,
    CBViLAForVisualReasoning,
    CBViLAImageProcessorPil,
    CBViLAModel,
    CBViLAOnnxQuestionAnswering,
    CBViLAOnnxRetriever,
    export_onnx,
)
from transformers_cbvila.cli import main
from transformers_cbvila.export.graphs import exported_class, graphs_of
from transformers_cbvila.onnx_runtime.images import pixel_values
from transformers_cbvila.onnx_runtime.texts import Texts


def saved(folder, head=CBViLAForPreTraining, processor=None, **fields):
    build_head(head, **fields).save_pretrained(folder)
    (processor or tiny.tiny_processor()).save_pretrained(folder)
    return folder


def described(folder, graphs, **entries):
    """A folder with the description of an export, and no graphs."""
    tiny.tiny_tokenizer().save_pretrained(folder)
    names = {name: {"file": f"{name}.onnx"} for name in graphs}
    description = {"format": 1, "architecture": "CBViLAModel", "texts": {}, "images": {}, "graphs": names, **entries}
    (folder / "export.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def extra():
    pytest.importorskip("onnxscript", reason="needs the extra onnx")


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize(
    ("fields", "graphs", "message"),
    [
        ({"head": CBViLAForQFormerPreTraining}, None, "a CBViLAForQFormerPreTraining cannot be exported; CBViLAForI"),
        ({"head": CBViLAModel}, ["matching"], "no graph 'matching'; it has image_encoder, text_encoder"),
        ({}, ["text_encodre"], "did you mean text_encoder"),
        (
            {"itm_weight": 0},
            ["matching"],
            r"no graph 'matching' \(it was trained without matching\); it has image_enc",
        ),
        ({"pixel_weight": 0}, ["drawing"], r"no graph 'drawing' \(This model was built without the objective 'pixel'"),
        ({"processor": tiny.tiny_processor(side=16)}, None, "size=.* resize images to 32 x 32 pixels"),
    ],
)
def test_export_refuses_models(tmp_path, fields, graphs, message):
    folder = saved(tmp_path / "model", **fields)
    with pytest.raises(ValueError, match=message):
        export_onnx(folder, tmp_path / "onnx", graphs=graphs)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_export_says_what_takes_language_models_apart():
    with pytest.raises(ValueError, match="a CBViLAForCond.* cannot be exported; .* can; transformers.exporters takes"):
        exported_class("CBViLAForConditionalGeneration")
    with pytest.raises(ValueError, match="a CBViLAForQFormerPreTraining cannot be exported; .*CBViLAModel can$"):
        exported_class("CBViLAForQFormerPreTraining")


@pytest.mark.usefixtures("extra")
def test_export_writes_nothing_over_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is there already; name another folder, or .* with --overwrite"):
        export_onnx("cbvila-tiny", tmp_path)
    with pytest.raises(ValueError, match="is no earlier export: it has no export.json"):
        export_onnx("cbvila-tiny", tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("module", ["onnx", "onnxscript"])
def test_export_names_the_missing_extra(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, "onnx", sys.modules["tiny"])  # anything: the first that is missing is named
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"'{module}' is not installed .* pip install"):
        export_onnx("cbvila-tiny", tmp_path / "onnx")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "0", "--data", "scenes"], "--rows 0 must be at least 1"),
        (["--split", "test"], "--split changes nothing here: nothing is measured without --data; give both"),
    ],
)
def test_export_command_refuses_options(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(["export", "cbvila-tiny", "--output_dir", "onnx", *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("head", "names"),
    [
        (CBViLAModel, ["image_encoder", "text_encoder"]),
        (CBViLAForImageTextRetrieval, ["image_encoder", "text_encoder", "matching"]),
        (CBViLAForMaskedImageModeling, ["image_encoder", "text_encoder", "drawing"]),
        (CBViLAForPreTraining, ["image_encoder", "text_encoder", "matching", "drawing"]),
        (CBViLAForVisualEntailment, ["image_encoder", "text_encoder", "entailment"]),
        (CBViLAForVisualReasoning, ["image_encoder", "text_encoder", "reasoning"]),
    ],
)
@torch.no_grad()
def test_graphs_of_heads_run_on_their_samples(head, names):
    graphs = graphs_of(tiny.build(head))
    assert [graph.name for graph in graphs] == names
    for graph in graphs:
        outputs = graph(*(given.sample for given in graph.inputs().values()))
        assert all(value.shape[0] == 2 for value in outputs.values())


def test_running_needs_onnxruntime(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="'onnxruntime' is not installed .* pip install"):
        CBViLAOnnxRetriever.from_pretrained(described(tmp_path, []))


@pytest.mark.parametrize(
    ("runner", "graphs", "entries", "options", "message"),
    [
        (
            CBViLAOnnxRetriever,
            ["question_encoder"],
            {},
            {},
            "no graph 'image_encoder', which search needs; it has que",
        ),
        (CBViLAOnnxQuestionAnswering, ["image_encoder"], {}, {}, "no graph 'question_encoder', which answering quest"),
        (CBViLAOnnxRetriever, ["image_encoder", "text_encoder"], {}, {}, "not trained to compare images with texts"),
        (
            CBViLAOnnxRetriever,
            ["image_encoder"],
            {},
            {"int8": True},
            "has no int8 graphs: export the model with --int8",
        ),
        (CBViLAOnnxRetriever, [], {"format": 2}, {}, "has the format 2, and this version reads 1"),
    ],
)
def test_runners_refuse_exports(tmp_path, runner, graphs, entries, options, message):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    with pytest.raises(ValueError, match=message):
        runner.from_pretrained(described(tmp_path, graphs, **entries), **options)


def test_runners_name_a_folder_that_is_no_export(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no export.json: give a folder that `cbvila export` wrote"):
        CBViLAOnnxRetriever.from_pretrained(tmp_path)


class Encoders:
    """Graphs that return what a search needs, whatever they are given."""

    def __init__(self, folder, graphs):
        texts = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "add_sep_token": True, "max_length": 16}
        images = {"height": 4, "width": 4, "resample": 3, "rescale_factor": 1 / 255, "mean": [0] * 3, "std": [1] * 3}
        retrieval = {"rerank_k": 2, "similarity_weight": 0.0, "similarity_scale": 1.0}
        self.folder, self.description = folder, {"graphs": graphs, "texts": texts, "images": images}
        self.description["retrieval"] = retrieval
        tiny.tiny_tokenizer().save_pretrained(folder)

    def run(self, graph, inputs):
        rows, name = len(next(iter(inputs.values()))), graph.partition("_")[0]
        return {f"{name}_embeds": np.eye(rows, 4), f"{name}_states": np.zeros((rows, 9, 4))}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.index(), "exactly one of the two"),
        (lambda r: r.index(images=[], texts=["red"]), "exactly one of the two"),
        (lambda r: r.index(texts=[]), "texts must be a list with one item or more"),
        (lambda r: r.index(images="folder"), "images must be a list"),
        (lambda r: r.search(text="red"), "call index first"),
        (lambda r: r.index(texts=["red"]).search(), "exactly one of the two"),
        (lambda r: r.index(texts=["red"]).search(text="red", top_k=0), "top_k=0 must be at least 1"),
        (lambda r: r.index(texts=["red"]).search(text="red", rerank_k=2), "rerank_k=2: texts are indexed"),
        (lambda r: r.index(texts=["red"]).search(image=tiny.noise_image(), rerank_k=2), "no graph 'matching'"),
        (lambda r: r.index(texts=["red"]).search(image=tiny.noise_image(), rerank_k=-1), "must be at least 0"),
        (lambda r: r.index(texts=["red", " "]), "the text ' ' is empty"),
    ],
)
def test_onnx_retriever_errors(tmp_path, call, message):
    retriever = CBViLAOnnxRetriever(Encoders(tmp_path, ["image_encoder", "text_encoder"]))
    with pytest.raises(ValueError, match=message):
        call(retriever)


def test_onnx_retriever_goes_by_similarity_where_it_cannot_match(tmp_path):
    retriever = CBViLAOnnxRetriever(Encoders(tmp_path, ["image_encoder", "text_encoder"]))
    assert retriever.rerank_k == 2
    assert retriever.index(texts=["red", "blue"]).search(text="red", top_k=5).indices.tolist() == [0, 1]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16", "CMYK"])
def test_onnx_images_are_those_of_the_image_processor(mode):
    levels = np.random.default_rng(0).integers(0, 256, (30, 45, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(levels[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(levels if mode == "RGBA" else levels[..., :3]).convert(mode)
    processor = CBViLAImageProcessorPil(size={"height": 24, "width": 32})
    options = {
        "height": 24,
        "width": 32,
        "resample": int(processor.resample),
        "rescale_factor": processor.rescale_factor,
        "mean": processor.image_mean,
        "std": processor.image_std,
    }
    expected = processor(image, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(pixel_values([image], options), expected, atol=1e-6)


@pytest.mark.parametrize("add_sep_token", [True, False])
def test_onnx_texts_are_those_of_the_processor(tmp_path, add_sep_token):
    processor = tiny.tiny_processor(add_sep_token=add_sep_token)
    processor.save_pretrained(tmp_path)
    options = {"pad_token_id": tiny.PAD, "cls_token_id": tiny.CLS, "sep_token_id": tiny.SEP, "max_length": 16}
    texts = Texts(tmp_path, {**options, "add_sep_token": add_sep_token, "answer_end_token_id": tiny.SEP})
    given = ["A red half", "is it unknown?", "top " * 30]
    expected = processor(text=given, truncation=True, max_length=9, return_tensors="np")
    found = texts.encode(given, max_length=9)
    assert (found["input_ids"] == expected["input_ids"]).all()
    assert (found["attention_mask"] == expected["attention_mask"]).all()
    with pytest.raises(ValueError, match="leaves no room for a token"):
        texts.encode(["red"], max_length=1)
    assert texts.decode([tiny.WORDS.index("red"), tiny.WORDS.index("?"), tiny.SEP, 7]) == "red?"
