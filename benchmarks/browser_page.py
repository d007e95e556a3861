"""Measures a static page of generated scenes in Chromium: its size, what it takes, and how far it is from the model.

Prints megabytes, wall seconds from opening the page to its first results, of a search and of a step of drawing (one
thread of WebAssembly; comparable within one run only), and, over captions of the scenes, how often the page orders its
twelve best pictures as the model does in torch, and draws greedily the same visual words.
"""

import argparse
import shutil
import statistics
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from transformers_cbvila import CBViLAForPreTraining, CBViLAProcessor, CBViLARetriever
from transformers_cbvila.app.pictures import scene_pictures
from transformers_cbvila.bundled import checkpoint_source
from transformers_cbvila.retrieval.encoding import tokens_of

EXAMPLE = """example:
  cbvila publish --space my-name/scenes --static --output_dir runs/page
  python benchmarks/browser_page.py runs/page cbvila-scenes"""
SHOWN, STEPS = 12, 8
CODE = """
  const at = (name) => import(new URL(`js/${name}.js`, location.href));
  const [{ Graphs }, { Texts }, { fetchedJson }] = await Promise.all(['runtime', 'texts', 'files'].map(at));
  const graphs = new Graphs(await fetchedJson('model/export.json'));
  const texts = new Texts(await fetchedJson('model/tokenizer.json'), graphs.description.texts);
"""
SEARCH = f"""async ([asked, shown]) => {{ {CODE}
  const [{{ search }}, {{ loadGallery }}] = await Promise.all(['search', 'gallery'].map(at));
  const parts = {{ graphs, texts, gallery: await loadGallery() }};
  const found = [];
  for (const text of asked) {{
    const start = performance.now();
    const hits = await search(text, parts, shown);
    found.push({{ rows: hits.map(({{ row }}) => row), seconds: (performance.now() - start) / 1000 }});
  }}
  return found;
}}"""
DRAW = f"""async ([asked, options]) => {{ {CODE}
  const {{ drawn }} = await at('draw');
  const found = [];
  for (const caption of asked) {{
    const start = performance.now();
    let last = null;
    for await (const step of drawn(caption, {{ graphs, texts }}, options)) last = step.codes;
    found.push({{ codes: last, seconds: (performance.now() - start) / 1000 / options.steps }});
  }}
  return found;
}}"""


# As in modeling_tests/browser.py, which a script outside the tests cannot import.
class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *arguments: Any) -> None:
        """Says nothing."""


def run_in_chromium(folder: Path, captions: list[str]) -> dict[str, Any]:
    """Returns the seconds to the first results, and what the page finds and draws for captions."""
    from playwright.sync_api import sync_playwright

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, names)), None), args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.set_default_timeout(0)
        start = perf_counter()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_selector("#search-found li")
        first = perf_counter() - start
        greedy = {"steps": STEPS, "guidance": 1, "temperature": 0, "choiceTemperature": 0, "seed": 0}
        found, drawn = page.evaluate(SEARCH, [captions, SHOWN]), page.evaluate(DRAW, [captions, greedy])
        browser.close()
    server.shutdown()
    return {"first": first, "found": found, "drawn": drawn}


def expected_rows(source: str, captions: list[str]) -> list[list[int]]:
    """Returns the best pictures of each caption, as the model finds them in torch."""
    retriever = CBViLARetriever.from_pretrained(source, device="cpu")
    retriever.index([picture.image for picture in scene_pictures().items[:96]], progress=False)
    return retriever.search(text=captions, top_k=SHOWN).indices.tolist()


def expected_codes(source: str, captions: list[str]) -> torch.Tensor:
    """Returns the visual words (captions, N) that the model draws greedily, caption by caption."""
    model, processor = CBViLAForPreTraining.from_pretrained(source).eval(), CBViLAProcessor.from_pretrained(source)
    greedy = {"num_steps": STEPS, "temperature": 0, "choice_temperature": 0}
    drawn = [model.generate_images(*tokens_of(model, processor, [caption]), **greedy) for caption in captions]
    return torch.cat([images.codebook_indices for images in drawn])


def megabytes(folder: Path) -> float:
    """Returns the size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path, help="the staged page")
    parser.add_argument("model", help="folder, Hub id, or the name of a bundled checkpoint")
    parser.add_argument("--captions", type=int, default=96, help="how many captions of its scenes (default: 96)")
    asked = parser.parse_args()
    source = checkpoint_source(asked.model)
    captions = [picture.caption for picture in scene_pictures().items[: asked.captions]]
    sizes = {name: megabytes(asked.page / name) for name in ("model", "gallery", "onnxruntime-web")}
    print(f"{megabytes(asked.page):.1f} MB:", ", ".join(f"{name} {size:.1f}" for name, size in sizes.items()))
    got = run_in_chromium(asked.page, captions)
    search, step = (statistics.median(each["seconds"] for each in got[name]) for name in ("found", "drawn"))
    print(f"first results {got['first']:.1f} s, a search {search:.2f} s, a step of drawing {step:.3f} s")
    pairs = list(zip((each["rows"] for each in got["found"]), expected_rows(source, captions), strict=True))
    best, order = sum(a[0] == b[0] for a, b in pairs), sum(a == b for a, b in pairs)
    print(
        f"of {len(pairs)} searches {best} have the same best picture, and {order} the same {SHOWN} in the same order"
    )
    same = torch.tensor([each["codes"] for each in got["drawn"]]) == expected_codes(source, captions)
    whole = int(same.all(1).sum())
    print(f"of {len(same)} drawings {whole} are equal, and {100 * same.float().mean():.2f} % of the visual words")


if __name__ == "__main__":
    main()
