"""Which models the app loads, and why a tab is left without one."""

import re
import shlex
import socket
from pathlib import Path

import pytest
from app_models import answering, pretrained, retriever
from code_blocks import code_blocks
from tiny import build, pretraining_model, tiny_processor

from transformers_cbvila import CBViLAForImageTextRetrieval, CBViLAForVisualEntailment
from transformers_cbvila.app import models as app_models
from transformers_cbvila.app import serving
from transformers_cbvila.app.models import DEFAULT_MODELS, AppModels, load_models
from transformers_cbvila.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "app.md").read_text()

REASONS = ("why_not_search", "why_not_ask", "why_not_draw", "why_not_look")


def reasons(models):
    return [getattr(models, reason)() for reason in REASONS]


def saved(folder, head):
    build(head).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)


def test_default_models_do_everything():
    models = load_models(DEFAULT_MODELS)
    assert reasons(models) == ["", "", "", ""]
    assert not any(loaded.model.training for loaded in (models.looking, models.drawing, models.answering))
    assert models.drawing.name == "cbvila-scenes-draw" and models.looking.name == "cbvila-scenes"
    assert models.reranker is models.retriever


def test_one_pretrained_model_searches_draws_and_looks_inside():
    models = load_models(["cbvila-scenes"])
    assert models.drawing is models.looking, "loaded once for both"
    assert models.why_not_search() == models.why_not_draw() == models.why_not_look() == ""


def test_a_model_that_learned_no_pairs_draws_and_nothing_else(tmp_path):
    pretraining_model(objectives={name: {"weight": 0} for name in ("itc", "itm", "mlm")}).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    models = load_models([str(tmp_path)])
    assert models.why_not_draw() == "" and models.reranker is None
    assert "searches" in models.why_not_search() and "visual words to look at" in models.why_not_look()
    with pytest.raises(ValueError, match="named before draws already"):
        load_models(["cbvila-scenes", str(tmp_path)])


def test_a_retrieval_model_searches_and_nothing_else(tmp_path):
    name = saved(tmp_path, CBViLAForImageTextRetrieval)
    search, *others = reasons(load_models([name]))
    assert search == "" and all(name in why and "CBViLAFor" in why for why in others)


def test_a_model_that_cannot_draw_says_why():
    objectives = {"mim": {"weight": 0.0}}
    loaded = pretrained(objectives=objectives)
    models = AppModels(["tiny"], looking=loaded, drawing=loaded)
    assert models.why_not_draw().startswith("tiny cannot draw: This model was built without the objective 'mim'")
    assert models.why_not_look() == ""


def test_tabs_without_a_model_say_what_they_need():
    models = AppModels(["a", "b"])
    needed = [
        "CBViLAForImageTextRetrieval",
        "CBViLAForQuestionAnswering",
        "CBViLAForPreTraining",
        "CBViLAForPreTraining",
    ]
    for why, head in zip(reasons(models), needed, strict=True):
        assert "a, b are none of" in why and head in why
    assert reasons(AppModels(["a"], retriever(), pretrained(), pretrained(), answering())) == ["", "", "", ""]


def test_models_of_no_use_are_refused(tmp_path):
    entailment = saved(tmp_path / "entailment", CBViLAForVisualEntailment)
    with pytest.raises(
        ValueError, match="CBViLAForVisualEntailment, which the app has no use for: .*answers questions"
    ):
        load_models([entailment])
    retrieval = saved(tmp_path / "retrieval", CBViLAForImageTextRetrieval)
    with pytest.raises(ValueError, match="named before searches already; leave one out"):
        load_models(["cbvila-tiny", retrieval])


def test_models_are_refused_before_any_is_loaded(monkeypatch):
    monkeypatch.delattr(app_models.CBViLARetriever, "from_pretrained")
    with pytest.raises(ValueError, match="cbvila-scenes: another model that was named before"):
        load_models(["cbvila-tiny", "cbvila-scenes"])


@pytest.mark.parametrize(
    "options, complaint",
    [
        (["cbvila-tinny"], "did you mean cbvila-tiny"),
        (["--images", "nowhere"], "--images 'nowhere' is no folder"),
        (["--port", "70000"], "--port 70000 cannot be used"),
    ],
)
def test_app_command_says_in_one_line_what_is_wrong(options, complaint, capsys, monkeypatch, tmp_path):
    pytest.importorskip("gradio")
    monkeypatch.chdir(tmp_path)
    assert main(["app", "--no_browser", *options]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cbvila app")]
    assert complaint in line


def test_app_command_refuses_a_port_in_use(capsys):
    pytest.importorskip("gradio")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["app", "--no_browser", "--port", str(port)]) == 1
    assert f"--port {port} cannot be used" in capsys.readouterr().err


def test_commands_of_the_page_serve_what_they_say(monkeypatch):
    pytest.importorskip("gradio")
    served = []
    monkeypatch.setattr(serving, "serve_app", lambda *asked: served.append(asked))
    for line in re.findall(r"^cbvila (app.*)", PAGE, flags=re.MULTILINE):
        assert main(shlex.split(line, comments=True)) == 0
    assert served == [
        (DEFAULT_MODELS, None, None, True),
        (DEFAULT_MODELS, "~/Pictures", None, True),
        (["runs/pretrained", "runs/vqa"], None, 8000, True),
    ]


def test_code_of_the_page_serves_the_app(capsys):
    pytest.importorskip("gradio")
    (block,) = code_blocks(PAGE)
    exec(block, {})
    assert re.search(r"http://127\.0\.0\.1:\d+/", capsys.readouterr().out)
