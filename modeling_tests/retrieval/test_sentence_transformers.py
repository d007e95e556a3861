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
    CBViLAModel,
    CBViLAProcessor,
    bundled_checkpoint,
    write_sentence_transformers_files,
)
from transformers_cbvila.retrieval.sentence_transformers_files import FILES

TEXTS = ["left half red", "right", "a green half is at the top ?"]
IMAGES = [half_image("red", "left"), half_image("blue", "top", 50)]


@pytest.fixture
def folder(tmp_path):
    build(CBViLAForImageTextRetrieval).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    write_sentence_transformers_files(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("bundled", [False, True])
def test_embeddings_are_those_of_the_model(folder, bundled):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = bundled_checkpoint("cbvila-tiny") if bundled else folder
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


def test_files_are_those_of_the_bundled_checkpoint(folder):
    for name, content in FILES.items():
        assert json.loads(Path(folder, name).read_text()) == content
        assert Path(bundled_checkpoint("cbvila-tiny"), name).read_text() == Path(folder, name).read_text()


def test_models_that_compare_nothing_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json: give the folder of a model"):
        write_sentence_transformers_files(tmp_path)
    shutil.copy(Path(bundled_checkpoint("cbvila-tiny-easyvqa"), "config.json"), tmp_path)
    with pytest.raises(ValueError, match="has no model whose texts and images can be compared"):
        write_sentence_transformers_files(tmp_path)
    build(CBViLAForImageTextRetrieval, itc_weight=0.0).save_pretrained(tmp_path / "no-itc")
    with pytest.raises(ValueError, match="has no model whose texts and images can be compared"):
        write_sentence_transformers_files(tmp_path / "no-itc")
