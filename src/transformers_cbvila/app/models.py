"""The models of the app, and what each of them can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..bundled import checkpoint_source, class_of_checkpoint
from ..devices import placed
from ..model.messages_cbvila import listed
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from ..model.processing_cbvila import CBViLAProcessor
from ..retrieval.retriever import CBViLARetriever

# What the app shows if nobody names a model: checkpoints that come with the package.
DEFAULT_MODELS = ("cbvila-scenes", "cbvila-scenes-vqa")

_PRETRAINED, _RETRIEVAL, _ANSWERING = (
    "CBViLAForPreTraining",
    "CBViLAForImageTextRetrieval",
    "CBViLAForQuestionAnswering",
)
# Which heads search and answer. The pretrained one also draws and shows its visual words.
_USES = {_PRETRAINED: "searches, draws and looks inside", _RETRIEVAL: "searches", _ANSWERING: "answers questions"}
# The parts of the app that each loads; the first model that can takes a part.
_PARTS = {_PRETRAINED: {"search", "pretrained"}, _RETRIEVAL: {"search"}, _ANSWERING: {"answering"}}


@dataclass(frozen=True)
class Source:
    """A model that the app has a use for, before it is loaded.

    Attributes:
        name: The name that it was given by.
        path: What `from_pretrained` takes.
        head: The name of the class that it was saved from.
        parts: The parts of the app that it is the first to bring.
    """

    name: str
    path: str
    head: str
    parts: frozenset[str]

    @property
    def use(self) -> str:
        """What the app does with it, in words."""
        return _USES[self.head]


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
        pretrained: Draws pictures and shows its visual words.
        answering: Answers questions.
    """

    names: list[str]
    retriever: CBViLARetriever | None = None
    pretrained: Loaded | None = None
    answering: Loaded | None = None

    def why_not_search(self) -> str:
        """Returns why the app cannot search; an empty string if it can."""
        return "" if self.retriever is not None else self._none("searches", _PRETRAINED, _RETRIEVAL)

    def why_not_ask(self) -> str:
        """Returns why the app answers no questions; an empty string if it does."""
        return "" if self.answering is not None else self._none("answers questions", _ANSWERING)

    def why_not_look(self) -> str:
        """Returns why the app cannot show visual words; an empty string if it can."""
        if self.pretrained is None:
            return self._none("has visual words to look at", _PRETRAINED)
        if not self.pretrained.model.cbvila.has_quantizer:
            return f"{self.pretrained.name} was built without a codebook, so it has no visual words."
        return ""

    def why_not_draw(self) -> str:
        """Returns why the app cannot draw; an empty string if it can."""
        if self.pretrained is None:
            return self._none("draws", _PRETRAINED)
        try:
            self.pretrained.model.check_draws_images()
        except ValueError as error:
            return f"{self.pretrained.name} cannot draw: {error}"
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
        if "pretrained" in source.parts:
            models.pretrained = _loaded(CBViLAForPreTraining, source)
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
        parts = frozenset(_PARTS[head]).difference(*(source.parts for source in found))
        if not parts:
            raise ValueError(f"{name}: another model that was named before {_USES[head]} already; leave one out.")
        found.append(Source(name, path, head, parts))
    return found


def _loaded(head: Any, source: Source) -> Loaded:
    model = placed(head.from_pretrained(source.path)).eval()
    return Loaded(source.name, model, CBViLAProcessor.from_pretrained(source.path))


def _is_or_are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
