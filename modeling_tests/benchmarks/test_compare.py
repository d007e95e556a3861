"""Comparison of two commits: differences, fingerprints, and recorded commands that parse."""

import compare
import pytest
import recorded_runs
import torch
from recorded_runs import RUNS, command, fingerprint


def test_differences_ignore_the_order():
    assert compare.differences({"a": "1", "b": "2"}, {"b": "2", "a": "1"}) == []


@pytest.mark.parametrize(
    ("after", "lines"),
    [
        ({"a": "1", "b": "9"}, ["b differs"]),
        ({"a": "1"}, ["b is gone"]),
        ({"a": "1", "b": "2", "c": "3"}, ["c is new"]),
        ({"a": "1", "c": "2"}, []),
        ({"a": "1", "c": "7"}, ["b is gone", "c is new"]),
    ],
)
def test_differences_follow_renamed_tensors(after, lines):
    assert compare.differences({"a": "1", "b": "2"}, after) == lines


def test_fingerprint_depends_on_bits_shape_and_dtype():
    zeros = torch.zeros(2, 3)
    others = [zeros.view(3, 2), zeros.double(), -zeros, zeros.int()]
    assert fingerprint(zeros) == fingerprint(torch.zeros(2, 3))
    assert len({fingerprint(tensor) for tensor in [zeros, *others]}) == 5


def test_main_prints_tensors_that_differ(monkeypatch, capsys):
    records = iter([{"recipe": {"a": "1"}}, {"recipe": {"a": "2"}}])
    monkeypatch.setattr(compare, "record", lambda *_: next(records))
    monkeypatch.setattr(compare.subprocess, "run", lambda *_, **__: None)
    assert compare.main(["HEAD"]) == 1
    assert capsys.readouterr().out.splitlines() == ["recipe: 1 of 1 tensors differ", "  a differs", "different"]


@pytest.mark.parametrize("name", [name for name in RUNS if name != "two processes"])
def test_recorded_runs_parse_their_options(name, monkeypatch, tmp_path):
    from transformers_cbvila import CBViLAConfig
    from transformers_cbvila.training import pretrain

    seen = []
    monkeypatch.setattr(pretrain, "pretrain", lambda job, args: seen.append((job, args)) or args.output_dir)
    monkeypatch.chdir(recorded_runs.Path(recorded_runs.__file__).parents[1])
    from transformers_cbvila.cli import main

    assert main(command(name, tmp_path)) == 0
    ((job, args),) = seen
    assert args.max_steps == RUNS[name][1].get("max_steps", recorded_runs.VARIANT)
    fields = job.model_config if isinstance(job.model_config, dict) else recorded_runs.json.loads(job.model_config)
    config = CBViLAConfig(**fields)
    assert {flat: getattr(config, flat) for flat in ("codebook_size", *RUNS[name][0])} == {
        "codebook_size": 128,
        **RUNS[name][0],
    }
