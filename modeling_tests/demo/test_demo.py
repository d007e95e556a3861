"""The demo from end to end on a few images and steps: fine-tune, evaluate, ask, report; and going on after a stop."""

import json
import re

import pytest
from transformers import AutoModelForVisualQuestionAnswering, BertTokenizer

from transformers_cbvila import CBViLAConfig, CBViLAForPreTraining, CBViLAImageProcessorPil, CBViLAProcessor
from transformers_cbvila.cli import demo as command
from transformers_cbvila.cli import main
from transformers_cbvila.data.easy_vqa.loading import load_easy_vqa
from transformers_cbvila.data.easy_vqa.source import EasyVQASource
from transformers_cbvila.training.trainer import CBViLATrainer

WIDTHS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def few_images():
    return {"train": load_easy_vqa("train").select(range(8)), "test": load_easy_vqa("test").select(range(4))}


@pytest.fixture
def start(tmp_path, few_images, monkeypatch):
    """A demo of two steps that starts from random weights, on an easy-VQA of a dozen images."""
    words = sorted({w for rows in few_images.values() for qs in rows["question"] for q in qs for w in q[:-1].split()})
    answers = sorted({a for rows in few_images.values() for row in rows["answer"] for a in row} - set(words))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", *words, *answers]
    tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, model_max_length=32)
    text = {"vocab_size": len(pieces), "max_position_embeddings": 32, "bos_token_id": 2, "eos_token_id": 3}
    config = CBViLAConfig(
        vision_config={**WIDTHS, "image_size": 64, "patch_size": 16},
        text_config={**WIDTHS, **text},
        multimodal_config={"num_hidden_layers": 1},
        codebook_size=8,
    )
    folder = tmp_path / "pretrained"
    CBViLAForPreTraining(config).save_pretrained(folder)
    CBViLAProcessor(CBViLAImageProcessorPil(size={"height": 64, "width": 64}), tokenizer).save_pretrained(folder)
    monkeypatch.setattr(EasyVQASource, "rows", lambda self, split, task, streaming=False: few_images[split])
    monkeypatch.setitem(command.DEFAULTS, "--model", str(folder))
    return ["demo", "--output_dir", str(tmp_path / "demo"), "--max_steps", "2"]


def test_demo_finetunes_evaluates_and_reports(start, tmp_path, few_images, capsys):
    assert main(start) == 0
    folder, printed = tmp_path / "demo", capsys.readouterr().out
    report, metrics = (json.loads((folder / name).read_text()) for name in ("report.json", "evaluation.json"))
    assert (folder / "report.html").is_file() and report["train_steps"] == 2 and report["train_seconds"] > 0
    assert report["n_questions"] == sum(map(len, few_images["test"]["question"])) == metrics["rows"]
    assert report["accuracy"] == metrics["accuracy"] and re.search(rf"accuracy +{metrics['accuracy']:.4f} \[", printed)
    assert report["floors"]["the question alone"] == metrics["accuracy_text_only_floor"]
    predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert sum(asked["score"] for asked in predictions) / len(predictions) == pytest.approx(metrics["accuracy"])
    assert len(report["examples"]) > 0
    assert AutoModelForVisualQuestionAnswering.from_pretrained(folder).config.model_type == "cbvila"


def test_demo_does_not_repeat_finished_training(start, monkeypatch):
    assert main(start) == 0
    monkeypatch.setattr(CBViLATrainer, "train", lambda *args, **kwargs: pytest.fail("trained twice"))
    assert main(start) == 0


def test_demo_resumes_the_last_complete_checkpoint(start, tmp_path, monkeypatch):
    assert main(start) == 0
    (tmp_path / "demo" / "finetuning.json").unlink()  # as if killed while the model was being saved
    (tmp_path / "demo" / "checkpoint-3").mkdir()  # and while a checkpoint was
    seen, train = [], CBViLATrainer.train

    def spy(self, resume_from_checkpoint=None):
        seen.append(resume_from_checkpoint)
        return train(self, resume_from_checkpoint=resume_from_checkpoint)

    monkeypatch.setattr(CBViLATrainer, "train", spy)
    assert main(start) == 0
    assert seen == [str(tmp_path / "demo" / "checkpoint-2")]


def test_demo_from_scratch_has_random_weights(tmp_path):
    for given, random in ((["--from_scratch"], True), ([], False)):
        task, job, args, shown = command.parse(["--output_dir", str(tmp_path / "my demo"), *given])
        assert job.from_scratch is random and (task.name, job.train_data) == ("vqa", ["easy-vqa"])
        assert shown.startswith("cbvila demo --output_dir '") and (args.num_train_epochs, args.max_steps) == (13, -1)


@pytest.mark.parametrize("option, other", [("--epochs", "--num_train_epochs"), ("--seed", "--seed")])
def test_demo_names_what_replaces_a_former_option(option, other, capsys):
    with pytest.raises(SystemExit):
        main(["demo", option, "3"])
    assert f"`cbvila finetune vqa --config finetune-vqa-easy {other}" in capsys.readouterr().err
