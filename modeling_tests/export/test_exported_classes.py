"""Exported classification heads and quantizers: their graphs are the model's forward, in torch and in ONNX Runtime."""

import numpy as np
import pytest
import tiny
import torch
from tiny_heads import batch_for

from transformers_cbvila import CBViLAForPreTraining, CBViLAForVisualEntailment, CBViLAForVisualReasoning, export_onnx
from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.export.graphs import graphs_of
from transformers_cbvila.export.onnx_export import write_graph
from transformers_cbvila.export.parity import measure_parity
from transformers_cbvila.onnx_runtime.exported_model import ExportedModel

CLASSIFIERS = [
    (CBViLAForVisualEntailment, {}),
    (CBViLAForVisualReasoning, {"reasoning_fusion": "twin"}),
    (CBViLAForVisualReasoning, {"reasoning_fusion": "separate"}),
]


def classified(head, run):
    """What the graphs make of a batch, and the batch; `run` runs a graph by its name."""
    given = {name: value for name, value in batch_for(head, batch=3).items() if name != "labels"}
    pixel_values, texts = given["pixel_values"], (given["input_ids"], given["attention_mask"])
    images = run("image_encoder", pixel_values=pixel_values.flatten(0, -4))["image_states"]
    if pixel_values.dim() == 5:
        images = images.reshape(*pixel_values.shape[:2], *images.shape[1:])
    states = run("text_encoder", input_ids=texts[0], attention_mask=texts[1])["text_states"]
    name = "entailment" if head is CBViLAForVisualEntailment else "reasoning"
    return run(name, text_states=states, attention_mask=texts[1], image_states=images)["logits"], given


@pytest.mark.parametrize(("head", "fields"), CLASSIFIERS)
@torch.no_grad()
def test_graphs_of_classifiers_are_the_model(head, fields):
    model = tiny.build(head, **fields)
    graphs = {graph.name: graph for graph in graphs_of(model)}
    logits, given = classified(head, lambda name, **inputs: graphs[name](**inputs))
    torch.testing.assert_close(logits, model(**given).logits)


@pytest.mark.slow
@pytest.mark.parametrize(("head", "fields"), CLASSIFIERS)
@torch.no_grad()
def test_exported_classifiers_are_the_model(head, fields, tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    model = tiny.build(head, **fields)
    model.save_pretrained(tmp_path / "model")
    tiny.tiny_processor().save_pretrained(tmp_path / "model")
    export = ExportedModel(export_onnx(tmp_path / "model", tmp_path / "onnx"))

    def run(name, **inputs):
        return export.run(name, {each: np.asarray(value) for each, value in inputs.items()})

    logits, given = classified(head, run)
    np.testing.assert_allclose(logits, model(**given).logits, atol=1e-4)
    report = measure_parity(tmp_path / "model", tmp_path / "onnx", "scenes[rows=4]", "test", rows=4)
    assert report["identical_answers"] == {"onnx": 1.0} and report["rows"] == 4
    assert max(report["largest_difference"]["onnx"].values()) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantizer", "itm_kv"),
    [
        ({"type": "adaptive", "tables": [[16, 8], [32, 4]], "router_heads": 4}, "continuous"),
        ({"type": "class_guided", "feature_layers": [1, 2]}, "continuous"),
        ({"type": "fsq", "levels": [3, 5]}, "continuous"),
        ({"type": "residual", "size": 8, "depth": 2}, "both"),
        ({"type": "nearest", "size": 16}, "quantized"),
    ],
)
@torch.no_grad()
def test_exported_quantizers_take_images_of_any_size(quantizer, itm_kv, tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    config = tiny.tiny_config(itm_kv=itm_kv)
    config.quantizer_config = quantizer
    (graph,) = graphs_of(tiny.build(CBViLAForPreTraining, config), ["image_encoder"])
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    session = runtime.InferenceSession(tmp_path / write_graph(graph, tmp_path, int8=False)["file"])
    for height, width in ((32, 32), (48, 48), (16, 40)):
        pixels = torch.randn(3, 3, height, width, generator=generator_for(0))
        expected = graph(pixels)
        found = dict(zip(expected, session.run(list(expected), {"pixel_values": pixels.numpy()}), strict=True))
        assert (found.pop("codebook_indices") == expected["codebook_indices"].numpy()).all()
        for name, value in found.items():
            np.testing.assert_allclose(value, expected[name], atol=1e-4)
