"""Pages that commands write, in a browser at a desk and on a dark phone: nothing is cut off, and axe minds nothing."""

import browser
import pytest
from tiny import build, half_image, pretraining_model, tiny_processor, tiny_rows

from transformers_cbvila import CBViLAForVisualReasoning
from transformers_cbvila.explaining.explain import explain, explain_batch
from transformers_cbvila.explaining.visual_words import codes_of_image, shared_codes
from transformers_cbvila.inspection.measure import inspect_pretraining
from transformers_cbvila.pages.codebook_page import write_codebook_page
from transformers_cbvila.pages.explanation_page import write_explanation_page
from transformers_cbvila.pages.search_page import SearchHit, SearchQuery, write_search_page

DESK, PHONE = (1280, "light"), (390, "dark")
_CUT_OFF = """() => [...document.querySelectorAll('section')].filter(
  (one) => one.scrollWidth > one.clientWidth).map((one) => one.querySelector('h2')?.textContent)"""


@pytest.fixture(scope="module")
def address(tmp_path_factory, chromium):
    folder, model, processor, rows = (
        tmp_path_factory.mktemp("pages"),
        pretraining_model(),
        tiny_processor(),
        tiny_rows(8),
    )
    figures = inspect_pretraining(model, processor, rows, progress=False, rerank_k=2)
    write_codebook_page(folder / "inspect.html", model, processor, rows, figures, progress=False)
    images, text = [row["image"] for row in rows], "left half red is it a half"
    codes = codes_of_image(model, processor, images[0])
    write_explanation_page(folder / "explain.html", explain(model, processor, images[0], text), codes=codes)
    reasoning = explain(build(CBViLAForVisualReasoning), processor, [images[0], half_image("blue", "top")], text)
    write_explanation_page(folder / "two-images.html", reasoning)
    found = explain_batch(model, processor, images[1:3], [text] * 2)
    shared = shared_codes(model, processor, images[0], images[1:3])
    hits = [
        SearchHit(f"{'sub-folder/' * 9}{row}.png", images[row], 0.5, 0.9, row, found[row - 1], shared[row - 1])
        for row in (1, 2)
    ]
    write_search_page(folder / "search.html", SearchQuery(text, images[0], "“a half”", 8), hits, "1 more below 50 %.")
    (folder / "favicon.ico").touch()  # which browsers ask servers for, and nobody asks a file
    with browser.served(folder) as address:
        yield address


@pytest.mark.parametrize("name", ["inspect", "explain", "two-images", "search"])
@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_pages_fit_the_screen(name, screen, chromium, address):
    page = browser.watched(chromium, f"{address}{name}.html", *screen)
    try:
        assert page.evaluate(_CUT_OFF) == []
        browser.assert_sound(page)
    finally:
        page.context.close()
