"""What a page holds: a model that searches, pictures, and texts to press; found before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..app.draw_tab import EXAMPLES as DRAWN_SCENES
from ..app.pictures import Pictures, scene_pictures
from ..export.graphs import Drawing, ImageEncoder, graphs_of
from ..export.onnx_export import load_exported
from ..export.preparation import preparation_of
from ..hub.facts import Facts
from ..onnx_runtime.texts import TOKENIZER_FILE
from ..space.contents import MODELS, SpaceModel, find_contents

_SCENES, _EXAMPLES = 96, 4
_MOST_STEPS = 12  # of drawing
# What static_page/js/wordpiece.js computes, by the part of a tokenizer.json.
_BERT = {"model": "WordPiece", "normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}


@dataclass(frozen=True)
class PageContents:
    """What a page holds.

    Attributes:
        name: What the page calls the model.
        source: What the model is loaded from.
        facts: Its licence and its limits; None of a model on the Hub, whose card has them.
        model: The model, on the CPU and in evaluation mode.
        graphs: Names of the graphs that the page runs.
        preparation: How images and texts become inputs.
        pictures: The pictures to search in.
        examples: Texts to press, instead of writing one, to search for.
        drawn: The same to draw.
    """

    name: str
    source: str
    facts: Facts | None
    model: Any
    graphs: list[str]
    preparation: Mapping[str, Any]
    pictures: Pictures
    examples: list[str]
    drawn: list[str]

    @property
    def draws(self) -> bool:
        """Whether the page draws."""
        return Drawing.name in self.graphs

    @property
    def most_steps(self) -> int:
        """How many steps a drawing may take: each settles a patch at least."""
        return min(_MOST_STEPS, self.model.config.vision_config.num_patches)


def find_page_contents(model: str | Path, images: str | Path | None, examples: Sequence[str]) -> PageContents:
    """Finds and checks what a page is to hold, and loads the model; writes nothing.

    Args:
        model: A folder, a Hub id or the name of a bundled checkpoint.
        images: A folder of pictures to search in; generated scenes by default.
        examples: Texts to press; of scenes there are some by default.

    Raises:
        FileNotFoundError, OSError: If there is no such model.
        ValueError: If the model does not search, cannot be published or exported, its tokenizer is not BERT's, or
            nobody says its licence; if `images` is no folder, or has no pictures that can be read; if an example is
            empty.
    """
    if isinstance(examples, str) or not all(isinstance(text, str) and text.strip() for text in examples):
        raise ValueError(f"examples={examples!r}: give a list of texts, none of them empty.")
    contents = find_contents([model], images)
    (found,) = contents.models
    source = _source(found)
    loaded, processor = load_exported(source)
    preparation = preparation_of(loaded, processor)
    if "retrieval" not in preparation:
        raise ValueError(
            f"{model} was not trained to compare images with texts, as a page that searches needs: name a model that "
            "was pretrained with ITC, or fine-tuned for retrieval."
        )
    check_tokenizer(json.loads(processor.tokenizer.backend_tokenizer.to_str()))
    pictures = contents.pictures or scene_pictures(_SCENES)
    captions = [item.caption for item in pictures.items if item.caption]
    return PageContents(
        name=found.name.removeprefix(f"{MODELS}/"),
        source=source,
        facts=found.facts,
        model=loaded,
        # The pictures are encoded here.
        graphs=[graph.name for graph in graphs_of(loaded) if graph.name != ImageEncoder.name],
        preparation=preparation,
        pictures=pictures,
        examples=list(examples) or captions[:_EXAMPLES],
        drawn=list(examples) or (list(DRAWN_SCENES) if pictures.are_scenes else []),
    )


def check_tokenizer(tokenizer: Mapping[str, Any]) -> None:
    """Checks that static_page/js/wordpiece.js computes what a tokenizer does.

    Args:
        tokenizer: Content of a tokenizer.json.

    Raises:
        ValueError: If it is another one than BERT's; the message says what is.
    """
    for part, wanted in _BERT.items():
        found = (tokenizer[part] or {}).get("type")
        if found != wanted:
            raise ValueError(
                f"the {part} of this model's {TOKENIZER_FILE} is {found}, and the page computes BERT's {wanted} "
                "alone: serve the model with cbvila app instead."
            )
    for token in tokenizer["added_tokens"]:
        if any(token[how] for how in ("single_word", "lstrip", "rstrip", "normalized")):
            raise ValueError(
                f"the page finds the token {token['content']!r} of this model's {TOKENIZER_FILE} only as it is "
                "written: save it without single_word, lstrip, rstrip and normalized."
            )


def _source(found: SpaceModel) -> str:
    return found.name if found.checkpoint is None else str(found.checkpoint.folder)
