"""Visual question answering with an exported model, without torch.

Shapes: B questions, L question tokens, A answer tokens, D hidden, V vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .exported_model import ExportedModel, Graphs, require_graphs
from .images import pixel_values
from .texts import Texts

_GRAPHS = ("question_encoder", "answer_decoder")


class CBViLAOnnxQuestionAnswering:
    """Answers questions about images, greedily, as `CBViLAForQuestionAnswering.generate` does by default.

    Needs onnxruntime, tokenizers, numpy and Pillow, and neither torch nor transformers.

    Args:
        graphs: The exported model.

    Raises:
        ValueError: If it has no graphs for questions.

    Example:
    ```python
    from transformers_cbvila import CBViLAOnnxQuestionAnswering

    ask = CBViLAOnnxQuestionAnswering.from_pretrained("exported")
    ask("picture.png", "What shape is in the image?")
    ```
    """

    def __init__(self, graphs: Graphs) -> None:
        require_graphs(graphs, _GRAPHS, "answering questions")
        self._graphs, self._texts = graphs, Texts(graphs.folder, graphs.description["texts"])

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, int8: bool = False, num_threads: int | None = None
    ) -> "CBViLAOnnxQuestionAnswering":
        """Loads a folder that `cbvila export` wrote; see [`ExportedModel`] for arguments and errors."""
        return cls(ExportedModel(folder, int8, num_threads))

    def __call__(self, image: Any, question: str | Sequence[str], max_new_tokens: int = 20) -> str | list[str]:
        """Answers a question about an image, or several, about an image each.

        Args:
            image: An image (a path, PIL image, array or URL), or a list of B.
            question: A question, or a list of B.
            max_new_tokens: Longest answer in tokens.

        Returns:
            The answer, or a list of B.

        Raises:
            FileNotFoundError: If there is no file at an image's path.
            ValueError: If images and questions differ in number, an image cannot be read, or a question is empty or
                too long.
        """
        if isinstance(question, str):
            return self._answer([image], [question], max_new_tokens)[0]
        if not isinstance(image, list | tuple) or len(image) != len(question) or not image:
            raise ValueError("several questions need as many images: pass two lists of the same length, 1 or more")
        return self._answer(image, list(question), max_new_tokens)

    def _answer(self, images: Sequence[Any], questions: list[str], max_new_tokens: int) -> list[str]:
        inputs = self._texts.encode(questions)
        inputs["pixel_values"] = pixel_values(images, self._graphs.description["images"])
        states = self._graphs.run("question_encoder", inputs)["question_states"]
        ids = self._generate({"question_states": states, "attention_mask": inputs["attention_mask"]}, max_new_tokens)
        return [self._texts.decode(row) for row in ids[:, 1:].tolist()]

    def _generate(self, encoded: dict[str, np.ndarray], max_new_tokens: int) -> np.ndarray:
        """Returns answer ids (B, 1 + A), the start token first; what follows an end token is of no meaning."""
        options = self._graphs.description["texts"]
        batch = len(encoded["question_states"])
        ids = np.full((batch, 1), options["answer_start_token_id"], dtype=np.int64)
        ended = np.zeros(batch, dtype=bool)
        for _ in range(min(max_new_tokens, options["max_length"])):
            logits = self._graphs.run("answer_decoder", {"input_ids": ids, **encoded})["logits"]
            chosen = logits[:, -1].argmax(-1)
            ids = np.concatenate([ids, chosen[:, None]], axis=1)
            ended |= chosen == options["answer_end_token_id"]
            if ended.all():
                break
        return ids
