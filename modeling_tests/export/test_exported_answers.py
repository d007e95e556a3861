"""Exported question answering gives the model's answers, also without torch."""

import numpy as np
import pytest
import tiny_vqa
import torch

from transformers_cbvila import CBViLAForQuestionAnswering, CBViLAOnnxQuestionAnswering, CBViLAProcessor
from transformers_cbvila.export.parity import measure_parity
from transformers_cbvila.onnx_runtime.exported_model import ExportedModel

QUESTIONS = ["what shape is in the image ?", "what color is it", "is there a red circle on the left ?", "how many ?"]


@pytest.fixture(scope="module")
def model(answering_model):
    return CBViLAForQuestionAnswering.from_pretrained(answering_model).eval()


@pytest.fixture(scope="module")
def processor(answering_model):
    return CBViLAProcessor.from_pretrained(answering_model)


def pictures(count):
    return [tiny_vqa.picture(seed) for seed in range(count)]


@torch.no_grad()
@pytest.mark.parametrize("answer_tokens", [1, 4])
def test_exported_decoder_scores_the_next_token(model, processor, answering_export, answer_tokens):
    batch = processor(pictures(4), QUESTIONS, return_tensors="pt")
    states = model.encode_question(**batch)
    answers = torch.randint(5, len(tiny_vqa.VOCABULARY), (4, answer_tokens))
    expected = model.answer_decoder(
        answers, encoder_hidden_states=states, encoder_attention_mask=batch["attention_mask"]
    ).logits
    export, given = ExportedModel(answering_export), {name: value.numpy() for name, value in batch.items()}
    found = export.run("question_encoder", given)
    np.testing.assert_allclose(found["question_states"], states.numpy(), atol=1e-4)
    logits = export.run("answer_decoder", {**found, **given, "input_ids": answers.numpy()})["logits"]
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(48, 48), (16, 64), (64, 24)])
def test_exported_question_encoder_takes_images_of_any_size(model, processor, answering_export, height, width):
    size = {"height": height, "width": width}
    batch = processor(pictures(4), QUESTIONS, images_kwargs={"size": size}, return_tensors="pt")
    assert batch["pixel_values"].shape[-2:] == (height, width)
    expected = model.encode_question(**batch, interpolate_pos_encoding=True)
    given = {name: value.numpy() for name, value in batch.items()}
    found = ExportedModel(answering_export).run("question_encoder", given)["question_states"]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("max_new_tokens", [1, 6])
def test_onnx_question_answering_answers_as_the_model(model, processor, answering_export, max_new_tokens):
    batch = processor(pictures(4), QUESTIONS, return_tensors="pt")
    expected = processor.decode_answers(model.generate(**batch, max_new_tokens=max_new_tokens))
    ask = CBViLAOnnxQuestionAnswering.from_pretrained(answering_export)
    assert ask(pictures(4), QUESTIONS, max_new_tokens) == expected
    assert len(set(expected)) > 1, "answers that do not depend on the question would show nothing"
    assert ask(pictures(1)[0], QUESTIONS[0], max_new_tokens) == expected[0]


def test_onnx_question_answering_runs_without_torch(answering_export, tmp_path, without_torch):
    pictures(1)[0].save(tmp_path / "picture.png")
    expected = CBViLAOnnxQuestionAnswering.from_pretrained(answering_export)(pictures(1)[0], QUESTIONS[0])
    found = without_torch(
        "from transformers_cbvila import CBViLAOnnxQuestionAnswering\n"
        f"ask = CBViLAOnnxQuestionAnswering.from_pretrained({str(answering_export)!r}, num_threads=1)\n"
        f"print(json.dumps(ask({str(tmp_path / 'picture.png')!r}, {QUESTIONS[0]!r})))\n"
    )
    assert found == expected


def test_parity_counts_identical_answers(answering_model, answering_export):
    report = measure_parity(answering_model, answering_export, "easy-vqa", "test[:4]", rows=3)
    assert report["rows"] == 3 and report["identical_answers"]["onnx"] == 1
    assert "recall" not in report and "identical_codes" not in report and "largest_code_gap" not in report
    assert len(report["other_image_sizes"]) == 2
    assert all(forms["onnx"]["largest_difference"] < 1e-4 for forms in report["other_image_sizes"].values())


@pytest.mark.parametrize(
    ("image", "question", "message"),
    [
        (["a.png"], ["what", "is"], "as many images"),
        ([], [], "as many images"),
        ("nothing.png", "what is it", "there is no image file"),
        (tiny_vqa.picture(), "", "is empty"),
        (tiny_vqa.picture(), "red " * 40, "takes 16"),
        (tiny_vqa.picture(), ["is it", 3], "as many images"),
        ([tiny_vqa.picture()], [3], "must be a string, got a int"),
    ],
)
def test_onnx_question_answering_errors(answering_export, image, question, message):
    ask = CBViLAOnnxQuestionAnswering.from_pretrained(answering_export)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ask(image, question)
