"""Protocols of the literature by name, so that two numbers under one name are comparable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data.task_rows import TaskRows
from ..metrics.vqa_metrics import ANNOTATORS_PER_QUESTION
from ..model.messages_cbvila import shown


@dataclass(frozen=True)
class Protocol:
    """One protocol.

    Attributes:
        task: The task it belongs to.
        text: What it is, in a line, with the data set as it stands on the Hub.
        defaults: Of the task's options; what is given wins.
        fixed: Options that make the protocol: giving others is an error.
        sizes: How many rows its evaluation sets have: images in retrieval, questions, texts.
        captions: Of retrieval, how many captions there are; several numbers where a set is used in several ways.
        needed: Options that must be given, whatever their values.
        annotators: How many answers each question must have.
    """

    task: str
    text: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()
    captions: tuple[int, ...] = ()
    needed: tuple[str, ...] = ()
    annotators: int | None = None


PROTOCOLS = {
    "coco-5k": Protocol(
        "retrieval",
        "COCO's 5,000 test images of Karpathy's split with all their captions, 256 candidates re-ranked; "
        "nlphuji/mscoco_2014_5k_test_image_text_retrieval@refs/convert/parquet",
        {"rerank_k": 256},
        {"own_captions_only": True},
        sizes=(5000,),
        captions=(25_010, 25_000),  # all that there are, and five of each image
    ),
    "flickr30k-1k": Protocol(
        "retrieval",
        "Flickr30K's 1,000 test images with their 5,000 captions, 128 candidates re-ranked; "
        "nlphuji/flickr30k@refs/convert/parquet --where split=test",
        {"rerank_k": 128},
        {"own_captions_only": True},
        sizes=(1000,),
        captions=(5000,),
    ),
    "vqav2": Protocol(
        "vqa",
        "VQAv2's soft accuracy over ten answers, 128 answers of the list ranked; HuggingFaceM4/VQAv2@refs/convert/"
        "parquet (answers to the test questions are not public)",
        {"answer_k": 128, "image_id_column": "image_id"},
        sizes=(214_354,),
        needed=("answer_list",),
        annotators=ANNOTATORS_PER_QUESTION,
    ),
    "snli-ve": Protocol(
        "entailment",
        "SNLI-VE's accuracy over three classes, on the validation or the test set; its own JSON Lines, joined with "
        "Flickr30K's photographs by --image_data",
        sizes=(17_858, 17_901),
    ),
    "nlvr2": Protocol(
        "reasoning",
        "NLVR2's accuracy, and consistency over the pairs of images of a sentence, on dev or test-P; "
        "HuggingFaceM4/NLVR2",
        {"image_column": ["left_image", "right_image"]},
        {"group_column": "identifier", "group_parts": [0, 1, 3]},
        sizes=(6_982, 6_967),
    ),
    "nlvr1": Protocol(
        "reasoning",
        "NLVR's pictures of three boxes in all orders, on dev or Test-P; consistency over all pictures of a sentence, "
        "in all orders",
        {"image_parts": 3, "image_gap": 0.125},
        {"group_column": "identifier", "group_parts": [0]},  # identifiers are SENTENCE-PICTURE
        sizes=(5_934, 5_940),
    ),
}


def protocol_defaults(task: str, name: str | None) -> dict[str, Any]:
    """The options that a protocol sets.

    Raises:
        ValueError: If there is no such protocol for the task.
    """
    if name is None:
        return {}
    if name not in PROTOCOLS or PROTOCOLS[name].task != task:
        fitting = [known for known, protocol in PROTOCOLS.items() if protocol.task == task]
        raise ValueError(f"protocol={shown(name)} is none for {task}; there are {', '.join(fitting)}.")
    return {**PROTOCOLS[name].defaults, **PROTOCOLS[name].fixed}


def check_protocol(name: str | None, settings: Any, rows: TaskRows) -> None:
    """Raises a ValueError where settings or rows are not those of the protocol: the number would not be comparable."""
    if name is None:
        return
    protocol, leave = PROTOCOLS[name], "Leave --protocol out for figures of your own."
    for option, value in protocol.fixed.items():
        if getattr(settings, option) != value:
            raise ValueError(f"Under {name}, {option} is {value} and not {getattr(settings, option)}. {leave}")
    for option in protocol.needed:
        if getattr(settings, option) is None:
            raise ValueError(f"{name} needs {option}, and none is given. {leave}")
    count = sum(map(len, rows.column("question"))) if protocol.task == "vqa" else len(rows)
    way_out = f"--image_id_column puts rows of one image together, --where takes a part. {leave}"
    _check_count(name, "rows", count, protocol.sizes, rows, way_out)
    if protocol.captions:
        _check_count(name, "captions", sum(map(len, rows.column("captions"))), protocol.captions, rows, way_out)
    if protocol.annotators is not None:
        counts = {len(answers) for row in rows.column("answer") for answers in row}
        if counts != {protocol.annotators}:
            raise ValueError(
                f"{name} needs {protocol.annotators} answers to each question; here are {sorted(counts)}. {leave}"
            )


def _check_count(name: str, what: str, count: int, expected: Sequence[int], rows: TaskRows, way_out: str) -> None:
    if expected and count not in expected:
        raise ValueError(
            f"{name} is over {' or '.join(f'{size:,}' for size in expected)} {what}, and there are {count:,} here "
            f"({len(rows.skipped)} bad rows left out). {way_out}"
        )
