"""An adapter (LoRA) of the language model is trained by option, saved as PEFT does, loaded and resumed."""

import json

import pytest
import torch
from equal_tensors import assert_equal_weights
from interrupted_runs import train_until
from safetensors.torch import load_file
from tiny_captioning import EXAMPLES, captioner
from tiny_language import language_model, prompts, reading_model, reading_processor, save_language_model
from tiny_trainer import training_arguments
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, pipeline

from transformers_cbvila import (
    CBViLAConditionalGenerationConfig,
    CBViLAConditionalGenerationModel,
    CBViLAForConditionalGeneration,
    CBViLATrainer,
)
from transformers_cbvila.data.conditional_generation_collator import CBViLADataCollatorForConditionalGeneration
from transformers_cbvila.tasks.captioning import Captioning
from transformers_cbvila.tasks.evaluate import EvaluationJob, evaluate_task
from transformers_cbvila.tasks.language_adapter import add_lora
from transformers_cbvila.training.finetune import FinetuningJob, finetune

peft = pytest.importorskip("peft")

FILES = {"adapter_config.json", "adapter_model.safetensors"}
LAST = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return save_language_model(tmp_path_factory.mktemp("language"))


def adapted(language, seed=0, random=False, **options):
    """A model with an adapter, which at its start changes nothing unless it is random."""
    model = reading_model(AutoModelForCausalLM.from_pretrained(language), language_model=language, seed=seed)
    torch.manual_seed(seed)
    add_lora(model, options.get("rank", 2), options.get("alpha"), options.get("targets", []))
    if random:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
    return model


def adapter_of(folder):
    return load_file(folder / "language_model_adapter" / "adapter_model.safetensors")


def finetuned(pretrained, data, language, folder, job=None, arguments=None, **options):
    task = Captioning(language_model=language, max_new_tokens=5, **options)
    arguments = training_arguments(folder, **{"max_steps": 2, "per_device_train_batch_size": 4} | (arguments or {}))
    return finetune(task, FinetuningJob(pretrained, [data], **(job or {"eval_data": [data]})), arguments)


def test_adapter_is_trained_and_the_language_model_is_not(language, tmp_path):
    model = adapted(language)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = captioner(tmp_path, model)
    trainer.train()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    parts = ("vision_tower", "multi_modal_projector", "lora_A", "lora_B")
    assert all(any(part in name for part in parts) for name in changed)
    assert all(any(part in name for name in changed) for part in parts)
    original = language_model().state_dict()
    for name, value in model.require_causal_language_model().state_dict().items():
        if "lora_" not in name:
            assert torch.equal(value, original[name.replace(".base_layer", "")]), name


@pytest.mark.parametrize("load", [CBViLAForConditionalGeneration, AutoModelForImageTextToText])
def test_saved_and_loaded(language, tmp_path, load):
    model = adapted(language, random=True).eval()
    model.save_pretrained(tmp_path)
    assert {path.name for path in (tmp_path / "language_model_adapter").iterdir()} >= FILES
    own = set(load_file(tmp_path / "model.safetensors"))
    assert all(name.startswith(("model.vision_tower.", "model.multi_modal_projector.")) for name in own)
    loaded = load.from_pretrained(tmp_path)
    assert torch.equal(loaded(**prompts()).logits, model(**prompts()).logits)
    assert not torch.equal(loaded(**prompts()).logits, reading_model(language_model=language)(**prompts()).logits)
    assert not any(parameter.requires_grad for parameter in loaded.model.language_model.parameters())
    loaded.save_pretrained(tmp_path / "again")
    weights = [adapter_of(folder) for folder in (tmp_path, tmp_path / "again")]
    assert weights[0].keys() == weights[1].keys() and all(map(torch.equal, weights[0].values(), weights[1].values()))


def test_layers_without_scores_are_saved_and_loaded(language, tmp_path):
    model = adapted(language, random=True).eval().model
    model.config.language_model_adapter = "language_model_adapter"
    model.save_pretrained(tmp_path)
    loaded = CBViLAConditionalGenerationModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(**prompts()).last_hidden_state, model(**prompts()).last_hidden_state)


def test_adapter_is_one_of_the_language_model(language, tmp_path):
    """PEFT loads it onto the language model without this package."""
    model = adapted(language, random=True)
    model.save_pretrained(tmp_path)
    folder = tmp_path / "language_model_adapter"
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == language
    ids = torch.arange(4, 10).unsqueeze(0)
    expected = model.require_causal_language_model().eval()(ids).logits
    loaded = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(language), folder)
    torch.testing.assert_close(loaded.eval()(ids).logits, expected)


def test_interrupted_run_resumes_to_the_same_weights(language, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2}
    whole = captioner(tmp_path / "whole", adapted(language), **options)
    whole.train()
    train_until(3, lambda *args, **given: captioner(*args, **given), tmp_path / "part", adapted(language), **options)
    resumed = captioner(tmp_path / "part", adapted(language, seed=5), **options)
    resumed.train(resume_from_checkpoint=True)
    assert_equal_weights(resumed.model, whole.model)


def test_best_checkpoint_is_loaded_with_its_adapter(language, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 2}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    collate = CBViLADataCollatorForConditionalGeneration(reading_processor())
    arguments = training_arguments(tmp_path, **options, **best)
    trainer = CBViLATrainer(
        adapted(language), arguments, data_collator=collate, train_dataset=EXAMPLES, eval_dataset=EXAMPLES
    )
    trainer.train()
    folder = tmp_path / "checkpoint-1"  # the higher loss
    assert trainer.state.best_model_checkpoint == str(folder)
    assert_equal_weights(trainer.model, CBViLAForConditionalGeneration.from_pretrained(folder))
    assert not torch.equal(*(adapter_of(tmp_path / f"checkpoint-{step}")[LAST] for step in (1, 2)))


def test_run_without_an_adapter_is_not_resumed_with_one(language, tmp_path):
    captioner(tmp_path, save_strategy="steps", save_steps=2).train()
    with pytest.raises(FileNotFoundError, match="of a run without an adapter"):
        captioner(tmp_path, adapted(language), max_steps=6).train(resume_from_checkpoint=True)


# The task


def test_finetune_evaluate_describe_and_go_on(pretrained, data, language, tmp_path):
    folder = finetuned(pretrained, data, language, tmp_path / "run", lora=True, lora_rank=4, lora_target=["q_proj"])
    record = json.loads((folder / "finetuning.json").read_text())
    assert record["settings"]["lora"] and language not in json.dumps(record)
    config = json.loads((folder / "language_model_adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (4, 8, ["q_proj"])
    figures = evaluate_task(Captioning(max_new_tokens=5), EvaluationJob(str(folder), [data]), progress=False)
    assert figures["log_likelihood"] == pytest.approx(record["figures"]["eval_log_likelihood"], abs=1e-5)
    model = CBViLAForConditionalGeneration.from_pretrained(folder)
    describe = pipeline("image-text-to-text", model=str(folder))
    assert describe(EXAMPLES[0]["image"], "<image> a", max_new_tokens=3)[0]["generated_text"].startswith("<image> a")
    assert torch.equal(describe.model(**prompts()).logits, model(**prompts()).logits)

    first = adapter_of(folder)
    trained_on = finetuned(str(folder), data, None, tmp_path / "second", lora=True)
    frozen = finetuned(str(folder), data, None, tmp_path / "third")
    assert any(not torch.equal(first[name], value) for name, value in adapter_of(trained_on).items())
    assert all(torch.equal(first[name], value) for name, value in adapter_of(frozen).items())
    with pytest.raises(ValueError, match="has an adapter of its language model already"):
        finetuned(str(folder), data, None, tmp_path / "fourth", lora=True, lora_rank=2)


def test_defaults():
    model = reading_model()
    add_lora(model, None, None, [])
    config = model.require_causal_language_model().peft_config["default"]
    layers = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert (config.r, config.lora_alpha, config.target_modules) == (16, 32, layers)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lora_rank": 4}, "lora_rank of an adapter, and no adapter is trained: add lora"),
        ({"lora_target": ["q_proj"]}, "lora_target of an adapter"),
        ({"lora": True, "lora_rank": 0}, "lora_rank=0 must be at least 1"),
        ({"lora": True, "lora_alpha": -1}, "lora_alpha=-1 must be at least 1"),
        ({"lora": True, "lora_target": ["qproj"]}, "lora_target='qproj' is no linear layer.*did you mean q_proj"),
    ],
)
def test_options_that_cannot_be(pretrained, data, language, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        finetuned(pretrained, data, language, tmp_path, **options)


def test_without_peft(pretrained, data, language, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ImportError, match=r'pip install "peft'):
        finetuned(pretrained, data, language, tmp_path, lora=True)


@pytest.mark.parametrize("name", sorted(FILES))
def test_checkpoint_that_lost_its_adapter(language, tmp_path, name):
    adapted(language, random=True).save_pretrained(tmp_path)
    (tmp_path / "language_model_adapter" / name).unlink()
    with pytest.raises(ValueError, match=f"has no language_model_adapter/{name}.*language_model_adapter=None"):
        CBViLAForConditionalGeneration.from_pretrained(tmp_path)
    loaded = CBViLAForConditionalGeneration.from_pretrained(tmp_path, language_model_adapter=None)
    expected = reading_model(language_model=language)(**prompts()).logits
    assert torch.equal(loaded(**prompts()).logits, expected) and loaded.config.language_model_adapter is None


@pytest.mark.parametrize("name", ["", "a/b", "..", "/tmp"])
def test_adapter_lies_in_the_checkpoint(name):
    with pytest.raises(ValueError, match="expected a folder's name"):
        CBViLAConditionalGenerationConfig(language_model_adapter=name)


def test_two_adapters_are_an_error(language):
    model = adapted(language)
    with pytest.raises(ValueError, match="has an adapter already"):
        model.add_language_model_adapter(peft.LoraConfig(target_modules=["q_proj"]))
