"""Models saved after training generate with a cache, though Trainer turns use_cache off."""

import json

import pytest
import tiny
import tiny_heads
import torch
from bundled_models import COMPLETE
from transformers import AutoModelForVisualQuestionAnswering, Trainer, TrainingArguments, default_data_collator

from transformers_cbvila import CBViLAConfig, CBViLAForPreTraining, CBViLAForQuestionAnswering
from transformers_cbvila.bundled import bundled_or_same
from transformers_cbvila.training.arguments import CBViLATrainingArguments
from transformers_cbvila.training.trainer import CBViLATrainer

TRAINERS = {"ours": (CBViLATrainer, CBViLATrainingArguments), "plain": (Trainer, TrainingArguments)}
NEW_TOKENS = 6


def train(trainer, model, folder):
    trainer_class, arguments_class = TRAINERS[trainer]
    batch = tiny_heads.batch_for(type(model), batch=4)
    rows = [{name: value[i] for name, value in batch.items()} for i in range(4)]
    options = {"max_steps": 2, "per_device_train_batch_size": 2, "remove_unused_columns": False, "report_to": []}
    arguments = arguments_class(str(folder), save_strategy="steps", save_steps=1, **options)
    trained = trainer_class(model, arguments, train_dataset=rows, data_collator=default_data_collator)
    trained.train()
    trained.save_model(str(folder / "saved"))
    return folder / "saved", folder / "checkpoint-2"


def tokens_read(model, **options):
    """How many tokens go through the decoder's first keys while it writes 6 for each of 4 questions."""
    seen = []
    projection = model.eval().answer_decoder.layers[0].attention.k_proj
    hook = projection.register_forward_hook(lambda module, given, output: seen.append(given[0].shape[:2].numel()))
    question = {"pixel_values": tiny.tiny_images(4, model.config.vision_config.image_size), **tiny.tiny_texts(4)}
    model.generate(**question, suppress_tokens=[tiny.SEP], max_new_tokens=NEW_TOKENS, **options)
    hook.remove()
    return sum(seen)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_use_cache_is_kept_in_trained_answering_models(trainer, tmp_path):
    for folder in train(trainer, tiny.answering_model(), tmp_path):
        assert "use_cache" not in json.loads((folder / "config.json").read_text())
        assert json.loads((folder / "generation_config.json").read_text())["use_cache"] is not False
        for load in (CBViLAForQuestionAnswering, AutoModelForVisualQuestionAnswering):
            assert tokens_read(load.from_pretrained(folder)) == 4 * NEW_TOKENS


@pytest.mark.parametrize("trainer", TRAINERS)
def test_use_cache_of_a_head_on_a_pretrained_model(trainer, tmp_path):
    saved, _ = train(trainer, tiny.pretraining_model(), tmp_path)
    assert "use_cache" not in json.loads((saved / "config.json").read_text())
    model = CBViLAForQuestionAnswering.from_pretrained(saved)
    assert tokens_read(model) == 4 * NEW_TOKENS
    for folder in train(trainer, model, tmp_path / "head"):
        assert tokens_read(CBViLAForQuestionAnswering.from_pretrained(folder)) == 4 * NEW_TOKENS


@pytest.mark.parametrize("name", COMPLETE)
def test_use_cache_of_bundled_checkpoints(name):
    assert tokens_read(CBViLAForQuestionAnswering.from_pretrained(bundled_or_same(name))) == 4 * NEW_TOKENS


@pytest.mark.parametrize("with_generation_config", [True, False])
def test_use_cache_of_older_checkpoints(with_generation_config, tmp_path):
    """Their files say what Trainer had set: `use_cache` false, in a generation configuration made from the model's."""
    tiny.answering_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"use_cache": False}))
    path = tmp_path / "generation_config.json"
    if with_generation_config:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"use_cache": False, "_from_model_config": True}))
    else:
        path.unlink()
    model = CBViLAForQuestionAnswering.from_pretrained(tmp_path)
    assert tokens_read(model) == 4 * NEW_TOKENS
    model.save_pretrained(tmp_path / "again")
    assert "use_cache" not in json.loads((tmp_path / "again/config.json").read_text())


def test_use_cache_false_of_the_user_is_kept(tmp_path):
    model = tiny.answering_model()
    model.generation_config.use_cache = False
    for step in ("saved", "again"):
        model.save_pretrained(tmp_path / step)
        model = CBViLAForQuestionAnswering.from_pretrained(tmp_path / step)
        assert tokens_read(model) > 4 * NEW_TOKENS
    assert tokens_read(model, use_cache=True) == 4 * NEW_TOKENS


def test_use_cache_of_the_whole_config_is_rejected(tmp_path):
    with pytest.raises(ValueError, match="use_cache=False of the whole model: .* text_config"):
        CBViLAConfig(use_cache=False)
    tiny.pretraining_model().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="use_cache"):
        CBViLAForPreTraining.from_pretrained(tmp_path, use_cache=False)
    decoder = tiny.answering_model(text={"use_cache": False}).answer_decoder
    answers, states = torch.tensor([[tiny.CLS, 7]]), torch.randn(1, 3, 24)
    assert len(decoder(answers, encoder_hidden_states=states).keys()) == 1  # logits, and no cache
