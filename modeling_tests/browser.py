"""Chromium for the tests of pages: Debian's or another that is installed, as Playwright's own may not be there."""

import os
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# A quiet browser that asks nobody anything; Chromium has no sandbox for root.
OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
]
# .ci/install fetches it, if npm is there.
_IS_STILL = """() => !document.querySelector('.pending') && document.getAnimations().every(
  (one) => one.playState !== 'running' || one.effect.getComputedTiming().iterations === Infinity)"""  # nothing fades
AXE = Path(__file__).parents[1] / ".cache" / "axe" / "package" / "axe.min.js"
SLOW = 60_000  # milliseconds that an assertion waits for: the machine may be busy


@contextmanager
def chromium():
    """Yields a headless Chromium of Playwright; skips the test where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (the extra dev has it)"
    )
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed (on Debian and Ubuntu: apt-get install chromium)")
    playwright.expect.set_options(timeout=SLOW)
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found, args=OPTIONS)
        yield browser
        browser.close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextmanager
def served(folder):
    """Yields the address at which a folder is served, as `python -m http.server` does it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def watched(browser, address, width, scheme):
    """Opens a page in a `light` or `dark` scheme; `problems` collects errors and addresses of other computers."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(SLOW)
    page.problems = []
    page.on("console", lambda said: page.problems.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda asked: None if is_local(asked.url, address) else page.problems.append(asked.url))
    page.goto(address)
    return page


def is_local(url, address):
    return url.startswith((address, "data:", "blob:"))


def violations(page):
    """What axe finds against the page that is shown, one line for each rule; [] without axe."""
    if not AXE.is_file():
        return []
    page.wait_for_function(_IS_STILL)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run({resultTypes: ['violations']}).then((result) => result.violations)")
    return [f"{one['id']}: {node['html'][:120]}" for one in found for node in one["nodes"]]


def assert_sound(page):
    """No error, nothing from other computers, nothing beside the screen, and nothing that axe minds."""
    assert page.problems == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    found = violations(page)
    assert not found, "\n".join(found)


def keep_screenshot(page, name):
    """Writes a screenshot into the folder that CBVILA_SCREENSHOTS names, if it does: `make screenshots`."""
    folder = os.environ.get("CBVILA_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.mouse.move(0, 0)
        page.evaluate("window.scrollTo(0, 0)")
        taken = Image.open(BytesIO(page.screenshot())).convert("RGB")
        taken.quantize(255).save(Path(folder, f"{name}.png"), optimize=True)  # a third of the size
