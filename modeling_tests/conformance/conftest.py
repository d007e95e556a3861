"""Runs transformers' common suites on our classes, as if these were in its tree, and counts per class.

`make conformance` runs all of them; the default run takes the tests of `SHORT` only.
"""

from collections import Counter, defaultdict

import pytest
from transformers.models.auto import modeling_auto

SHORT = ("Config", "test_save_load", "test_training", "test_attention_outputs", "test_inputs_embeds", "test_resize")

# The suites look class names up in these in-tree tables, to know what a model is for, and leave out what no table
# lists. During conformance tests ours are listed, so that nothing is left out for being out of tree.
IN_TREE_NAMES = {
    "MODEL_MAPPING_NAMES": {
        "cbvila": "CBViLAModel",
        "cbvila_vision_model": "CBViLAVisionModel",
        "cbvila_text_model": "CBViLATextModel",
        "cbvila_fusion_model": "CBViLAFusionModel",
    },
    "MODEL_FOR_PRETRAINING_MAPPING_NAMES": {"cbvila": "CBViLAForPreTraining"},
    "MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING_NAMES": {"cbvila": "CBViLAForQuestionAnswering"},
    "MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING_NAMES": {"cbvila": "CBViLAForMaskedImageModeling"},
}

MARKERS_OF_THE_SUITES = (
    "accelerate_tests",
    "flash_attn_test",
    "flash_attn_3_test",
    "flash_attn_4_test",
    "generate",
    "torch_compile_test",
    "torch_export_test",
)


def pytest_configure(config):
    for marker in MARKERS_OF_THE_SUITES:
        config.addinivalue_line("markers", f"{marker}: of transformers' common tests")


@pytest.fixture(autouse=True, scope="module")
def listed_as_in_tree():
    with pytest.MonkeyPatch.context() as patch:
        for table, names in IN_TREE_NAMES.items():
            for model_type, class_name in names.items():
                patch.setitem(getattr(modeling_auto, table), model_type, class_name)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "conformance" and not any(name in item.nodeid for name in SHORT):
            item.add_marker(pytest.mark.conformance)


def outcomes(terminalreporter):
    """Outcome and reason of each test of this folder; a test of which one part is skipped is skipped."""
    order = ["passed", "skipped", "error", "failed"]
    found = {}
    for outcome in ("passed", "skipped", "failed", "error", "subtests failed", "subtests skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            nodeid = getattr(report, "nodeid", "")
            if "conformance/" not in nodeid or "::" not in nodeid:
                continue
            outcome = outcome.removeprefix("subtests ")
            if order.index(outcome) >= order.index(found.get(nodeid, ("passed", ""))[0]):
                found[nodeid] = outcome, report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    return found


def pytest_terminal_summary(terminalreporter):
    found = outcomes(terminalreporter)
    if not found:
        return
    classes, reasons = defaultdict(Counter), defaultdict(set)
    for nodeid, (outcome, reason) in found.items():
        name = nodeid.split("::")[1].removeprefix("Test")
        classes[name][outcome] += 1
        if outcome == "skipped":
            reasons[reason.removeprefix("Skipped: ")].add(f"{name}.{nodeid.split('::')[-1]}")
    write = terminalreporter.write_line
    terminalreporter.section("conformance")
    for reason, tests in sorted(reasons.items(), key=lambda entry: -len(entry[1])):
        write(f"{len(tests):4} skipped: {reason} ({', '.join(sorted({test.split('.')[1] for test in tests})[:3])})")
    write("")
    for name in sorted(classes):
        write(_line(name, classes[name]))
    write(_line("total", sum(classes.values(), Counter())))


def _line(name, count):
    failed = count["failed"] + count["error"]
    return f"{name:36} {count['passed']:5} passed {failed:5} failed {count['skipped']:5} skipped"
