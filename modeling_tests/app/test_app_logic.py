"""What the tabs of the app do, without a browser: search, answers, drawings and what is inside a picture."""

import re

import numpy as np
import pytest
from app_models import answering, pictures, pretrained, retriever
from tiny import PATCHES, half_image

from transformers_cbvila.app import html
from transformers_cbvila.app.answering import Answering
from transformers_cbvila.app.ask_tab import QUESTIONS, answers_html, question_for_another, right_answer
from transformers_cbvila.app.components import saying_what_is_wrong
from transformers_cbvila.app.draw_tab import Drawing, film_html, marks_html, veiled
from transformers_cbvila.app.inside_tab import maps_html, rebuilt_html, words_html
from transformers_cbvila.app.looking import Looking
from transformers_cbvila.app.pictures import AskedPicture, Picture, Pictures, Question
from transformers_cbvila.app.search_tab import origin_html, results_html, why_html
from transformers_cbvila.app.searching import PictureSearch
from transformers_cbvila.drawing.from_captions import draw_captions
from transformers_cbvila.drawing.reranking import best_matching

PICTURE = half_image("red", "left")


@pytest.fixture(scope="module")
def search():
    return PictureSearch(retriever(), pictures())


@pytest.fixture(scope="module")
def answers():
    return Answering(answering())


@pytest.fixture(scope="module")
def drawing():
    return Drawing(pretrained())


@pytest.fixture(scope="module")
def looking():
    return Looking(pretrained(), pictures())


def test_search_finds_what_the_retriever_finds(search):
    found = search.find(" red left ")
    expected = search.retriever.search(text="red left", top_k=12)
    assert [match.number for match in found] == expected.indices.tolist()
    assert [match.score for match in found] == pytest.approx(expected.scores.tolist())
    assert not search.is_calibrated and all(match.probability is None for match in found)


def test_search_by_likeness_leaves_the_picture_itself_out(search):
    found = search.find(like=2)
    assert len(found) == 5 and 2 not in [match.number for match in found]
    assert [match.number for match in found] != [match.number for match in search.find("red", "left", like=2)]


def test_search_with_a_least_probability():
    calibrated = retriever()
    calibrated.model.config.match_calibration = [1.0, 0.0]
    search = PictureSearch(calibrated, pictures())
    everything = search.find("red left")
    assert search.is_calibrated and len(everything) == 6
    middle = (everything[2].probability + everything[3].probability) / 2
    assert search.find("red left", min_probability=middle) == everything[:3]
    nothing = search.find("red left", min_probability=1.0)
    assert nothing == [] and "nothing here matches" in results_html(search, nothing)
    with pytest.raises(ValueError, match="least probability is of a text alone"):
        search.find("red left", unwanted="top", min_probability=0.5)


@pytest.mark.parametrize("text", ["", "  "])
def test_search_for_nothing(search, text):
    with pytest.raises(ValueError, match="Write what you are looking for"):
        search.find(text)


def test_search_results_as_html(search):
    found = search.find("red left")
    shown = results_html(search, found, chosen=found[1].number)
    numbers = re.findall(r'data-number="(\d+)" aria-pressed="(\w+)"', shown)
    assert [int(number) for number, _ in numbers] == [match.number for match in found]
    assert [pressed for _, pressed in numbers] == ["false", "true", *["false"] * 4]
    assert f"<span>1 · {found[0].score:.2f}</span>" in shown
    why = why_html(search, found[0].number, "red zzz")
    assert why.count("<figure>") == 3 and "Heat map of “red”" in why and why.count("not a word that") == 1
    assert "by its likeness" in why_html(search, 0, "") and why_html(search, None, "red") == ""
    matchless = PictureSearch(retriever(objectives={"itm": {"weight": 0.0}}), pictures())
    assert "without reading them together" in why_html(matchless, 0, "red")


def test_origin_counts_what_was_left_out(search):
    left_out = Pictures(search.pictures.items, ["a.png", "b<b>.png", "c.png", "d.png"])
    said = origin_html(PictureSearch(search.retriever, left_out))
    assert (
        "6 pictures of a folder. Below a picture are its rank and its score." in said
        and "4 files could not be read and left out" in said
    )
    assert "a.png, b&lt;b&gt;.png, c.png …" in said


def test_answers_are_those_of_the_pipeline_and_explained(answers):
    answered = answers.answer(PICTURE, "what color is it?")
    assert answered.explained == answered.answers[0].text and len(answered.answers) > 1
    probabilities = [answer.probability for answer in answered.answers]
    assert probabilities == sorted(probabilities, reverse=True)
    assert answered.explanation.answer == answered.explained and answered.explanation.words[:2] == ["what", "color"]
    other = answered.answers[1].text
    again = answers.answer(PICTURE, "what color is it?", other)
    assert again.explained == other and not np.array_equal(again.explanation.maps, answered.explanation.maps)
    shown = answers_html(again, "what color is it?", right=other)
    assert f"The right answer is “{other}”" in shown
    assert "That is right" in answers_html(answered, "?", right=answered.explained)
    assert re.findall(r'data-text="([^"]*)" aria-pressed="true"', shown) == [other]


@pytest.mark.parametrize(
    "image, question, complaint", [(None, "what?", "Choose a picture"), (PICTURE, " ", "Write a q")]
)
def test_questions_that_cannot_be_answered(answers, image, question, complaint):
    with pytest.raises(ValueError, match=complaint):
        answers.answer(image, question)


def test_right_answer_is_that_of_the_example():
    asked = [AskedPicture(Picture("a", PICTURE), [Question("what?", "red"), Question("where?", "left")])]
    assert right_answer(asked, 0, " where? ") == "left"
    assert right_answer(asked, 0, "why?") is None and right_answer(asked, None, "what?") is None
    assert question_for_another(asked, "my own?") == "my own?"
    assert question_for_another(asked, " what? ") == question_for_another(asked, "") == QUESTIONS[0]


def test_the_candidate_that_fits_best_is_filmed():
    loaded, matcher = pretrained(), retriever()
    best = Drawing(loaded, matcher).draw("red left", 3, 5, 1.0, candidates=6)
    options = {"samples": 6, "seed": 5, "progress": False, "num_steps": 3}
    drawn = draw_captions(loaded.model, loaded.processor, ["red left"], **options)
    ((number,),) = best_matching(matcher.model, matcher.processor, ["red left"], drawn, progress=False)
    assert number != 0, "or the choice could not be seen"
    np.testing.assert_allclose(np.asarray(best[-1].picture), np.asarray(drawn[0][number]), atol=1)
    assert len(best) == 3
    alone = Drawing(loaded).draw("red left", 3, 5, 1.0, candidates=6)
    np.testing.assert_allclose(np.asarray(alone[-1].picture), np.asarray(drawn[0][0]), atol=1)


def test_film_shows_the_last_step_and_can_show_all(drawing):
    steps = drawing.draw("red left", 4, 0, 1.0)
    shown = film_html(steps, "red <left>")
    assert re.findall(r'<figure class="frame"( hidden)?>', shown) == [" hidden"] * 3 + [""]
    assert f"{PATCHES} of {PATCHES} patches settled" in shown and "“red &lt;left&gt;”" in shown
    last = np.asarray(steps[-1].picture)
    assert np.array_equal(np.asarray(veiled(steps[-1])), last)
    first = np.asarray(veiled(steps[0])).astype(int)
    hidden = steps[0].hidden.repeat(8, axis=0).repeat(8, axis=1)
    assert np.array_equal(first[~hidden], np.asarray(steps[0].picture)[~hidden])
    assert np.abs(first - np.asarray(steps[0].picture))[hidden].max() > 10


def test_redrawing(drawing):
    image = drawing.seen(PICTURE)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(PICTURE)).max() <= 1
    assert len(drawing.redraw("blue", image, [0, 4], 3, 0, 1.0)) == 3
    marks = marks_html(image, drawing.side)
    assert marks.count('class="mark"') == PATCHES and marks.count('aria-pressed="true"') == PATCHES // 2


@pytest.mark.parametrize(
    "caption, image, part, complaint",
    [
        ("red", None, [1], "Draw a picture first"),
        ("red", PICTURE, [], "Mark the patches"),
        (" ", PICTURE, [1], "Write what to draw"),
    ],
)
def test_what_cannot_be_redrawn(drawing, caption, image, part, complaint):
    with pytest.raises(ValueError, match=complaint):
        drawing.redraw(caption, image, part, 2, 0, 1.0)


def test_inside_a_picture_are_its_visual_words(looking):
    look = looking.look(PICTURE, "left half red")
    codes = look.codes.ravel()
    assert look.codes.shape == (4, 4) and sorted(look.words) == np.unique(codes).tolist()
    pixel_values = looking.loaded.processor(images=[PICTURE], return_tensors="pt")["pixel_values"]
    assert codes.tolist() == looking.loaded.model.tokenize(pixel_values)[0].tolist()
    shown = words_html(look)
    assert shown.count('class="patch"') == PATCHES and shown.count('<section class="word"') == len(look.words)
    assert shown.count("hidden>") == len(look.words) - 1, "one visual word is shown at first"
    assert "guessed from the rest" in rebuilt_html(look) and "Heat map of “left”" in maps_html(look)
    assert all(patch.size == (8, 8) for word in look.words.values() for patch in word.patches)


def test_inside_a_picture_without_a_caption(looking):
    assert "Write a caption" in maps_html(looking.look(PICTURE, ""))
    with pytest.raises(ValueError, match="Choose a picture"):
        looking.look(None)


def test_inside_a_picture_of_a_model_that_rebuilds_nothing():
    look = Looking(pretrained(objectives={"pixel": {"weight": 0.0}}), pictures()).look(PICTURE, "red")
    assert look.rebuilt is None and "without rebuilding" in rebuilt_html(look)


def test_visual_words_of_pictures_without_captions_have_no_words():
    bare = Pictures([Picture(item.name, item.source) for item in pictures().items])
    look = Looking(pretrained(), bare).look(PICTURE)
    assert all(word.words == [] for word in look.words.values()) and "goes with" not in words_html(look)


def test_wrong_input_is_said_and_bugs_are_not_hidden():
    def handler(value):
        return int(value), "other"

    handled = saying_what_is_wrong("kept")(handler)
    assert handled("3") == (3, "other")
    problem, other = handled("<x>")
    assert problem.startswith('<p class="problem">Invalid literal') and "&lt;x&gt;" in problem and other == "kept"
    with pytest.raises(TypeError):
        handled(None)


def test_texts_cannot_become_markup_or_templates():
    assert html.escape("<a>{{b}}${c}`") == "&lt;a&gt;&#123;&#123;b&#125;&#125;&#36;&#123;c&#125;&#96;"
