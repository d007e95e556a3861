"""The pipeline `visual-question-answering`: images and questions in, answers with their probabilities out.

Shapes: B questions in a batch, k answers to each, T answer tokens with the start token, R candidate answers.
"""

import os
from collections.abc import Iterator, Sequence
from copy import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, AutoTokenizer, Pipeline
from transformers.pipelines.pt_utils import PipelineIterator

from .image_loading_cbvila import load_image
from .item_lists_cbvila import by_position, is_by_position
from .messages_cbvila import shown
from .number_checks_cbvila import check_number, check_whole
from .pipeline_inputs_cbvila import NumberedRows, NumberedStream, check_pair, to_pairs
from .processing_cbvila import CBViLAProcessor
from .unknown_tokens_cbvila import warn_of_unknown_texts

_NEW_TOKENS = 20  # of a generated answer, if nothing else is said
_RANKED_ANSWERS = 5  # at most, if nothing else is said
# What the pipeline decides itself, with what to say instead.
_OWN_OPTIONS = {
    "num_return_sequences": "pass top_k=...",
    "return_dict_in_generate": "call model.generate(...) for its raw output",
    "output_logits": "call model.generate(...) for its raw output",
}


class CBViLAVisualQuestionAnsweringPipeline(Pipeline):
    """Answers questions about images, in words of its own or by ranking given answers.

    Args:
        model: a `CBViLAForQuestionAnswering`.
        processor: a `CBViLAProcessor`; or `tokenizer` and `image_processor` instead of one (texts then end in [SEP]).
            With `processor` they replace its parts. Each may be the path or Hub id of a checkpoint.
        task: the name that the pipeline goes by.
        **kwargs: what every transformers pipeline takes (`device`, `batch_size`, `num_workers`), and defaults for the
            options of a call.

    Raises:
        ValueError: there is no processor, the model cannot answer, or the tokenizer is not the one of the model.

    Example:
    ```python
    import transformers_cbvila  # makes the task known to transformers
    from transformers import pipeline

    ask = pipeline("visual-question-answering", model=transformers_cbvila.bundled_checkpoint("cbvila-tiny-easyvqa"))
    ask("picture.png", "What shape is in the image?")  # [{"score": 0.98, "answer": "circle"}]
    ask("picture.png", "Is there a circle?", answers=["yes", "no"])  # ranked: one entry for each answer
    ```
    """

    # `pipeline()` loads the processor, which holds a tokenizer and an image processor; others come from the caller.
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
        processor = _complete_processor(model, processor, tokenizer, image_processor)
        _check_tokenizer(model, processor.tokenizer)
        # transformers pads batches on the tokenizer's side. Positions are counted from the left: it must be the right.
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

    def __call__(self, image: Any = None, question: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """Answer one question or many.

        Args:
            image: an image (a path, a URL, a PIL image, an array) or many of them (a list, an array of four
                dimensions, a column of a data set or of pandas, a generator). Without `question`: a pair
                `{"image": ..., "question": ...}`, or a list, a data set or a generator of pairs, whose other keys are
                ignored.
            question: a question or a list. One question goes with all images, one image with all questions; question i
                of several is about image i of several. (The former transformers pipeline asked every question about
                every image then.)
            answers (`list[str]`): R candidate answers to rank, instead of generating.
            top_k (`int`): how many answers to return, the most probable first. 1 if not given; with `answers`, 5 or
                all of them. More than 1 generated answers are found by beam search.
            generate_kwargs (`dict`): options of `model.generate`, e.g. `{"max_new_tokens": 5}`.
            truncation (`bool`): whether a question that is too long for the model is cut. It is an error if not given.
            timeout (`float`): seconds to wait for an image from a URL, 30 if not given.
            batch_size, num_workers (`int`): as in every transformers pipeline. The batch size changes no answer. An
                image is encoded once for all the questions of a batch that ask it.

        Returns:
            A list of `{"score": float, "answer": str}` for one question; a list of such lists for a list; an iterator
            over such lists for a data set, a column or a generator. The score of a generated answer is the model's
            probability of its tokens (and of its end, if it ended before `max_new_tokens`); that of a ranked answer is
            its probability among the candidates.

        Raises:
            ValueError: numbers of images and questions that differ, no image, an image that cannot be read, an empty
                question or one that is too long, no candidate answers, or an option that makes no sense. Of many
                pairs, the message names the bad one.
            FileNotFoundError: no file at an image's path.
        """
        for name, least in (("batch_size", 1), ("num_workers", 0)):
            if kwargs.get(name) is not None:
                check_whole(name, kwargs[name], least)
        pairs = to_pairs(image, question)
        return [] if isinstance(pairs, list) and not pairs else super().__call__(pairs, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the model and the processor in a folder that `pipeline("visual-question-answering", model=...)` takes.

        transformers' own method would copy a registered pipeline's code into the folder, which `pipeline` then refuses
        to load without `trust_remote_code=True`, and would leave out the processor.

        Args:
            save_directory: the folder, made if it is not there.
            **kwargs: for `save_pretrained` of both, e.g. `push_to_hub`.
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
            forward["top_k"] = postprocess["top_k"] = _check_top_k(top_k)
        if answers is not None:
            if isinstance(answers, str):
                raise ValueError(f"answers must be a list of strings, got {shown(answers)}; pass answers=[...]")
            answers = list(by_position(answers, "answers"))
            forward["answer_labels"] = self._encode_answers(answers)
            postprocess["answers"] = answers
        if generate_kwargs is not None:
            forward["generate_kwargs"] = _check_generate_kwargs(generate_kwargs, self._num_positions)
        return {name: value for name, value in preprocess.items() if value is not None}, forward, postprocess

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[list[dict[str, Any]]]:
        """As transformers' own, but for what is done to a batch as a whole: pairs are preprocessed together."""
        if num_workers > 0:  # as transformers does, before processes fork that tokenize
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        rows = NumberedRows(inputs) if is_by_position(inputs) else NumberedStream(inputs)
        loader: DataLoader = DataLoader(
            rows,
            num_workers=num_workers if isinstance(rows, NumberedRows) else min(num_workers, 1),
            batch_size=batch_size,
            collate_fn=partial(self._preprocess_numbered, **preprocess_params),
        )
        outputs = PipelineIterator(loader, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(outputs, self.postprocess, postprocess_params)

    def preprocess(  # type: ignore[override]
        self, input_: Any, truncation: bool = False, timeout: float = 30.0
    ) -> dict[str, Tensor]:
        """One pair to `pixel_values` (1, 3, H, W), `input_ids` (1, L), `attention_mask` (1, L), `image_index` (1,)."""
        return self._preprocess_batch([check_pair(input_)], truncation, timeout)

    def _preprocess_numbered(self, rows: list[tuple[int, Any]], **options: Any) -> dict[str, Tensor]:
        """Numbered pairs to tensors; an error says which pair it is about."""
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
        """B pairs about I images to `pixel_values` (I, 3, H, W), `input_ids`, `attention_mask` (B, L), `image_index`.

        An image that several questions ask is there once: if it is the same object or path, it is also read once.
        """
        given, questions = zip(*pairs, strict=True)
        places: dict[Any, int] = {}
        named = [places.setdefault(_identity(image), len(places)) for image in given]
        images = [given[named.index(place)] for place in range(len(places))]
        pixels = self.processor(
            images=[load_image(i, timeout) if isinstance(i, (str, os.PathLike)) else i for i in images],
            return_tensors="pt",
        )["pixel_values"]
        pixels, same = _distinct(pixels)
        return {"pixel_values": pixels, **self._encode(questions, truncation), "image_index": same[named]}

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
        """`scores` (B, R) of the candidates; or `scores` (B, k) and `sequences` (B, k, T) of generated answers."""
        if answer_labels is not None:
            ranking = self.model.rank_answers(**input_tensors, answer_labels=answer_labels.to(self.device))
            return {"scores": ranking.scores}
        options = _generation_options(
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
        """Outputs of `_forward` for one question to its answers, the most probable first."""
        scores = model_outputs["scores"][0].float()
        if answers is None:
            texts = self.processor.decode_answers(model_outputs["sequences"][0])
            count = len(texts)
        else:
            texts = answers
            count = min(_RANKED_ANSWERS if top_k is None else top_k, len(texts))
        best = scores.topk(count)
        return [
            {"score": score, "answer": texts[index]}
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    @property
    def _num_positions(self) -> int:
        return self.model.config.text_config.max_position_embeddings

    def _encode_answers(self, answers: list[Any]) -> Tensor:
        """The labels (R, A) of the candidates."""
        if not answers:
            raise ValueError("answers is an empty list; pass at least one answer, or leave it out to generate answers")
        labels = self.processor.encode_candidates(answers)
        if labels.shape[1] > self._num_positions:
            longest = answers[int((labels != -100).sum(1).argmax())]
            raise ValueError(
                f"the answer {shown(longest)} has {labels.shape[1]} tokens with its end token, the limit is "
                f"{self._num_positions}; shorten it"
            )
        return labels

    def _probabilities(self, output: Any) -> Tensor:
        """Of generated sequences (B * k,) under the model itself, whatever chose their tokens."""
        log_probs = self.model.answer_decoder.compute_transition_scores(
            output.sequences, output.logits, getattr(output, "beam_indices", None), normalize_logits=True
        )
        ends = (output.sequences[:, -log_probs.shape[1] :] == self.processor.tokenizer.sep_token_id).int()
        is_after_end = ends.cumsum(1) - ends > 0
        return log_probs.masked_fill(is_after_end, 0.0).sum(1).exp()


def _identity(image: Any) -> Any:
    """What images have in common that are the same without a look at them: a path or URL, or being one object."""
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else id(image)


def _distinct(images: Tensor) -> tuple[Tensor, Tensor]:
    """Images (I, 3, H, W) without those that are there twice, and the place (I,) of each among the rest."""
    places: dict[bytes, int] = {}
    same = [places.setdefault(image.numpy().tobytes(), len(places)) for image in images]
    kept = [same.index(place) for place in range(len(places))]
    return images if len(kept) == len(same) else images[kept], torch.tensor(same)


def _complete_processor(model: Any, processor: Any, tokenizer: Any, image_processor: Any) -> CBViLAProcessor:
    if isinstance(processor, (str, os.PathLike)):
        processor = CBViLAProcessor.from_pretrained(processor)
    if tokenizer is None and image_processor is None and processor is not None:
        return processor
    tokenizer = getattr(processor, "tokenizer", None) if tokenizer is None else tokenizer
    image_processor = getattr(processor, "image_processor", None) if image_processor is None else image_processor
    if tokenizer is None or image_processor is None:
        checkpoint = getattr(model.config, "_name_or_path", "") or "the model's checkpoint"
        raise ValueError(
            f"there is no processor: none was given, and none could be loaded from {shown(checkpoint, 255)} (try "
            "CBViLAProcessor.from_pretrained there to see why). Pass processor=..., or tokenizer=... and "
            "image_processor=..., or save one beside the model with processor.save_pretrained(folder)"
        )
    if isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    if isinstance(image_processor, (str, os.PathLike)):
        image_processor = AutoImageProcessor.from_pretrained(image_processor)
    return CBViLAProcessor(image_processor, tokenizer, add_sep_token=getattr(processor, "add_sep_token", True))


def _check_tokenizer(model: Any, tokenizer: Any) -> None:
    text = model.config.text_config
    if len(tokenizer) > text.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens and the model knows {text.vocab_size}; pass the processor "
            "that was saved with the model"
        )
    ends = text.eos_token_id if isinstance(text.eos_token_id, list) else [text.eos_token_id]
    if tokenizer.sep_token_id not in ends or tokenizer.cls_token_id != text.bos_token_id:
        raise ValueError(
            f"the tokenizer's [CLS] and [SEP] are tokens {tokenizer.cls_token_id} and {tokenizer.sep_token_id}, but "
            f"the model's answers start with {text.bos_token_id} and end with {text.eos_token_id}; pass the processor "
            "that was saved with the model, or set bos_token_id and eos_token_id of its text_config"
        )


def _check_top_k(top_k: Any) -> int:
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
        raise ValueError(f"top_k must be a whole number of at least 1, got {shown(top_k)}")
    return top_k


def _check_generate_kwargs(options: dict[str, Any], num_positions: int) -> dict[str, Any]:
    if not isinstance(options, dict):
        raise ValueError(f"generate_kwargs={shown(options)} must be a dictionary, e.g. {{'max_new_tokens': 5}}")
    for name in _OWN_OPTIONS.keys() & options.keys():
        raise ValueError(f"generate_kwargs may not hold {name!r}: {_OWN_OPTIONS[name]}")
    for name, limit in (("max_new_tokens", num_positions), ("max_length", num_positions + 1)):
        if options.get(name) is None:
            continue
        check_whole(f"generate_kwargs: {name}", options[name])
        if options[name] > limit:
            raise ValueError(
                f"generate_kwargs has {name}={options[name]}, but the model knows {num_positions} positions: pass at "
                f"most {name}={limit}"
            )
    return options


def _check_beams(given: dict[str, Any], top_k: int, vocab_size: int) -> None:
    """Beams live side by side, each with scores of all tokens: more of them than tokens are a slip."""
    for name, number in (("top_k", top_k), ("generate_kwargs: num_beams", given.get("num_beams") or 1)):
        check_whole(name, number)
        if number > vocab_size:
            raise ValueError(
                f"{name}={number:,} is more than the {vocab_size:,} tokens of the vocabulary; answers beyond the "
                "first few tell nothing, so pass a small number, or rank a list with answers=[...]"
            )


def _generation_options(given: dict[str, Any], top_k: int, num_positions: int, vocab_size: int) -> dict[str, Any]:
    _check_beams(given, top_k, vocab_size)
    options = {**given, "num_return_sequences": top_k, "return_dict_in_generate": True, "output_logits": True}
    if not {"max_new_tokens", "max_length", "generation_config"} & given.keys():
        options["max_new_tokens"] = min(_NEW_TOKENS, num_positions)
    if top_k > 1 and not given.get("do_sample"):
        options["num_beams"] = max(top_k, given.get("num_beams") or 1)
    if (options.get("num_beams") or 1) > 1:
        # Beams then compete by the probability that is returned as the score.
        options.setdefault("length_penalty", 0.0)
    return options


__all__ = ["CBViLAVisualQuestionAnsweringPipeline"]
