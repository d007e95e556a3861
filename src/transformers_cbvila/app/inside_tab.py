"""The tab in which one looks inside a picture: its visual words, what is rebuilt from them, and where words look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image

from ..pages.document import percent
from . import html
from .components import EVENT, explained, live_html, picture_input, reading_event, saying_what_is_wrong, still_html
from .looking import Look, Looking, VisualWord
from .pictures import Picture

LEAD = (
    "A visual word is one of {number} entries of the model’s codebook: it stands for patches that look alike, as a "
    "word stands for things. Press a patch to see its visual word, where else it occurs, and which words go with it."
)
_EXAMPLES = 8


class InsideTab(NamedTuple):
    """What other tabs are linked with.

    Args:
        picture: The picture.
        caption: Its caption.
        look: What looks inside it, with its inputs and outputs.
        start: What fills the tab when the page is opened, likewise.
    """

    picture: Any
    caption: Any
    look: tuple[Any, list[Any], list[Any]]
    start: tuple[Any, list[Any], list[Any]]


def words_html(look: Look) -> str:
    """Returns the picture with a button over each patch, and what is known of each visual word that it has."""
    rows, columns = look.codes.shape
    codes = look.codes.ravel().tolist()
    labels = [
        f"Row {place // columns + 1}, column {place % columns + 1}: visual word {code}"
        for place, code in enumerate(codes)
    ]
    title = f"{len(codes)} patches, {len(look.words)} different visual words"
    grid = html.patches(look.image, (rows, columns), "patch", labels, codes)
    first = _most_telling(look)
    about = "".join(_word_html(word, code == first) for code, word in look.words.items())
    return f'{html.heading(title)}<div class="inside">{grid}<div class="about" aria-live="polite">{about}</div></div>'


def _most_telling(look: Look) -> int:
    """Returns the rarest visual word that the picture has: the background is the most frequent."""
    return min(look.words.values(), key=lambda word: (not word.words, word.share)).code


def _word_html(word: VisualWord, is_shown: bool) -> str:
    hidden = "" if is_shown else " hidden"
    said = f"{percent(word.share, 1)} of all patches have it."
    if word.words:
        said += f" It goes with the words {', '.join(f'“{text}”' for text in word.words)}."
    crops = "".join(html.picture(_enlarged(patch), "") for patch in word.patches)
    label = "Patches of other pictures that have it"
    return (
        f'<section class="word" data-code="{word.code}"{hidden}><h3>Visual word {word.code}</h3>{html.note(said)}'
        f'<div class="crops" role="img" aria-label="{label}">{crops}</div></section>'
    )


def _enlarged(patch: Image.Image) -> Image.Image:
    zoom = max(1, 32 // patch.width)
    return patch.resize((patch.width * zoom, patch.height * zoom), Image.Resampling.NEAREST)


def rebuilt_html(look: Look) -> str:
    """Returns the picture beside what is rebuilt from its visual words, and from some of them."""
    rebuilt, title = look.rebuilt, html.heading("What is left of the picture in its visual words")
    if rebuilt is None:
        return title + html.note("This model was trained without rebuilding pictures.")
    pictures = [
        (look.image, "the picture"),
        (rebuilt.from_words, "rebuilt from its visual words"),
        (rebuilt.masked, f"{percent(rebuilt.hidden, 0)} of its patches hidden"),
        (rebuilt.guessed, "guessed from the rest and the caption"),
    ]
    figures = "".join(html.figure(Image.fromarray(array), caption) for array, caption in pictures)
    return f'{title}<div class="rebuilt">{figures}</div>'


def maps_html(look: Look) -> str:
    """Returns a heat map for each word of the caption."""
    title = html.heading("Where each word of the caption looks")
    if look.explanation is None:
        return title + html.note("Write a caption of the picture to see it.")
    return title + html.heat_maps(look.explanation)


def add_inside_tab(gr: Any, looking: Looking) -> InsideTab:
    """Adds what is in the tab."""
    explained(gr, LEAD.format(number=f"{looking.num_codes:,}"))
    pictures = looking.pictures.items[:_EXAMPLES]
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            picture = picture_input(gr, "inside-picture")
            examples = live_html(gr, "choices.js", "inside-examples", _examples_html(pictures))
            caption = gr.Textbox(
                "", label="Caption", placeholder="what the picture shows", submit_btn="Look", elem_id="inside-caption"
            )
        with gr.Column(scale=3):
            words = live_html(gr, "visual_words.js", "inside-words")
    rebuilt = still_html(gr, name="inside-rebuilt")
    maps = still_html(gr, name="inside-maps")
    shown, query = [words, rebuilt, maps], [picture, caption]

    @saying_what_is_wrong("", "")
    def look(image: Any, caption: str) -> tuple[str, str, str]:
        found = looking.look(image, caption)
        return words_html(found), rebuilt_html(found), maps_html(found)

    def example(number: int) -> tuple[Any, ...]:
        return pictures[number].image, pictures[number].caption, _examples_html(pictures, number)

    def choose(event: Any) -> tuple[Any, ...]:
        return example(int(event.number))

    def forget_example() -> tuple[str, str]:
        return "", _examples_html(pictures)

    caption.submit(look, query, shown, **EVENT)
    examples.click(reading_event(gr, choose), None, [picture, caption, examples], **EVENT).then(
        look, query, shown, **EVENT
    )
    picture.upload(forget_example, None, [caption, examples], **EVENT).then(look, query, shown, **EVENT)

    def look_brought(image: Any, caption: str) -> tuple[str, ...]:
        return _examples_html(pictures), *look(image, caption)

    def start() -> tuple[Any, ...]:
        filled = example(0)
        return *filled, *look(filled[0], filled[1])

    brought = (look_brought, query, [examples, *shown])
    return InsideTab(picture, caption, brought, (start, [], [picture, caption, examples, *shown]))


def _examples_html(pictures: Sequence[Picture], chosen: int | None = None) -> str:
    cards = [html.Card(place, one.image, one.name) for place, one in enumerate(pictures)]
    return html.cards(cards, "Pictures to look inside", chosen)
