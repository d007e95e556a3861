"""The page of the app is put together whatever the models can do, and its tabs fill themselves when it is opened."""

import json

import pytest
from app_models import all_models, answering, pictures, retriever
from PIL import Image

from transformers_cbvila.app.models import AppModels
from transformers_cbvila.app.page import build_page
from transformers_cbvila.app.pictures import folder_pictures
from transformers_cbvila.app.searching import PictureSearch

pytest.importorskip("gradio", reason="gradio is not installed (the extra app has it)")


def page_of(models, shown_pictures):
    search = None if models.retriever is None else PictureSearch(models.retriever, shown_pictures)
    return build_page(models, shown_pictures, search)


def shown(page):
    return json.dumps(page.get_config_file(), default=str, ensure_ascii=False)


def started(page):
    """What the handlers that fill the tabs return, in order."""
    return [function.fn() for function in page.fns.values() if function.name == "start"]


def test_a_page_with_every_model_fills_every_tab():
    page = page_of(all_models(), pictures())
    assert "none of CBViLAFor" not in shown(page) and "Models: tiny, tiny-vqa." in shown(page)
    search, ask, draw, inside = started(page)
    assert search[0] == pictures().items[0].caption and search[1].count('class="card"') == 6
    assert "Answers" in ask[5] and 'class="frame"' in draw[1] and 'class="patch"' in inside[3]


def test_a_page_says_where_its_models_run(monkeypatch):
    models = AppModels(["answering"], answering=answering())
    assert "They run on this computer; nothing is sent" in shown(page_of(models, pictures()))
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("SPACE_ID", "org/name")
    said = shown(page_of(models, pictures()))
    assert "They run on a server of Hugging Face, which your words and pictures are sent to" in said
    assert "nothing is sent" not in said


@pytest.mark.parametrize(
    "models, filled, reasons",
    [
        (AppModels(["searching"], retriever=retriever()), 1, 3),
        (AppModels(["answering"], answering=answering()), 1, 3),
    ],
)
def test_tabs_without_a_model_say_why(models, filled, reasons):
    page = page_of(models, pictures())
    assert len(started(page)) == filled and shown(page).count("is none of CBViLAFor") == reasons


def test_a_folder_with_one_picture(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red {{x}}.png")
    (tmp_path / "broken.png").write_bytes(b"x")
    page = page_of(AppModels(["searching"], retriever=retriever()), folder_pictures(tmp_path))
    assert "1 file could not be read and left out: broken.png" in shown(page)
    ((text, results, why, found, chosen, like),) = started(page)
    assert "There is no other picture" in results and "{{" not in results and (found, chosen, like) == ([], None, 0)
