"""Answers of a language model that reads images, after 0, 1, 2 and 4 examples in its prompt.

    python -m studies.shots --model runs/captions --data 'scenes[rows=300]' --examples 'scenes[rows=2000]'

An example is another image with its question and answer: `<image> what color is the circle? red.` Examples, and which
question of an image is asked, are drawn from (seed, row), so that a row has the same first examples with every number
of them. An answer is what is written up to the first full stop. The floor is the same prompt with the image of the row
after it in place of its own.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from transformers_cbvila.data.questions import usual_answer
from transformers_cbvila.data.source_rows import usual_split
from transformers_cbvila.metrics.intervals import mean_with_interval
from transformers_cbvila.metrics.vqa_metrics import answers_match
from transformers_cbvila.model.modeling_cbvila_conditional_generation import CBViLAForConditionalGeneration
from transformers_cbvila.model.processing_cbvila_conditional_generation import CBViLAConditionalGenerationProcessor
from transformers_cbvila.output_files import require_folder, write_json
from transformers_cbvila.tasks.row_reading import load_task_rows
from transformers_cbvila.tasks.rows import TaskRows
from transformers_cbvila.tasks.text_writing import Prompt, write_texts
from transformers_cbvila.tasks.vqa import VisualQuestionAnswering

SHOTS = (0, 1, 2, 4)


class Asked(NamedTuple):
    """One question about an image, and what people answered."""

    image: Image.Image
    question: str
    answers: Sequence[str]


# Texts that continue prompts.
Writer = Callable[[Sequence[Prompt]], list[str]]


def one_question(rows: TaskRows, row: int, draw: np.random.Generator) -> Asked:
    """Returns one of the questions of a row."""
    fields = rows[row]
    number = draw.integers(len(fields["question"]))
    return Asked(fields["image"], fields["question"][number], fields["answer"][number])


def prompt_of(examples: Sequence[Asked], asked: Asked, image_token: str) -> Prompt:
    """Returns the prompt that asks a question after examples."""
    shots = [f"{image_token} {one.question} {usual_answer(one.answers)}." for one in examples]
    images = [*(one.image for one in examples), asked.image]
    return Prompt(images, "".join([*shots, f"{image_token} {asked.question}"]))


def is_right(text: str, answers: Sequence[str]) -> bool:
    """Returns whether a text up to its first full stop is one of the answers."""
    return any(answers_match(text.partition(".")[0], answer) for answer in answers)


def measure(
    write: Writer, rows: TaskRows, examples: TaskRows, image_token: str, shots: Sequence[int] = SHOTS, seed: int = 0
) -> dict[str, Any]:
    """Returns the accuracy after each number of examples, its floor, and its difference from the smallest number.

    Args:
        write: Continues prompts.
        rows: Rows with questions.
        examples: Rows with questions that examples are drawn from, which should be none of `rows`.
        image_token: The token that stands for an image.
        shots: Numbers of examples.
        seed: Of the questions, the examples and the intervals.

    Raises:
        ValueError: If there are fewer rows of examples than a prompt has.
    """
    if max(shots) > len(examples):
        raise ValueError(f"shots={max(shots)}: the examples have {len(examples)} row(s); give more, or fewer shots.")
    draws = [np.random.default_rng([seed, row]) for row in range(len(rows))]
    asked = [one_question(rows, row, draw) for row, draw in enumerate(draws)]
    order = [draw.choice(len(examples), max(shots), replace=False).tolist() for draw in draws]
    shown = [[one_question(examples, row, draw) for row in chosen] for chosen, draw in zip(order, draws, strict=True)]
    others = [one._replace(image=asked[(row + 1) % len(asked)].image) for row, one in enumerate(asked)]
    found: dict[str, Any] = {"rows": len(rows), "seed": seed}
    first: np.ndarray | None = None
    for number in sorted(set(shots)):
        scores, floor = (
            _scores(write, [prompt_of(s[:number], q, image_token) for s, q in zip(shown, of, strict=True)], of)
            for of in (asked, others)
        )
        name = f"shots_{number}"
        found |= mean_with_interval(name, scores, seed) | {f"{name}_floor": float(floor.mean())}
        if first is None:
            first = scores
        else:
            found |= mean_with_interval(f"{name}_gain", scores - first, seed)
    return found


def _scores(write: Writer, prompts: Sequence[Prompt], asked: Sequence[Asked]) -> np.ndarray:
    return np.asarray([is_right(text, one.answers) for text, one in zip(write(prompts), asked, strict=True)], float)


def main(argv: list[str] | None = None) -> int:
    """Measures a model, prints what was found, and writes it if asked."""
    options = command_line().parse_args(argv)
    require_folder("output", options.output)
    given = {} if options.language_model is None else {"language_model": options.language_model}
    model = CBViLAForConditionalGeneration.from_pretrained(options.model, **given).eval()
    processor = CBViLAConditionalGenerationProcessor.from_pretrained(options.model, **given)
    task, split = VisualQuestionAnswering(), options.split or usual_split([options.data])
    rows, examples = load_task_rows(task, [options.data], split), load_task_rows(task, [options.examples], "train")

    def write(prompts: Sequence[Prompt]) -> list[str]:
        return write_texts(model, processor, prompts, len(prompts), options.batch_size, options.max_new_tokens)

    found = measure(write, rows, examples, processor.image_token, options.shots, options.seed)
    found |= {"model": Path(options.model).name, "data": options.data, "split": split, "examples": options.examples}
    for name, value in found.items():
        print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
    if options.output is not None:
        write_json(options.output, found)
    return 0


def command_line() -> argparse.ArgumentParser:
    """Returns the parser of the options."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.shots", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder or Hub id of a CBViLAForConditionalGeneration")
    parser.add_argument("--language_model", help="in place of the one that the model names")
    parser.add_argument("--data", required=True, help="rows with questions")
    parser.add_argument("--split", help="split of data (default: test, or else validation)")
    parser.add_argument("--examples", required=True, help="rows with questions, whose split `train` has the examples")
    parser.add_argument("--shots", nargs="+", type=int, default=list(SHOTS), help="default: 0 1 2 4")
    parser.add_argument("--batch_size", type=int, default=16, help="prompts at a time (default: %(default)s)")
    parser.add_argument("--max_new_tokens", type=int, default=8, help="longest answer (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--output", help="JSON file of the figures")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
