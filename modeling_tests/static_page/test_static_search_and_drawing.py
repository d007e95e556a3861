"""What the page's code computes in Chromium is what the model computes: search in two stages, and greedy drawing."""

import json
from pathlib import Path

import browser
import numpy as np
import pytest
import tiny
import torch

from transformers_cbvila import CBViLAForPreTraining, CBViLAProcessor, CBViLARetriever
from transformers_cbvila.model.decoding_steps_cbvila import hidden_counts
from transformers_cbvila.retrieval.encoding import GalleryEncoder, tokens_of

TEXTS = ["left half red", "top half blue", "Bottom HALF grey?", "a Zebra half", "red " * 40]
PARTS = """
  const [{ Graphs }, { Texts }, { fetchedJson }] =
    await Promise.all(['runtime', 'texts', 'files'].map((name) => import(`/js/${name}.js`)));
  const graphs = new Graphs(await fetchedJson('model/export.json'));
  const texts = new Texts(await fetchedJson('model/tokenizer.json'), graphs.description.texts);
"""
SEARCH = f"""async (asked) => {{ {PARTS}
  const [{{ search }}, {{ loadGallery }}] =
    await Promise.all(['search', 'gallery'].map((name) => import(`/js/${{name}}.js`)));
  const parts = {{ graphs, texts, gallery: await loadGallery() }};
  const found = [];
  for (const text of asked) found.push(await search(text, parts, 5));
  return found;
}}"""
DRAW = f"""async ([caption, options]) => {{ {PARTS}
  const {{ drawn }} = await import('/js/draw.js');
  const steps = [];
  for await (const {{ codes, hidden, pixels }} of drawn(caption, {{ graphs, texts }}, options)) {{
    steps.push({{ codes, hidden: [...hidden], pixels: [...pixels] }});
  }}
  return steps;
}}"""


@pytest.fixture(scope="module")
def page(chromium, page_folder):
    with browser.served(page_folder) as address:
        page = browser.watched(chromium, address, 1280, "light")
        yield page
        page.context.close()


@pytest.fixture(scope="module")
def other_page(chromium, staged, saved):
    """Of a model with two books that neither matches nor has probabilities."""
    folder = saved(itm_weight=0, quantizer_config={"type": "residual", "size": 8, "dim": 8, "depth": 2})
    with browser.served(staged(folder)) as address:
        page = browser.watched(chromium, address, 1280, "light")
        page.folder = folder
        yield page
        page.context.close()


@pytest.fixture(scope="module")
def sequential_page(chromium, staged, saved):
    """Of a model that predicts the second book knowing the first."""
    quantizer = {"type": "residual", "size": 8, "dim": 8, "depth": 2}
    folder = saved(itm_weight=0, quantizer_config=quantizer, objectives={"mim": {"head": "sequential"}})
    with browser.served(staged(folder)) as address:
        page = browser.watched(chromium, address, 1280, "light")
        page.folder = folder
        yield page
        page.context.close()


def files_of(pictures):
    return sorted(Path(pictures).iterdir())


def test_search_is_the_retrievers(page, model_folder, pictures):
    retriever = CBViLARetriever.from_pretrained(model_folder, device="cpu").index(files_of(pictures), progress=False)
    found, expected = page.evaluate(SEARCH, TEXTS), retriever.search(text=TEXTS, top_k=5)
    assert [[hit["row"] for hit in hits] for hits in found] == expected.indices.tolist()
    for name, numbers in (("score", expected.scores), ("probability", expected.probabilities)):
        np.testing.assert_allclose([[hit[name] for hit in hits] for hits in found], numbers.numpy(), atol=1e-4, rtol=0)


def test_search_by_similarity_alone_is_by_the_models_embeddings(other_page, pictures):
    model, processor = loaded(other_page.folder)
    images, texts = (
        GalleryEncoder(model, processor, kind, progress=False, keep_states=False).encode(items).embeds
        for kind, items in (("images", files_of(pictures)), ("texts", TEXTS))
    )
    scores, rows = (texts @ images.T).sort(dim=1, descending=True, stable=True)
    found = other_page.evaluate(SEARCH, TEXTS)
    assert [[hit["row"] for hit in hits] for hits in found] == rows[:, :5].tolist()
    np.testing.assert_allclose([[hit["score"] for hit in hits] for hits in found], scores[:, :5], atol=1e-4, rtol=0)
    assert {hit["probability"] for hits in found for hit in hits} == {None}


def loaded(folder):
    return CBViLAForPreTraining.from_pretrained(folder).eval(), CBViLAProcessor.from_pretrained(folder)


def assert_same_drawing(page, folder, caption, steps, guidance):
    model, processor = loaded(folder)
    ids, mask = tokens_of(model, processor, [caption])
    expected = model.generate_images(
        ids, mask, num_steps=steps, guidance_scale=guidance, temperature=0, choice_temperature=0
    )
    options = {"steps": steps, "guidance": guidance, "temperature": 0, "choiceTemperature": 0, "seed": 0}
    found = page.evaluate(DRAW, [caption, options])
    assert len(found) == steps
    for step, known in zip(found, expected.steps, strict=True):
        assert step["codes"] == known.codebook_indices.flatten().tolist()
        assert step["hidden"] == known.bool_masked_pos[0].int().tolist()
        pixels = model.detokenize(known.codebook_indices, ids, mask)
        np.testing.assert_allclose(step["pixels"], pixels.flatten().numpy(), atol=1e-4)
    assert len(np.unique(found[-1]["codes"])) > 2, "the model draws something"


@pytest.mark.parametrize(
    ("caption", "steps", "guidance"), [("left half red", 1, 1), ("a half", 5, 1), ("red", 4, 2.5)]
)
def test_greedy_drawing_is_the_models(page, model_folder, caption, steps, guidance):
    assert_same_drawing(page, model_folder, caption, steps, guidance)


def test_greedy_drawing_with_two_books_is_the_models(other_page):
    assert_same_drawing(other_page, other_page.folder, "top half blue", 4, 1.5)


def test_greedy_drawing_book_by_book_is_the_models(sequential_page):
    assert_same_drawing(sequential_page, sequential_page.folder, "top half blue", 4, 1.5)


def test_a_seed_draws_the_same_again_and_another_one_something_else(page):
    options = {"steps": 4, "guidance": 1, "temperature": 1, "choiceTemperature": 4.5}
    first, again, other = (page.evaluate(DRAW, ["red", {**options, "seed": seed}]) for seed in (3, 3, 4))
    assert first == again
    assert first[-1]["codes"] != other[-1]["codes"]
    assert [sum(step["hidden"]) for step in first] == hidden_counts(tiny.PATCHES, 4)


def test_steps_leave_as_many_patches_hidden_as_the_models(page):
    script = "async ([patches, steps]) => (await import('/js/draw.js')).hiddenCounts(patches, steps)"
    for patches, steps in ((64, 12), (16, 16), (9, 3), (196, 8), (5, 5)):
        assert page.evaluate(script, [patches, steps]) == hidden_counts(patches, steps)


def test_pictures_are_the_processors(page, model_folder):
    processor, pixels = CBViLAProcessor.from_pretrained(model_folder), tiny.tiny_images(1)
    (expected,) = processor.postprocess(pixels)
    script = """async ([pixels, images]) => [...(await import('/js/pictures.js')).toRgba(pixels, images)]"""
    images = json.loads(page.evaluate("fetch('/model/export.json').then((answer) => answer.text())"))["images"]
    found = np.array(page.evaluate(script, [pixels.flatten().tolist(), images])).reshape(tiny.SIDE, tiny.SIDE, 4)
    assert np.abs(found[..., :3] - np.asarray(expected, dtype=int)).max() <= 1
    assert (found[..., 3] == 255).all()


def test_the_model_is_checked_against_itself():
    """Another model draws something else, so that equal codes mean something."""
    ids = torch.tensor([[tiny.CLS, 5, tiny.SEP]])
    one, other = (
        tiny.build(CBViLAForPreTraining, seed=seed).generate_images(ids, temperature=0, choice_temperature=0)
        for seed in (0, 1)
    )
    assert (one.codebook_indices != other.codebook_indices).any()
