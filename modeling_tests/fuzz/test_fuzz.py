"""Generated command lines and calls succeed or end in one clear line, and the judge finds those that do not."""

import random

import pytest
from fuzzing import SURFACES, Ending, Fuzz, end_of_call, end_of_command, judged
from odd_pictures import KINDS

DEFAULT, ALL = 40, 300


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory):
    return Fuzz(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("first", range(0, DEFAULT, len(SURFACES)))
def test_fuzz_case_of_each_surface_ends_well(fuzz, first):
    faults = []
    for number in range(first, first + len(SURFACES)):
        what, ending = fuzz.case(number)
        if ending.kind == "fault":
            faults.append(f"0-{number} {what[:1000]}: {ending.said[:1000]}")
    assert faults == []


@pytest.mark.slow
def test_fuzz_three_hundred_cases_end_well(fuzz):
    endings = {number: fuzz.case(number) for number in range(DEFAULT, ALL)}
    assert [(number, *end) for number, end in endings.items() if end[1].kind == "fault"] == []
    kinds = [ending.kind for _, ending in endings.values()]
    assert kinds.count("done") > 0.1 * len(kinds) < kinds.count("refused")


def test_fuzz_case_depends_on_its_number_alone(fuzz):
    drawn = [fuzz.commands.draw("finetune", random.Random("3-7")) for _ in range(2)]
    assert drawn[0] == drawn[1] != fuzz.commands.draw("finetune", random.Random("3-8"))


@pytest.mark.parametrize("kind", KINDS)
def test_odd_pictures_are_bytes(kind):
    assert all(isinstance(kind(random.Random(seed)), bytes) for seed in range(20))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("cbvila pretrain: there is no folder 'x'", "refused"),
        ("", "fault"),
        ("x" * 2001, "fault"),
        ("two\nlines", "fault"),
        ("'NoneType' object is not iterable", "fault"),
        ("index out of range in self", "fault"),
    ],
)
def test_judged_classifies_messages(message, kind):
    assert judged(message, one_line=True).kind == kind


def test_end_of_command_classifies_endings(monkeypatch):
    assert end_of_command(["--version"]) == Ending("done")
    assert end_of_command(["pretrian"]).kind == "refused"
    for error, kind in ((ValueError("no such row"), "refused"), (KeyError("x"), "fault"), (SystemError(), "fault")):

        def fail(options, error=error):
            raise error

        monkeypatch.setattr("transformers_cbvila.cli.inspect.run", fail)
        assert end_of_command(["inspect", "cbvila-tiny", "--data", "x"]).kind == kind


def test_end_of_call_classifies_endings():
    assert end_of_call(lambda: None).kind == "done"
    assert end_of_call(lambda: int("x")).kind == "fault"
    assert end_of_call(lambda: {}["x"]).kind == "fault"
