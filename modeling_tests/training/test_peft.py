"""Models wrapped by PEFT train like the model inside, or are rejected with what would be lost."""

import pytest
import torch
from equal_tensors import assert_equal_weights
from interrupted_runs import AtStep, train_until
from tiny import CODES, PATCH, answering_model, build, pretraining_model, tiny_processor, tiny_rows
from tiny_trainer import ALL_TERMS, BURN_IN_TERMS, HEALTH, logged_terms, pretrainer, step_logs, training_arguments

from transformers_cbvila.data.collators import CBViLADataCollatorForPreTraining
from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining
from transformers_cbvila.model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from transformers_cbvila.model.modeling_cbvila_visual_entailment import CBViLAForVisualEntailment
from transformers_cbvila.training.peft import own_name
from transformers_cbvila.training.trainer import CBViLATrainer

peft = pytest.importorskip("peft")

EVERYTHING = ["quantizer", "objectives.mim.head"]


def adapted(saved=EVERYTHING, model=None, **options):
    model = pretraining_model() if model is None else model
    options = {"r": 2, "target_modules": ["q_proj", "v_proj"], "modules_to_save": saved} | options
    return peft.get_peft_model(model, peft.LoraConfig(**options))


def pretrained(**fields):
    model = pretraining_model(**fields)
    model.cbvila.quantizer.table.set_codes(torch.randn(model.cbvila.quantizer.table.codes.shape))
    return model


def test_peft_model_gets_schedule_and_codebook_callback(tmp_path):
    named = []
    trainer = pretrainer(tmp_path, model=adapted(), align_steps=1, burn_in_steps=3, negative_hardening="0,6")
    trainer.unwrapped_model.register_forward_pre_hook(
        lambda module, inputs, given: named.append(given), with_kwargs=True
    )
    before = trainer.unwrapped_model.cbvila.quantizer.table.codes.clone()
    trainer.train()
    assert isinstance(trainer.unwrapped_model, CBViLAForPreTraining) and trainer.context.is_pretraining
    on = [logged_terms(log) - HEALTH for log in step_logs(trainer)]
    assert on == [{"loss_itc"}] + [BURN_IN_TERMS] * 2 + [ALL_TERMS] * 3
    assert all(logged_terms(log) >= HEALTH for log in step_logs(trainer))
    assert [given["negative_hardness"] for given in named] == [pytest.approx(step / 6) for step in range(6)]
    assert all("negative_seed" in given and "loss_weights" in given for given in named)
    assert not torch.equal(trainer.unwrapped_model.cbvila.quantizer.table.codes, before)


def test_peft_adapter_file_has_the_codes(tmp_path):
    trainer = pretrainer(tmp_path, model=adapted(), max_steps=3)
    trainer.train()
    trainer.save_model()
    loaded = peft.PeftModel.from_pretrained(pretraining_model(), tmp_path).get_base_model()
    for name, value in trainer.unwrapped_model.cbvila.quantizer.state_dict().items():
        assert torch.equal(loaded.cbvila.quantizer.state_dict()[name], value), name
    assert torch.equal(loaded.objectives["mim"].head.weight, trainer.unwrapped_model.objectives["mim"].head.weight)


def test_peft_resumed_equals_unbroken_run(tmp_path):
    options = {"max_steps": 5, "burn_in_steps": 2, "save_strategy": "steps", "save_steps": 3}
    whole = pretrainer(tmp_path / "whole", model=adapted(), **options)
    whole.train()
    train_until(4, pretrainer, tmp_path / "broken", model=adapted(), **options)
    resumed = pretrainer(tmp_path / "broken", model=adapted(), **options)
    resumed.train(resume_from_checkpoint=True)
    assert_equal_weights(resumed.model, whole.model)


@pytest.mark.parametrize("name", ["raq", "lgvq"])
def test_peft_saves_a_whole_objective(name, tmp_path):
    """The generator of raq, and the steps that its numbers of codes follow from; the transformers of lgvq."""
    saved, options = [*EVERYTHING, f"objectives.{name}"], {"max_steps": 5, "save_strategy": "steps", "save_steps": 3}

    def model():
        return adapted(saved, pretraining_model(objectives={name: {}}))

    whole = pretrainer(tmp_path / "whole", model=model(), **options)
    whole.train()
    train_until(4, pretrainer, tmp_path / "broken", model=model(), **options)
    resumed = pretrainer(tmp_path / "broken", model=model(), **options)
    resumed.train(resume_from_checkpoint=True)
    assert_equal_weights(resumed.model, whole.model)
    before = pretraining_model(objectives={name: {}}).objectives[name].state_dict()
    assert not all(torch.equal(before[key], value) for key, value in saved_state(resumed, name).items())
    if name == "raq":
        assert resumed.unwrapped_model.objectives["raq"].steps == 5


def saved_state(trainer, name):
    """The trained weights of an objective, of which PEFT trains a copy."""
    copies = trainer.unwrapped_model.objectives[name].modules_to_save
    return {key: value for key, value in copies["default"].state_dict().items() if value.is_floating_point()}


def test_peft_model_with_momentum_and_ema_teacher(tmp_path):
    options = {"queue_size": 2, "momentum_distill": 0.4, "burn_in_steps": 1, "codebook_target_decay": 0.9}
    trainer = pretrainer(tmp_path, model=adapted(), max_steps=4, **options)
    trainer.train()
    assert trainer.codebook_callback.teacher is not None and trainer.momentum.queue.read() is not None
    assert logged_terms(step_logs(trainer)[-1]) >= ALL_TERMS


def test_peft_retrieval_draws_negatives_by_the_seed(tmp_path):
    named, model = [], adapted(None, build(CBViLAForImageTextRetrieval))
    model.get_base_model().register_forward_pre_hook(lambda m, i, given: named.append(given), with_kwargs=True)
    collator = CBViLADataCollatorForPreTraining(tiny_processor(), PATCH, max_length=16)

    def pairs(rows):
        return {name: collator(rows)[name] for name in ("pixel_values", "input_ids", "attention_mask")} | {
            "return_loss": True
        }

    CBViLATrainer(
        model=model,
        args=training_arguments(tmp_path, max_steps=2, negative_hardening="0,2"),
        train_dataset=ImageTextPairs(tiny_rows(8)),
        data_collator=pairs,
    ).train()
    assert [given["negative_hardness"] for given in named] == [0, 0.5]
    assert len({int(given["negative_seed"]) for given in named}) == 2


@pytest.mark.parametrize(
    "saved, fields, options, message",
    [
        (None, {}, {}, r"its codes move \(codebook_init\).*'quantizer' to modules_to_save"),
        (["quantizer"], {}, {}, "codebook_init.*a head with weights for each code.*'objectives.mim.head'"),
        (["objectives.mim.head"], {"start": True}, {}, "its codes move .they are moving averages.*'quantizer'"),
        (
            ["quantizer"],
            {"start": True},
            {"codebook_refit": True, "burn_in_steps": 1},
            "codebook_refit.*'objectives.mim.head'",
        ),
        (None, {"preset": "paper", "start": True}, {"alternate_updates": "1,1"}, "alternate_updates.*'quantizer'"),
    ],
)
def test_peft_rejects_weights_an_adapter_would_lose(saved, fields, options, message, tmp_path):
    model = (pretrained if fields.pop("start", False) else pretraining_model)(**fields)
    with pytest.raises(ValueError, match=message):
        pretrainer(tmp_path, model=adapted(saved, model), **options)


@pytest.mark.parametrize(
    "saved, fields",
    [(["quantizer"], {"objectives": {"mim": {"head": "tied"}}}), (["quantizer"], {}), (None, {"preset": "paper"})],
)
def test_peft_codes_that_stay_or_are_saved_are_accepted(saved, fields, tmp_path):
    """Codes that are saved with the adapter move, others stay: nothing of the run is lost with the base model."""
    trainer = pretrainer(tmp_path, model=adapted(saved, pretrained(**fields)), max_steps=1)
    codes = trainer.unwrapped_model.cbvila.quantizer.table.codes
    before = codes.detach().clone()
    trainer.train()
    assert trainer.state.global_step == 1
    assert torch.equal(codes, before) == (saved is None)


@pytest.mark.parametrize("name", ["raq", "lgvq"])
def test_peft_rejects_new_objectives_that_would_stay_at_random(name, tmp_path):
    pretrained().save_pretrained(tmp_path / "model")
    grown = CBViLAForPreTraining.from_pretrained(tmp_path / "model", objectives={name: {}})
    with pytest.raises(ValueError, match=f"its checkpoint does not have.*'objectives.{name}' to modules_to_save"):
        pretrainer(tmp_path, model=adapted(EVERYTHING, grown))
    grown = CBViLAForPreTraining.from_pretrained(tmp_path / "model", objectives={name: {}})
    pretrainer(tmp_path, model=adapted([*EVERYTHING, f"objectives.{name}"], grown), max_steps=1).train()
    whole = CBViLAForPreTraining.from_pretrained(tmp_path / "model")
    assert not whole.missing_weights
    pretrainer(tmp_path, model=adapted(EVERYTHING, whole), max_steps=1)


def test_peft_rejects_a_new_head_that_would_stay_at_random(tmp_path):
    """A decoder that starts from the fusion encoder is not at random; a classifier is."""
    pretrained(same_width=True).save_pretrained(tmp_path / "model")
    assert not CBViLAForQuestionAnswering.from_pretrained(tmp_path / "model").missing_weights
    judging = CBViLAForVisualEntailment.from_pretrained(tmp_path / "model")
    args = training_arguments(tmp_path, max_steps=1)
    with pytest.raises(ValueError, match="does not have.*'entailment_head' to modules_to_save"):
        CBViLATrainer(model=adapted(None, judging), args=args, train_dataset=[{}])
    CBViLATrainer(model=adapted(["entailment_head"], judging), args=args, train_dataset=[{}])


def test_peft_rejects_task_type(tmp_path):
    with pytest.raises(ValueError, match="task_type=FEATURE_EXTRACTION.*Leave task_type out"):
        pretrainer(tmp_path, model=adapted(task_type="FEATURE_EXTRACTION"))


def test_peft_alternate_updates_and_weight_decay_find_the_codes(tmp_path):
    trainer = pretrainer(tmp_path, model=adapted(model=pretraining_model(preset="paper")), alternate_updates="1,1")
    decayed = trainer.get_decay_parameter_names(trainer.model)
    assert not any(own_name(name).endswith("quantizer.table.codes") for name in decayed)
    seen = []
    codes = trainer.unwrapped_model.cbvila.quantizer.table.codes
    trainer.add_callback(AtStep(1, lambda: seen.append(codes.detach().clone())))
    trainer.add_callback(AtStep(2, lambda: seen.append(codes.detach().clone())))
    trainer.train()
    assert codes.shape[0] == CODES and torch.equal(seen[0], seen[1]), "the second step is not theirs"
    assert not torch.equal(seen[1], codes)


def test_own_name_strips_peft_wrappers():
    inside = "base_model.model.cbvila.quantizer.modules_to_save.default.table.codes"
    assert own_name(inside) == "base_model.model.cbvila.quantizer.table.codes"


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(
    "options, message",
    [
        ({"burn_in_steps": 2}, "burn_in_steps=2: for CBViLAForQuestionAnswering there is no burn-in"),
        ({"mlm_from_start": True}, "mlm_from_start=True.*set it to False"),
        ({"mim_gate": 0.8, "burn_in_steps": 0.5}, "burn_in_steps=0.5.*set it to 0.0"),
        ({"codebook_target_decay": 0.9}, "codebook_target_decay=0.9.*set it to None"),
        ({"codebook_restart_threshold": 0.3}, "codebook_restart_threshold=0.3.*no codebook that learns"),
        ({"codebook_probe_images": 4}, "codebook_probe_images=4.*no codebook that learns"),
        ({"codebook_learning_rate": 0.1}, "codebook_learning_rate=0.1.*no codebook that learns"),
        ({"alternate_updates": "1,1"}, "alternate_updates='1,1'.*no codebook that learns"),
        ({"momentum_decay": 0.9}, "momentum_decay=0.9: there is no momentum encoder"),
        ({"momentum_distill_ramp_steps": 2}, "momentum_distill_ramp_steps=2: there is no momentum encoder"),
        ({"negative_hardening": "0,1"}, "negative_hardening='0,1'.*no image-text matching"),
        ({"align_steps": 1}, "align_steps=1: only pretraining"),
    ],
)
def test_schedule_options_of_other_heads_are_rejected(options, message, wrap, tmp_path):
    model = adapted(None, answering_model()) if wrap else answering_model()
    with pytest.raises(ValueError, match=message):
        CBViLATrainer(model=model, args=training_arguments(tmp_path, **options))


def test_a_ramp_of_no_distillation_is_rejected(tmp_path):
    with pytest.raises(ValueError, match="momentum_distill_ramp_steps=2: momentum_distill=0 does not rise"):
        pretrainer(tmp_path, queue_size=8, momentum_distill_ramp_steps=2)
