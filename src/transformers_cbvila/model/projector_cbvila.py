"""Interface of projectors, which turn the image tokens of the vision tower into inputs of a language model.

Each projector has a file of its own, with one subclass and its options; `projectors_cbvila.py` lists them.

Shapes: b images, n visual tokens, D vision width, k tokens per image, D' width of the language model.
"""

from typing import Any, ClassVar

from torch import Tensor, nn

from .options_cbvila import CBViLAOptions, options


@options
class CBViLAProjectorOptions(CBViLAOptions):
    """Options common to all projectors.

    Args:
        type: Name of the projector; set by the configuration.
    """

    type: str = ""


class CBViLAProjector(nn.Module):
    """Base class of projectors.

    A subclass sets `name` and, if it has options, `options_class`; it implements `num_tokens` and `forward`. Modules
    with parameters of their own (not `nn.Linear` and the like) initialize them in `init_own_weights(std)`.

    Args:
        options: An instance of `options_class`.
        width: Width D of image tokens.
        language_width: Width D' of the language model's embeddings.
    """

    name: ClassVar[str]
    must_write = ("num_tokens", "forward")  # what a subclass has to have
    options_class: ClassVar[type[CBViLAProjectorOptions]] = CBViLAProjectorOptions

    def __init__(self, options: Any, width: int, language_width: int) -> None:
        super().__init__()
        self.options = options
        self.width = width
        self.language_width = language_width

    @classmethod
    def num_tokens(cls, options: Any) -> int:
        """Returns the number k of tokens that an image takes in the language model's input."""
        raise NotImplementedError

    @classmethod
    def reads_words(cls, options: Any) -> bool:
        """Returns whether it reads quantized tokens of patches in place of the vision tower's."""
        return False

    def forward(self, tokens: Tensor) -> Tensor:
        """Projects image tokens.

        Args:
            tokens: (b, 1 + n, D) tokens, [CLS] first.

        Returns:
            (b, k, D') rows for the language model.
        """
        raise NotImplementedError

    def start_from(self, checkpoint: str, vision_tower: nn.Module) -> None:
        """Loads weights from a checkpoint of the projector's first stage of training.

        Args:
            checkpoint: A folder, or a repository of the Hub.
            vision_tower: The image encoder that the projector is to read.

        Raises:
            ValueError: If the projector has no such stage, or it was trained on another image encoder.
        """
        raise ValueError(f"The projector {self.name!r} has no first stage of training: leave projector_start out.")
