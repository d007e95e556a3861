"""The pipeline's CPU time beside the model: reading, preprocessing and collating questions, decoding answers.

Drawn pictures (seeded) with questions about them, the bundled answering model; once with a picture for each question
and once with ten questions about each. What counts as the model is generating answers from tensors, and all else is
beside it. Answers of the batch are compared with those of questions that are asked one by one.
"""

from collections.abc import Callable
from typing import Any

import torch
from large_gallery import Pictures
from measuring import Spread, clock, parser, positive, show
from transformers import pipeline

from transformers_cbvila import bundled_checkpoint

QUESTIONS = ("what shape is in the image", "is there a red circle", "what color is the shape", "is there a triangle")
CHECKED = 8


class Timed:
    """A function, and the seconds that were spent in it."""

    def __init__(self, function: Callable, now: Callable[[], float]):
        self.function, self.now, self.seconds = function, now, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = self.now()
        result = self.function(*args, **kwargs)
        self.seconds += self.now() - start
        return result


def draw_pairs(count: int, questions_each: int) -> list[dict[str, Any]]:
    """Pairs of a picture and a question, the questions about one picture after each other."""
    pictures = [Pictures(count)[number] for number in range(-(-count // questions_each))]
    return [
        {"image": pictures[number // questions_each], "question": QUESTIONS[number % len(QUESTIONS)]}
        for number in range(count)
    ]


def check(ask: Any, pairs: list[dict[str, Any]], batch_size: int) -> float:
    """The largest difference between scores of a batch and of questions on their own."""
    together, alone = ask(pairs, batch_size=batch_size), [ask(pair) for pair in pairs[:CHECKED]]
    for ours, own in zip(together, alone, strict=False):
        if ours[0]["answer"] != own[0]["answer"]:
            raise RuntimeError(f"{ours} in a batch, and {own} alone.")
    return max(abs(ours[0]["score"] - own[0]["score"]) for ours, own in zip(together, alone, strict=False))


def main() -> None:
    arguments = parser(__doc__, "python benchmarks/pipeline.py --batch_size 64")
    arguments.add_argument("--batch_size", type=positive, default=64, metavar="B", help="default 64")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    ask = pipeline("visual-question-answering", model=bundled_checkpoint("cbvila-tiny-easyvqa"), device="cpu")
    now = clock(torch.device("cpu"))
    model = ask._forward = Timed(ask._forward, now)
    for questions_each in (1, 10):
        pairs = draw_pairs(options.batch_size, questions_each)
        difference = check(ask, pairs, options.batch_size)
        whole, inside = [], []
        for _ in range(options.rounds):
            start, model.seconds = now(), 0.0
            ask(pairs, batch_size=options.batch_size)
            whole.append(now() - start)
            inside.append(model.seconds)
        shares = Spread([100 * (1 - part / total) for part, total in zip(inside, whole, strict=True)])
        print(f"a batch of {options.batch_size} questions, {questions_each} about each picture")
        show(
            {
                "CPU time beside the model": f"{shares} %",
                "CPU-ms, in all": str(Spread([1000 * seconds for seconds in whole])),
                f"{CHECKED} scores alone": f"differ by {difference:.1e} at most",
            }
        )


if __name__ == "__main__":
    main()
