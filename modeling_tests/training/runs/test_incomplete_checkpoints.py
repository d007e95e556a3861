"""Resuming from a checkpoint names the files that it lacks."""

import shutil

import pytest
from tiny_trainer import pretrainer

RUN = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "queue_size": 8, "burn_in_steps": 1}
LEFT_OUT = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "run_conditions.json", "codebook_state.pt", "momentum.pt")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The output folder of a run with everything that a checkpoint can hold."""
    folder = tmp_path_factory.mktemp("run")
    pretrainer(folder, **RUN).train()
    shutil.rmtree(folder / "checkpoint-3")
    return folder


def resumed(run, folder, missing, **options):
    """Goes on from a copy of the run without some files; returns the trainer."""
    copy = shutil.copytree(run, folder / "copy")
    for name in missing:
        (copy / "checkpoint-2" / name).unlink()
    trainer = pretrainer(copy, **(RUN | options))
    trainer.train(resume_from_checkpoint=True)
    return trainer


@pytest.mark.parametrize("missing", [("optimizer.pt",), ("scheduler.pt",), LEFT_OUT])
def test_resume_needs_optimizer_and_scheduler(missing, run, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no checkpoint to go on from") as caught:
        resumed(run, tmp_path, missing)
    assert all((name in str(caught.value)) == (name in missing) for name in LEFT_OUT)


@pytest.mark.parametrize("missing", [(), *((name,) for name in LEFT_OUT[2:]), LEFT_OUT[2:]])
def test_resume_warns_of_other_missing_files(missing, run, tmp_path, logged):
    trainer, warnings = resumed(run, tmp_path, missing), logged("runs.checkpoints")
    assert trainer.state.global_step == 3
    assert len(warnings) == bool(missing)
    assert all((name in "".join(warnings)) == (name in missing) for name in LEFT_OUT)


def test_resume_does_not_miss_files_of_unused_options(run, tmp_path, logged):
    resumed(run, tmp_path, ["momentum.pt"], queue_size=0)
    assert logged("runs.checkpoints") == []


def test_resume_rejects_save_only_model_checkpoints(tmp_path):
    pretrainer(tmp_path, **(RUN | {"max_steps": 2, "save_only_model": True})).train()
    with pytest.raises(FileNotFoundError, match="optimizer.pt .*scheduler.pt .*save_only_model leaves"):
        pretrainer(tmp_path, **RUN).train(resume_from_checkpoint=True)
    finished = pretrainer(tmp_path, **(RUN | {"max_steps": 2}))
    assert finished.train(resume_from_checkpoint=True).global_step == 2, "nothing is left to train"


def test_resume_names_missing_keys_but_not_tied_ones(run, tmp_path, logged):
    trainer = resumed(run, tmp_path, ())
    assert not [text for text in logged("transformers.trainer") if "missing keys" in text]
    result = trainer.model.load_state_dict({}, strict=False)
    trainer._issue_warnings_after_load(result)
    (warned,) = (text for text in logged("transformers.trainer") if "missing keys" in text)
    assert "objectives.itm.head.weight" in warned and "objectives.mlm.head.decoder.weight" not in warned
