"""Counts conformance tests per class, tells why each skipped one was skipped, and compares with transformers' BLIP."""

import re
import textwrap
from collections import Counter, defaultdict

HARDWARE, PACKAGE, INAPPLICABLE = "hardware", "absent package", "inapplicable"
KINDS = (HARDWARE, PACKAGE, INAPPLICABLE)

# How transformers words a skip for want of a machine or of a package. Everything else is a rule of its own by which a
# test does not concern a model.
_WORDING = {
    HARDWARE: r"test requires (multiple |an? )?(accelerators?|GPUs?|MPS|XPU|CUDA|NPU|TPU)\b",
    PACKAGE: r"test requires (?!multiple)|torchvision backend is not available|less than 2 backends",
}

# The class of BLIP that is nearest to each of ours, and whether it has the same job.
NEAREST = {
    "CBViLAModel": ("BlipModel", True),
    "CBViLATextModel": ("BlipTextModel", True),
    "CBViLAVisionModel": ("BlipVisionModel", True),
    "CBViLAFusionModel": ("BlipTextModel", False),
    "CBViLAAnswerDecoder": ("BlipTextLMHeadModel", True),
    "CBViLAForPreTraining": ("BlipModel", False),
    "CBViLAForImageTextRetrieval": ("BlipForImageTextRetrieval", True),
    "CBViLAForQuestionAnswering": ("BlipForQuestionAnswering", True),
    "CBViLAForVisualEntailment": ("BlipForImageTextRetrieval", False),
    "CBViLAForVisualReasoning": ("BlipForImageTextRetrieval", False),
    "CBViLAForMaskedImageModeling": ("BlipModel", False),
    "CBViLAForConditionalGeneration": ("BlipForConditionalGeneration", False),
    "CBViLAQFormerModel": ("BlipTextModel", False),
    "CBViLAForQFormerPreTraining": ("BlipModel", False),
    "Configs": ("BlipConfigs", True),
    "ImageProcessor": ("BlipImageProcessor", True),
    "Processor": ("BlipProcessor", True),
}


def kind_of(reason: str) -> str:
    """Which of `KINDS` a reason to skip is."""
    return next((kind for kind, pattern in _WORDING.items() if re.search(pattern, reason)), INAPPLICABLE)


def without_names(reason: str) -> str:
    """A reason that is the same for all classes."""
    reason = re.sub(r"<class '[\w.]+'>|\b(CBViLA|Blip)\w+( class)?", "the class", reason.removeprefix("Skipped: "))
    return re.sub(r"\s+", " ", reason).strip()


def lines(outcomes: dict[str, tuple[str, str]]) -> list[str]:
    """The report.

    Args:
        outcomes: for each test's id (`file::TestClass::test_name`) "passed", "failed" or "skipped", and a reason.
    """
    counts, reasons = defaultdict(Counter), defaultdict(lambda: defaultdict(set))
    for nodeid, (outcome, reason) in outcomes.items():
        _, test_class, test = nodeid.split("::")
        name = test_class.removeprefix("Test")
        counts[name][outcome if outcome != "skipped" else kind_of(reason)] += 1
        if outcome == "skipped" and name in NEAREST:
            reasons[kind_of(reason)][without_names(reason)].add((name, test))
    ours = {name: count for name, count in counts.items() if name in NEAREST}
    peers = {name: count for name, count in counts.items() if name not in NEAREST}
    return [
        *_reason_lines(reasons),
        *[_count_line(name, peers[name]) for name in sorted(peers)],
        "" if peers else "BLIP was not run: `make conformance` does.",
        *[_count_line(name, ours[name], _verdict(name, ours[name], peers)) for name in sorted(ours)],
        _count_line("total", sum(ours.values(), Counter())),
    ]


def _reason_lines(reasons) -> list[str]:
    found = []
    for kind in KINDS:
        total = sum(map(len, reasons[kind].values()))
        found += [f"skipped, {kind}: {total}"] if total else []
        for reason, tests in sorted(reasons[kind].items(), key=lambda entry: -len(entry[1])):
            classes, names = ({entry[i] for entry in tests} for i in (0, 1))
            found.append(f"{len(tests):5} {reason} ({len(classes)} class{'es' * (len(classes) > 1)})")
            found += textwrap.wrap(", ".join(sorted(names)), 110, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return [*found, ""]


def _count_line(name: str, count: Counter, verdict: str = "") -> str:
    skipped = ", ".join(f"{count[kind]} {kind}" for kind in KINDS)
    total = sum(count[kind] for kind in KINDS)
    text = f"{name:29}{count['passed']:5} passed {count['failed']:4} failed {total:4} skipped ({skipped}){verdict}"
    return text.rstrip()


def _verdict(name: str, count: Counter, peers: dict[str, Counter]) -> str:
    """How a class of ours compares with the nearest BLIP class."""
    peer, same_job = NEAREST[name]
    if peer not in peers:
        return ""
    theirs, below = peers[peer], []
    if same_job and count["passed"] < theirs["passed"]:
        below.append("FEWER PASSED")
    if count[INAPPLICABLE] > theirs[INAPPLICABLE]:
        below.append("MORE INAPPLICABLE")
    return f" {', '.join(below)}: {peer}" if below else f" >= {peer}"
