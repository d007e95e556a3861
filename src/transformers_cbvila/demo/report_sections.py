"""The report's parts as HTML strings. Every figure comes from the `DemoRun`; every text from it is escaped."""

from __future__ import annotations

from html import escape

from transformers_cbvila.demo.curves import draw_curves
from transformers_cbvila.demo.demo_run import DemoRun, Example
from transformers_cbvila.metrics.intervals import wilson_interval
from transformers_cbvila.metrics.vqa_metrics import answers_match
from transformers_cbvila.pages.document import UNKNOWN, data_uri, image_tag, percent, table, tile


def tiles_section(run: DemoRun) -> str:
    """The headline figures."""
    overall = percent(run.accuracy)
    shape_color = percent(run.shape_color_accuracy)
    overall_note = (
        f"of {run.n_questions:,} test questions right (95\u202f%: {_interval(run.accuracy, run.n_questions)})"
    )
    shape_color_note = (
        f"of the {run.n_shape_color:,} shape and colour questions "
        f"(95\u202f%: {_interval(run.shape_color_accuracy, run.n_shape_color)})"
    )
    tiles = [
        (overall, overall_note),
        (shape_color, shape_color_note),
        (_duration(run.train_seconds), f"of training, {run.train_steps:,} steps"),
        (f"{run.n_parameters / 1e6:.2f} M", f"parameters, from {run.model_source}"),
    ]
    return f'<div class="tiles">{"".join(tile(*each) for each in tiles)}</div>'


def comparison_section(run: DemoRun) -> str:
    """This run beside other runs, in the order given, and the floors, best first."""
    source = f"from {run.model_source}"
    rows = [_comparison_row("this run", "this", run.accuracy, run.shape_color_accuracy, run.train_seconds, source)]
    for name, other in run.other_runs.items():
        figures = other.get("accuracy"), other.get("shape_color_accuracy"), other.get("train_seconds")
        rows.append(_comparison_row(name, "other", *figures, other.get("source", "")))
    for name, share in sorted(run.floors.items(), key=lambda floor: -floor[1]):
        rows.append(_comparison_row(name, "floor", share, None, None, ""))
    columns = _columns("answers of", "all questions", "shape, colour", "training")
    return f"""<section><h2>Beside other answers to the same questions</h2>
{table("Accuracy of this run and of others", "".join(rows), columns)}</section>"""


def _columns(first: str, *numbers: str) -> str:
    """Column heads: what a row is, a bar that shows a figure again, figures."""
    heads = "".join(f'<th scope="col" class="number">{name}</th>' for name in numbers)
    return f'<th scope="col"><span class="visually-hidden">{first}</span></th><td class="bars"></td>{heads}'


def _comparison_row(
    name: str, kind: str, accuracy: float | None, shape_color: float | None, seconds: float | None, source: str
) -> str:
    # One decimal for floors: more would claim a precision that published figures do not give.
    digits = 1 if kind == "floor" else 2
    label = escape(name) + (f'<span class="source">{escape(source)}</span>' if source else "")
    return (
        f'<tr class="{kind}-run"><th scope="row">{label}</th><td class="bars">{_bar(accuracy, kind)}</td>'
        f'<td class="number">{percent(accuracy, digits)}</td><td class="number">{percent(shape_color, digits)}</td>'
        f'<td class="number">{UNKNOWN if seconds is None else _duration(seconds)}</td></tr>'
    )


def types_section(run: DemoRun) -> str:
    """Accuracy by question type."""
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td class="bars">{_bar(share, "this")}</td>'
        f'<td class="number">{percent(share)}</td><td class="number">{_interval(share, run.n_by_type[name])}</td>'
        f'<td class="number">{run.n_by_type[name]:,}</td></tr>'
        for name, share in run.accuracy_by_type.items()
    ]
    columns = _columns("type of question", "accuracy", "95 % interval", "questions")
    return f"""<section><h2>By question type</h2>
{table("Accuracy by type of question", "".join(rows), columns)}</section>"""


def curves_section(run: DemoRun) -> str:
    """The training curves, in colours for light and for dark pages."""
    light, dark = draw_curves(run.log_history, dark=False), draw_curves(run.log_history, dark=True)
    if light is None or dark is None:
        return '<section><h2>Training</h2><p class="soft">Nothing was logged during training.</p></section>'
    return f"""<section><h2>Training, step by step</h2>
<picture><source media="(prefers-color-scheme: dark)" srcset="{data_uri(dark)}">
<img class="curves" alt="Losses and learning rate against the training step" src="{data_uri(light)}"></picture>
</section>"""


def examples_section(run: DemoRun) -> str:
    """Images with questions and answers, the wrong ones first."""
    if not run.examples:
        return ""
    examples = sorted(run.examples, key=_is_right)
    n_wrong_shown = sum(not _is_right(example) for example in examples)
    return f"""<section><h2>Questions and answers</h2>
<p class="soft">{n_wrong_shown} of the {run.n_wrong:,} wrong answers in the test set, shown first, and
{len(examples) - n_wrong_shown} right ones.</p>
<div class="grid">{"".join(_example_figure(example) for example in examples)}</div></section>"""


def _is_right(example: Example) -> bool:
    return answers_match(example["prediction"], example["answer"])


def _example_figure(example: Example) -> str:
    right = _is_right(example)
    verdict = (
        f"✓ {example['prediction']}" if right else f"✗ said {example['prediction']}, right is {example['answer']}"
    )
    alt = f"picture asked “{example['question']}”; the right answer is {example['answer']}"
    score = "" if example["score"] is None else f'<span class="soft">score {example["score"]:.3f}</span>'
    return (
        f'<figure class="{"right" if right else "wrong"}">{image_tag(example["image"], alt)}'
        f'<figcaption>{escape(example["question"])}<span class="verdict">{escape(verdict)}</span>{score}'
        "</figcaption></figure>"
    )


def environment_section(run: DemoRun) -> str:
    """The command and the machine."""
    rows = [f'<tr><th scope="row">command</th><td><code>{escape(run.command)}</code></td></tr>']
    rows += [
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
        for name, value in run.environment.items()
    ]
    return f"<section><h2>How this came about</h2>{table('Command and machine', ''.join(rows))}</section>"


def _interval(share: float, n: int) -> str:
    low, high = wilson_interval(share, n)
    return f"{100 * low:.2f} to {100 * high:.2f}\u202f%"


def _bar(share: float | None, kind: str) -> str:
    return "" if share is None else f'<span class="bar {kind}" style="--share:{share:.4f}"></span>'


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
