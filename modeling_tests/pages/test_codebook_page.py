"""The codebook page of a tiny random model, and its parts by hand."""

from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from tiny import CODES, PATCHES, SIDE, pretraining_model, tiny_processor, tiny_rows

from transformers_cbvila.inspection.code_words import count_code_words, places_of_code
from transformers_cbvila.inspection.measure import inspect_pretraining
from transformers_cbvila.inspection.visual_words import VisualWords
from transformers_cbvila.pages.code_word_sections import words_section
from transformers_cbvila.pages.codebook_images import (
    crop_with_neighbours,
    distinct_colours,
    index_map,
    numbered_patches,
    outlined_patches,
    patch_strip,
)
from transformers_cbvila.pages.codebook_page import write_codebook_page
from transformers_cbvila.pages.codebook_sections import codes_section, health_section

NASTY = '<script>alert("red")</script> & co'


class Page(HTMLParser):
    """Collects what a page shows, and holds it to be well formed."""

    VOID = {"meta", "img", "line", "path"}

    def __init__(self, html):
        super().__init__()
        self.images, self.texts, self.tags, self.open, self.attributes = [], [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attributes)))
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


def decoded(image):
    return Image.open(BytesIO(b64decode(image["src"].removeprefix("data:image/png;base64,"))))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    model, processor, rows = pretraining_model(), tiny_processor(), tiny_rows(8)
    rows[2] = {**rows[2], "captions": [NASTY]}
    figures = inspect_pretraining(model, processor, rows, progress=False, rerank_k=2)
    path = tmp_path_factory.mktemp("page") / "new" / "page.html"
    options = {"title": "A <model>", "note": "On 8 & more.", "progress": False}
    assert write_codebook_page(path, model, processor, rows, figures, **options) == path
    words = model(**processor(images=[row["image"] for row in rows], text=["a"] * 8, return_tensors="pt"))
    return path.read_text(encoding="utf-8"), figures, words.codebook_indices.numpy()


def test_codebook_page_embeds_all_pictures(written):
    html, _, indices = written
    page, used = Page(html), len(np.unique(indices))
    assert 3 < used <= CODES
    # an image in numbered patches, 8 images in 5 versions, a strip and a map per code, 8 images with two maps
    assert len(page.images) == 1 + 8 * 5 + 2 * used + 8 * 3
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.images)
    sizes = [decoded(image).size for image in page.images]
    plain, outlined_ones = [(SIDE, SIDE)] * 3, [(8 * SIDE, 8 * SIDE)] * 2
    assert sizes[0] == (384, 384) and sizes[1:41] == (plain + outlined_ones) * 8
    assert sizes[-2:] == [(4, 4), (4, 4)] and sizes[-3] == (SIDE, SIDE)
    assert "http:" not in html and "https:" not in html and "@import" not in html and "url(" not in html


def test_codebook_page_describes_pictures_and_tables(written):
    page = Page(written[0])
    alts = [image["alt"] for image in page.images]
    assert all(len(alt) > 8 for alt in alts) and len(set(alts)) > 0.8 * len(alts)
    assert alts[0].endswith("cut into 4 by 4 numbered patches")
    assert sum(alt.endswith("right") for alt in alts) == 2 * 8
    assert page.tags.count("table") == page.tags.count("caption") == 4
    assert all("scope" in attributes for tag, attributes in page.attributes if tag == "th")
    (drawing,) = (attributes for tag, attributes in page.attributes if tag == "svg")
    assert "the most used has" in drawing["aria-label"]


def test_codebook_page_explains_visual_words(written):
    html, _, indices = written
    text = " ".join(" ".join(Page(html).texts).split())
    assert f"cuts a picture into {PATCHES} patches" in text and "is called its visual word" in text
    assert any(f"from patch 1 on, are {', '.join(map(str, words))}." in text for words in indices.tolist())


def test_codebook_page_escapes_captions(written):
    page = Page(written[0])
    assert "script" not in page.tags and "<script" not in written[0]
    assert NASTY in page.texts and "A <model>" in page.texts and "On 8 & more." in page.texts
    assert sum(text == f"other: {NASTY}" for text in page.texts) == 1
    assert sum(image["alt"].startswith(NASTY) for image in page.images) >= 4 + 3


def test_codebook_page_shows_the_metrics(written):
    html, figures, indices = written
    texts = " ".join(Page(html).texts).replace("\u202f", " ")
    assert f"{100 * figures['codebook_usage']:.1f} %" in texts and f"{figures['codebook_perplexity']:.1f}" in texts
    assert f"{figures['ln_perplexity']:.3f}, from frequencies alone" in texts
    assert f"of {CODES} codes are used, on {8 * PATCHES} patches" in texts
    assert "re-ranked by matching" in texts and "by both" in texts
    code, count = max(enumerate(np.bincount(indices.flatten())), key=lambda pair: pair[1])
    assert f"{100 * count / indices.size:.2f} %, {count} ×" in texts
    assert f"in {(indices == code).any(1).sum()} images" in texts


def test_codebook_page_depends_on_its_seed(written, tmp_path):
    model, processor, rows = pretraining_model(), tiny_processor(), tiny_rows(8)
    rows[2] = {**rows[2], "captions": [NASTY]}
    options = {"title": "A <model>", "note": "On 8 & more.", "progress": False}
    again, other = (
        write_codebook_page(
            tmp_path / "page.html", model, processor, rows, written[1], seed=seed, **options
        ).read_text(encoding="utf-8")
        for seed in (0, 1)
    )
    assert again == written[0] != other


def test_codebook_page_without_retrieval_and_of_one_code():
    mim = ("mim", "mim_accuracy", "mim_advantage_low", "mim_advantage_high", "mim_accuracy_shuffled_caption")
    codebook = ("codebook_usage", "codebook_perplexity", "codebook_top_share", "ln_perplexity")
    figures = dict.fromkeys((*mim, *codebook, "mim_accuracy_position_floor", "pixel", "pixel_floor"), 0.5)
    page = Page(health_section(figures, np.array([0, 64, 0])))
    one = " ".join(Page(health_section(figures, np.array([3, 64, 0]))).texts).replace("\n", " ")
    assert "1 code is not used." in one
    assert "R@1" not in " ".join(page.texts) and "2 codes are not used." in " ".join(page.texts).replace("\n", " ")


def test_crop_with_neighbours_centres_the_patch():
    image = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)  # 3 rows of 2 patches of 2 x 2 pixels
    crop = crop_with_neighbours(image, 3, 2)  # row 1, column 1: at the right edge
    assert crop.shape == (6, 6, 4)
    np.testing.assert_array_equal(crop[2:4, 2:4, :3], image[2:4, 2:4])
    np.testing.assert_array_equal(crop[:, :4, :3], image)
    assert (crop[:, :4, 3] == 255).all() and (crop[:, 4:, 3] == 0).all()


def test_patch_strip_has_one_scale_and_frames():
    white = np.full((24, 24, 4), 255, dtype=np.uint8)
    strip = patch_strip([white, white], 8, columns=3)  # enlarged round(60 / 24) = 2 times
    assert strip.size == (3 * 48 + 2 * 4, 48)
    assert strip.getpixel((52 + 15, 20))[:3] == (230, 45, 45)  # left of the second patch, whose first pixel is white
    assert strip.getpixel((52 + 16, 20)) == (255, 255, 255, 255)
    assert strip.getpixel((110, 20))[3] == 0  # no third crop


def test_patch_strip_wraps_lines():
    white = np.full((24, 24, 4), 255, dtype=np.uint8)
    strip = patch_strip([white] * 4, 8, columns=3)
    assert strip.size == (3 * 48 + 2 * 4, 2 * 48 + 4)
    assert strip.getpixel((15, 52 + 20))[:3] == (230, 45, 45) and strip.getpixel((60, 60))[3] == 0


def test_outlined_marks_hidden_patches_only():
    drawn = outlined_patches(np.full((16, 16, 3), 255, dtype=np.uint8), np.array([False, True, False, False]), 8)
    assert drawn.size == (272, 272)
    assert drawn.getpixel((136, 60)) == drawn.getpixel((271, 0)) == (150, 158, 168)
    assert drawn.getpixel((135, 60)) == drawn.getpixel((200, 60)) == drawn.getpixel((0, 200)) == (255, 255, 255)


@pytest.mark.parametrize(("grid", "size"), [((2, 2), (384, 384)), ((16, 8), (384, 768)), ((16, 16), (640, 640))])
def test_numbered_patches_have_room_for_numbers(grid, size):
    image = np.full((grid[0] * 2, grid[1] * 2, 3), 200, dtype=np.uint8)
    drawn = np.asarray(numbered_patches(image, grid))
    assert drawn.shape == (size[1], size[0], 3)
    side = size[0] // grid[1]
    patches = drawn.reshape(grid[0], side, grid[1], side, 3).swapaxes(1, 2)
    assert (patches > 225).any((2, 3, 4)).all(), "a number in each"


def test_index_map_paints_codes():
    colours = np.array([[0.0, 0.0, 0.0], [1.0, 0.5, 0.0]])
    image = index_map(np.array([0, 1, 1, 0, 0, 1]), (2, 3), colours)
    assert image.size == (3, 2)
    assert image.getpixel((1, 0)) == image.getpixel((2, 1)) == (255, 128, 0) and image.getpixel((0, 1)) == (0, 0, 0)


def test_distinct_colours_differ():
    colours = distinct_colours(np.arange(300))
    assert len(np.unique((255 * colours).round(), axis=0)) > 290


def test_codes_section_keeps_the_given_order():
    words = VisualWords(np.array([[[0], [2]], [[2], [2]]]), np.array([1, 0, 3]), np.full((3, 3), 0.5), (1, 2))
    crop = np.zeros((12, 12, 4), np.uint8)
    page = Page(codes_section(words, {2: [crop, crop], 0: [crop]}, 4, 2))
    texts = [text.replace("\u202f", " ") for text in page.texts if text]
    places = [texts.index(text) for text in ("2", "75.00 %, 3 ×", "in 2 images", "0", "25.00 %, 1 ×", "in 1 image")]
    assert places == sorted(places) and len(page.images) == 2 * 2


def test_codes_and_words_of_each_other_by_hand():
    """Code 1 is in images of cats only, in their second patch; code 0 is everywhere else."""
    names = ["cat", "dog", "cat", "dog"]
    indices = np.array([[[0], [1 if name == "cat" else 0]] for name in names])
    words = VisualWords(indices, np.array([6, 2]), np.array([[1, 0, 0], [0, 0, 1.0]]), (1, 2))
    for name in names:
        words.row_words.add({"captions": [f"a <b>{name}</b>"]})
    counted = count_code_words(words)
    assert counted.words == ["cat", "dog"] and counted.together.tolist() == [[2, 4], [2, 0]]
    assert counted.of_code(1) == [("cat", 1.0, 0.5)] and counted.of_code(0) == [("dog", 4 / 6, 0.5)]
    assert counted.of_word("cat") == [(1, 2.0)] and counted.of_word("dog") == [(0, pytest.approx(4 / 3))]
    assert places_of_code(1, words).tolist() == [[0, 0.5]] and places_of_code(0, words).tolist() == [[1, 0.5]]
    page = Page(words_section(counted, words))
    assert [text for text in page.texts if text][-8:-4] == ["dog", "in 50.0\u202f% of images", "0", "1.3 ×"]


def test_words_section_is_empty_without_words():
    words = VisualWords(np.zeros((2, 1, 1), int), np.array([2]), np.full((1, 3), 0.5), (1, 1))
    for _ in range(2):
        words.row_words.add({})
    assert words_section(count_code_words(words), words) == ""


@pytest.mark.parametrize("name", ["mim", "pixel"])
def test_codebook_page_rejects_models_trained_without_objectives(name, tmp_path):
    model = pretraining_model(objectives={name: {"weight": 0.0}})
    with pytest.raises(ValueError, match=rf"was trained without {name} \(weight 0\)"):
        write_codebook_page(tmp_path / "page.html", model, None, tiny_rows(2), {})
