"""Class names of a head: given by the caller, by the checkpoint, or the defaults."""

import pytest
from tiny import build, tiny_config

from transformers_cbvila import (
    CBViLAConfig,
    CBViLAForPreTraining,
    CBViLAForVisualEntailment,
    CBViLAForVisualReasoning,
    CBViLAModel,
)

HEADS = {
    CBViLAForVisualEntailment: ["entailment", "neutral", "contradiction"],
    CBViLAForVisualReasoning: ["False", "True"],
}
SAID = [
    ({"num_labels": 1}, ["LABEL_0"]),
    ({"num_labels": 2}, ["LABEL_0", "LABEL_1"]),
    ({"num_labels": 3}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
    ({"id2label": {0: "False", 1: "True"}}, ["False", "True"]),
    ({"id2label": {0: "LABEL_0", 1: "LABEL_1"}}, ["LABEL_0", "LABEL_1"]),
    ({"id2label": {0: "entailment", 1: "neutral", 2: "contradiction"}}, ["entailment", "neutral", "contradiction"]),
    (
        {"id2label": {"1": "neutral", "0": "contradiction", "2": "entailment"}},
        ["contradiction", "neutral", "entailment"],
    ),
    ({"label2id": {"yes": 1, "no": 0}}, ["no", "yes"]),
    ({"num_labels": 2, "id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}, ["no", "yes"]),
]
every_head = pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
everything_said = pytest.mark.parametrize("said, names", SAID, ids=lambda value: str(value))


def classes(model):
    """Names of the classes in order; the three places that hold them agree."""
    config = model.config
    assert config.label2id == {name: i for i, name in config.id2label.items()}
    assert config.num_labels == len(config.id2label)
    head = getattr(model, "entailment_head", None) or model.reasoning_head
    assert head[-1].out_features == config.num_labels
    return [config.id2label[i] for i in range(config.num_labels)]


@pytest.fixture(scope="module", params=[CBViLAModel, CBViLAForPreTraining, *HEADS], ids=lambda head: head.__name__)
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param.__name__)
    build(request.param).save_pretrained(folder)
    return folder


@every_head
@everything_said
def test_from_pretrained_class_names_win(head, said, names, checkpoint, tmp_path):
    model = head.from_pretrained(checkpoint, ignore_mismatched_sizes=True, **said)
    if said == {"num_labels": len(HEADS[head])} and head.__name__ in checkpoint.name:
        names = HEADS[head]  # as many as there are: they keep their names
    if said == {"num_labels": 2} and "Reasoning" in checkpoint.name:
        names = ["False", "True"]
    if said == {"num_labels": 3} and "Entailment" in checkpoint.name:
        names = ["entailment", "neutral", "contradiction"]
    assert classes(model) == names
    model.save_pretrained(tmp_path)
    assert classes(head.from_pretrained(tmp_path)) == names


@every_head
@everything_said
def test_config_class_names_win(head, said, names):
    config = tiny_config(**said)
    assert classes(head(config)) == names
    assert classes(head(head(config).config)) == names


@every_head
@everything_said
def test_config_class_names_set_later_win(head, said, names, checkpoint):
    config = CBViLAConfig.from_pretrained(checkpoint)
    for name, value in said.items():
        setattr(config, name, value)
    assert len(classes(head(config))) == len(names)


@every_head
def test_default_class_names_are_those_of_the_head(head, checkpoint):
    assert classes(head(tiny_config())) == classes(head.from_pretrained(checkpoint)) == HEADS[head]
    assert classes(head(CBViLAConfig.from_pretrained(checkpoint))) == HEADS[head]


@every_head
@pytest.mark.parametrize(
    "said, message",
    [
        ({"num_labels": 0}, "num_labels=0 is no number of classes"),
        ({"num_labels": 3, "id2label": {0: "no", 1: "yes"}}, "num_labels=3, and id2label has 2 classes"),
        ({"id2label": {0: "no", 1: "yes"}, "label2id": {"yes": 0, "no": 1}}, "contradict each other"),
        ({"id2label": {0: "no", 2: "yes"}}, "expected ids from 0 on"),
        ({"id2label": {0: "no", 1: "no"}}, "all of them different"),
        ({"label2id": {"no": 0, "yes": 0}}, "label2id is"),
        ({"id2label": {}}, "id2label is {}"),
    ],
)
def test_class_names_invalid_are_rejected(head, said, message, checkpoint):
    with pytest.raises(ValueError, match=message):
        tiny_config(**said)
    with pytest.raises(ValueError, match=message):
        head.from_pretrained(checkpoint, **said)
