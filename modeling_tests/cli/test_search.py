"""The commands `cbvila search` and `cbvila ask`, and the pages that they write."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from PIL import Image, ImageDraw

from transformers_cbvila import CBViLAForPreTraining, CBViLAProcessor, bundled_checkpoint
from transformers_cbvila.cli import main
from transformers_cbvila.explaining.visual_words import codes_of_image, shared_codes

COLOURS = ("red", "green", "blue")


TINY = ("--model", "cbvila-tiny")


def circle(colour):
    image = Image.new("RGB", (64, 64), (240, 246, 252))
    ImageDraw.Draw(image).ellipse((20, 24, 44, 48), fill=colour)
    return image


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder of circles, one of them in a folder of its own, and a cache of this test alone."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for colour in COLOURS:
        circle(colour).save(folder / ("sub" if colour == "blue" else "") / f"{colour}.png")
    return folder


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """The bundled checkpoint with a calibration: similarities above 0.6 are probable."""
    folder = tmp_path_factory.mktemp("models") / "calibrated"
    shutil.copytree(bundled_checkpoint("cbvila-tiny"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "match_calibration": [20.0, -12.0]}))
    return str(folder)


class Page(HTMLParser):
    """Collects the pictures of a page, and holds that all tags are closed."""

    def __init__(self, file):
        super().__init__()
        self.html, self.alternatives, self.open = Path(file).read_text(encoding="utf-8"), [], []
        self.feed(self.html)
        assert self.open == [] and "http" not in self.html

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.alternatives.append(dict(attributes)["alt"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def files(printed):
    """The names of the files in the lines of a search."""
    return [Path(line.split()[1]).name for line in printed.splitlines() if line.endswith(".png")]


def test_search_prints_a_line_for_each_picture_and_follows_the_folder(pictures, tmp_path, capsys):
    assert main(["search", str(pictures), "a red circle", "--top_k", "2", *TINY]) == 0
    first = capsys.readouterr()
    assert files(first.out)[0] == "red.png" and len(first.out.splitlines()) == 2
    assert float(first.out.split()[0]) <= 1 and "3 pictures are indexed in" in first.err
    (index,) = (tmp_path / "cache" / "cbvila" / "search").iterdir()
    assert index.name.startswith("pictures-") and str(index) in first.err
    (pictures / "red.png").rename(pictures / "sub" / "renamed.png")
    (pictures / "green.png").unlink()
    assert main(["search", str(pictures), "a red circle", "--not", "a blue circle", *TINY]) == 0
    second = capsys.readouterr()
    assert files(second.out) == ["renamed.png", "blue.png"] and "2 pictures are indexed in" in second.err
    assert len(list((tmp_path / "cache" / "cbvila" / "search").iterdir())) == 1


def test_search_writes_why_pictures_matched(pictures, tmp_path, capsys):
    page, image = tmp_path / "found.html", str(pictures / "green.png")
    circle("green").save(pictures / "<b>.png")
    argv = ["search", str(pictures), "a red <circle>", "--image", image, "--index_dir", str(tmp_path / "index")]
    assert main([*argv, "--fold_duplicates", "1", "--not_image", image, "--page", str(page), *TINY]) == 0
    printed = capsys.readouterr().out
    assert f"Page: {page}\n" in printed and "(and 1 like it)" in printed
    assert (tmp_path / "index" / "items.jsonl").exists()
    found = Page(page)
    assert "<b>" not in found.html.replace("<b>a</b>", "").replace("<b>red</b>", "").replace("<b>circle</b>", "")
    maps = [text.split(" over")[0] for text in found.alternatives if text.startswith("Heat map")]
    assert maps == [f"Heat map of “{word}”" for word in ("a", "red", "circle")] * 3
    assert sum(text.startswith("A patch of the picture asked for") for text in found.alternatives) >= 3
    assert {text.split(": ")[1] for text in found.alternatives if text.startswith("Picture ")} == {
        "red.png",
        "sub/blue.png",
        "<b>.png",
    }


def test_search_of_a_calibrated_model_says_that_nothing_is_probable(pictures, calibrated, tmp_path, capsys):
    argv = ["search", str(pictures), "--model", calibrated]
    assert main([*argv, "a red circle"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.endswith("red.png") and 50 <= float(line.split()[1]) <= 100 and line.split()[2] == "%"
    page = tmp_path / "page.html"
    for options in ([], ["--min_probability", "0.5"]):
        assert main([*argv, "a red circle", *options, "--page", str(page)]) == 0
        said = capsys.readouterr()
        others = 3 - len(files(said.out.replace(" %", "")))
        assert 0 < others < 3 and f"{others} more below 50 %, which --min_probability 0 shows." in said.err
        assert f"{others} more below 50 %" in Page(page).html
    assert main([*argv, "a green square", "--min_probability", "0.999", "--page", str(page)]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("Nothing is probable enough: none of 3 pictures matches with 99.9 % or more.")
    assert said in Page(page).html
    assert main([*argv, "a green square", "--min_probability", "0"]) == 0
    everything = capsys.readouterr()
    assert len(files(everything.out.replace(" %", ""))) == 3 and "more below" not in everything.err


@pytest.mark.parametrize(
    "argv, status, message",
    [
        (["search", "FOLDER"], 2, "give a TEXT to search for, or a picture with --image"),
        (["search", "nowhere", "a"], 1, "cbvila search: 'nowhere' is no folder: give the folder of the pictures"),
        (["search", "FOLDER", "a", "--page", "no/x.html"], 1, "page='no/x.html': the folder isn't there"),
        (["search", "FOLDER", "--image", "no.png"], 1, "there is no image file at 'no.png'"),
        (["search", "FOLDER", "a", "--model", "cbvila-tiny-easyvqa"], 1, "was not trained for retrieval"),
        (["search", "FOLDER", "a", "--min_probability", "0.5", *TINY], 1, "this checkpoint has no match_calibration"),
        (["search", "FOLDER", "a", "--top_k", "0"], 1, "top_k=0 must be a whole number of at least 1"),
        (["search", "FOLDER", "a", "--folds", "1"], 2, "there is no option '--folds'"),
        (["ask", "no.png", "what?"], 1, "there is no image file at 'no.png'"),
        (["ask", "FOLDER/red.png", "what?", "--model", "cbvila-tiny"], 1, "was not trained to answer"),
        (["ask", "FOLDER/red.png", ""], 1, "question is empty"),
    ],
)
def test_errors_are_one_line(argv, status, message, pictures, capsys):
    argv = [word.replace("FOLDER", str(pictures)) for word in argv]
    if status == 2:
        with pytest.raises(SystemExit):
            main(argv)
    else:
        assert main(argv) == status
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cbvila ")]
    assert len(said) == 1 and message in said[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a", "--top_k", "0"], "top_k=0 must be"),
        (["a", "--min_probability", "50"], "min_probability=50.0 must be from 0 to 1"),
        (["a", "--min_probability", "nan"], "min_probability=nan must be a finite number"),
        (["a", "--fold_duplicates", "2"], "fold_duplicates=2.0 is"),
        (["a", "--image", "FOLDER/red.png", "--min_probability", "0.5"], "probabilities are of a text with an image"),
        ([""], "is empty"),
        (["a", "--not", " "], "is empty"),
    ],
)
def test_search_refuses_a_query_before_it_indexes(given, message, pictures, calibrated, tmp_path, capsys):
    given = [word.replace("FOLDER", str(pictures)) for word in given]
    assert main(["search", str(pictures), *given, "--model", calibrated, "--index_dir", str(tmp_path / "index")]) == 1
    said = capsys.readouterr().err
    assert message in said and "indexed" not in said and not (tmp_path / "index").exists()


def test_ask_prints_the_answer_with_its_probability(pictures, tmp_path, capsys):
    page = tmp_path / "why.html"
    assert main(["ask", str(pictures / "red.png"), "what color is the circle?", "--page", str(page)]) == 0
    said = capsys.readouterr()
    assert said.err == "", "without bars of weights that are loaded"
    answer, told = said.out.splitlines()
    word, probability, sign = answer.split()
    assert word == "red" and 50 < float(probability) <= 100 and sign == "%"
    assert told == f"Page: {page}" and "Heat map of “color” over the image" in " ".join(Page(page).alternatives)


def test_shared_codes_are_those_of_both_pictures():
    folder = bundled_checkpoint("cbvila-tiny")
    model, processor = CBViLAForPreTraining.from_pretrained(folder), CBViLAProcessor.from_pretrained(folder)
    images = [circle(colour) for colour in COLOURS]
    same, other = shared_codes(model.eval(), processor, images[0], images[:2], limit=99)
    codes = [codes_of_image(model, processor, image) for image in images[:2]]
    assert same.share == 1 and {found.code for found in same.codes} == set(codes[0].ravel().tolist())
    assert {found.code for found in other.codes} == set(codes[0].ravel()) & set(codes[1].ravel())
    paired = [min(int((of_image == found.code).sum()) for of_image in codes) for found in other.codes]
    assert other.share == pytest.approx(sum(paired) / codes[0].size) and paired == sorted(paired, reverse=True)
    for found in (*same.codes, *other.codes):
        assert all(patch.shape == (16, 16, 3) and patch.dtype == np.uint8 for patch in found.patches)
        assert found.counts[0] == (codes[0] == found.code).sum()
