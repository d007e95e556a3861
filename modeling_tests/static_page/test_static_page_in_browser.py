"""The page in Chromium, at a desk and on a dark phone: what a visitor presses, and what appears."""

import browser
import pytest

DESK, PHONE = (1280, "light"), (390, "dark")


@pytest.fixture(scope="module")
def address(page_folder):
    with browser.served(page_folder) as address:
        yield address


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def page(request, chromium, address):
    page = browser.watched(chromium, address, *request.param)
    yield page
    page.context.close()


def test_a_visitor_searches_and_draws(page):
    from playwright.sync_api import expect

    hits, said = page.locator("#search-found li"), page.locator("#search-said")
    expect(said).to_contain_text("The best 8 of 8 pictures for “left half red”, each with the probability")
    expect(hits).to_have_count(8)
    expect(hits.first).to_contain_text("%")
    assert (
        sorted(hits.get_by_role("img").nth(place).get_attribute("alt") for place in range(8))[0] == "bottom blue.png"
    )
    expect(page.locator("#loading")).to_be_hidden()

    page.get_by_role("button", name="top half blue").first.press("Enter")
    expect(said).to_contain_text("for “top half blue”")
    page.get_by_label("What are you looking for?").fill("a half")
    page.get_by_label("What are you looking for?").press("Enter")
    expect(said).to_contain_text("for “a half”")
    page.get_by_label("What are you looking for?").fill("xylophone")
    page.get_by_label("What are you looking for?").press("Enter")
    expect(said).to_contain_text("The model knows none of these words.")
    page.get_by_label("What are you looking for?").fill("  ")
    page.get_by_role("button", name="Search").click()
    expect(said).to_have_text("Write something first, or press an example.")
    browser.assert_sound(page)

    film = page.locator("#draw-film button")
    page.locator("#draw-examples button").first.click()
    expect(page.locator("#draw-said")).to_have_text("“left half red” is drawn.")
    expect(film).to_have_count(8)
    expect(page.locator("#draw-step")).to_have_text("step 8 of 8: 16 of 16 patches settled")
    film.first.press("Enter")
    expect(film.first).to_have_attribute("aria-pressed", "true")
    expect(film.last).to_have_attribute("aria-pressed", "false")
    expect(page.get_by_role("img", name="“left half red” after step 1 of 8")).to_be_visible()
    page.get_by_text("How it draws").click()
    page.get_by_label("Steps", exact=True).first.fill("3")
    page.get_by_label("Seed").fill("5")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(film).to_have_count(3)
    browser.assert_sound(page)


@pytest.fixture
def broken_page(chromium, address):
    """Opens the page without a file."""
    contexts = []

    def open_page(name):
        contexts.append(chromium.new_context())
        page = contexts[-1].new_page()
        page.route(f"**/{name}", lambda route: route.fulfill(status=404))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("model/matching.onnx", "The file model/matching.onnx of this page cannot be loaded (404"),
        ("onnxruntime-web/*.wasm", "The file onnxruntime-web/ort-wasm-simd-threaded.wasm of this page cannot be"),
        ("gallery/states/*", "The file gallery/states/"),
        ("onnxruntime-web/*.mjs", "The model cannot be run here"),
    ],
)
def test_a_page_without_a_file_says_so(missing, sentence, broken_page):
    from playwright.sync_api import expect

    page = broken_page(missing)
    expect(page.locator("#search-said.problem")).to_contain_text(sentence)
    if missing.startswith("gallery"):  # the rest of the page is alive, and what was missing is asked for again
        page.unroute("**/gallery/states/*")
        page.get_by_role("button", name="Search").click()
        expect(page.locator("#search-said")).to_contain_text("The best 8 of 8 pictures")


def test_a_page_that_is_opened_from_a_disk_says_how_to_serve_it(chromium, page_folder):
    from playwright.sync_api import expect

    page = chromium.new_page()
    page.goto((page_folder / "index.html").as_uri())
    expect(page.locator("#search-said")).to_contain_text("start “python -m http.server” in its folder")
    page.close()
