"""The pipeline `visual-question-answering` with explanations; the one in `model/`, which is published, has none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..model import pipeline_cbvila
from ..model.image_loading_cbvila import load_image
from ..model.messages_cbvila import shown
from .explain import METHODS, explain_batch

_ASKED = "asked"  # key of the pairs of a batch, which go along with its tensors


class CBViLAVisualQuestionAnsweringPipeline(pipeline_cbvila.CBViLAVisualQuestionAnsweringPipeline):
    """Answers questions about images, by generating answers or by ranking candidates, and explains the answers.

    Args:
        model: A `CBViLAForQuestionAnswering`.
        tokenizer: Replaces the processor's tokenizer. With `image_processor` it replaces the processor; texts then end
            with [SEP].
        image_processor: Replaces the processor's image processor.
        processor: A `CBViLAProcessor`. This and its parts may also be paths or Hub ids of checkpoints.
        task: The name of the task.
        **kwargs: Options of all pipelines (`device`, `batch_size`, `num_workers`), and defaults for the options of
            calls.

    Raises:
        ValueError: If there is no processor, the model cannot answer, or the tokenizer is not that of the model.

    Example:
    ```python
    import transformers_cbvila  # makes the task known to transformers
    from transformers import pipeline

    ask = pipeline("visual-question-answering", model=transformers_cbvila.bundled_checkpoint("cbvila-tiny-easyvqa"))
    ask("picture.png", "What shape is in the image?")  # [{"score": 0.98, "answer": "circle"}]
    ask("picture.png", "Is there a circle?", answers=["yes", "no"])  # ranked: one entry for each answer
    (found,) = ask("picture.png", "What shape is in the image?", explain=True)
    found["explanation"].map_of("shape")  # where the model looked, (4, 4), over found["explanation"].images[0]
    ```
    """

    def __call__(self, image: Any = None, question: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """Answers one or more questions, and explains the answers if asked to.

        Args:
            image: An image or several, or pairs, as the pipeline in `model/pipeline_cbvila.py` takes them.
            question: A question or several, likewise.
            **kwargs: That pipeline's options of a call, and `explain` (`bool` or `str`): whether to explain each
                answer, by the method `"gradcam"`, which `True` means, or `"rollout"`. A pass for each question more.

        Returns:
            What that pipeline returns. With `explain` each answer has `"explanation"`, the [`Explanation`] that
            [`explain`] returns of it: its `maps` (W, rows, columns) lie over `images[0]` (height, width, 3), the image
            as the model sees it. An empty answer has None.

        Raises:
            ValueError: Where that pipeline raises it, and if a question to be explained has no words, or there is no
                such method. The message has the number of the pair.
            FileNotFoundError: If there is no file at an image's path.
        """
        return super().__call__(image, question, **kwargs)

    def _sanitize_parameters(  # type: ignore[override]
        self, explain: Any = None, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        preprocess, forward, postprocess = super()._sanitize_parameters(**options)
        if explain is not None:
            preprocess["explain"] = postprocess["explain"] = _method(explain)
        return preprocess, forward, postprocess

    def preprocess(  # type: ignore[override]
        self, input_: Any, truncation: bool = False, timeout: float = 30.0, explain: str | None = None
    ) -> dict[str, Any]:
        """Converts a pair to tensors as before, and keeps it if it is to be explained."""
        return self._preprocess_batch([pipeline_cbvila.check_pair(input_)], truncation, timeout, explain)

    def _preprocess_batch(
        self,
        pairs: Sequence[tuple[Any, str]],
        truncation: bool = False,
        timeout: float = 30.0,
        explain: str | None = None,
    ) -> dict[str, Any]:
        if explain is None:
            return super()._preprocess_batch(pairs, truncation, timeout)
        loaded = [(load_image(i, timeout) if isinstance(i, str | os.PathLike) else i, text) for i, text in pairs]
        return {**super()._preprocess_batch(loaded, truncation, timeout), _ASKED: loaded}

    def _forward(self, input_tensors: dict[str, Any], **options: Any) -> dict[str, Any]:  # type: ignore[override]
        asked = input_tensors.pop(_ASKED, None)
        output: dict[str, Any] = super()._forward(input_tensors, **options)
        return output if asked is None else {**output, _ASKED: asked}

    def postprocess(  # type: ignore[override]
        self,
        model_outputs: dict[str, Any],
        answers: list[str] | None = None,
        top_k: int | None = None,
        explain: str | None = None,
    ) -> list[dict[str, Any]]:
        """Returns the answers of one question, with their explanations if these are asked for."""
        return self._postprocess_batch(model_outputs, answers, top_k, explain)[0]

    def _postprocess_batch(
        self,
        outputs: dict[str, Any],
        answers: list[str] | None = None,
        top_k: int | None = None,
        explain: str | None = None,
    ) -> list[list[dict[str, Any]]]:
        found = super()._postprocess_batch(outputs, answers, top_k)
        if explain is None:
            return found
        return [
            self._explained(of_question, image, question, explain)
            for of_question, (image, question) in zip(found, outputs[_ASKED], strict=True)
        ]

    def _explained(
        self, answers: list[dict[str, Any]], image: Any, question: str, method: str
    ) -> list[dict[str, Any]]:
        """Returns the answers of one question with their explanations."""
        texts = [each["answer"] for each in answers if each["answer"].strip()]
        explanations: dict[str, Any] = {}
        if texts:
            images, questions = [image] * len(texts), [question] * len(texts)
            explained = explain_batch(self.model, self.processor, images, questions, texts, method=method)
            explanations = dict(zip(texts, explained, strict=True))
        return [{**each, "explanation": explanations.get(each["answer"])} for each in answers]


def _method(explain: Any) -> str | None:
    """Returns the method of explaining that an option means; None for none."""
    if isinstance(explain, bool):
        return METHODS[0] if explain else None
    if explain not in METHODS:
        raise ValueError(f"explain={shown(explain)} must be True, False or one of {', '.join(map(repr, METHODS))}")
    return explain
