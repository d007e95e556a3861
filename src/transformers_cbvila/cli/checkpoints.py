"""Which heads the commands can use that work with one or two of them, and the models that they load.

A head that a checkpoint lacks would be made at random, and the command would go on with it. What `search`, `explain`,
`export`, `evaluate` and the app can use, the code behind them says and checks.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Use(NamedTuple):
    """What a command does with a model.

    Args:
        what: What the model must have been trained to do.
        heads: Names of the classes that were, best known first.
        such_as: What there is of these.
    """

    what: str
    heads: tuple[str, ...]
    such_as: str


_PRETRAINED = "cbvila-scenes, cbvila-tiny, or what `cbvila pretrain` writes"
USES = {
    "ask": Use(
        "to answer", ("CBViLAForQuestionAnswering",), "cbvila-scenes-vqa, or what `cbvila finetune vqa` writes"
    ),
    "draw": Use("to draw from texts", ("CBViLAForPreTraining",), _PRETRAINED),
    "inspect": Use("for what is measured here", ("CBViLAForPreTraining",), _PRETRAINED),
    "resize-codebook": Use("with a codebook for images and texts", ("CBViLAForPreTraining",), _PRETRAINED),
    "tokenize": Use(
        "to turn images into visual words",
        ("CBViLAForPreTraining", "CBViLAForMaskedImageModeling", "CBViLAModel"),
        _PRETRAINED,
    ),
    "tokenize --decode": Use(
        "to draw visual words", ("CBViLAForPreTraining", "CBViLAForMaskedImageModeling"), _PRETRAINED
    ),
}


def usable_source(command: str, name: str) -> str:
    """Returns what `from_pretrained` takes for a checkpoint that a command can use.

    Args:
        command: The command, a key of `USES`.
        name: Folder, Hub id, or the name of a bundled checkpoint.

    Raises:
        FileNotFoundError, OSError: See [`~transformers_cbvila.bundled.checkpoint_source`].
        ValueError: If the checkpoint's class was not trained for it. One that names no class, or one from
            outside this package, is taken.
    """
    from .. import __all__ as public_names
    from ..bundled import checkpoint_source, class_of_checkpoint

    use, source = USES[command], checkpoint_source(name)
    head = class_of_checkpoint(source)
    if head in public_names and head not in use.heads:
        raise ValueError(
            f"{name} is a {head}, which was not trained {use.what}: give a {' or a '.join(use.heads)}, such as "
            f"{use.such_as}."
        )
    return source


def load_pretrained(command: str, name: str, device: Any = None) -> tuple[Any, Any]:
    """Returns a pretrained model in evaluation mode, and its processor.

    Args:
        command: See [`usable_source`].
        name: See [`usable_source`].
        device: Where to compute; by default on the accelerator, if there is one.

    Raises:
        FileNotFoundError, OSError, ValueError: See [`usable_source`].
    """
    from ..devices import placed
    from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
    from ..model.processing_cbvila import CBViLAProcessor

    source = usable_source(command, name)
    model = placed(CBViLAForPreTraining.from_pretrained(source), device)
    return model.eval(), CBViLAProcessor.from_pretrained(source)
