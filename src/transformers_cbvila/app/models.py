"""The models of the app, and what each of them can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..bundled import checkpoint_source, class_of_checkpoint
from ..devices import placed
from ..model.configuration_cbvila import CBViLAConfig
from ..model.messages_cbvila import listed
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.retriever import CBViLARetriever

# What the app shows if nobody names a model: checkpoints that come with the package.
DEFAULT_MODELS = ("cbvila-scenes-draw", "cbvila-scenes", "cbvila-scenes-vqa")

_PRETRAINED, _RETRIEVAL, _ANSWERING = (
    "CBViLAForPreTraining",
    "CBViLAForImageTextRetrieval",
    "CBViLAForQuestionAnswering",
)
# Which heads search and answer. The pretrained one also draws and shows its visual words.
_USES = {_PRETRAINED: "searches, draws and looks inside", _RETRIEVAL: "searches", _ANSWERING: "answers questions"}
# The parts of the app that each loads; the first model that can takes a part.
_PARTS = {_PRETRAINED: {"search", "looking", "drawing"}, _RETRIEVAL: {"search"}, _ANSWERING: {"answering"}}
# What a pretrained model does that learned neither contrast nor matching, and the part that it loads.
_ONLY_DRAWS, _DRAWING = "draws", {"drawing"}


@dataclass(frozen=True)
class Source:
    """A model that the app has a use for, before it is loaded.

    Attributes:
        name: The name that it was given by.
        path: What `from_pretrained` takes.
        use: What the app can do with it, in words.
        parts: The parts of the app that it is the first to bring.
    """

    name: str
    path: str
    use: str
    parts: frozenset[str]


@dataclass
class Loaded:
    """A model in evaluation mode, with its processor and the name that it was given by."""

    name: str
    model: Any
    processor: CBViLAProcessor


@dataclass
class AppModels:
    """The models of the app; None where no model that was named can do it.

    Attributes:
        names: The models as they were named.
        retriever: Searches.
        looking: Shows its visual words.
        drawing: Draws pictures.
        answering: Answers questions.
    """

    names: list[str]
    retriever: CBViLARetriever | None = None
    looking: Loaded | None = None
    drawing: Loaded | None = None
    answering: Loaded | None = None

    @property
    def reranker(self) -> CBViLARetriever | None:
        """What says which of several drawings fits a caption best; None if no model was trained to match."""
        matches = self.retriever is not None and self.retriever.model.config.needs("hard_negatives")
        return self.retriever if matches else None

    def why_not_search(self) -> str:
        """Returns why the app cannot search; an empty string if it can."""
        return "" if self.retriever is not None else self._none("searches", _PRETRAINED, _RETRIEVAL)

    def why_not_ask(self) -> str:
        """Returns why the app answers no questions; an empty string if it does."""
        return "" if self.answering is not None else self._none("answers questions", _ANSWERING)

    def why_not_look(self) -> str:
        """Returns why the app cannot show visual words; an empty string if it can."""
        if self.looking is None:
            return self._none("has visual words to look at", _PRETRAINED)
        if not self.looking.model.cbvila.has_quantizer:
            return f"{self.looking.name} was built without a codebook, so it has no visual words."
        return ""

    def why_not_draw(self) -> str:
        """Returns why the app cannot draw; an empty string if it can."""
        if self.drawing is None:
            return self._none("draws", _PRETRAINED)
        try:
            self.drawing.model.check_draws_images()
        except ValueError as error:
            return f"{self.drawing.name} cannot draw: {error}"
        return ""

    def _none(self, what: str, *heads: str) -> str:
        return f"No model here {what}: {listed(self.names)} {_is_or_are(self.names)} none of {', '.join(heads)}."


def load_models(names: Sequence[str] = DEFAULT_MODELS) -> AppModels:
    """Loads models; each part of the app takes the first that can do it.

    Args:
        names: Folders, Hub ids or names of bundled checkpoints.

    Raises:
        FileNotFoundError, OSError: If there is no such checkpoint.
        ValueError: If a model is of no use to the app, or another one does all that it could do.
    """
    models = AppModels(list(names))
    for source in find_models(names):
        if "search" in source.parts:
            models.retriever = CBViLARetriever.from_pretrained(source.path)
        if source.parts & {"looking", "drawing"}:
            pretrained = _loaded(CBViLAForPreTraining, source)
            if "looking" in source.parts:
                models.looking = pretrained
            if "drawing" in source.parts:
                models.drawing = pretrained
        if "answering" in source.parts:
            models.answering = _loaded(CBViLAForQuestionAnswering, source)
    return models


def find_models(names: Sequence[str]) -> list[Source]:
    """Returns what the app would do with models, without loading their weights.

    Args:
        names: See [`load_models`].

    Raises:
        FileNotFoundError, OSError, ValueError: See [`load_models`].
    """
    found: list[Source] = []
    for name in names:
        path = checkpoint_source(name)
        head = class_of_checkpoint(path) or ""
        if head not in _USES:
            uses = "; ".join(f"a {known} {use}" for known, use in _USES.items())
            raise ValueError(f"{name} is a {head or 'model without a head'}, which the app has no use for: {uses}.")
        only_draws = head == _PRETRAINED and _learned_no_pairs(path)
        use, able = (_ONLY_DRAWS, _DRAWING) if only_draws else (_USES[head], _PARTS[head])
        parts = frozenset(able).difference(*(source.parts for source in found))
        if not parts:
            raise ValueError(f"{name}: another model that was named before {use} already; leave one out.")
        found.append(Source(name, path, use, parts))
    return found


def _learned_no_pairs(path: str) -> bool:
    """Returns whether a pretrained model learned neither by contrast nor by matching which texts go with an image."""
    config = CBViLAConfig.from_pretrained(path)
    return not (config.needs("projections") or config.needs("hard_negatives"))


def _loaded(head: Any, source: Source) -> Loaded:
    model = placed(head.from_pretrained(source.path)).eval()
    return Loaded(source.name, model, CBViLAProcessor.from_pretrained(source.path))


def _is_or_are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
