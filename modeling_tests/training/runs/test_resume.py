"""A run that was broken off and resumed ends with the weights of an unbroken one, bit for bit (CPU).

`test_trainer.py` has the cases of data that can be indexed; here are streams, the command line and a real SIGKILL.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
import yaml
from equal_tensors import assert_equal_tensors, assert_equal_weights
from interrupted_runs import RESUMED, train_until
from safetensors.torch import load_file
from tiny import PATCH, pretraining_model, tiny_processor, tiny_rows
from tiny_recipe import TINY_RECIPE
from tiny_trainer import pretrainer, step_logs, training_arguments

from transformers_cbvila.data.collators import CBViLADataCollatorForPreTraining
from transformers_cbvila.data.streams import StreamedImageTextPairs
from transformers_cbvila.training.runs import run_conditions
from transformers_cbvila.training.runs.checkpoints import last_complete_checkpoint
from transformers_cbvila.training.trainer import CBViLATrainer


def small_stream(shards=3, rows=10, **options):
    """Ten rows in three shards of uneven length."""
    texts = datasets.List(datasets.Value("string"))
    features = datasets.Features(image=datasets.Image(mode="RGB"), captions=texts, keywords=texts)
    table = datasets.Dataset.from_list(tiny_rows(rows), features=features)
    features = datasets.Features(image=datasets.Image(decode=False), captions=texts, keywords=texts)
    stream = table.cast(features).to_iterable_dataset(num_shards=shards)
    return StreamedImageTextPairs(stream, **({"shuffle_buffer": 5, "crop_scale": 0.75, "flip": True} | options))


def stream_trainer(folder, callbacks=(), model=None, stream=None, **options):
    return CBViLATrainer(
        model=pretraining_model(dropout=0.1) if model is None else model,
        args=training_arguments(folder, **options),
        train_dataset=small_stream() if stream is None else stream,
        data_collator=CBViLADataCollatorForPreTraining(tiny_processor(), PATCH, max_length=16),
        callbacks=list(callbacks),
    )


@pytest.mark.parametrize(
    "save_steps, options",
    [
        (6, {"burn_in_steps": 6}),  # where burn-in ends, in the second pass over ten rows
        (3, {"gradient_accumulation_steps": 2}),
        (3, {"dataloader_num_workers": 1}),
    ],
)
def test_resume_stream_equals_unbroken_run(save_steps, options, tmp_path, capsys):
    options = RESUMED | {"save_steps": save_steps} | options
    whole = stream_trainer(tmp_path / "whole", **options)
    whole.train()
    train_until(save_steps + 1, stream_trainer, tmp_path / "broken", **options)
    capsys.readouterr()
    resumed = stream_trainer(tmp_path / "broken", model=pretraining_model(seed=7, dropout=0.1), **options)
    resumed.train(resume_from_checkpoint=last_complete_checkpoint(tmp_path / "broken"))
    rows = save_steps * 2 * options.get("gradient_accumulation_steps", 1)
    said = capsys.readouterr().err
    assert f"Replaying the stream to step {save_steps}: reading past {rows} rows" in said
    assert f"Resumed at step {save_steps}: its data were there in" in said
    assert_equal_weights(resumed.model, whole.model)
    losses = [[log["loss"] for log in step_logs(trainer)] for trainer in (whole, resumed)]
    assert losses[0] == losses[1] and len(losses[0]) == 9
    assert resumed.state.epoch == whole.state.epoch == 1.0, "a stream has no epochs: the share of all steps"


def test_resume_stream_ignore_data_skip(tmp_path, capsys):
    options = RESUMED | {"save_steps": 3}
    train_until(4, stream_trainer, tmp_path, **options)
    capsys.readouterr()
    resumed = stream_trainer(tmp_path, ignore_data_skip=True, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.state.global_step == 9 and "Replaying" not in capsys.readouterr().err


def test_codebook_init_from_a_stream(tmp_path):
    distances = []
    for codebook_init in (True, False):
        trainer = stream_trainer(tmp_path, codebook_init=codebook_init, max_steps=1)
        trainer.train()
        distances.append(step_logs(trainer)[0]["loss_commitment"])
    assert distances[0] < 0.5 * distances[1]


def test_stream_needs_max_steps(tmp_path):
    with pytest.raises(ValueError, match="max_steps has to be specified"):
        stream_trainer(tmp_path, max_steps=-1).train()


def test_resume_finished_run_takes_no_step(tmp_path, capsys):
    """Killed between its last checkpoint and its end."""
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    whole = stream_trainer(tmp_path, **options)
    whole.train()
    again = stream_trainer(tmp_path, model=pretraining_model(seed=7), **options)
    result = again.train(resume_from_checkpoint=last_complete_checkpoint(tmp_path))
    assert result.global_step == again.state.global_step == 2
    assert "nothing is left to train" in capsys.readouterr().err
    assert_equal_weights(again.model, whole.model)


def test_resume_true_takes_the_last_complete_checkpoint(tmp_path):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1}
    stream_trainer(tmp_path, **options).train()
    for step in (3, 4):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text('{"half')
    resumed = stream_trainer(tmp_path, **options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.data_callback.resumed_from == 2 and resumed.state.global_step == 4


# Under other conditions


def resumed_otherwise(folder, make, first, second):
    """A run of three steps that goes on from its first, with other options."""
    options = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    make(folder, **(options | first)).train()
    trainer = make(folder, **(options | second))
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-1"))
    return trainer


@pytest.mark.parametrize(
    "make, changes, expected",
    [
        (pretrainer, {}, []),
        (pretrainer, {"dataloader_num_workers": 1}, []),  # of rows that can be indexed, no draw depends on it
        (pretrainer, {"rows": 12}, ["rows was 8, is 12: the training data differ"]),
        (
            pretrainer,
            {
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 2,
                "seed": 3,
                "max_steps": 2,
                "bf16": True,
            },
            [
                "batch_size_per_process was 2, is 4: batches and negatives differ; the position in the data",
                "gradient_accumulation_steps was 1, is 2: a step sees another number of pairs",
                "seed was 0, is 3: crops",
                "length was 3 steps, is 2 steps: learning rates",
                "precision was no, is bf16: results are rounded",
            ],
        ),
        (stream_trainer, {}, []),
        (stream_trainer, {"dataloader_num_workers": 1}, ["dataloader_num_workers was 0, is 1: the stream is split"]),
        (
            lambda folder, shards=3, buffer=5, **options: stream_trainer(
                folder, stream=small_stream(shards, shuffle_buffer=buffer), **options
            ),
            {"shards": 2, "buffer": 7},
            ["shards was 3, is 2: the stream", "shuffle_buffer was 5, is 7: rows come in another order"],
        ),
    ],
)
def test_run_conditions_that_differ_are_warned_of(make, changes, expected, tmp_path, logged):
    resumed_otherwise(tmp_path, make, {}, changes)
    lines = logged("run_conditions")[0].split("\n  ")[1:] if logged("run_conditions") else []
    assert len(lines) == len(expected) and len(logged("run_conditions")) == bool(expected)
    for line, beginning in zip(lines, expected, strict=True):
        assert line.startswith(beginning)


def test_run_conditions_ignore_workers_of_indexed_rows(tmp_path):
    same = resumed_otherwise(tmp_path / "a", pretrainer, {}, {})
    other = resumed_otherwise(tmp_path / "b", pretrainer, {}, {"dataloader_num_workers": 1})
    assert_equal_weights(same.model, other.model)


def test_run_conditions_include_processes(tmp_path, logged):
    resumed_otherwise(tmp_path, pretrainer, {}, {})
    checkpoint = tmp_path / "checkpoint-1"
    path = checkpoint / "run_conditions.json"
    path.write_text(path.read_text().replace('"processes": 1', '"processes": 8'))
    run_conditions.warn_of_other_conditions(pretrainer(tmp_path, max_steps=3).context, str(checkpoint))
    assert "processes was 8, is 1: batches and negatives differ" in logged("run_conditions")[0]
    path.unlink()
    run_conditions.warn_of_other_conditions(pretrainer(tmp_path, max_steps=9).context, str(checkpoint))
    assert len(logged("run_conditions")) == 1, "a checkpoint of an earlier version says nothing"


# With a real process


def command(folder, data, *options, launcher=("-m",)):
    recipe = folder / "recipe.yaml"
    job = TINY_RECIPE | {"codebook_restart_threshold": 0.3, "codebook_refit": True, "crop_scale": 0.75}
    recipe.write_text(
        yaml.safe_dump(job | {"learning_rate": 1e-3, "burn_in_steps": 20, "lr_scheduler_type": "cosine"})
    )
    return [
        *(sys.executable, *launcher, "transformers_cbvila", "pretrain", "--config", str(recipe)),
        *("--train_data", data, "--save_steps", "5", "--logging_steps", "50", "--save_total_limit", "2", *options),
    ]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def run(arguments):
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def run_and_kill(arguments, output_dir, after_step, delay):
    """Starts a run and kills it, without notice, some time after a checkpoint of that step is begun."""
    process = subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + 120
        while not (output_dir / f"checkpoint-{after_step}").exists():
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.001)
        time.sleep(delay)
        assert process.poll() is None, "it was done already: a longer run is needed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--dataloader_num_workers", "1"), ("--streaming", "True")])
def test_resume_after_two_kills(options, picture_folder, tmp_path):
    """Once in burn-in, once after it; the first time perhaps in the middle of writing a checkpoint."""
    options = ("--max_steps", "60", *options)
    arguments = command(tmp_path, picture_folder, *options)
    run([*arguments, "--output_dir", str(tmp_path / "whole")])
    broken = [*arguments, "--output_dir", str(tmp_path / "broken"), "--resume"]
    draws = random.Random()
    seed = draws.randrange(1000)
    print(f"delays from seed {seed}")
    draws.seed(seed)
    run_and_kill(broken, tmp_path / "broken", 10, draws.uniform(0, 0.03))
    first = last_complete_checkpoint(tmp_path / "broken")
    run_and_kill(broken, tmp_path / "broken", 30, draws.uniform(0, 0.1))
    done = run(broken)
    assert "Resuming from" in done.stderr and first is not None
    record = json.loads((tmp_path / "broken" / "pretraining.json").read_text())
    assert record["speed"]["resumed_from_step"] >= 25 and record["speed"]["replay_seconds"] > 0
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    assert_equal_tensors(load_file(tmp_path / "broken" / "model.safetensors"), expected)


@pytest.mark.slow
@pytest.mark.parametrize("streaming", ["False", "True"])
def test_accelerate_launch_on_two_processes(streaming, picture_folder, tmp_path):
    """... and a run that was stopped after its first half ends as an unbroken one does."""
    # `--multi_gpu` starts the processes, `use_cpu` of the recipe puts them on the CPU; `--cpu` would start only one
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
    launcher += ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m")
    options = ("--streaming", streaming, "--per_device_train_batch_size", "2", "--max_steps", "30")
    arguments = command(tmp_path, picture_folder, *options, launcher=launcher)
    done = run([*arguments, "--output_dir", str(tmp_path / "out")])
    assert done.stderr.count("Training a vocabulary") == 1, "one process speaks"
    record = json.loads((tmp_path / "out" / "pretraining.json").read_text())
    assert (record["world_size"], record["batch_size"], record["steps"]) == (2, 4, 30)
    whole = load_file(tmp_path / "out" / "model.safetensors")
    (Path(tmp_path) / "out" / "checkpoint-30" / "trainer_state.json").write_text('{"half')
    done = run([*arguments, "--output_dir", str(tmp_path / "out"), "--resume"])
    assert "checkpoint-25." in done.stderr
    assert_equal_tensors(load_file(tmp_path / "out" / "model.safetensors"), whole)
