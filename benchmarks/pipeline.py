"""Measures the pipeline's CPU time outside the model: preprocessing and collating questions, decoding answers.

Generated images (seeded) with questions, the bundled question answering model; once with an image for each question
and once with ten questions about each. Generating answers from tensors counts as the model, everything else as
outside. Answers of the batch are compared with those of single questions.
"""

from collections.abc import Callable
from typing import Any

import torch
from large_gallery import GeneratedImages
from measuring import Spread, clock, parser, positive, show
from transformers import pipeline

from transformers_cbvila import bundled_checkpoint

QUESTIONS = ("what shape is in the image", "is there a red circle", "what color is the shape", "is there a triangle")
CHECKED = 8


class Timed:
    """Measures the time in a function.

    Args:
        function: The function.
        now: The clock.
    """

    def __init__(self, function: Callable, now: Callable[[], float]) -> None:
        self.function, self.now, self.seconds = function, now, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function and adds up the seconds."""
        start = self.now()
        result = self.function(*args, **kwargs)
        self.seconds += self.now() - start
        return result


def draw_pairs(count: int, questions_each: int) -> list[dict[str, Any]]:
    """Returns pairs of an image and a question, with the questions about one image in a row."""
    images = [GeneratedImages(count)[number] for number in range(-(-count // questions_each))]
    return [
        {"image": images[number // questions_each], "question": QUESTIONS[number % len(QUESTIONS)]}
        for number in range(count)
    ]


def check(ask: Any, pairs: list[dict[str, Any]], batch_size: int) -> float:
    """Returns the largest difference between scores of a batch and of single questions."""
    together, alone = ask(pairs, batch_size=batch_size), [ask(pair) for pair in pairs[:CHECKED]]
    for ours, own in zip(together, alone, strict=False):
        if ours[0]["answer"] != own[0]["answer"]:
            raise RuntimeError(f"{ours} in a batch, and {own} alone.")
    return max(abs(ours[0]["score"] - own[0]["score"]) for ours, own in zip(together, alone, strict=False))


def main() -> None:
    """Measures and prints the results."""
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
        print(f"a batch of {options.batch_size} questions, {questions_each} about each image")
        show(
            {
                "CPU time outside the model": f"{shares} %",
                "CPU-ms, in all": str(Spread([1000 * seconds for seconds in whole])),
                f"{CHECKED} scores alone": f"differ by {difference:.1e} at most",
            }
        )


if __name__ == "__main__":
    main()
