"""What pages, cards, examples and help show of scenes is something that the bundled models were trained on.

A red circle, for one, is a kind that `test_compositional` keeps from training: a reader who draws it, as the README
once did, is told that there is no circle.
"""

import re
from itertools import product
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from transformers import pipeline

from transformers_cbvila import CBViLARetriever, bundled_checkpoint, load_pairs
from transformers_cbvila.data.scenes.held_out import UNSEEN, is_held_out, is_held_out_pair
from transformers_cbvila.data.scenes.words import KINDS, SYNONYMS

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "transformers_cbvila"
ABOUT_THE_SPLIT = {"study.md", "scenes.md", "glossary.md"}
FLAGSHIP = "a blue circle left of a red square"


def shown_files():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "hub_cards").glob("*.md")]
    examples = [*(ROOT / "examples").glob("*.py"), *(ROOT / "examples").glob("*.ipynb")]
    help_texts = [path for part in ("app", "cli", "retrieval", "space") for path in (SOURCES / part).glob("*.py")]
    cards = SOURCES.glob("checkpoints/*/README.md")
    return [path for path in (*pages, *examples, *help_texts, *cards) if path.name not in ABOUT_THE_SPLIT]


def phrases(kind):
    words = (SYNONYMS.get(word, (word,)) for word in (kind.color, kind.shape))
    return {" ".join(pair) for pair in product(*words)}


def held_out_kinds_in(text):
    return {phrase for kind in UNSEEN for phrase in phrases(kind) if re.search(rf"\b{phrase}s?\b", text)}


def test_held_out_kinds_are_found():
    assert held_out_kinds_in("two red disks, a big violet ring and a blue circle") == {"red disk", "violet ring"}


@pytest.mark.parametrize("path", shown_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_example_names_a_kind_that_training_never_saw(path):
    assert held_out_kinds_in(path.read_text(encoding="utf-8")) == set()


def test_the_pair_of_the_readme_is_seen_in_training():
    circle, square = (next(k for k in KINDS if tuple(k) == kind) for kind in (("blue", "circle"), ("red", "square")))
    assert FLAGSHIP in (ROOT / "README.md").read_text(encoding="utf-8")
    assert not any(map(is_held_out, (circle, square))) and not is_held_out_pair(circle, square)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("what color is the circle?", "blue"),
        ("what color is the square?", "red"),
        ("is there a circle?", "yes"),
        ("is there a star?", "no"),
        ("how many circles are there?", "1"),
        ("what shape is the blue one?", "circle"),
        ("is the circle left of the square?", "yes"),
        ("is the circle right of the square?", "no"),
    ],
)
def test_questions_about_the_picture_of_the_readme_are_answered_right(question, answer):
    image = Image.new("RGB", (64, 64), "lightgray")
    ImageDraw.Draw(image).ellipse((8, 24, 24, 40), fill="blue")
    ImageDraw.Draw(image).rectangle((40, 24, 56, 40), fill="red")
    ask = pipeline("visual-question-answering", model=bundled_checkpoint("cbvila-scenes-vqa"))
    assert ask(image, question)[0]["answer"] == answer


def test_the_search_of_the_readme_finds_a_picture_that_shows_it():
    rows = load_pairs("scenes[rows=100]", split="test")
    retriever = CBViLARetriever.from_pretrained("cbvila-scenes")
    retriever.index([row["image"] for row in rows])
    found = retriever.search(text=FLAGSHIP, top_k=3)
    assert found.probabilities[0] > 0.9 > 0.5 > found.probabilities[1]
    captions = rows[int(found.indices[0])]["captions"]
    assert any("blue circle" in caption and "red square" in caption for caption in captions)
