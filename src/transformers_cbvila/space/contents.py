"""What a Space holds: models that the app has a use for, and pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..app.models import Source, find_models
from ..app.pictures import Pictures, folder_pictures
from ..bundled import bundled_checkpoints
from ..hub.checking import Checkpoint, find_checkpoint
from ..hub.facts import Facts, known_facts
from ..hub.outside_classes import outside_classes

PACKAGE, DISTRIBUTION = "transformers_cbvila", "transformers-cbvila"
MODELS, PICTURES = "models", "pictures"  # folders of a Space, beside that of the package


@dataclass(frozen=True)
class SpaceModel:
    """A model of a Space.

    Attributes:
        name: What the Space's app calls it: a Hub id, a bundled checkpoint, or a folder of the Space.
        use: What the app does with it, in words.
        checkpoint: Where it is now; None where the Space loads it from the Hub.
        facts: Its licence and its limits; None with a Hub id, whose card has them.
    """

    name: str
    use: str
    checkpoint: Checkpoint | None = None
    facts: Facts | None = None

    @property
    def is_bundled(self) -> bool:
        """Whether it comes with the package."""
        return self.name in bundled_checkpoints()


@dataclass(frozen=True)
class SpaceContents:
    """What a Space holds.

    Attributes:
        models: The models, in the order in which the app takes them.
        pictures: The pictures to search in; None for generated scenes.
    """

    models: list[SpaceModel]
    pictures: Pictures | None = None


def find_contents(models: Sequence[str | Path], images: str | Path | None = None) -> SpaceContents:
    """Finds and checks what a Space is to hold; loads no weights and writes nothing.

    Args:
        models: Folders, Hub ids or names of bundled checkpoints.
        images: A folder of pictures.

    Raises:
        FileNotFoundError, OSError: If there is no such model.
        ValueError: If a model is of no use to the app, cannot be published, or nobody says its licence; if `images`
            is no folder, or has no pictures that can be read.
    """
    checkpoints = [_checkpoint(str(model)) for model in models]
    # The app knows no folders of runs, which have the model in a folder of its own.
    sources = find_models([_loadable(str(model), each) for model, each in zip(models, checkpoints, strict=True)])
    found: list[SpaceModel] = []
    for source, checkpoint in zip(sources, checkpoints, strict=True):
        found.append(_model(source, checkpoint, {model.name for model in found}))
    return SpaceContents(found, None if images is None else folder_pictures(images))


def _checkpoint(model: str) -> Checkpoint | None:
    """Returns the checkpoint in a folder or the bundled one; None for anything else, such as a Hub id."""
    return find_checkpoint(model) if model in bundled_checkpoints() or os.path.isdir(model) else None


def _loadable(model: str, checkpoint: Checkpoint | None) -> str:
    return model if checkpoint is None or model in bundled_checkpoints() else str(checkpoint.folder)


def _model(source: Source, checkpoint: Checkpoint | None, taken: set[str]) -> SpaceModel:
    if checkpoint is None:
        return SpaceModel(source.name, source.use)
    for outside in outside_classes(checkpoint.config):
        outside.refuse("a Space has the classes of this package only; show it with cbvila app")
    is_bundled = source.name in bundled_checkpoints()
    name = source.name if is_bundled else _free_name(f"{MODELS}/{checkpoint.run.absolute().name}", taken)
    return SpaceModel(name, source.use, checkpoint, _facts(checkpoint))


def _free_name(name: str, taken: set[str]) -> str:
    """Returns a name, with a number where another model has it: `runs/a/model` and `runs/b/model`."""
    numbered = (f"{name}-{number}" for number in range(2, len(taken) + 2))
    return next(each for each in (name, *numbered) if each not in taken)


def _facts(checkpoint: Checkpoint) -> Facts:
    """Returns the facts of a checkpoint whose weights the Space holds."""
    facts = known_facts(checkpoint, checkpoint.facts_file)
    missing = [name for name in ("license", "limits") if not getattr(facts, name)]
    if missing:
        raise ValueError(
            f"the page of the Space has to say {' and '.join(missing)} of {checkpoint.run}, whose weights it holds: "
            f"write them to {checkpoint.run / 'facts.yaml'} (cbvila publish --help shows such a file)"
        )
    return facts
