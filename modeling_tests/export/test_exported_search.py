"""Exported towers, matching and drawing are the model's, for other sizes than traced, also without torch."""

import json

import numpy as np
import pytest
import tiny
import torch

from transformers_cbvila import CBViLAForPreTraining, CBViLAOnnxRetriever, CBViLARetriever
from transformers_cbvila.cli import main
from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.export.onnx_export import DESCRIPTION
from transformers_cbvila.export.parity import measure_parity
from transformers_cbvila.onnx_runtime.exported_model import ExportedModel

TEXTS = ["left half red", "top half blue", "right half green", "bottom half grey", "is it red ?", "a half"]


@pytest.fixture(scope="module")
def model(searching_model):
    return CBViLAForPreTraining.from_pretrained(searching_model).eval()


@pytest.fixture(scope="module")
def export(searching_export):
    return ExportedModel(searching_export)


@pytest.fixture(scope="module")
def pictures():
    return [tiny.half_image(colour, half) for half in tiny.SHAPES for colour in ("red", "blue")]


def arrays(**tensors):
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def assert_same(got, expected):
    np.testing.assert_allclose(got, expected.detach().numpy(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("batch", "length"), [(1, 3), (5, 9)])
def test_exported_towers_and_matching_are_the_models(model, export, batch, length):
    given = {"pixel_values": tiny.tiny_images(batch), **tiny.tiny_texts(batch, length)}
    expected = model.cbvila(**given)
    images, texts = export.run("image_encoder", arrays(**given)), export.run("text_encoder", arrays(**given))
    assert_same(images["image_states"], expected.vision_last_hidden_state)
    assert_same(images["image_embeds"], expected.image_embeds)
    assert (images["codebook_indices"] == expected.codebook_indices.numpy()).all()
    assert_same(texts["text_states"], expected.text_last_hidden_state)
    assert_same(texts["text_embeds"], expected.text_embeds)
    matched = export.run("matching", {**images, **texts, **arrays(**given)})["itm_logits"]
    assert_same(matched, model.objectives["itm"].head(expected.pooler_output))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 48), (64, 40), (8, 24), (8, 8)])
@torch.no_grad()
def test_exported_image_encoder_takes_images_of_any_size(model, export, height, width):
    pixels = torch.randn(3, 3, height, width, generator=generator_for(0))
    given = {"pixel_values": pixels, **tiny.tiny_texts(3)}
    expected = model.cbvila(**given, interpolate_pos_encoding=True)
    images, texts = export.run("image_encoder", arrays(**given)), export.run("text_encoder", arrays(**given))
    assert_same(images["image_states"], expected.vision_last_hidden_state)
    assert_same(images["image_embeds"], expected.image_embeds)
    assert (images["codebook_indices"] == expected.codebook_indices.numpy()).all()
    matched = export.run("matching", {**images, **texts, **arrays(**given)})["itm_logits"]
    assert_same(matched, model.objectives["itm"].head(expected.pooler_output))


@pytest.mark.parametrize("batch", [1, 3])
def test_exported_drawing_draws_what_the_model_draws(model, export, batch):
    captions = tiny.tiny_texts(batch, 6)
    expected = model.generate_images(**captions, num_steps=1, temperature=0, choice_temperature=0)
    states = export.run("text_encoder", arrays(**captions))
    given = {**states, "attention_mask": captions["attention_mask"].numpy()}
    hidden = np.ones((batch, tiny.PATCHES), dtype=bool)
    start = {"codebook_indices": np.zeros((batch, tiny.PATCHES), dtype=np.int64), "bool_masked_pos": hidden}
    codes = export.run("drawing", {**given, **start})["code_logits"].argmax(-1)
    assert (codes == expected.codebook_indices.numpy()).all()
    drawn = export.run("drawing", {**given, "codebook_indices": codes, "bool_masked_pos": ~hidden})["pixel_values"]
    assert_same(drawn, expected.pixel_values)


@pytest.mark.parametrize("rerank_k", [None, 0, 5])
def test_onnx_retriever_finds_what_the_retriever_finds(searching_model, searching_export, pictures, rerank_k):
    ours = CBViLAOnnxRetriever.from_pretrained(searching_export)
    theirs = CBViLARetriever.from_pretrained(searching_model, device="cpu")
    assert ours.rerank_k == theirs.rerank_k == 4
    for kind, items, queries in (("images", pictures, {"text": TEXTS}), ("texts", TEXTS, {"image": pictures})):
        got = ours.index(**{kind: items}).search(**queries, top_k=3, rerank_k=rerank_k)
        expected = theirs.index(**{kind: items}, progress=False).search(**queries, top_k=3, rerank_k=rerank_k)
        assert_same(got.scores, expected.scores)
        assert_same(got.similarities, expected.similarities)
        assert (got.indices == expected.indices.numpy()).all()


def test_onnx_retriever_takes_one_query(searching_export, pictures):
    retriever = CBViLAOnnxRetriever.from_pretrained(searching_export).index(images=pictures)
    several = retriever.search(text=["half red"], top_k=2)
    one = retriever.search(text="half red", top_k=2)
    assert one.indices.shape == (2,) and (one.indices == several.indices[0]).all()


def test_onnx_retriever_runs_without_torch(searching_export, pictures, tmp_path, without_torch):
    files = []
    for number, picture in enumerate(pictures):
        files.append(str(tmp_path / f"{number}.png"))
        picture.save(files[-1])
    expected = CBViLAOnnxRetriever.from_pretrained(searching_export).index(images=files).search(text=TEXTS, top_k=3)
    found = without_torch(
        "from transformers_cbvila import CBViLAOnnxRetriever\n"
        f"retriever = CBViLAOnnxRetriever.from_pretrained({str(searching_export)!r}).index(images={files})\n"
        f"print(json.dumps(retriever.search(text={TEXTS}, top_k=3).indices.tolist()))\n"
    )
    assert found == expected.indices.tolist()


def test_export_describes_its_graphs(searching_export):
    described = json.loads((searching_export / DESCRIPTION).read_text())
    assert described["graphs"]["text_encoder"]["inputs"] == {
        "input_ids": ["batch", "text_tokens"],
        "attention_mask": ["batch", "text_tokens"],
    }
    encoder = described["graphs"]["image_encoder"]
    assert encoder["inputs"] == {"pixel_values": ["batch", 3, "8*rows", "8*columns"]}
    assert encoder["outputs"]["codebook_indices"] == ["batch", "columns*rows"]
    assert encoder["outputs"]["image_states"] == ["batch", "columns*rows + 1", 32]
    assert described["graphs"]["matching"]["inputs"]["image_states"] == ["batch", "image_tokens", 32]
    assert described["graphs"]["drawing"]["inputs"]["codebook_indices"] == ["batch", tiny.PATCHES]
    assert described["retrieval"]["rerank_k"] == 4
    for name in ("config.json", "tokenizer.json", "processor_config.json", "drawing.onnx", "drawing_int8.onnx"):
        assert (searching_export / name).is_file()


def test_int8_graphs_are_near_the_models(model, searching_export):
    given = {"pixel_values": tiny.tiny_images(4), **tiny.tiny_texts(4)}
    expected, int8 = model.cbvila(**given), ExportedModel(searching_export, int8=True)
    found = int8.run("image_encoder", arrays(**given))["image_embeds"]
    assert 0 < np.abs(found - expected.image_embeds.detach().numpy()).max() < 0.2
    products = np.einsum("be,be->b", found, expected.image_embeds.detach().numpy())
    assert products.min() > 0.98


def test_parity_says_how_far_an_export_is(searching_model, searching_export, picture_folder, tmp_path):
    report = measure_parity(searching_model, searching_export, picture_folder, "train", rows=6)
    assert json.loads((searching_export / "parity.json").read_text()) == report
    assert report["rows"] == 6 and set(report["bytes"]) == {"onnx", "int8"}
    largest = report["largest_difference"]
    assert {name.partition(".")[0] for name in largest["onnx"]} == {
        "image_encoder", "text_encoder", "matching", "drawing",
    }  # fmt: skip
    assert max(largest["onnx"].values()) < 1e-4 < max(largest["int8"].values())
    assert report["identical_codes"]["onnx"] == 1 and report["largest_code_gap"]["onnx"] == 0
    assert set(report["other_image_sizes"]) == {"48x48", "16x32"}
    for forms in report["other_image_sizes"].values():
        assert forms["onnx"]["identical_codes"] == 1
        assert forms["onnx"]["largest_difference"] < 1e-4 < forms["int8"]["largest_difference"]
    assert report["recall"]["onnx"] == report["recall"]["torch"]
    assert set(report["milliseconds_per_row"]) == {"torch", "onnx", "int8"}


def test_export_command_replaces_an_earlier_export(searching_model, searching_export, tmp_path, monkeypatch, capsys):
    """Of the same graphs as before, which are not exported again here."""
    from transformers_cbvila.export import onnx_export

    def written(graph, folder, int8):
        (folder / f"{graph.name}.onnx").write_bytes(b"new")
        return {"file": f"{graph.name}.onnx", "inputs": {}, "outputs": {}}

    monkeypatch.setattr(onnx_export, "write_graph", written)
    target = tmp_path / "onnx"
    command = ["export", str(searching_model), "--output_dir", str(target), "--graphs"]
    assert main([*command, "text_encoder", "matching"]) == 0
    assert main([*command, "text_encoder"]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "text_encoder", "--overwrite"]) == 0
    assert not (target / "matching.onnx").exists() and (target / "text_encoder.onnx").is_file()
    assert not list(tmp_path.glob(".onnx*")), "the folder in which it was written is gone"
    assert list(json.loads((target / DESCRIPTION).read_text())["graphs"]) == ["text_encoder"]
