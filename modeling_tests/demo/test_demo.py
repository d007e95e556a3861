"""The demo from end to end on a few images and steps."""

import json

import pytest
import transformers_cbvila.demo.easy_vqa as demo
from tiny import tiny_config, tiny_processor
from transformers import AutoModelForVisualQuestionAnswering
from transformers_cbvila.demo.easy_vqa import DemoJob, run_demo

from transformers_cbvila import CBViLAForPreTraining
from transformers_cbvila.data.easy_vqa import load_easy_vqa


@pytest.fixture(scope="module")
def few_images():
    return {"train": load_easy_vqa("train").select(range(8)), "test": load_easy_vqa("test").select(range(4))}


@pytest.fixture
def start(tmp_path, few_images, monkeypatch):
    """A pretrained folder of random weights, and an easy-VQA of a dozen images."""
    words = sorted({w for rows in few_images.values() for qs in rows["question"] for q in qs for w in q[:-1].split()})
    answers = sorted({a for rows in few_images.values() for row in rows["answer"] for a in row} - set(words))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", *words, *answers]
    text = {"vocab_size": len(pieces), "max_position_embeddings": 32}
    config = tiny_config(vision={"image_size": 64, "patch_size": 16}, text=text)
    folder = tmp_path / "pretrained"
    CBViLAForPreTraining(config).save_pretrained(folder)
    tiny_processor(pieces, side=64, model_max_length=32).save_pretrained(folder)
    monkeypatch.setattr(demo, "load_easy_vqa", few_images.__getitem__)
    return str(folder)


def test_run_demo_trains_reloads_answers_and_reports(start, tmp_path, few_images):
    out = tmp_path / "demo"
    report = run_demo(DemoJob(output_dir=str(out), model=start, max_steps=2, images_per_batch=4), "cbvila demo")
    figures = json.loads((out / "report.json").read_text())
    assert report.is_file() and figures["train_steps"] == 2 and figures["train_seconds"] > 0
    assert figures["n_questions"] == sum(map(len, few_images["test"]["question"]))
    assert 0 < figures["floors"]["always the most frequent answer"] < 1
    assert len(figures["examples"]) > 0
    assert AutoModelForVisualQuestionAnswering.from_pretrained(out / "model").config.model_type == "cbvila"


def test_run_demo_does_not_repeat_finished_training(start, tmp_path, monkeypatch):
    job = DemoJob(output_dir=str(tmp_path / "demo"), model=start, max_steps=2, images_per_batch=4)
    run_demo(job)
    monkeypatch.setattr(demo.CBViLATrainer, "train", lambda *args, **kwargs: pytest.fail("trained twice"))
    assert run_demo(job).is_file()


def test_run_demo_resumes_the_last_complete_checkpoint(start, tmp_path, monkeypatch):
    out = tmp_path / "demo"
    job = DemoJob(output_dir=str(out), model=start, max_steps=2, images_per_batch=4)
    run_demo(job)
    (out / "model" / "training.json").unlink()  # as if killed while the model was being saved
    (out / "checkpoint-3").mkdir()  # and while a checkpoint was
    seen = []
    train = demo.CBViLATrainer.train

    def spy(self, resume_from_checkpoint=None):
        seen.append(resume_from_checkpoint)
        return train(self, resume_from_checkpoint=resume_from_checkpoint)

    monkeypatch.setattr(demo.CBViLATrainer, "train", spy)
    run_demo(job)
    assert seen == [str(out / "checkpoint-2")]


def test_from_scratch_takes_the_architecture_without_weights(start):
    scratch, _ = demo._start(DemoJob(model=start, from_scratch=True))
    pretrained, _ = demo._start(DemoJob(model=start))
    ours, theirs = (m.cbvila.vision_model.embeddings.patch_embedding.weight for m in (scratch, pretrained))
    assert ours.shape == theirs.shape and not ours.equal(theirs)
