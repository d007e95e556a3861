"""The page of an explanation, its heat maps, and the command that writes it."""

import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from tiny import build, half_image, pretraining_model, tiny_processor

from transformers_cbvila import CBViLAForMaskedImageModeling, CBViLAForVisualReasoning
from transformers_cbvila.cli import main
from transformers_cbvila.explaining.explain import explain
from transformers_cbvila.explaining.visual_words import codes_of_image, words_for_code
from transformers_cbvila.pages.explanation_page import write_explanation_page
from transformers_cbvila.pages.heat_maps import heat_colours, heat_map, place_of_maximum

PICTURE = half_image("red", "left")


class Tags(HTMLParser):
    """Collects images and texts, and holds that all tags are closed."""

    def __init__(self, html):
        super().__init__()
        self.images, self.texts, self.open = [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.images.append(dict(attributes))
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def size_of(image):
    return Image.open(BytesIO(b64decode(image["src"].removeprefix("data:image/png;base64,")))).size


def test_page_shows_a_map_of_each_word_and_escapes(tmp_path):
    model, processor, text = pretraining_model(), tiny_processor(), "<red> & left half pizza"
    found = explain(model, processor, PICTURE, text)
    codes = codes_of_image(model, processor, PICTURE)
    path = write_explanation_page(tmp_path / "new" / "page.html", found, "A <title>", codes)
    html = path.read_text(encoding="utf-8")
    page = Tags(html)
    assert "<red>" not in html and "“<red> & left half pizza”" in page.texts
    assert "http" not in html and "prefers-color-scheme: dark" in html
    assert all(image["alt"] for image in page.images)
    maps = [image for image in page.images if image["alt"].startswith("Heat map of")]
    assert [image["alt"].split(" over ")[0] for image in maps] == [
        f"Heat map of “{w}”" for w in ("red", "left", "half", "pizza")
    ]
    assert sum("not a word that the model knows" in text for text in page.texts) == 1
    assert {size_of(image) for image in maps} == {(320, 320)}
    assert "matching logit" in page.texts and f"{found.score:.2f}" in page.texts
    assert any(image["alt"].startswith("A patch with code") for image in page.images)


def test_page_shows_the_words_of_each_visual_word(tmp_path):
    model, processor = pretraining_model(), tiny_processor()
    found = explain(model, processor, PICTURE, "red left half")
    codes = codes_of_image(model, processor, PICTURE)
    html = write_explanation_page(tmp_path / "page.html", found, codes=codes).read_text(encoding="utf-8")
    section = html.partition("<h2>Words that go with a visual word</h2>")[2]
    rows = re.findall(r">code (\d+)</th><td>(.*?)</td><td>(.*?)</td>", section)
    assert sorted(int(code) for code, *_ in rows) == sorted(set(codes.ravel().tolist()))
    for code, patches, words in rows:
        having = [patch for patch, of_patch in enumerate(codes) if int(code) in of_patch]
        more = f" and {len(having) - 8} more" if len(having) > 8 else ""
        assert patches == ", ".join(map(str, having[:8])) + more
        expected = words_for_code(found, codes, int(code))
        assert re.findall(r'(\w+) <span class="soft">(.*?)</span>', words) == [(w, f"{m:.2f}") for w, m in expected]
    strongest = [float(re.search(r">(\d\.\d+)<", words)[1]) for *_, words in rows]
    assert strongest == sorted(strongest, reverse=True)


def test_page_shows_no_negative_zero_and_edges_of_white_pictures(tmp_path):
    model = build(CBViLAForVisualReasoning)
    found = explain(model, tiny_processor(), [PICTURE, half_image("blue", "top")], "red")
    html = write_explanation_page(tmp_path / "page.html", replace(found, score=-0.001)).read_text(encoding="utf-8")
    assert "<b>0.00</b>" in html and "-0.00" not in html
    assert "img { outline: 1px solid" in html


def test_page_of_two_images(tmp_path):
    model = build(CBViLAForVisualReasoning)
    found = explain(model, tiny_processor(), [PICTURE, half_image("blue", "top")], "red")
    page = Tags(write_explanation_page(tmp_path / "page.html", found).read_text(encoding="utf-8"))
    alternatives = [image["alt"] for image in page.images]
    assert "Image 2, as the model sees it" in alternatives and found.answer in page.texts
    assert sum(text.startswith("Heat map of “red” over image") for text in alternatives) == 2


def test_heat_is_lighter_where_values_are_greater():
    brightness = heat_colours(np.linspace(0, 1, 50)) @ [0.299, 0.587, 0.114]
    assert (np.diff(brightness) > 0).all()
    white = np.full((8, 8, 3), 255, dtype=np.uint8)
    drawn = np.asarray(heat_map(white, np.array([[0.0, 1.0], [0.0, 0.0]]))).sum(-1)
    assert drawn.shape == (320, 320) and drawn[0, -1] > drawn[0, 0] and drawn[-1, 0] == drawn[-1, -1]


@pytest.mark.parametrize(
    "row, column, place", [(0, 0, "upper left"), (2, 1, "lower"), (1, 1, "centre"), (1, 2, "right")]
)
def test_place_of_maximum(row, column, place):
    values = np.zeros((3, 3))
    values[row, column] = 1
    assert place_of_maximum(values) == place


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    PICTURE.resize((80, 60)).save(path)
    return str(path)


def test_explain_command(picture, tmp_path, capsys):
    output = str(tmp_path / "page.html")
    argv = ["explain", "cbvila-tiny", "--image", picture, "--text", "a red square", "--output", output]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert f"Page: {output}" in printed and "matching logit; probability" in printed
    assert re.search(r"probability 0\.\d{4} by softmax, not calibrated", printed)
    page = Tags((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "Visual words that speak for a word" in page.texts
    assert "Words that go with a visual word" in page.texts
    assert main([*argv, "--method", "rollout", "--layer", "0"]) == 0


def test_explain_command_answers(picture, tmp_path, capsys):
    output = str(tmp_path / "page.html")
    argv = ["explain", "cbvila-tiny-easyvqa", "--image", picture, "--text", "what color is it?", "--output", output]
    assert main(argv) == 0
    assert "Answer: " in capsys.readouterr().out
    assert main([*argv, "--answer", "blue"]) == 0
    assert "Answer: blue\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"--image": "missing.png"}, "missing.png"),
        ({"--text": ""}, "text 0 is empty"),
        ({"--layer": "5"}, "layer=5: the fusion encoder has 2 layers"),
        ({"--output": "no/folder/page.html"}, "output='no/folder/page.html': the folder isn't there"),
    ],
)
def test_errors_are_one_line(changes, message, picture, capsys):
    options = {"--image": picture, "--text": "a red square", "--output": "page.html", **changes}
    assert main(["explain", "cbvila-tiny", *(part for pair in options.items() for part in pair)]) == 1
    *_, line = capsys.readouterr().err.strip().splitlines()  # after the bar of loading
    assert line.startswith("cbvila explain: ") and message in line


def test_a_head_that_cannot_be_explained_is_one_line(picture, tmp_path, capsys):
    build(CBViLAForMaskedImageModeling).save_pretrained(tmp_path / "model")
    argv = ["explain", str(tmp_path / "model"), "--image", picture, "--text", "red", "--output", "page.html"]
    assert main(argv) == 1
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert "A CBViLAForMaskedImageModeling cannot be explained" in line
