"""Metrics with intervals and baselines, as model cards show them."""

from transformers_cbvila.hub.results import Result, results_of_metrics, results_of_report, results_table


def test_results_include_intervals_and_baselines():
    figures = {
        "mim": 3.42,
        "ln_perplexity": 4.218,
        "image_retrieval_r1": 0.25,
        "image_retrieval_r1_low": 0.2,
        "image_retrieval_r1_high": 0.3,
        "image_retrieval_r1_floor": 0.125,
        "accuracy": 0.75,
        "accuracy_majority_floor": 0.5,
        "accuracy_text_only_floor": 0.625,
        "codebook_window_tokens": 64,
        "protocol": "zero-shot",
    }
    accuracy, recall, mim = results_of_metrics(figures, "birds")
    assert accuracy.floors == {"most frequent answer": 0.5, "most frequent answer to the same text": 0.625}
    assert mim == Result("birds", "mim", 3.42, floors={"the words' frequencies alone": 4.218})
    assert recall == Result("birds", "image_retrieval_r1", 0.25, floors={"chance": 0.125}, low=0.2, high=0.3)
    assert results_table([recall, mim]).splitlines()[2:] == [
        "| birds, test | text → image R@1 | 25.00 % | 20.00 % to 30.00 % | 12.50 % (chance) |",
        "| birds, test | MIM cross-entropy, nats | 3.420 | – | 4.218 (the words' frequencies alone) |",
    ]


def test_results_table_says_what_was_measured_on_rows_of_training():
    line = results_table([Result("vqa.csv", "accuracy", 0.5, "all", trained_on=True)]).splitlines()[2]
    assert line.startswith("| vqa.csv, all, measured on rows of its training | accuracy |")


def test_results_of_report_reads_a_demo_report():
    report = {
        "accuracy": 0.9,
        "accuracy_interval_95": [0.8, 0.95],
        "accuracy_by_type": {"shape": 0.5},
        "floors": {"most frequent": 0.3, "text alone": 0.6},
    }
    overall, shape = results_of_report(report)
    assert (overall.low, overall.high, overall.floors) == (0.8, 0.95, report["floors"])
    assert results_table([overall, shape]).splitlines()[2:] == [
        "| easy-VQA, test | accuracy | 90.00 % | 80.00 % to 95.00 % | 30.00 % (most frequent), 60.00 % (text alone) |",
        "| easy-VQA, test | accuracy, shape | 50.00 % | – | – |",
    ]


def test_result_shown_formats_unknown_metrics():
    assert Result("d", "own", 0.5).shown(0.5) == "50.00 %"
    assert Result("d", "own", 12.0).shown(12.0) == "12.000"
    assert Result("d", "codebook_perplexity", 0.9).shown(0.9) == "0.900"
