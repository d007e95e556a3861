"""The HTML of a page that searches and draws."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..pages.document import counted, html_page

# A page that is opened from a disk may not load modules: it would stay empty without a word.
_END = """<script>
if (location.protocol === 'file:') document.getElementById('search-said').textContent =
  'Browsers run this page over HTTP only: start “python -m http.server” in its folder, and open http://localhost:8000.';
</script>
<script type="module" src="js/page.js"></script>"""
_LOADING = """<div class="loading" id="loading" hidden>
<label for="loading-bar">Loading</label><progress id="loading-bar" max="1" value="0"></progress>
<span class="soft" id="loading-size"></span></div>"""
_NO_ICON = '<link rel="icon" href="data:,">'  # servers of files have none to give
_STEPS = 8  # most of what one sees has settled by then


def render_page(
    title: str,
    model: str,
    pictures: int,
    limits: str,
    examples: Sequence[str],
    drawn: tuple[Sequence[str], int] | None,
) -> str:
    """Renders index.html.

    Args:
        title: Its title.
        model: The name of the model.
        pictures: How many pictures there are to search in.
        limits: What the model cannot do; empty if nobody says it.
        examples: Texts to press, instead of writing one, to search for.
        drawn: The same to draw, and how many steps a drawing may take; None for a model that does not draw.
    """
    does = "search" if drawn is None else "search and drawing"
    about = f"{does} with the model {model}, which runs here, in your browser: what you write goes nowhere."
    body = [f'<p class="soft">{escape(about[0].upper() + about[1:])}</p>', _LOADING, _search(pictures, examples)]
    if drawn is not None:
        body.append(_draw(*drawn))
    if limits:
        body.append(f'<section aria-labelledby="limits"><h2 id="limits">Limits</h2><p>{escape(limits)}</p></section>')
    return html_page(title, "\n".join([*body, _END]), "static_page.css", head=_NO_ICON)


def _search(pictures: int, examples: Sequence[str]) -> str:
    return f"""<section aria-labelledby="search-title">
<h2 id="search-title">Search {counted(pictures, "picture")}</h2>
{_form("search", "What are you looking for?", "Search", examples)}
<ol class="found" id="search-found"></ol>
</section>"""


def _draw(examples: Sequence[str], most_steps: int) -> str:
    return f"""<section aria-labelledby="draw-title">
<h2 id="draw-title">Draw</h2>
{_form("draw", "What shall it draw?", "Draw", examples, _how(most_steps))}
<figure class="drawn"><canvas id="draw-picture" role="img" aria-label="Nothing is drawn yet" hidden></canvas>
<figcaption id="draw-step">The model fills a grid of patches with visual words, the surest first, and paints them.
</figcaption></figure>
<ol class="film" id="draw-film" aria-label="Steps"></ol>
</section>"""


def _how(most_steps: int) -> str:
    return f"""<details><summary>How it draws</summary><div class="how-drawn">
<label for="draw-seed">Seed</label>
<input id="draw-seed" type="number" min="0" step="1" value="0" required><span></span>
<label for="draw-steps">Steps</label>
<input id="draw-steps" type="range" min="1" max="{most_steps}" value="{min(_STEPS, most_steps)}">
<output id="draw-steps-value" for="draw-steps"></output>
<label for="draw-guidance">Guidance</label>
<input id="draw-guidance" type="range" min="1" max="5" step="0.5" value="1">
<output id="draw-guidance-value" for="draw-guidance"></output>
</div></details>"""


def _form(name: str, label: str, action: str, examples: Sequence[str], options: str = "") -> str:
    buttons = "".join(f'<li><button type="button">{escape(text)}</button></li>' for text in examples)
    chips = f'<ul class="examples" id="{name}-examples" aria-label="Examples">{buttons}</ul>' if examples else ""
    return f"""<form id="{name}-form">
<label for="{name}-text">{escape(label)}</label>
<div class="ask"><input id="{name}-text" type="text" autocomplete="off"><button type="submit">{action}</button></div>
{chips}{options}</form>
<p class="said" id="{name}-said" role="status"></p>"""
