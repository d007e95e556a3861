"""The tab in which pictures are searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..pages.document import counted, percent
from . import html
from .components import EVENT, explained, live_html, reading_event, saying_what_is_wrong, still_html
from .searching import Match, PictureSearch

LEAD = (
    "Say what you are looking for: the model compares your words with every picture. "
    "Press a picture to see where each word looks."
)

_RANK_AND_SCORE = "Below a picture are its rank and its score"
_IMPROBABLE, _ALONE = "No picture is that probable: nothing here matches.", "There is no other picture."


class SearchTab(NamedTuple):
    """What other tabs are linked with.

    Args:
        chosen: State with the number of the chosen picture, or None.
        text: What is looked for.
        links: Where buttons that take the chosen picture elsewhere go.
        start: What fills the tab when the page is opened, with its inputs and outputs.
    """

    chosen: Any
    text: Any
    links: Any
    start: tuple[Any, list[Any], list[Any]]


def results_html(
    search: PictureSearch, matches: Sequence[Match], chosen: int | None = None, like: int | None = None
) -> str:
    """Returns the pictures that were found, as cards."""
    title = html.heading("Found" if like is None else f"Like “{search.picture(like).name}”")
    if not matches:
        return title + html.note(_IMPROBABLE if like is None else _ALONE)
    cards = []
    for rank, match in enumerate(matches, 1):
        picture = search.picture(match.number)
        cards.append(html.Card(match.number, picture.image, picture.name, _caption(rank, match)))
    return title + html.cards(cards, "Pictures that were found, the best first", chosen)


def why_html(search: PictureSearch, number: int | None, text: str) -> str:
    """Returns the chosen picture with a heat map for each word of the text."""
    if number is None:
        return ""
    picture = search.picture(number)
    parts = [html.heading("Why this picture?"), html.figure(picture.image, picture.name)]
    if not text.strip():
        return "".join([*parts, html.note("It was found by its likeness. Search by words to see where they look.")])
    explanation = search.why(number, text)
    if explanation is None:
        return "".join([*parts, html.note("This model compares pictures and words without reading them together.")])
    parts.append(html.note(f"Where the model looks in it for each word of “{text.strip()}”:"))
    return "".join([*parts, html.heat_maps(explanation)])


def origin_html(search: PictureSearch) -> str:
    """Says what is searched, and what was left out."""
    pictures = search.pictures
    numbers = "Below a picture are its rank and how probably it matches" if search.is_calibrated else _RANK_AND_SCORE
    if pictures.are_scenes:
        return html.note(f"{len(pictures.items)} generated pictures, none of them from training. {numbers}.")
    said = html.note(f"{counted(len(pictures.items), 'picture')} of a folder. {numbers}.")
    if pictures.left_out:
        names = ", ".join(pictures.left_out[:3]) + (" …" if len(pictures.left_out) > 3 else "")
        said += html.note(
            f"{counted(len(pictures.left_out), 'file')} could not be read and left out: {names}", "problem"
        )
    return said


def add_search_tab(gr: Any, search: PictureSearch) -> SearchTab:
    """Adds what is in the tab."""
    explained(gr, LEAD)
    like, found, chosen = gr.State(None), gr.State([]), gr.State(None)
    with gr.Row():
        with gr.Column(scale=3):
            query = _add_query(gr, search)
            results = live_html(gr, "choices.js", "search-results")
            still_html(gr, origin_html(search))
        with gr.Column(scale=2, min_width=280, elem_id="search-why"):
            why = still_html(gr, name="search-explanation")
            with gr.Row(elem_classes="links") as links:
                more = gr.Button("More like this", size="sm", min_width=100)

    answers = _Answers(search)
    shown, asked = [results, why, found, chosen, like], [query.text, query.unwanted, query.least]
    gr.on([query.text.submit, query.least.release, query.unwanted.submit], answers.to_text, asked, shown, **EVENT)
    for example in query.examples:
        example.click(lambda words=example.value: (words, ""), None, asked[:2], **EVENT).then(
            answers.to_text, asked, shown, **EVENT
        )
    more.click(lambda: ("", ""), None, asked[:2], **EVENT).then(answers.to_likeness, [chosen], shown, **EVENT)
    choose = reading_event(gr, answers.to_choice)
    results.click(choose, [query.text, found, like], [results, why, chosen], **EVENT).then(
        None, js="() => document.querySelector('#search-why').scrollIntoView({block: 'nearest', behavior: 'smooth'})"
    )
    return SearchTab(chosen, query.text, links, (answers.start, [], [query.text, *shown]))


class _Query(NamedTuple):
    """What is looked for: the inputs, and buttons with examples."""

    text: Any
    unwanted: Any
    least: Any
    examples: list[Any]


def _add_query(gr: Any, search: PictureSearch) -> _Query:
    """Adds the inputs of a search."""
    text = gr.Textbox(
        "",
        label="What are you looking for?",
        placeholder="such as: a blue circle",
        submit_btn="Search",
        elem_id="search-text",
    )
    with gr.Row(elem_classes="examples"):
        examples = [gr.Button(example, size="sm", min_width=100) for example in search.examples]
    with gr.Accordion("More ways to search", open=False):
        unwanted = gr.Textbox("", label="But not", placeholder="such as: a green square")
        least = gr.Slider(0, 0.95, 0, step=0.05, label="Least probability of a match", visible=search.is_calibrated)
    return _Query(text, unwanted, least, examples)


class _Answers:
    """What the tab shows after each event.

    To a query that is results, explanation, matches, the number of the chosen picture, and that of the one they are
    like.
    """

    def __init__(self, search: PictureSearch) -> None:
        self._search = search

    def start(self) -> tuple[Any, ...]:
        """Returns a text to begin with, and what it finds; of pictures without captions what is like the first."""
        examples = self._search.examples
        return (examples[0], *self.to_text(examples[0], "", 0)) if examples else ("", *self.to_likeness(0))

    @saying_what_is_wrong("", [], None, None)
    def to_text(self, text: str, unwanted: str, least: float) -> tuple[Any, ...]:
        """Returns the pictures that match a text."""
        return self._to_query(text, unwanted, least, None)

    @saying_what_is_wrong("", [], None, None)
    def to_likeness(self, number: int | None) -> tuple[Any, ...]:
        """Returns the pictures that are like one."""
        return self._to_query("", "", 0, number)

    @saying_what_is_wrong("", None)
    def to_choice(self, text: str, matches: list[Match], like: int | None, event: Any) -> tuple[Any, ...]:
        """Returns the same pictures, another one of them chosen and explained."""
        number = int(event.number)
        return results_html(self._search, matches, number, like), why_html(self._search, number, text), number

    def _to_query(self, text: str, unwanted: str, least: float, like: int | None) -> tuple[Any, ...]:
        matches = self._search.find(text, unwanted, like, least)
        best = matches[0].number if matches else None
        return results_html(self._search, matches, best, like), why_html(self._search, best, text), matches, best, like


def _caption(rank: int, match: Match) -> str:
    if match.probability is not None:
        return f"{rank} · {percent(match.probability, 0)}"
    return f"{rank} · {match.score:z.2f}"
