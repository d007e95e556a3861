"""Incomplete checkpoints are skipped."""

import pytest
from tiny_trainer import training_arguments

from transformers_cbvila.training.runs.checkpoints import checkpoint_to_resume, last_complete_checkpoint, step_of


def checkpoint(folder, step, state='{"global_step": 1}'):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    if state is not None:
        (path / "trainer_state.json").write_text(state)
    return str(path)


def test_last_complete_checkpoint_is_the_newest_by_number(tmp_path):
    newest = checkpoint(tmp_path, 1000)
    checkpoint(tmp_path, 900)
    assert last_complete_checkpoint(tmp_path) == newest


def test_last_complete_checkpoint_skips_unfinished_ones(tmp_path):
    complete = checkpoint(tmp_path, 100)
    checkpoint(tmp_path, 200, state=None)
    checkpoint(tmp_path, 300, state='{"global_st')
    assert last_complete_checkpoint(tmp_path) == complete


def test_last_complete_checkpoint_without_any_is_none(tmp_path):
    assert last_complete_checkpoint(tmp_path) is None
    assert last_complete_checkpoint(tmp_path / "absent") is None


def test_step_of_reads_the_global_step(tmp_path):
    assert step_of(checkpoint(tmp_path, 100, '{"global_step": 100}')) == 100
    with pytest.raises(ValueError, match="checkpoint-200 is no complete checkpoint"):
        step_of(checkpoint(tmp_path, 200, state='{"global_st'))


@pytest.mark.parametrize("name", ["config.json", "trainer_state.json", "checkpoint-7/trainer_state.json"])
def test_folder_with_a_run_is_not_overwritten(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    args = training_arguments(tmp_path)
    with pytest.raises(ValueError, match=rf"has a model or a run in it \({name.split('/')[0]}.*--resume"):
        checkpoint_to_resume(args, tmp_path)
    args.resume_from_checkpoint = True
    checkpoint_to_resume(args, tmp_path)


def test_folder_with_other_files_is_used(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert checkpoint_to_resume(training_arguments(tmp_path), tmp_path) is None
