"""Lines of metrics in the terminal: recalls together, a metric beside its interval and its floor, and nothing lost."""

import pytest

from transformers_cbvila.metric_lines import metric_lines, print_metrics


def with_interval(name, value, low, high):
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def test_recalls_of_one_order_share_a_line():
    metrics = with_interval("text_retrieval_r1", 0.5, 0.4, 0.6) | {
        "image_retrieval_r1": 0.25,
        "text_retrieval_r10": 1.0,
    }
    metrics |= {"text_retrieval_r1_reranked": 0.75}
    assert [line.split() for line in metric_lines(metrics)] == [
        ["text_retrieval_r1/10", "0.5000", "[0.400,", "0.600]", "1.0000"],
        ["image_retrieval_r1", "0.2500"],
        ["text_retrieval_r1_reranked", "0.7500"],
    ]


@pytest.mark.parametrize(
    "end, said",
    [("floor", "floor"), ("position_floor", "floor by position"), ("shuffled_caption", "shuffled caption")],
)
def test_what_a_metric_is_compared_with_stands_beside_it(end, said):
    (line,) = metric_lines({f"mim_accuracy_{end}": 0.125, "mim_accuracy": 0.5})
    assert line.split(maxsplit=1) == ["mim_accuracy", f"0.5000  ({said} 0.1250)"]


def test_bounds_and_floors_of_nothing_stand_alone():
    lines = metric_lines({"gamma_low": 0.5, "pixel_floor": 0.25, "rows_high": 3})
    assert [line.split() for line in lines] == [["gamma_low", "0.5000"], ["pixel_floor", "0.2500"], ["rows_high", "3"]]


def test_a_prefix_is_left_out_and_what_is_no_number_is_shown_as_it_is(capsys):
    print_metrics({"eval_split": "test", "eval_rows": 12, "eval_accuracy": 0.5, "best": None}, "eval_")
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown == [["split", "test"], ["rows", "12"], ["accuracy", "0.5000"], ["best", "None"]]
