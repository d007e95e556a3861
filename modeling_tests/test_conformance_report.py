"""The counts that `make conformance` prints."""

import pytest
from conformance.report import HARDWARE, INAPPLICABLE, PACKAGE, kind_of, lines, without_names


@pytest.mark.parametrize(
    "reason, kind",
    [
        ("Skipped: test requires accelerator", HARDWARE),
        ("test requires multiple accelerators", HARDWARE),
        ("test requires MPS", HARDWARE),
        ("test requires Flash Attention", PACKAGE),
        ("test requires the kernels library", PACKAGE),
        ("Skipping backends equivalence test as there are less than 2 backends", PACKAGE),
        ("This model does not have RoPE", INAPPLICABLE),
        ("CBViLAModel does not support SDPA", INAPPLICABLE),
    ],
)
def test_kind_of_classifies_skips(reason, kind):
    assert kind_of(reason) == kind


def test_without_names_unifies_reasons():
    texts = (
        "Skipped: <class 'transformers_cbvila.model.modeling_cbvila.CBViLAModel'> has no axial RoPE",
        "CBViLATextModel class has no axial RoPE",
    )
    assert {without_names(text) for text in texts} == {"the class has no axial RoPE"}


def test_report_counts_and_verdicts():
    outcomes = {
        "conformance/a.py::TestCBViLAModel::test_1": ("passed", ""),
        "conformance/a.py::TestCBViLAModel::test_2": ("failed", ""),
        "conformance/a.py::TestCBViLAModel::test_3": ("skipped", "Skipped: no RoPE"),
        "conformance/a.py::TestCBViLATextModel::test_1": ("skipped", "test requires accelerator"),
        "conformance/b.py::TestBlipModel::test_1": ("passed", ""),
        "conformance/b.py::TestBlipModel::test_2": ("passed", ""),
        "conformance/b.py::TestBlipModel::test_3": ("passed", ""),
        "conformance/b.py::TestBlipTextModel::test_1": ("skipped", "no RoPE"),
    }
    by_name = {line.split()[0]: line for line in lines(outcomes) if line}
    assert "1 passed    1 failed    1 skipped" in by_name["CBViLAModel"]
    assert by_name["CBViLAModel"].endswith("FEWER PASSED, MORE INAPPLICABLE: BlipModel")
    assert by_name["CBViLATextModel"].endswith("(1 hardware, 0 absent package, 0 inapplicable) >= BlipTextModel")
    assert "1 passed    1 failed    2 skipped" in by_name["total"]  # BLIP's do not count
