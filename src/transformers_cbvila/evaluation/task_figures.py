"""The figures of a downstream task: what a model reaches on some rows, with intervals, beside what needs no image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.questions import usual_answer
from ..data.task_rows import TaskRows
from ..data.task_settings import EntailmentSettings, QuestionSettings, ReasoningSettings, RetrievalSettings
from ..metrics.answer_normalization import normalize_answer
from ..metrics.baselines import chance_recall, guesses_by_text, majority
from ..metrics.intervals import bootstrap_interval
from ..metrics.reasoning_metrics import consistency
from ..metrics.vqa_metrics import ANNOTATORS_PER_QUESTION, answers_match, vqa_soft_scores
from ..model.processing_cbvila import CBViLAProcessor
from ..model.unknown_tokens_cbvila import unknown_token_share
from ..retrieval.retrieval_figures import DEPTHS, ImagesOfRows, TrueMatches, gallery_figures, owners_of
from .answer_lists import Scorer, ceiling, read_answer_list
from .answering import answer_questions
from .classification import classify

Figures = dict[str, Any]


@dataclass
class TaskEvaluation:
    """How a task is evaluated.

    Args:
        settings: Of the task (`data/task_settings.py`); its class is the task.
        train_rows: Training rows, which floors are taken from: the majority answer, and the majority answer to each
            question or text. Without, the majority is that of the evaluated rows, and there is no other floor.
        batch_size: Rows per batch.
        seed: Seed of the intervals.
        progress: Whether to show bars.
        folder: Of retrieval, where to keep what is encoded and matched; see [`gallery_figures`].
        protocol: The protocol by which figures are to be comparable, if any.
    """

    settings: Any
    train_rows: TaskRows | None = None
    batch_size: int = 32
    seed: int = 0
    progress: bool = True
    folder: str | None = None
    protocol: str | None = None

    def figures(self, model: Any, processor: Any, rows: Any) -> Figures:
        """Measures a model on the rows of its task.

        Args:
            model: Of the head that belongs to the task.
            processor: Its processor.
            rows: The [`TaskRows`].

        Returns:
            `accuracy` (all but retrieval), `consistency`, or `text_retrieval_r1` …, each with `_low` and `_high`; the
            floors, whose names end in `_floor`; `metric`; `rows`; and what the protocol leaves open.
        """
        measure = _MEASURES[type(self.settings)]
        return {**measure(self, model, processor, rows), "unknown_token_share": _unknown_share(processor, rows)}

    def check(self, processor: CBViLAProcessor, rows: TaskRows | None) -> None:
        """Raises what `figures` would of an answer list, so that no model is trained for a file that is of no use.

        Args:
            processor: Of the model.
            rows: That are to be evaluated, if there are any.

        Raises:
            FileNotFoundError: If the list isn't there.
            ValueError: If it is no list of answers that the tokenizer can take, or none is right for any question.
        """
        path = getattr(self.settings, "answer_list", None)
        if path is None:
            return
        answers = read_answer_list(path)
        try:
            processor.encode_answers(answers)
        except ValueError as error:
            raise ValueError(f"answer_list={path}: {error}") from error
        if rows is not None:
            references = _references(rows)
            ceiling(answers, references, scorer_of(references, self.protocol is not None)[1])


def _retrieval(self: TaskEvaluation, model, processor, rows: TaskRows) -> Figures:
    captions, settings = rows.column("captions"), self.settings
    found: Figures = gallery_figures(
        model,
        processor,
        ImagesOfRows(rows),
        captions,
        settings.rerank_k,
        self.batch_size,
        self.seed,
        self.progress,
        settings.max_length,
        settings.own_captions_only,
        self.folder,
    )
    texts = [text for row in captions for text in row]
    of_images, of_texts = TrueMatches(texts, owners_of(captions), settings.own_captions_only).counts()
    for way, relevant, gallery in (("text", of_images, len(texts)), ("image", of_texts, len(rows))):
        for k in DEPTHS:
            found[f"{way}_retrieval_r{k}_floor"] = chance_recall(relevant.tolist(), gallery, k)
    for ending in ("", "_reranked", "_combined"):
        names = [f"{way}_retrieval_r{k}{ending}" for way in ("text", "image") for k in DEPTHS]
        if names[0] in found:
            found[f"mean_recall{ending}"] = float(np.mean([found[name] for name in names]))
    return {
        **found,
        "metric": "recall at 1, 5 and 10",
        "rerank_k": settings.rerank_k if "mean_recall_reranked" in found else 0,
        "gallery_images": len(rows),
        "gallery_texts": len(texts),
        "duplicate_captions": len(texts) - len(set(texts)),
    }


def _answering(self: TaskEvaluation, model, processor, rows: TaskRows) -> Figures:
    questions = [question for row in rows.column("question") for question in row]
    references = _references(rows)
    metric, score = scorer_of(references, self.protocol is not None)
    found: Figures = {"metric": metric, "rows": len(questions), "images": len(rows)}
    answer_list = None
    if self.settings.answer_list is not None:
        answer_list = read_answer_list(self.settings.answer_list)
        found["answer_list_ceiling"] = ceiling(answer_list, references, score)
        found |= {"answer_list_size": len(answer_list), "answer_k": self.settings.answer_k or len(answer_list)}
    longest = min(20, model.config.text_config.max_position_embeddings)
    given = answer_questions(
        model, processor, rows, self.batch_size, longest, self.progress, answer_list, self.settings.answer_k
    )
    scores = np.asarray(score([answer for row in given for answer in row], references))
    images = np.repeat(np.arange(len(rows)), [len(row) for row in given])
    closed = np.asarray([usual_answer(row).lower() in ("yes", "no") for row in references])
    found |= _with_interval("accuracy", scores, images, self.seed)
    for name, kind in (("accuracy_yes_no", closed), ("accuracy_other", ~closed)):
        if 0 < kind.sum() < len(kind):
            found |= _with_interval(name, scores[kind], images[kind], self.seed)
    train = None
    if self.train_rows is not None:
        train = [
            (question, usual_answer(answers))
            for asked, given in zip(self.train_rows.column("question"), self.train_rows.column("answer"), strict=True)
            for question, answers in zip(asked, given, strict=True)
        ]
    return found | _floors(train, questions, [usual_answer(row) for row in references], lambda g: score(g, references))


def _classifying(self: TaskEvaluation, model, processor, rows: TaskRows) -> Figures:
    texts, labels = rows.column("text"), rows.column("label")
    given = classify(model, processor, rows, self.batch_size, self.settings.max_length, self.progress)
    correct = np.asarray([name.lower() == label.lower() for name, label in zip(given, labels, strict=True)])
    group_column = "group" if "group" in rows.records[0].fields else "image_id"
    groups = np.asarray(rows.column(group_column)) if group_column in rows.records[0].fields else None
    found: Figures = {"metric": "accuracy", "rows": len(rows)}
    found |= _with_interval("accuracy", correct, groups, self.seed)
    if groups is not None and group_column == "group":
        names, members = np.unique(groups, return_inverse=True)
        flawless = np.bincount(members, weights=~correct, minlength=len(names)) == 0
        low, high = bootstrap_interval(flawless, self.seed)
        found |= {"consistency": consistency(correct.tolist(), groups.tolist()), "groups": len(names)}
        found |= {"consistency_low": low, "consistency_high": high}
    train = None
    if self.train_rows is not None:
        train = list(zip(self.train_rows.column("text"), self.train_rows.column("label"), strict=True))
    return found | _floors(
        train, texts, labels, lambda guesses: [g == w for g, w in zip(guesses, labels, strict=True)]
    )


_MEASURES: dict[type, Callable[..., Figures]] = {
    RetrievalSettings: _retrieval,
    QuestionSettings: _answering,
    EntailmentSettings: _classifying,
    ReasoningSettings: _classifying,
}


def comparable_figures(settings: Any) -> tuple[str, ...]:
    """Names of the figures that one model can have more of than another, by the settings of the task."""
    if isinstance(settings, RetrievalSettings):
        endings = ("", "_reranked", "_combined") if settings.rerank_k else ("",)
        recalls = [f"{way}_retrieval_r{k}" for way in ("text", "image") for k in DEPTHS]
        return tuple(f"{name}{ending}" for ending in endings for name in ("mean_recall", *recalls))
    if isinstance(settings, QuestionSettings):
        return "accuracy", "accuracy_yes_no", "accuracy_other"
    grouped = getattr(settings, "group_column", None) is not None
    return ("accuracy", "consistency") if grouped else ("accuracy",)


def _references(rows: TaskRows) -> list[list[str]]:
    """What people answered to each question of all rows."""
    return [answers for row in rows.column("answer") for answers in row]


def scorer_of(references: Sequence[Sequence[str]], official: bool = False) -> tuple[str, Scorer]:
    """The metric that what people answered allows, by name, and its scores.

    Ten answers to each question: VQAv2's soft accuracy. Its official script normalises what a model answers and takes
    what people answered nearly as it is (VQAv2's is normalised already), so that "Red" is never right: `official`
    keeps that, and without it references are normalised, too. Otherwise an answer is right that is one of those given,
    but for case and outer spaces; a blank is none.
    """
    if all(len(answers) == ANNOTATORS_PER_QUESTION for answers in references):
        if official or all(answer == normalize_answer(answer) for answers in references for answer in answers):
            return "vqa_v2", vqa_soft_scores
        return "vqa_v2, references normalised", _normalized_soft_scores
    single = all(len(answers) == 1 for answers in references)
    return "exact_match" if single else "any_of", _any_of


def _normalized_soft_scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    return vqa_soft_scores(predictions, [[normalize_answer(answer) for answer in answers] for answers in references])


def _any_of(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    pairs = zip(predictions, references, strict=True)
    return [float(any(answer and answers_match(given, answer) for answer in answers)) for given, answers in pairs]


def _with_interval(name: str, values: np.ndarray, groups: np.ndarray | None, seed: int) -> Figures:
    low, high = bootstrap_interval(values, seed, groups=groups)
    return {name: float(np.mean(values)), f"{name}_low": low, f"{name}_high": high}


def _floors(train: list[tuple[str, str]] | None, texts: Sequence[str], answers: Sequence[str], score) -> Figures:
    """What always the most frequent answer reaches, and the most frequent one to each text."""
    usual = majority([answer for _, answer in train] if train else answers)
    found: Figures = {"accuracy_majority_floor": float(np.mean(score([usual] * len(texts))))}
    if train:
        known, given = zip(*train, strict=True)
        guesses = guesses_by_text([_key(text) for text in known], given, [_key(text) for text in texts])
        found["accuracy_text_only_floor"] = float(np.mean(score(guesses)))
    return found


def _key(text: str) -> str:
    return " ".join(text.lower().split())


def _unknown_share(processor: CBViLAProcessor, rows: TaskRows) -> float:
    """Share of tokens that the vocabulary lacks: of a language that the model never saw, nearly all."""
    name = next(name for name in ("captions", "question", "text") if name in rows.records[0].fields)
    texts = [text for value in rows.column(name) for text in ([value] if isinstance(value, str) else value)]
    return unknown_token_share(processor.tokenizer, texts)
