"""The app in a browser, at a desk and on a dark phone: what a visitor presses, and what appears."""

import browser
import pytest
from PIL import Image

from transformers_cbvila.app.pictures import scene_pictures

DESK, PHONE = (1280, "light"), (390, "dark")

# What the search offers: captions of its first pictures.
EXAMPLES = [picture.caption for picture in scene_pictures(4).items]


@pytest.fixture(scope="module")
def address():
    pytest.importorskip("gradio", reason="gradio is not installed (the extra app has it)")
    from transformers_cbvila.app.serving import serve_app

    page = serve_app(opens_browser=False, blocks=False)
    yield page.local_url
    page.close()


@pytest.fixture(scope="module", params=[DESK, PHONE], ids=["desk", "phone"])
def page(request, chromium, address):
    page = browser.watched(chromium, address, *request.param)
    yield page
    page.context.close()


def opened(page, tab):
    page.get_by_role("tab", name=tab, exact=True).click()
    return page


def test_search(page):
    from playwright.sync_api import expect

    opened(page, "Search")
    cards = page.locator("#search-results .card")
    expect(cards).to_have_count(12)
    expect(page.get_by_label("What are you looking for?")).to_have_value(EXAMPLES[0])
    expect(page.locator("#search-explanation .heat figure")).to_have_count(len(EXAMPLES[0].split()))
    if page.viewport_size["width"] == DESK[0]:
        browser.keep_screenshot(page, "search")
    browser.assert_sound(page)
    page.get_by_label("What are you looking for?").fill("a red ring")
    page.get_by_label("What are you looking for?").press("Enter")
    expect(page.locator("#search-explanation .heat figure")).to_have_count(3)
    page.get_by_role("button", name=EXAMPLES[2]).click()
    expect(page.locator("#search-explanation .heat figure")).to_have_count(len(EXAMPLES[2].split()))
    cards.nth(2).press("Enter")
    expect(cards.nth(2)).to_have_attribute("aria-pressed", "true")
    name = cards.nth(2).get_attribute("aria-label").partition(": ")[2]
    expect(page.locator("#search-explanation figcaption").first).to_have_text(name)
    page.get_by_role("button", name="More like this").click()
    expect(page.locator("#search-results h2")).to_have_text(f"Like “{name}”")
    page.get_by_label("What are you looking for?").press("Enter")
    expect(page.locator("#search-results .problem")).to_contain_text("Write what you are looking for")
    browser.assert_sound(page)


def test_ask(page):
    from playwright.sync_api import expect

    opened(page, "Ask")
    answers = page.locator("#ask-answers .bar")
    expect(answers.nth(1)).to_be_visible()
    expect(page.locator("#ask-answers .verdict")).to_be_visible()
    if page.viewport_size["width"] == DESK[0]:
        browser.keep_screenshot(page, "ask")
    answers.nth(1).click()
    expect(answers.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#ask-maps h2")).to_contain_text(answers.nth(1).get_attribute("data-text"))
    page.locator("#ask-examples .card").nth(3).click()
    expect(page.locator("#ask-examples .card").nth(3)).to_have_attribute("aria-pressed", "true")
    page.locator("#ask-questions .chip").nth(1).click()
    question = page.locator("#ask-questions .chip").nth(1).get_attribute("data-text")
    expect(page.locator("#ask-answers h2")).to_have_text(f"“{question}”")
    browser.assert_sound(page)


def test_ask_about_an_own_picture(page, tmp_path):
    from playwright.sync_api import expect

    opened(page, "Ask")
    expect(page.locator("#ask-answers .bar").first).to_be_visible()
    file = tmp_path / "own.png"
    Image.new("RGB", (90, 60), "red").save(file)
    page.get_by_role("button", name="Clear").or_(page.get_by_label("Remove Image")).first.click()
    page.locator("#ask-picture input[type=file]").set_input_files(file)
    expect(page.locator("#ask-questions .chip").first).to_have_text("what color is the circle?")
    expect(page.locator("#ask-examples .card[aria-pressed=true]")).to_have_count(0)
    assert page.problems == []


def test_draw(page):
    from playwright.sync_api import expect

    opened(page, "Draw")
    film = page.locator("#draw-film")
    expect(film.locator("[data-step]")).to_have_count(8)
    if page.viewport_size["width"] == DESK[0]:
        browser.keep_screenshot(page, "draw")
    film.locator("[data-step]").first.click()
    expect(film.locator(".frame:visible figcaption")).to_contain_text("step 1 of 8")
    marks = page.locator("#draw-marks .mark")
    expect(page.locator("#draw-marks .mark[aria-pressed=true]")).to_have_count(marks.count() // 2)
    first, last = marks.first, marks.last  # the left half is marked
    first.click()
    last.press("Space")
    expect(first).to_have_attribute("aria-pressed", "false")
    expect(last).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Redraw the marked patches").click()
    expect(film.locator("h2")).to_have_text("“a big yellow star”")
    browser.assert_sound(page)


def test_look_inside(page):
    from playwright.sync_api import expect

    opened(page, "Look inside")
    patches = page.locator("#inside-words .patch")
    expect(page.locator("#inside-words .patch[aria-pressed=true]")).to_have_count(1)
    expect(page.locator("#inside-rebuilt figure")).to_have_count(4)
    if page.viewport_size["width"] == DESK[0]:
        browser.keep_screenshot(page, "inside")
    patches.nth(0).click()
    code = patches.nth(0).get_attribute("data-code")
    expect(page.locator("#inside-words .word:visible h3")).to_have_text(f"Visual word {code}")
    page.locator("#inside-examples .card").nth(1).click()
    expect(page.locator("#inside-examples .card").nth(1)).to_have_attribute("aria-pressed", "true")
    page.get_by_label("Caption").fill("red")
    page.get_by_label("Caption").press("Enter")
    expect(page.locator("#inside-maps figure")).to_have_count(1)
    browser.assert_sound(page)


def test_a_picture_that_was_found_goes_to_other_tabs(page):
    from playwright.sync_api import expect

    opened(page, "Search")
    page.get_by_role("button", name=EXAMPLES[1]).click()
    expect(page.locator("#search-explanation .heat figure")).to_have_count(len(EXAMPLES[1].split()))
    page.locator("#search-why").get_by_role("button", name="Look inside").click()
    expect(page.get_by_label("Caption")).to_have_value(EXAMPLES[1])
    expect(page.locator("#inside-maps figure")).to_have_count(len(EXAMPLES[1].split()))
    opened(page, "Search")
    page.get_by_role("button", name="Redraw a part").click()
    expect(page.locator("#draw-film h2")).to_have_text("Your picture")
    opened(page, "Search")
    page.get_by_role("button", name="Ask about it").click()
    expect(page.locator("#ask-examples .card[aria-pressed=true]")).to_have_count(0)
    expect(page.locator("#ask-answers .verdict")).to_have_count(0)
    expect(page.locator("#ask-answers .bar").first).to_be_visible()
    assert page.problems == []
