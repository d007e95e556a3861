"""A checkpoint that lacks a part of its run's state says which."""

import shutil

import pytest
from tiny_trainer import pretrainer

from transformers_cbvila.training.runs import checkpoints

RUN = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "queue_size": 8, "burn_in_steps": 1}
LEFT_OUT = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "run_conditions.json", "codebook_state.pt", "momentum.pt")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The output folder of a run with everything that a checkpoint can hold."""
    folder = tmp_path_factory.mktemp("run")
    pretrainer(folder, **RUN).train()
    shutil.rmtree(folder / "checkpoint-3")
    return folder


def resumed(run, folder, missing, monkeypatch, **options):
    """Goes on from a copy of the run without some files; returns the trainer and the warnings."""
    copy, warnings = shutil.copytree(run, folder / "copy"), []
    for name in missing:
        (copy / "checkpoint-2" / name).unlink()
    monkeypatch.setattr(checkpoints.logger, "warning", lambda text, *args: warnings.append(text % args))
    trainer = pretrainer(copy, **(RUN | options))
    trainer.train(resume_from_checkpoint=True)
    return trainer, warnings


@pytest.mark.parametrize("missing", [("optimizer.pt",), ("scheduler.pt",), LEFT_OUT])
def test_without_optimizer_or_scheduler_there_is_no_run_to_go_on_with(missing, run, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="is no checkpoint to go on from") as caught:
        resumed(run, tmp_path, missing, monkeypatch)
    assert all((name in str(caught.value)) == (name in missing) for name in LEFT_OUT)


@pytest.mark.parametrize("missing", [(), *((name,) for name in LEFT_OUT[2:]), LEFT_OUT[2:]])
def test_without_the_rest_it_goes_on_otherwise_and_says_so(missing, run, tmp_path, monkeypatch):
    trainer, warnings = resumed(run, tmp_path, missing, monkeypatch)
    assert trainer.state.global_step == 3
    assert len(warnings) == bool(missing)
    assert all((name in "".join(warnings)) == (name in missing) for name in LEFT_OUT)


def test_what_the_run_does_not_have_is_not_missed(run, tmp_path, monkeypatch):
    _, warnings = resumed(run, tmp_path, ["momentum.pt"], monkeypatch, queue_size=0)
    assert warnings == []


def test_a_run_that_saved_models_only(tmp_path):
    pretrainer(tmp_path, **(RUN | {"max_steps": 2, "save_only_model": True})).train()
    with pytest.raises(FileNotFoundError, match="optimizer.pt .*scheduler.pt .*save_only_model leaves"):
        pretrainer(tmp_path, **RUN).train(resume_from_checkpoint=True)
    finished = pretrainer(tmp_path, **(RUN | {"max_steps": 2}))
    assert finished.train(resume_from_checkpoint=True).global_step == 2, "nothing is left to train"


def test_a_tied_matrix_is_not_missing_and_another_one_is(run, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("transformers.trainer.logger.warning", lambda text, *args: said.append(str(text)))
    trainer, _ = resumed(run, tmp_path, (), monkeypatch)
    assert not [text for text in said if "missing keys" in text]
    result = trainer.model.load_state_dict({}, strict=False)
    trainer._issue_warnings_after_load(result)
    (warned,) = (text for text in said if "missing keys" in text)
    assert "objectives.itm.head.weight" in warned and "objectives.mlm.head.decoder.weight" not in warned
