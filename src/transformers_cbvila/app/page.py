"""The page of the app: its tabs, and what leads from one to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..extras import require
from . import html
from .answering import Answering
from .ask_tab import AskTab, add_ask_tab
from .components import EVENT, still_html
from .draw_tab import Drawing, DrawTab, add_draw_tab
from .inside_tab import InsideTab, add_inside_tab
from .looking import Looking
from .models import AppModels
from .pictures import Pictures, asked_scenes
from .search_tab import SearchTab, add_search_tab
from .searching import PictureSearch

TITLE = "CB-ViLA"
_HEAD = "Pictures and words, through a codebook of visual words."
_FOOT = "Models: {models}. They run on this computer; nothing is sent anywhere."
_FOOT_OF_SPACE = "Models: {models}. They run on a server of Hugging Face, which your words and pictures are sent to."


def build_page(models: AppModels, pictures: Pictures, search: Any) -> Any:
    """Builds the page.

    Args:
        models: The models.
        pictures: The pictures to show.
        search: The [`PictureSearch`] in them; None if no model can.

    Returns:
        The `gradio.Blocks`, not launched.

    Raises:
        ImportError: If Gradio is not installed.
    """
    gr = require("gradio")
    drawn_by: Any = models.drawing
    looked_into: Any = models.looking
    answering: Any = models.answering
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        still_html(gr, f"<header><h1>{TITLE}</h1>{html.note(_HEAD)}</header>")
        with gr.Tabs(elem_id="tabs") as tabs:
            searching = _tab(gr, "Search", "search", models.why_not_search(), lambda: add_search_tab(gr, search))
            asking = _tab(
                gr,
                "Ask",
                "ask",
                models.why_not_ask(),
                lambda: add_ask_tab(gr, Answering(answering), asked_scenes()),
            )
            drawing = _tab(
                gr,
                "Draw",
                "draw",
                models.why_not_draw(),
                lambda: add_draw_tab(gr, Drawing(drawn_by, models.reranker)),
            )
            inside = _tab(
                gr,
                "Look inside",
                "inside",
                models.why_not_look(),
                lambda: add_inside_tab(gr, Looking(looked_into, pictures)),
            )
        foot = _FOOT if page.space_id is None else _FOOT_OF_SPACE
        still_html(gr, f"<footer>{html.note(foot.format(models=', '.join(models.names)))}</footer>")
        if searching:
            _link_search(gr, tabs, search, searching, asking, drawing, inside)
        if drawing and inside:
            _link_drawing(gr, tabs, drawing, inside)
        filled = None  # one tab after the other: the first is seen first
        for tab in filter(None, (searching, asking, drawing, inside)):
            function, inputs, outputs = tab.start
            filled = (filled.then if filled else page.load)(function, inputs, outputs, **EVENT)
    return page


def _tab(gr: Any, label: str, name: str, why_not: str, add: Callable[[], Any]) -> Any:
    """Adds a tab with what `add` puts there, and returns that; or with the reason why there is nothing, and None."""
    with gr.Tab(label, id=name):
        if not why_not:
            return add()
        still_html(gr, html.note(why_not, "problem"))
        return None


def _link_search(
    gr: Any,
    tabs: Any,
    search: PictureSearch,
    searching: SearchTab,
    asking: AskTab | None,
    drawing: DrawTab | None,
    inside: InsideTab | None,
) -> None:
    """Adds the buttons that take a picture that was found to other tabs."""

    def image(number: int | None) -> Any:
        return None if number is None else search.picture(number).image

    def caption(number: int | None, text: str) -> str:
        return "" if number is None else text.strip() or search.picture(number).caption

    with searching.links:
        if asking:
            _take(gr, "Ask about it", tabs, "ask", image, [searching.chosen], [asking.picture], asking.answer)
        if drawing:
            _take(gr, "Redraw a part", tabs, "draw", image, [searching.chosen], [drawing.state], drawing.brought)
        if inside:
            _take(
                gr,
                "Look inside",
                tabs,
                "inside",
                lambda number, text: (image(number), caption(number, text)),
                [searching.chosen, searching.text],
                [inside.picture, inside.caption],
                inside.look,
            )


def _link_drawing(gr: Any, tabs: Any, drawing: DrawTab, inside: InsideTab) -> None:
    """Adds the button that takes a picture that was drawn to the tab that shows its visual words."""
    with drawing.links:
        _take(
            gr,
            "Look inside",
            tabs,
            "inside",
            lambda picture, text: (picture, text),
            [drawing.state, drawing.caption],
            [inside.picture, inside.caption],
            inside.look,
        )


def _take(
    gr: Any,
    label: str,
    tabs: Any,
    tab: str,
    what: Any,
    inputs: list[Any],
    outputs: list[Any],
    then: tuple[Any, list[Any], list[Any]],
) -> None:
    """Adds a button that opens a tab, puts something into it, and runs what the tab does with it."""
    function, its_inputs, its_outputs = then
    gr.Button(label, size="sm", min_width=100).click(lambda: gr.Tabs(selected=tab), None, [tabs], **EVENT).then(
        what, inputs, outputs, **EVENT
    ).then(function, its_inputs, its_outputs, **EVENT)
