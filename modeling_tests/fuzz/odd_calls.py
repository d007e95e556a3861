"""Calls of the pipeline and of the retriever with what people have at hand."""

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from odd_pictures import data_url, noise, picture
from odd_rows import odd_text, sentence
from transformers import pipeline

from transformers_cbvila import CBViLARetriever


def odd_image(draw: random.Random, folder: Path) -> Any:
    content = picture(draw)
    path = folder / f"call{draw.randrange(10**9)}"
    path.write_bytes(content)
    good = noise(draw)
    return draw.choice(
        [content, str(path), path, io.BytesIO(content), data_url(content), {"bytes": content}, {"path": str(path)}]
        + [good, np.asarray(good), np.asarray(good, dtype=np.float32), np.full((4, 4, 3), np.nan), np.zeros((0, 4, 3))]
        + [np.zeros((2, 2, 2, 2, 2)), torch.zeros(3, 8, 8), torch.zeros(5, 8, 8), np.zeros((4, 4, 3), dtype=bool)]
        + [None, "", 3, [], {}, "nowhere.png", "x" * 3000, b"", "http://", "\0", object(), [good, None], np.array("a")]
    )


def odd_images(draw: random.Random, folder: Path) -> Any:
    images = [odd_image(draw, folder) if draw.random() < 0.4 else noise(draw) for _ in range(draw.randint(1, 4))]
    return draw.choice(
        [images, images, tuple(images), iter(images), dict(enumerate(images)), images[0], [images], str(folder)]
    )


class Calls:
    """Draws calls; each is a function without arguments."""

    def __init__(self, models: dict[str, str], folder: Path) -> None:
        self.ask: Any = pipeline("visual-question-answering", model=models["vqa"])
        self.retrieval, self.folder = models["retrieval"], folder

    def draw(self, surface: str, draw: random.Random) -> Callable[[], Any]:
        return getattr(self, f"_{surface}")(draw)

    def _pipeline(self, draw: random.Random) -> Callable[[], Any]:
        image = draw.choice([odd_image, odd_images])(draw, self.folder)
        question = draw.choice([sentence(draw), sentence(draw), odd_text(draw)])
        arguments = draw.choice(
            [(image, question), (image, question), ({"image": image, "question": question},), (image,)]
        )
        arguments = draw.choice([arguments, arguments, ([{"image": image, "question": question}, {}],), ()])
        options = [
            {},
            {},
            {},
            {"top_k": draw.choice([0, -1, 2, 10**9])},
            {"nope": 1},
            {"batch_size": 0},
        ]
        options += [
            {"answers": draw.choice([["yes", "no"], [], "yes", [""], [None], [3], ["a", "a"], {"a": 1}, ["x" * 3000]])}
        ]
        options += [{"generate_kwargs": draw.choice([{"max_new_tokens": -1}, {"nope": 1}, {"num_beams": 0}, {}])}]
        chosen = draw.choice(options)
        return lambda: list(self.ask(*arguments, **chosen))

    def _retriever(self, draw: random.Random) -> Callable[[], Any]:
        def call() -> None:
            retriever = CBViLARetriever.from_pretrained(self.retrieval)
            which = draw.choice(["images", "texts"])
            texts = [odd_text(draw) if draw.random() < 0.4 else sentence(draw) for _ in range(draw.randint(1, 4))]
            wrong = draw.choice([texts, texts[0], dict(enumerate(texts)), 3, None, []])
            items = odd_images(draw, self.folder) if which == "images" else draw.choice([texts, texts, wrong])
            retriever.index(**{which: items if draw.random() < 0.6 else [noise(draw)] if which == "images" else ["a"]})
            query = odd_image(draw, self.folder) if draw.random() < 0.5 else odd_text(draw)
            kind = draw.choice(["text", "image"])
            numbers = draw.choice([{}, {}, {"top_k": draw.choice([0, -1, 10**9])}, {"rerank_k": -1}])
            retriever.search(**{kind: query}, **numbers)

        return call
