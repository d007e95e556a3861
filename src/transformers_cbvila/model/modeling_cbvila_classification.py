"""Output, classifier and class names shared by the classification heads (visual entailment and reasoning).

Shapes: B batch, D hidden.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from .class_names_cbvila import CLASS_FIELDS, ChosenClasses, both_fields, check_consistent_classes, invert
from .configuration_cbvila import CBViLAConfig
from .label_checks_cbvila import check_ids
from .messages_cbvila import shown

ENTAILMENT_LABELS = ("entailment", "neutral", "contradiction")
REASONING_LABELS = ("False", "True")


@dataclass
class CBViLAClassificationOutput(ModelOutput):
    """Output of [`CBViLAForVisualEntailment`] and [`CBViLAForVisualReasoning`].

    Args:
        loss (`torch.FloatTensor` ()): Mean cross-entropy, when `labels` are given.
        logits (`torch.FloatTensor` (B, classes)): Scores of the classes, named by `config.id2label`.
        hidden_states, attentions, cross_attentions (tuples, *optional*): States of the fusion layers. In visual
            reasoning they have n rows per statement, one per image (with `reasoning_fusion="twin"` one row, and twice
            as many layers).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


class CBViLAClassificationHead(nn.Sequential):
    """Linear, ReLU, Linear on a joint representation, as in ALBEF."""

    def __init__(self, in_size: int, hidden_size: int, num_labels: int) -> None:
        super().__init__(nn.Linear(in_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, num_labels))


def with_labels(config: CBViLAConfig, names: tuple[str, ...], head: str) -> CBViLAConfig:
    """Returns the configuration with `names` as classes, unless it has classes of its own.

    Classes that a user chose are kept, and so are those of a checkpoint of this head. The default classes of another
    task, or those that transformers fills in, are replaced.

    Args:
        config: The configuration; it is not modified.
        names: The default classes of the head.
        head: The name of the head's class.

    Raises:
        ValueError: If the chosen `id2label` and `label2id` contradict each other.
    """
    chosen = [name for name in CLASS_FIELDS if isinstance(getattr(config, name), ChosenClasses)]
    if not chosen and head in (config.architectures or ()):
        return config
    given = tuple((config.id2label or {}).values())
    if not chosen and given not in {(), ("LABEL_0", "LABEL_1"), ENTAILMENT_LABELS, REASONING_LABELS} - {names}:
        return config
    config = deepcopy(config)
    if not chosen:
        config.__dict__.update(both_fields(dict, names))
        return config
    check_consistent_classes({name: getattr(config, name) for name in chosen})
    ids = config.id2label if "id2label" in chosen else invert(config.label2id)
    config.__dict__.update(both_fields(ChosenClasses, [ids[i] for i in sorted(ids)]))
    return config


def check_labels(labels: Tensor, batch_size: int, config: CBViLAConfig, owner: nn.Module) -> None:
    """Raises a ValueError unless `labels` (B,) are class ids, or -100 for rows that the loss ignores."""
    names = shown(list((config.id2label or {}).values()))
    rule = f"the model has {config.num_labels} classes, numbered from 0: {names}; set id2label for others"
    check_ids("labels", labels, (batch_size,), config.num_labels, rule, owner)


def label_ids(names: str | list[str], config: CBViLAConfig) -> Tensor:
    """Returns the ids (B,) of classes given by name, ignoring case.

    Raises:
        ValueError: If a name is not among `config.id2label`.
    """
    names = [names] if isinstance(names, str) else names
    ids = {str(name).lower(): int(i) for i, name in config.id2label.items()}
    unknown = sorted({name for name in names if name.lower() not in ids})
    if unknown:
        raise ValueError(
            f"No class is named {', '.join(map(shown, unknown))}; config.id2label has "
            f"{', '.join(map(repr, config.id2label.values()))}. Rename the labels, or set id2label and label2id."
        )
    return torch.tensor([ids[name.lower()] for name in names])
