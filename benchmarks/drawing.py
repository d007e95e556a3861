"""How often a model draws what a caption of scenes says, over steps, temperature and guidance.

A parser of pixels judges (`drawing/judging.py`); the first line is its judgement of true pictures, the second of these
painted from their own visual words, which drawings can hardly exceed. The last column but one is how often the
reranker finds the right caption of a picture among 100, by similarity.

    python benchmarks/drawing.py --model cbvila-scenes --rows 200
    python benchmarks/drawing.py --model cbvila-scenes --rows 200 --steps 8 --guidance 2 --candidates 1 16
    python benchmarks/drawing.py --model runs/draw --reranker cbvila-scenes --split test_compositional --candidates 16
"""

import argparse
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch

from transformers_cbvila import CBViLAForPreTraining, CBViLAProcessor, CBViLARetriever
from transformers_cbvila.bundled import checkpoint_source
from transformers_cbvila.data.sources import load_pairs
from transformers_cbvila.drawing.from_captions import draw_captions
from transformers_cbvila.drawing.judging import judge_drawings
from transformers_cbvila.drawing.reranking import best_matching
from transformers_cbvila.output_files import write_json
from transformers_cbvila.retrieval.encoding import GalleryEncoder, evaluating, pixel_values_of, tokens_of

AMONG = 100


def found_among(model: Any, processor: Any, pictures: list[Any], captions: list[str]) -> float:
    """Returns how often the right caption comes first among 100."""
    images, texts = (
        GalleryEncoder(model, processor, kind, progress=False, keep_states=False).encode(items).embeds
        for kind, items in (("images", pictures), ("texts", captions))
    )
    hits = []
    for start in range(0, len(images) - AMONG + 1, AMONG):
        scores = images[start : start + AMONG] @ texts[start : start + AMONG].T
        hits += (scores.argmax(1) == torch.arange(AMONG)).tolist()
    return sum(hits) / len(hits) if hits else float("nan")


def from_their_words(model: Any, processor: Any, images: list[Any], captions: list[str]) -> list[Any]:
    """Returns images as the model paints them from their own visual words under their captions."""
    painted: list[Any] = []
    for start in range(0, len(images), AMONG):
        ids, mask = tokens_of(model, processor, captions[start : start + AMONG])
        with evaluating(model):
            pixel_values = pixel_values_of(model, processor, images[start : start + AMONG])
            painted += processor.postprocess(model.reconstruct(pixel_values, ids, mask).pixel_values)
    return painted


def line(name: str, judged: dict[str, float], found: float, seconds: float) -> None:
    """Prints a line of the table."""
    interval = f"{100 * judged['drawn_true_low']:.1f} to {100 * judged['drawn_true_high']:.1f}"
    print(
        f"{name:<34} {100 * judged['drawn_true']:5.1f} ({interval})  floor {100 * judged['drawn_true_floor']:4.1f}  "
        f"objects {judged['drawn_objects']:.2f}  R@1 of {AMONG}: {100 * found:.1f}  {seconds:.2f} s for 16",
        flush=True,
    )


def main() -> None:
    """Draws and judges with every combination of options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or name of a bundled checkpoint")
    parser.add_argument("--split", default="test", choices=("validation", "test", "test_compositional"))
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--temperature", type=float, nargs="+", default=[0.0, 0.5, 1.0])
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0, 3.0])
    parser.add_argument("--candidates", type=int, nargs="+", default=[1], help="of which the best matching is judged")
    parser.add_argument("--reranker", help="model that matches, and finds captions (default: the one that draws)")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    source = checkpoint_source(options.model)
    model, processor = CBViLAForPreTraining.from_pretrained(source).eval(), CBViLAProcessor.from_pretrained(source)
    judging = model, processor
    if options.reranker:
        retriever = CBViLARetriever.from_pretrained(options.reranker)
        judging = retriever.model, retriever.processor
    rows = load_pairs(f"scenes[rows={options.rows}]", options.split)
    captions = [row["captions"][0] for row in rows]
    true = [row["image"] for row in rows]
    print(f"{options.model} on {len(captions)} captions of scenes, {options.split}; percent, 95 % intervals")
    painted = from_their_words(model, processor, true, captions)
    measured: dict[str, Any] = {"split": options.split, "captions": len(captions)}
    for name, pictures in (("true pictures", true), ("their own visual words", painted)):
        measured[name] = judge_drawings(pictures, captions)
        line(name, measured[name], found_among(*judging, pictures, captions), 0)
    measured["drawings"] = []
    for steps, temperature, guidance, candidates in product(
        options.steps, options.temperature, options.guidance, options.candidates
    ):
        begin = time.process_time()
        how = {"num_steps": steps, "temperature": temperature, "guidance_scale": guidance}
        drawn = draw_captions(model, processor, captions, candidates, progress=False, **how)
        best = [[0]] * len(drawn) if candidates == 1 else best_matching(*judging, captions, drawn, progress=False)
        pictures = [own[first] for own, (first,) in zip(drawn, best, strict=True)]
        seconds = (time.process_time() - begin) / len(captions) * 16
        judged = judge_drawings(pictures, captions)
        name = f"T={steps} temp={temperature} guid={guidance} of {candidates}"
        found = found_among(*judging, pictures, captions)
        line(name, judged, found, seconds)
        measured["drawings"].append({**how, "candidates": candidates, **judged, "found_among_100": found})
    if options.output:
        write_json(options.output, measured)


if __name__ == "__main__":
    main()
