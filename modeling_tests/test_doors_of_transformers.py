"""Pipelines and Auto classes of transformers take CB-ViLA checkpoints as they take others."""

import pytest
import tiny
import torch
from bundled_models import COMPLETE
from transformers import (
    AutoImageProcessor,
    AutoModelForZeroShotImageClassification,
    AutoTokenizer,
    BertTokenizer,
    pipeline,
)

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForPreTraining,
    CBViLAModel,
    CBViLAProcessor,
    bundled_checkpoint,
)

TEXTS = ["left half red", "top half blue", "it is grey"]


@pytest.fixture(scope="module", params=[CBViLAForPreTraining, CBViLAForImageTextRetrieval])
def folder(request, tmp_path_factory):
    """A pretrained model, and one that was fine-tuned for retrieval."""
    folder = str(tmp_path_factory.mktemp(request.param.__name__))
    tiny.build(request.param).save_pretrained(folder)
    tiny.tiny_processor().save_pretrained(folder)
    return folder


def inputs(folder, **given):
    return CBViLAProcessor.from_pretrained(folder)(**given, return_tensors="pt")


@pytest.mark.parametrize("name", COMPLETE)
def test_auto_classes_load_the_parts_of_every_bundled_processor(name):
    folder = bundled_checkpoint(name)
    processor = CBViLAProcessor.from_pretrained(folder)
    tokenizer, image_processor = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    assert isinstance(tokenizer, BertTokenizer) and type(image_processor) is type(processor.image_processor)
    text, image = "what color is the circle", tiny.noise_image()
    assert tokenizer(text)["input_ids"] == processor(text=text)["input_ids"][0]
    pixels = image_processor(image, return_tensors="pt")["pixel_values"]
    assert pixels.equal(processor(image, return_tensors="pt")["pixel_values"])


@torch.no_grad()
def test_zero_shot_classification_is_similarity(folder):
    classify = pipeline("zero-shot-image-classification", model=folder, device="cpu")
    assert isinstance(classify.model, CBViLAForImageTextRetrieval)
    image = tiny.half_image("red", "left")
    found = classify(image, candidate_labels=TEXTS, hypothesis_template="{}")
    model = AutoModelForZeroShotImageClassification.from_pretrained(folder).eval()
    expected = model(**inputs(folder, images=image, text=TEXTS, image_index=[0, 0, 0])).logits_per_image[0].softmax(-1)
    scores = {each["label"]: each["score"] for each in found}
    assert [scores[text] for text in TEXTS] == pytest.approx(expected.tolist(), abs=1e-5)


@torch.no_grad()
def test_feature_extraction_returns_states_of_one_modality(folder):
    model, image = CBViLAModel.from_pretrained(folder).eval(), tiny.half_image("blue", "top")
    of_image = pipeline("image-feature-extraction", model=folder, device="cpu")
    expected = model(**inputs(folder, images=image))
    assert torch.tensor(of_image(image)).allclose(expected.vision_last_hidden_state, atol=1e-5)
    assert torch.tensor(of_image(image, pool=True)).allclose(expected.pooler_output, atol=1e-5)
    of_text = pipeline("feature-extraction", model=folder, device="cpu")
    for text, found in zip(TEXTS, of_text(TEXTS), strict=True):
        states = model(**inputs(folder, text=text)).text_last_hidden_state
        assert torch.tensor(found).allclose(states, atol=1e-5)
