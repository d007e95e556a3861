"""The pipeline `visual-question-answering`.

Shapes: B questions in a batch, k answers per question, T answer tokens with the start token, R candidate answers.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import Pipeline

from .image_loading_cbvila import load_image
from .item_lists_cbvila import by_position, is_by_position
from .messages_cbvila import shown
from .number_checks_cbvila import check_number, check_whole
from .pipeline_inputs_cbvila import NumberedRows, NumberedStream, check_pair, to_pairs
from .pipeline_options_cbvila import check_generate_kwargs, check_top_k, generation_options
from .pipeline_processor_cbvila import check_tokenizer, complete_processor
from .unknown_tokens_cbvila import warn_of_unknown_texts

_RANKED_ANSWERS = 5  # the default of top_k for ranked answers, at most


class CBViLAVisualQuestionAnsweringPipeline(Pipeline):
    """Answers questions about images, by generating answers or by ranking candidates.

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
    ```
    """

    # `pipeline()` loads the processor, which has a tokenizer and an image processor.
    _load_processor: Any = None
    _load_tokenizer: Any = False
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    _load_video_processor: Any = False

    model: Any
    processor: Any

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        image_processor: Any = None,
        processor: Any = None,
        task: str = "visual-question-answering",
        **kwargs: Any,
    ) -> None:
        if not hasattr(model, "rank_answers"):
            raise ValueError(
                f"{type(model).__name__} cannot answer questions; load its checkpoint with "
                "CBViLAForQuestionAnswering.from_pretrained(...)"
            )
        processor = complete_processor(model, processor, tokenizer, image_processor)
        check_tokenizer(model, processor.tokenizer)
        # transformers pads batches on the tokenizer's side. As positions are counted from the left, it is the right.
        tokenizer = copy(processor.tokenizer)
        tokenizer.padding_side = "right"
        super().__init__(
            model=model,
            tokenizer=tokenizer,
            image_processor=processor.image_processor,
            processor=processor,
            task=task,
            **kwargs,
        )

    # Pipelines replace the generic signatures of the base class by those of their task, here and below.
    def __call__(self, image: Any = None, question: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """Answers one or more questions.

        Args:
            image: An image (a path, a URL, a PIL image, an array) or several (a list, an array of four dimensions, a
                column of a data set or of pandas, a generator). Without `question`: a pair
                `{"image": ..., "question": ...}`, or a list, a data set or a generator of pairs, whose other keys are
                ignored.
            question: A question or a list. A single question is asked about all images, and a single image answers all
                questions; otherwise question i is about image i. (The former pipeline of transformers asked every
                question about every image.)
            **kwargs: Options of the call:

                - `answers` (`list[str]`): R candidate answers to rank instead of generating.
                - `top_k` (`int`): Number of most probable answers to return, by default 1, or up to 5 candidates. More
                  than 1 generated answers are found by beam search.
                - `generate_kwargs` (`dict`): Options of `model.generate`, such as `{"max_new_tokens": 5}`.
                - `truncation` (`bool`): Whether to truncate questions that are too long, an error by default.
                - `timeout` (`float`): Seconds to wait for an image from a URL, by default 30.
                - `batch_size`, `num_workers` (`int`): As in all pipelines. The batch size changes no answers, and an
                  image is encoded once for all its questions in a batch.

        Returns:
            A list of `{"score": float, "answer": str}` for one question; a list of such lists for a list; an iterator
            over such lists for a data set, a column or a generator. The score of a generated answer is the probability
            of its tokens (and of its end, if it ended before `max_new_tokens`); that of a ranked answer is its
            probability among the candidates.

        Raises:
            ValueError: If the numbers of images and questions differ, an image is missing or cannot be read, a
                question is empty or too long, there are no candidates, or an option is invalid. The message has the
                number of the pair.
            FileNotFoundError: If there is no file at an image's path.
        """
        for name, least in (("batch_size", 1), ("num_workers", 0)):
            if kwargs.get(name) is not None:
                check_whole(name, kwargs[name], least)
        pairs = to_pairs(image, question)
        return [] if isinstance(pairs, list) and not pairs else super().__call__(pairs, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves the model and the processor in a folder for `pipeline("visual-question-answering", model=...)`.

        (The method of transformers would also save the code of the pipeline, which needs `trust_remote_code=True` to
        load, and would not save the processor.)

        Args:
            save_directory: The folder, which is created if needed.
            **kwargs: Options of `save_pretrained` of both, such as `push_to_hub`.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(  # type: ignore[override]
        self,
        answers: Any = None,
        top_k: Any = None,
        generate_kwargs: dict[str, Any] | None = None,
        truncation: Any = None,
        timeout: float | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if truncation is not None and not isinstance(truncation, bool):
            raise ValueError(f"truncation={shown(truncation)} must be True or False")
        if timeout is not None:
            check_number("timeout", timeout, above=0)
        preprocess = {"truncation": truncation, "timeout": timeout}
        forward: dict[str, Any] = {}
        postprocess: dict[str, Any] = {}
        if top_k is not None:
            forward["top_k"] = postprocess["top_k"] = check_top_k(top_k)
        if answers is not None:
            if isinstance(answers, str):
                raise ValueError(f"answers must be a list of strings, got {shown(answers)}; pass answers=[...]")
            answers = list(by_position(answers, "answers"))
            forward["answer_labels"] = self._encode_answers(answers)
            postprocess["answers"] = answers
        if generate_kwargs is not None:
            forward["generate_kwargs"] = check_generate_kwargs(generate_kwargs, self._num_positions)
            if generate_kwargs and answers is not None:
                raise ValueError(
                    f"generate_kwargs={shown(generate_kwargs)} changes nothing: answers are ranked, none is generated"
                    "; leave one of them out"
                )
        return {name: value for name, value in preprocess.items() if value is not None}, forward, postprocess

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterable[list[dict[str, Any]]]:
        """Returns an iterator over answers, which processes the pairs of a batch together."""
        if num_workers > 0:  # as in transformers, before the processes of the workers fork
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        rows = NumberedRows(inputs) if is_by_position(inputs) else NumberedStream(inputs)
        loader: DataLoader = DataLoader(
            rows,
            num_workers=num_workers if isinstance(rows, NumberedRows) else min(num_workers, 1),
            batch_size=batch_size,
            collate_fn=partial(self._preprocess_numbered, **preprocess_params),
        )
        answer = partial(self._answer_batch, forward_params=forward_params, postprocess_params=postprocess_params)
        return _AnswerIterator(loader, answer)

    def preprocess(  # type: ignore[override]
        self, input_: Any, truncation: bool = False, timeout: float = 30.0
    ) -> dict[str, Tensor]:
        """Converts a pair to `pixel_values` (1, 3, H, W), `input_ids`, `attention_mask` (1, L), `image_index` (1,)."""
        return self._preprocess_batch([check_pair(input_)], truncation, timeout)

    def _preprocess_numbered(self, rows: list[tuple[int, Any]], **options: Any) -> dict[str, Tensor]:
        """Converts numbered pairs to tensors; errors have the number of the pair."""
        pairs = [check_pair(pair, f"pair {number}") for number, pair in rows]
        try:
            return self._preprocess_batch(pairs, **options)
        except (ValueError, OSError):
            for (number, _), pair in zip(rows, pairs, strict=True):
                try:
                    self._preprocess_batch([pair], **options)
                except (ValueError, OSError) as error:
                    kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
                    raise kind(f"pair {number}: {error}") from error
            raise

    def _preprocess_batch(
        self, pairs: Sequence[tuple[Any, str]], truncation: bool = False, timeout: float = 30.0
    ) -> dict[str, Tensor]:
        """Converts B pairs to tensors.

        Equal images are encoded once, and the same object or path is also read once.

        Returns:
            `pixel_values` (I, 3, H, W) of the distinct images, `input_ids` and `attention_mask` (B, L), and
            `image_index` (B,).
        """
        given, questions = zip(*pairs, strict=True)
        first: dict[Any, int] = {}
        source_index = [first.setdefault(_identity(image), len(first)) for image in given]
        images = [given[source_index.index(source)] for source in range(len(first))]
        pixels = self.processor(
            images=[load_image(i, timeout) if isinstance(i, (str, os.PathLike)) else i for i in images],
            return_tensors="pt",
        )["pixel_values"]
        pixels, indices = _distinct(pixels)
        return {"pixel_values": pixels, **self._encode(questions, truncation), "image_index": indices[source_index]}

    def _encode(self, questions: Sequence[str], truncation: bool) -> dict[str, Tensor]:
        limit = min(self._num_positions, self.processor.tokenizer.model_max_length)
        options = {"truncation": truncation, "max_length": limit, "return_tensors": "pt"}
        try:
            encoded = self.processor(text=list(questions), padding=True, **options)
        except ValueError as error:
            raise ValueError(f"the question {shown(questions[0])} cannot be asked: {error}") from error
        warn_of_unknown_texts(self.processor.tokenizer, questions, "questions")
        return dict(encoded)

    def _forward(  # type: ignore[override]
        self,
        input_tensors: dict[str, Tensor],
        top_k: int = 1,
        answer_labels: Tensor | None = None,
        generate_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Returns `scores` (B, R) of candidates, or `scores` (B, k) and `sequences` (B, k, T) of generated answers."""
        if answer_labels is not None:
            ranking = self.model.rank_answers(**input_tensors, answer_labels=answer_labels.to(self.device))
            return {"scores": ranking.scores}
        options = generation_options(
            generate_kwargs or {}, top_k, self._num_positions, self.model.config.text_config.vocab_size
        )
        output = self.model.generate(**input_tensors, **options)
        shape = (len(input_tensors["input_ids"]), top_k, -1)
        return {
            "scores": self._probabilities(output).view(shape[:2]),
            "sequences": output.sequences.view(shape),
        }

    def postprocess(  # type: ignore[override]
        self, model_outputs: dict[str, Tensor], answers: list[str] | None = None, top_k: int | None = None
    ) -> list[dict[str, Any]]:
        """Returns the answers of one question, the most probable first, for its outputs of `_forward`."""
        return self._postprocess_batch(model_outputs, answers, top_k)[0]

    def _answer_batch(
        self, model_inputs: dict[str, Tensor], forward_params: dict[str, Any], postprocess_params: dict[str, Any]
    ) -> list[list[dict[str, Any]]]:
        """Returns the answers of each question of a batch."""
        return self._postprocess_batch(self.forward(model_inputs, **forward_params), **postprocess_params)

    def _postprocess_batch(
        self, outputs: dict[str, Tensor], answers: list[str] | None = None, top_k: int | None = None
    ) -> list[list[dict[str, Any]]]:
        """Returns the answers of each question, the most probable first, for outputs of `_forward`."""
        scores = outputs["scores"].float()
        if answers is None:
            count = scores.shape[1]
            texts = self.processor.decode_answers(outputs["sequences"].flatten(0, 1))
            of_questions = [texts[start : start + count] for start in range(0, len(texts), count)]
        else:
            count = min(_RANKED_ANSWERS if top_k is None else top_k, len(answers))
            of_questions = [answers] * len(scores)
        best = scores.topk(count)
        return [
            [{"score": score, "answer": texts[index]} for score, index in zip(values, indices, strict=True)]
            for texts, values, indices in zip(of_questions, best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    @property
    def _num_positions(self) -> int:
        return self.model.config.text_config.max_position_embeddings

    def _encode_answers(self, answers: list[Any]) -> Tensor:
        """Returns the labels (R, A) of candidates."""
        if not answers:
            raise ValueError("answers is an empty list; pass at least one answer, or leave it out to generate answers")
        labels = self.processor.encode_candidates(answers)
        if labels.shape[1] > self._num_positions:
            longest = answers[int((labels != -100).sum(1).argmax())]
            raise ValueError(
                f"the answer {shown(longest)} has {labels.shape[1]} tokens with the end token, the limit is "
                f"{self._num_positions}; shorten it"
            )
        return labels

    def _probabilities(self, output: Any) -> Tensor:
        """Returns the probabilities (B * k,) of generated sequences under the model, however they were chosen."""
        # Normalized here: transformers would do it over a strided dimension, several times as slowly.
        normalized = tuple(logits.log_softmax(-1) for logits in output.logits)
        log_probs = self.model.answer_decoder.compute_transition_scores(
            output.sequences, normalized, getattr(output, "beam_indices", None)
        )
        ends = (output.sequences[:, -log_probs.shape[1] :] == self.processor.tokenizer.sep_token_id).int()
        is_after_end = ends.cumsum(1) - ends > 0
        return log_probs.masked_fill(is_after_end, 0.0).sum(1).exp()


class _AnswerIterator(IterableDataset):
    """Answers the questions of a loader, batch by batch.

    Args:
        loader: Gives the inputs of batches.
        answer: Returns the answers of each question of a batch.
    """

    def __init__(self, loader: DataLoader, answer: Callable[[dict[str, Tensor]], list[list[dict[str, Any]]]]) -> None:
        self.loader, self.answer = loader, answer

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for inputs in self.loader:
            yield from self.answer(inputs)


def _identity(image: Any) -> Any:
    """Returns a key that is equal for images with the same path or URL, and for the same object."""
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else id(image)


def _distinct(images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the distinct images among (I, 3, H, W), and the index (I,) of each image among them."""
    first: dict[bytes, int] = {}
    indices = [first.setdefault(image.numpy().tobytes(), len(first)) for image in images]
    kept = [indices.index(index) for index in range(len(first))]
    return images if len(kept) == len(indices) else images[kept], torch.tensor(indices)


__all__ = ["CBViLAVisualQuestionAnsweringPipeline"]
