"""The report of the demo, from a made-up run."""

import json
import math
import re
from dataclasses import replace

import pytest
from PIL import Image

from transformers_cbvila.demo.curves import curve_names, draw_curves
from transformers_cbvila.demo.demo_run import DemoRun
from transformers_cbvila.demo.report import write_report
from transformers_cbvila.metrics.intervals import wilson_interval


def example(color, prediction, score=0.987):
    image = Image.new("RGB", (64, 64), color)
    return {"image": image, "question": "what color is it?", "answer": color, "prediction": prediction, "score": score}


def losses(step):
    return {"loss": math.exp(-step / 300), "loss_answer": math.exp(-step / 200), "learning_rate": 1e-3, "step": step}


RUN = DemoRun(
    title="A run & its <report>",
    model_source="the checkpoint that a test made up",
    command="python -m something --seed 7",
    n_parameters=3_210_000,
    train_steps=1234,
    train_seconds=402.4,
    log_history=[*(losses(step) for step in range(50, 1250, 50)), {"eval_loss": 1.0, "step": 1200}, {"loss": 3.0}],
    accuracy=0.9876,
    accuracy_by_type={"shape": 0.975, "color": 0.985, "yes/no": 0.99},
    n_by_type={"shape": 1000, "color": 1500, "yes/no": 7500},
    shape_color_accuracy=0.981,
    floors={"most frequent answer": 0.373, "question only": 0.67, "published network": 0.938},
    other_runs={"from random weights": {"accuracy": 0.8765, "source": "a committed figure"}},
    examples=[example("red", "red"), example("blue", "teal"), example("green", "green", None)],
    environment={"torch": "9.9.9", "device": "cpu, 2 threads"},
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("demo") / "new" / "folder", RUN)


def test_report_page_shows_the_metrics(page):
    html = page.read_text(encoding="utf-8").replace("\u202f", " ")
    shown = ["98.76 %", "98.10 %", "97.50 %", "98.52 to 98.96 %", "87.65 %", "37.3 %", "67.0 %", "93.8 %"]
    shown += ["6 min 42 s", "1,234 steps", "3.21 M", "10,000", "2,500", "9.9.9", RUN.command, RUN.model_source]
    assert [text for text in shown if text not in html] == []


def test_report_page_escapes_texts(page):
    html = page.read_text(encoding="utf-8")
    assert "A run &amp; its &lt;report&gt;" in html and "<report>" not in html


def test_report_page_is_self_contained(page):
    html = page.read_text(encoding="utf-8")
    assert "http:" not in html and "https:" not in html and "@import" not in html and "url(" not in html
    sources = re.findall(r'(?:src|srcset|href)="([^"]{0,30})', html)
    assert len(sources) == 2 + len(RUN.examples)
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_report_page_describes_pictures_and_tables(page):
    html = page.read_text(encoding="utf-8")
    alts = re.findall(r'<img [^>]*alt="([^"]*)"', html)
    assert alts and all(len(alt) > 8 for alt in alts) and any(alt.endswith("the right answer is blue") for alt in alts)
    assert html.count("<table") == html.count("<caption") == 3
    assert html.count("<th ") == html.count('scope="') and "<th>" not in html


def test_report_page_lists_wrong_examples_first(page):
    html = page.read_text(encoding="utf-8")
    assert re.findall(r'<figure class="(\w+)"', html) == ["wrong", "right", "right"]
    assert "✗ said teal, right is blue" in html and "✓ red" in html and "1 of the 124 wrong answers" in html
    assert html.count("score 0.987") == 2


def test_report_json_has_the_metrics_of_the_page(page):
    figures = json.loads((page.parent / "report.json").read_text(encoding="utf-8"))
    assert figures["accuracy"] == 0.9876 and figures["n_questions"] == 10_000 and figures["n_shape_color"] == 2500
    assert figures["accuracy_interval_95"] == pytest.approx([0.98523, 0.98959], abs=2e-5)
    assert figures["other_runs"]["from random weights"]["accuracy"] == 0.8765
    assert figures["log_history"][0]["loss_answer"] == pytest.approx(math.exp(-50 / 200))
    assert figures["examples"][1] == {
        "question": "what color is it?",
        "answer": "blue",
        "prediction": "teal",
        "score": 0.987,
    }


def test_write_report_without_logs_examples_and_comparisons(tmp_path):
    bare = replace(RUN, log_history=[], examples=[], other_runs={}, floors={})
    assert "Nothing was logged" in write_report(tmp_path, bare).read_text(encoding="utf-8")


def test_curve_names_are_losses_and_learning_rate():
    assert curve_names(RUN.log_history) == ["loss", "loss_answer", "learning_rate"]
    assert curve_names([{"loss": 1.0}]) == [] and draw_curves([], dark=True) is None


@pytest.mark.parametrize(
    "wrong", [{"accuracy": 98.8}, {"floors": {"x": -0.1}}, {"other_runs": {"x": {"accuracy": 99}}}]
)
def test_report_rejects_percentages(wrong):
    with pytest.raises(ValueError, match="share from 0 to 1"):
        replace(RUN, **wrong)


def test_report_needs_counts_of_question_types():
    with pytest.raises(ValueError, match="question types differ"):
        replace(RUN, n_by_type={"shape": 3})


@pytest.mark.parametrize(
    "accuracy, n, low, high",
    [
        # z² = 3.84146. Half of ten: (0.5 ± sqrt(z²/10 · (0.25 + z²/40)) / (1 + z²/10)) around a centre of 0.5.
        (0.5, 10, 0.23659, 0.76341),
        # All right: 1 / (1 + z²/n) up to 1.
        (1.0, 100, 1 / 1.0384146, 1.0),
        (0.0, 100, 0.0, 1 - 1 / 1.0384146),
    ],
)
def test_wilson_interval(accuracy, n, low, high):
    assert wilson_interval(accuracy, n) == pytest.approx((low, high), abs=2e-5)


def test_wilson_interval_rejects_no_samples():
    with pytest.raises(ValueError, match="at least one"):
        wilson_interval(0.5, 0)
