"""The numbers of docs/results.md and of the cards are the recorded ones."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from transformers_cbvila import bundled_checkpoint

ROOT = Path(__file__).parents[1]
RESULTS = (ROOT / "docs/results.md").read_text()


def percent(share, digits=1):
    return f"{100 * share:.{digits}f} %"


def test_results_accuracies_are_those_of_committed_runs():
    runs = json.loads((ROOT / "src/transformers_cbvila/demo/committed_runs.json").read_text())
    for name in ("pretrained", "random weights"):
        assert percent(runs[name]["accuracy"], 2) in RESULTS
        assert percent(runs[name]["shape_color_accuracy"], 2) in RESULTS


def test_results_other_tasks_are_means_of_committed_runs():
    def means(name, start, figures):
        runs = [json.loads(file.read_text()) for file in (ROOT / "docs/downstream" / name).glob(f"{start}-seed?.json")]
        assert len(runs) == 3
        return " / ".join(f"{100 * fmean(run[figure] for run in runs):.1f}" for figure in figures)

    recalls = ("text_retrieval_r10", "image_retrieval_r10")
    for name in ("emoji", "openclipart", "flickr8k"):
        floors = means(name, "random", [f"{recall}_floor" for recall in recalls])
        shown = [floors, *(means(name, start, recalls) for start in ("random", "pretrained"))]
        assert f"| {' | '.join(shown)} |" in RESULTS
    for name in ("entailment", "nlvr1"):
        floor = max(means(name, f"text-only-{start}", ["accuracy"]) for start in ("random", "pretrained"))
        shown = [floor, *(means(name, start, ["accuracy"]) for start in ("random", "pretrained"))]
        assert f"| {' | '.join(shown)} |" in RESULTS


def test_answering_card_shows_its_report():
    folder = Path(bundled_checkpoint("cbvila-tiny-easyvqa"))
    report, card = json.loads((folder / "report.json").read_text()), (folder / "README.md").read_text()
    for accuracy in (report["accuracy"], report["shape_color_accuracy"], *report["accuracy_by_type"].values()):
        assert percent(accuracy, 2) in card


@pytest.mark.parametrize("name", ["cbvila-tiny", "cbvila-scenes"])
def test_pretraining_card_shows_its_inspection(name):
    folder = Path(bundled_checkpoint(name))
    measured, card = json.loads((folder / "inspection.json").read_text()), (folder / "README.md").read_text()
    for figures in measured.values():
        assert percent(figures["codebook_usage"]) in card
        assert f"{figures['codebook_perplexity']:.1f}" in card
        assert f"{figures['mim']:.3f} / {figures['ln_perplexity']:.3f}" in card
        assert f"{figures['mim_advantage_low']:.3f} to {figures['mim_advantage_high']:.3f}" in card
        if name == "cbvila-scenes":
            assert f"{100 * figures['image_retrieval_r1_reranked']:.1f} [" in card


def test_captioning_card_shows_its_evaluation():
    folder = Path(bundled_checkpoint("cbvila-scenes-captions"))
    card, readme = (folder / "README.md").read_text(), (ROOT / "README.md").read_text()
    for file in ("evaluation.json", "evaluation-compositional.json"):
        measured = json.loads((folder / file).read_text())
        low, high = (f"{100 * measured[f'true_captions_{end}']:.1f}" for end in ("low", "high"))
        shown = f"{100 * measured['true_captions']:.1f} [{low}, {high}]"
        assert shown in card and shown in RESULTS and percent(measured["true_captions"]) in readme
        assert f"−{-measured['log_likelihood_floor']:.2f}" in card


def test_drawing_card_shows_its_benchmark():
    folder = Path(bundled_checkpoint("cbvila-scenes-draw"))
    card = (folder / "README.md").read_text()
    for file in ("drawing.json", "drawing-compositional.json"):
        measured = json.loads((folder / file).read_text())
        for figures in (measured["their own visual words"], *measured["drawings"]):
            low, high = (f"{100 * figures[f'drawn_true_{end}']:.1f}" for end in ("low", "high"))
            shown = f"{100 * figures['drawn_true']:.1f} [{low}, {high}]"
            assert shown in card and shown in RESULTS + (ROOT / "docs/drawing.md").read_text()
        assert measured["true pictures"]["drawn_true"] == 1
        assert max(figures["drawn_true_floor"] for figures in measured["drawings"]) < 0.01
