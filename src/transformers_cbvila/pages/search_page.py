"""Writes an HTML page, in a single file, of what a search found and why it matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from ..explaining.explanation import Explanation
from ..explaining.visual_words import SharedCode, SharedCodes
from .document import counted, html_page, image_tag, percent
from .heat_maps import heat_map_figures

_SIDE = 320  # pixels of the longer side of a picture, at most


@dataclass(frozen=True)
class SearchHit:
    """A picture that was found.

    Args:
        name: What it is called.
        image: The picture.
        score: Its score.
        probability: How probably it matches, if that is known.
        folded: How many near-duplicates it stands for.
        explanation: Where the words of the text look in it, if there is a text.
        shared: The visual words that it shares with the picture of the query, if there is one.
    """

    name: str
    image: Image.Image
    score: float
    probability: float | None = None
    folded: int = 0
    explanation: Explanation | None = None
    shared: SharedCodes | None = None


@dataclass(frozen=True)
class SearchQuery:
    """What was searched for.

    Args:
        text: The text, if any.
        image: The picture, if any.
        without: What was not wanted, in words; empty if nothing.
        searched: How many pictures were searched.
    """

    text: str | None
    image: Image.Image | None
    without: str
    searched: int


def write_search_page(path: Path | str, query: SearchQuery, hits: Sequence[SearchHit], note: str = "") -> Path:
    """Writes the pictures that were found, with a heat map for each word and the visual words that they share.

    Args:
        path: The HTML file; its folder is made if it does not exist.
        query: What was searched for.
        hits: What was found, best first.
        note: What to say of the result as a whole, plain text.

    Returns:
        The path.
    """
    body = [_asked(query), f'<p class="soft">{escape(note)}</p>' if note else ""]
    body += [_hit(hit, number) for number, hit in enumerate(hits, start=1)]
    if any(hit.explanation is not None for hit in hits):
        body.append(_HOW)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    html = html_page("What the search found", "\n".join(body), "explanation.css", "search.css")
    path.write_text(html, encoding="utf-8")
    return path


_HOW = """<p class="soft how">Heat maps are Grad-CAM of the matching score: attention to a patch counts where more of
it would raise the score. Each word has its own scale; the percentage is its part of the attention of all words.</p>"""


def _asked(query: SearchQuery) -> str:
    picture = "" if query.image is None else image_tag(_small(query.image), "The picture that was asked for")
    text = "" if query.text is None else f"“{escape(query.text)}”"
    without = f"without {escape(query.without)}" if query.without else ""
    words = " ".join(part for part in (text, without) if part)
    return f"""<div class="query">{picture}<p class="soft">{words}</p></div>
<p class="soft">{counted(query.searched, "picture")} searched.</p>"""


def _hit(hit: SearchHit, number: int) -> str:
    facts = [f"score {hit.score:z.4f}"]
    if hit.probability is not None:
        facts.append(f"probability {percent(hit.probability, 1)}")
    if hit.folded:
        facts.append(f"stands for {counted(hit.folded, 'near-duplicate')} more")
    why = [] if hit.explanation is None else [f'<div class="heat grid">{heat_map_figures(hit.explanation)}</div>']
    if hit.shared is not None:
        why.append(_shared(hit.shared))
    picture = image_tag(_small(hit.image), f"Picture {number}: {hit.name}")
    return f"""<section class="hit"><h2>{number}. {escape(hit.name)}</h2>
<p class="soft">{", ".join(facts)}</p>
<div class="found">{picture}<div>{"".join(why)}</div></div></section>"""


def _shared(shared: SharedCodes) -> str:
    return f"""<p class="soft">Visual words shared with the picture asked for: they pair {percent(shared.share, 0)} of
the patches.</p><ul class="shared">{"".join(map(_shared_code, shared.codes))}</ul>"""


def _shared_code(found: SharedCode) -> str:
    whose = ("the picture asked for", "this picture")
    patches = "".join(
        image_tag(Image.fromarray(patch), f"A patch of {picture} with code {found.code}")
        for patch, picture in zip(found.patches, whose, strict=True)
    )
    first, second = found.counts
    return f'<li>{patches}code {found.code} <span class="soft">{first} and {second} patches</span></li>'


def _small(image: Image.Image) -> Image.Image:
    """Returns a picture, made smaller if it is large."""
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE))
    return small
