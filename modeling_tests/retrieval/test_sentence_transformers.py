"""Models in sentence-transformers: `make test-sentence-transformers` runs what needs it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny import build, half_image, tiny_processor
from torch.testing import assert_close

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAMatchingModule,
    CBViLAModel,
    CBViLAProcessor,
    bundled_checkpoint,
    write_sentence_transformers_files,
)
from transformers_cbvila.retrieval.sentence_transformers_files import FILES

TEXTS = ["left half red", "right", "a green half is at the top ?"]
BUNDLED = ["cbvila-tiny", "cbvila-scenes"]
IMAGES = [half_image("red", "left"), half_image("blue", "top", 50)]


@pytest.fixture
def folder(tmp_path):
    build(CBViLAForImageTextRetrieval).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    write_sentence_transformers_files(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("bundled", [None, *BUNDLED])
def test_embeddings_are_those_of_the_model(folder, bundled):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = folder if bundled is None else bundled_checkpoint(bundled)
    encoder = sentence_transformers.SentenceTransformer(folder, device="cpu")
    texts, images = (encoder.encode(items, convert_to_tensor=True) for items in (TEXTS, IMAGES))
    model, processor = CBViLAModel.from_pretrained(folder).eval(), CBViLAProcessor.from_pretrained(folder)
    with torch.no_grad():
        of_texts = model.get_text_features(**processor(text=TEXTS, padding=True, return_tensors="pt")).pooler_output
        of_images = model.get_image_features(**processor(images=IMAGES, return_tensors="pt")).pooler_output
    assert_close(texts, of_texts, atol=1e-5, rtol=0)
    assert_close(images, of_images, atol=1e-5, rtol=0)
    cosines = torch.nn.functional.cosine_similarity(of_texts.unsqueeze(1), of_images.unsqueeze(0), dim=-1)
    assert_close(encoder.similarity(texts, images), cosines, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bundled", BUNDLED)
def test_files_are_those_of_the_bundled_checkpoint(folder, bundled):
    for name, content in FILES.items():
        assert json.loads(Path(folder, name).read_text()) == content
        assert Path(bundled_checkpoint(bundled), name).read_text() == Path(folder, name).read_text()


def probabilities(folder, pairs):
    """The matching probability of each pair by itself."""
    model, processor = CBViLAForImageTextRetrieval.from_pretrained(folder), CBViLAProcessor.from_pretrained(folder)
    found = []
    for image, text in pairs:
        with torch.no_grad():
            output = model.eval()(**processor(images=[image], text=[text], return_tensors="pt"))
        found.append(output.itm_logits.softmax(-1)[0, 1])
    return torch.stack(found)


PAIRS = [(image, text) for text in TEXTS for image in IMAGES]


def test_scores_are_matching_probabilities(folder, tmp_path):
    module = CBViLAMatchingModule.load(folder)
    IMAGES[1].save(tmp_path / "b.png")
    mixed = [PAIRS[0], PAIRS[1][::-1], ({"image": PAIRS[2][0]}, {"text": PAIRS[2][1]}), *PAIRS[3:5]]
    mixed.append((PAIRS[5][1], {"image": str(tmp_path / "b.png")}))
    features = module.preprocess(mixed)
    assert features["pixel_values"].shape[0] == 3 and features["image_index"].tolist() == [0, 1, 0, 1, 0, 2]
    with torch.no_grad():
        scores = module(features)["scores"]
    assert_close(scores.sigmoid().squeeze(-1), probabilities(folder, PAIRS), atol=1e-5, rtol=0)


def test_cross_encoder_ranks_pictures_and_texts(folder, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    reranker = sentence_transformers.CrossEncoder(modules=[CBViLAMatchingModule.load(folder)], device="cpu")
    expected = probabilities(folder, PAIRS)
    assert_close(reranker.predict(PAIRS, convert_to_tensor=True), expected, atol=1e-5, rtol=0)
    of_text = expected.view(len(TEXTS), len(IMAGES))
    ranked, best = reranker.rank(TEXTS[0], IMAGES), of_text[0].sort(descending=True)
    assert [entry["corpus_id"] for entry in ranked] == best.indices.tolist()
    assert [entry["score"] for entry in ranked] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert reranker.rank(IMAGES[1], TEXTS, top_k=1)[0]["corpus_id"] == int(of_text[:, 1].argmax())
    reranker.save_pretrained(str(tmp_path / "reranker"))
    again = sentence_transformers.CrossEncoder(str(tmp_path / "reranker"), device="cpu", trust_remote_code=True)
    assert_close(again.predict(PAIRS, convert_to_tensor=True), expected, atol=1e-5, rtol=0)


NO_PAIRS = [("a", "b"), tuple(IMAGES), "a", (IMAGES[0],), ({"image": "x", "text": "y"}, "z")]


@pytest.mark.parametrize("pair", NO_PAIRS)
def test_what_is_no_pair(folder, pair):
    with pytest.raises(ValueError, match="pair 1: .* is no image with a text"):
        CBViLAMatchingModule.load(folder).preprocess([PAIRS[0], pair])


def test_models_without_matching_score_nothing(folder):
    model = build(CBViLAForImageTextRetrieval, itm_weight=0.0)
    with pytest.raises(ValueError, match="trained without image-text matching"):
        CBViLAMatchingModule(model, tiny_processor())


def test_models_that_compare_nothing_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json: give the folder of a model"):
        write_sentence_transformers_files(tmp_path)
    shutil.copy(Path(bundled_checkpoint("cbvila-tiny-easyvqa"), "config.json"), tmp_path)
    with pytest.raises(ValueError, match="has no model whose texts and images can be compared"):
        write_sentence_transformers_files(tmp_path)
    build(CBViLAForImageTextRetrieval, itc_weight=0.0).save_pretrained(tmp_path / "no-itc")
    with pytest.raises(ValueError, match="has no model whose texts and images can be compared"):
        write_sentence_transformers_files(tmp_path / "no-itc")
