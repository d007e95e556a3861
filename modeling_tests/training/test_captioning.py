"""Captions are trained with a frozen language model, by our Trainer and by transformers' own."""

import json
import math

import pytest
import torch
from equal_tensors import assert_equal_weights
from interrupted_runs import train_until
from safetensors.torch import load_file
from tiny_captioning import CAPTIONS, EXAMPLES, captioner
from tiny_language import (
    EOS,
    IMAGE,
    PAD,
    language_model,
    reading_model,
    reading_processor,
    save_language_model,
)
from tiny_trainer import step_logs, training_arguments
from transformers import Trainer
from two_processes import run_in_two

from transformers_cbvila import CBViLAForConditionalGeneration, CBViLATrainer
from transformers_cbvila.data.conditional_generation_collator import CBViLADataCollatorForConditionalGeneration
from transformers_cbvila.tasks.captioning import Captioning
from transformers_cbvila.tasks.evaluate import EvaluationJob, evaluate_task
from transformers_cbvila.tasks.text_writing import Prompt, caption_log_likelihoods, write_texts
from transformers_cbvila.training.finetune import FinetuningJob, finetune

# Batches


def test_labels_are_the_caption_and_its_end():
    batch = CBViLADataCollatorForConditionalGeneration(reading_processor())(EXAMPLES[:2])
    assert batch["input_ids"].tolist() == [[IMAGE, IMAGE, 6, 9, 7, EOS], [PAD, IMAGE, IMAGE, 6, 8, EOS]]
    assert batch["labels"].tolist() == [[-100, -100, 6, 9, 7, EOS], [-100, -100, -100, 6, 8, EOS]]
    assert batch["pixel_values"].shape == (2, 3, 32, 32)


def test_padding_with_the_end_token_is_not_labelled():
    processor = reading_processor()
    processor.tokenizer.pad_token = "<eos>"
    batch = CBViLADataCollatorForConditionalGeneration(processor)(EXAMPLES[:2])
    assert batch["labels"][1].tolist() == [-100, -100, -100, 6, 8, EOS]


def test_tokenizer_without_an_end_token():
    processor = reading_processor()
    processor.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no eos_token"):
        CBViLADataCollatorForConditionalGeneration(processor)


# Trainers


@pytest.mark.parametrize("trainer_class", [CBViLATrainer, Trainer])
def test_language_model_stays_as_it_is_to_the_bit(tmp_path, trainer_class):
    model = reading_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = captioner(tmp_path, model, trainer_class, save_strategy="steps", save_steps=4)
    trainer.train()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    own = {name for name in before if name.startswith(("model.vision_tower.", "model.multi_modal_projector."))}
    assert changed and changed <= own and {n.split(".")[1] for n in changed} == {n.split(".")[1] for n in own}
    assert set(load_file(tmp_path / "checkpoint-4" / "model.safetensors")) == own
    optimized = sum(p.numel() for group in trainer.optimizer.param_groups for p in group["params"])
    assert optimized == sum(before[name].numel() for name in own)


def test_trained_model_writes_with_a_cache(tmp_path):
    language = save_language_model(tmp_path / "language")
    model = reading_model(language_model(), language_model=language)
    trainer = captioner(tmp_path / "run", model)
    trainer.train()
    trainer.save_model()
    loaded = CBViLAForConditionalGeneration.from_pretrained(tmp_path / "run")
    assert not hasattr(loaded.config, "use_cache") and loaded.generation_config.use_cache is not False
    batch = reading_processor()(images=EXAMPLES[0]["image"], text="<image>", return_tensors="pt")
    assert torch.equal(loaded.generate(**batch, max_new_tokens=5), model.generate(**batch, max_new_tokens=5))


def test_interrupted_run_resumes_to_the_same_weights(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2}
    whole = captioner(tmp_path / "whole", **options)
    whole.train()
    train_until(3, captioner, tmp_path / "part", **options)
    resumed = captioner(tmp_path / "part", reading_model(seed=5), **options)
    resumed.train(resume_from_checkpoint=True)
    assert_equal_weights(resumed.model, whole.model)


def test_accumulated_batches_are_a_mean_over_tokens(tmp_path):
    options = {"optim": "sgd", "learning_rate": 0.05, "max_steps": 3}
    whole = captioner(tmp_path, per_device_train_batch_size=4, **options)
    parts = captioner(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=2, **options)
    for trainer in (whole, parts):
        trainer.train()
    assert [log["loss"] for log in step_logs(parts)] == pytest.approx([log["loss"] for log in step_logs(whole)], 1e-3)
    for (name, one), other in zip(whole.model.named_parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4, msg=name)


def test_gradient_checkpointing_changes_nothing(tmp_path):
    plain, checkpointed = captioner(tmp_path), captioner(tmp_path, gradient_checkpointing=True)
    for trainer in (plain, checkpointed):
        trainer.train()
    assert_equal_weights(checkpointed.model, plain.model)


def trained_weights(rank, folder, processes, scheme):
    options = {"optim": "sgd", "learning_rate": 0.05, "max_steps": 3, "per_device_train_batch_size": 4 // processes}
    trainer = captioner(folder, trainer_class={"ours": CBViLATrainer, "plain": Trainer}[scheme], **options)
    trainer.train()
    return dict(trainer.model.state_dict()), [log["loss"] for log in step_logs(trainer)]


@pytest.mark.parametrize("scheme", ["ours", "plain"])
def test_two_processes_are_a_mean_over_tokens(tmp_path, scheme):
    expected, losses = trained_weights(0, tmp_path, 1, scheme)
    for weights, logged in run_in_two(trained_weights, tmp_path, str(tmp_path), 2, scheme, joined=False):
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value, atol=1e-5, rtol=1e-4, msg=name)
        if logged:
            assert logged == pytest.approx(losses, 1e-3)


def test_image_tells_which_caption_is_right(tmp_path):
    model = reading_model(projector={"length": 4})
    trainer = captioner(tmp_path, model, max_steps=120, learning_rate=3e-3, per_device_train_batch_size=4)
    trainer.data_collator = collate = CBViLADataCollatorForConditionalGeneration(reading_processor(num_image_tokens=4))
    trainer.train()
    rows = [{"image": example["image"], "captions": [example["text"]]} for example in EXAMPLES]
    own, other = (caption_log_likelihoods(model, collate, rows, 3, shift, progress=False) for shift in (0, 1))
    assert (own > other + 0.5).all()
    prompts = [Prompt([row["image"]], collate.prompt()) for row in rows]
    written = write_texts(model, collate.processor, iter(prompts), len(rows), 3, progress=False)
    assert all(one in written for one in CAPTIONS if len(one) < 20)  # a long one takes more steps


def test_language_model_with_adapters(tmp_path):
    peft = pytest.importorskip("peft")
    targets = r"model\.language_model\..*\.(q_proj|v_proj)"
    saved = ["vision_tower", "multi_modal_projector"]
    config = peft.LoraConfig(r=2, target_modules=targets, modules_to_save=saved, lora_dropout=0.5)
    model = reading_model()
    before = {name: value.clone() for name, value in model.model.language_model.state_dict().items()}
    trainer = captioner(tmp_path, peft.get_peft_model(model, config))
    trainer.train()
    trainer.save_model()
    after = trainer.unwrapped_model.model.language_model.state_dict()
    for name, value in after.items():
        if "lora_" not in name:
            assert torch.equal(value, before[name.replace(".base_layer", "")]), name
    assert any("lora_B" in name and value.abs().sum() > 0 for name, value in after.items())
    names = set(load_file(tmp_path / "adapter_model.safetensors"))
    assert all("lora_" in name or any(part in name for part in saved) for name in names)
    loaded = peft.PeftModel.from_pretrained(reading_model(), tmp_path).eval()
    batch = CBViLADataCollatorForConditionalGeneration(reading_processor())(EXAMPLES)
    torch.testing.assert_close(loaded(**batch).loss, trainer.model.eval()(**batch).loss)


# The task


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return save_language_model(tmp_path_factory.mktemp("language"))


def finetuned(pretrained, data, language, folder, job=None, **options):
    task = Captioning(language_model=language, **options)
    arguments = training_arguments(folder, max_steps=2, per_device_train_batch_size=4)
    return task, finetune(task, FinetuningJob(pretrained, [data], eval_data=[data], **(job or {})), arguments)


def test_finetune_and_evaluate(pretrained, data, language, tmp_path):
    options = {"projector_option": ["length=3", "pooling=patches"], "freeze_vision_tower": True, "max_new_tokens": 5}
    task, folder = finetuned(pretrained, data, language, tmp_path / "run", {"image_size": 40}, **options)
    record = json.loads((folder / "finetuning.json").read_text())
    assert (
        record["task"] == "captioning"
        and str(tmp_path) not in json.dumps(record)
        and language not in json.dumps(record)
    )
    model = CBViLAForConditionalGeneration.from_pretrained(folder)
    assert model.config.num_image_tokens == 3 and model.config.vision_config.image_size == 40
    job = EvaluationJob(str(folder), [data], str(tmp_path / "a.json"), predictions=str(tmp_path / "p.jsonl"))
    figures = evaluate_task(Captioning(max_new_tokens=5), job, progress=False)
    for name, value in record["figures"].items():
        same = figures[name.removeprefix("eval_")]
        assert same == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value), name
    assert math.isfinite(figures["log_likelihood"]) and figures["images"] == 8 and "true_captions" not in figures
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert len(lines) == 8 and lines[0]["captions"] == ["red half", "a red"]


def test_finetune_goes_on_from_a_captioning_model(pretrained, data, language, tmp_path):
    _, folder = finetuned(pretrained, data, language, tmp_path / "first")
    _, again = finetuned(str(folder), data, None, tmp_path / "second", freeze_vision_tower=True)
    _, third = finetuned(str(again), data, None, tmp_path / "third", projector_option=["dropout=0.5"])
    config = CBViLAForConditionalGeneration.from_pretrained(third).config
    assert config.language_model == language and config.freeze_vision_tower
    assert config.projector_config.dropout == 0.5
    with pytest.raises(ValueError, match="from_scratch needs a checkpoint without a projector"):
        finetuned(str(folder), data, None, tmp_path / "fourth", {"from_scratch": True})


def test_finetune_from_scratch_and_frozen_parts(pretrained, data, language, tmp_path):
    _, folder = finetuned(pretrained, data, language, tmp_path / "run", {"from_scratch": True})
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "options, job, message",
    [
        ({"language_model": None}, {}, "--language_model FOLDER"),
        ({"language_model": "nowhere"}, {}, "'nowhere' cannot be loaded"),
        ({"projector_option": ["length"]}, {}, "expected OPTION=VALUE"),
        ({"projector_option": ["lenght=2"]}, {}, "did you mean 'length'"),
        ({"max_new_tokens": 0}, {}, "max_new_tokens=0"),
        ({}, {"dropout": 0.1}, "dropout=0.1: captioning trains no"),
    ],
)
def test_options_that_cannot_be(pretrained, data, language, tmp_path, options, job, message):
    with pytest.raises(ValueError, match=message):
        task = Captioning(**{"language_model": language, **options})
        finetune(task, FinetuningJob(pretrained, [data], **job), training_arguments(tmp_path, max_steps=1))


METRIC = """
import datasets
import evaluate


class Words(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features(predictions=text, references=datasets.Sequence(text))
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"words": 1.5, "references": len(references), "names": ["a"]}
"""


def test_metrics_of_evaluate(pretrained, data, language, tmp_path):
    pytest.importorskip("evaluate")
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "words.py").write_text(METRIC)
    options = {"caption_metric": [str(tmp_path / "words")], "max_new_tokens": 2}
    _, folder = finetuned(pretrained, data, language, tmp_path / "run", **options)
    figures = json.loads((folder / "finetuning.json").read_text())["figures"]
    assert figures["eval_words"] == 1.5 and figures["eval_words_references"] == 8.0
    with pytest.raises(ValueError, match="caption_metric='nothing' cannot be loaded"):
        finetuned(pretrained, data, language, tmp_path / "other", caption_metric=["nothing"])


def test_scenes_are_judged_by_their_truth(pretrained, language, tmp_path):
    _, folder = finetuned(pretrained, "scenes[rows=8]", language, tmp_path / "run", {"eval_split": "test"})
    figures = json.loads((folder / "finetuning.json").read_text())["figures"]
    assert figures["eval_true_captions"] == 0.0 and figures["eval_images"] == 8
