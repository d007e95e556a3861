"""Training with LG-VQ and with classes of patches: what the trainer provides, processes, resumed runs, jobs."""

import copy

import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from equal_tensors import assert_equal_tensors
from interrupted_runs import train_until
from tiny import PATCH, PATCHES, pretraining_model, tiny_config, tiny_labelled_rows, tiny_processor, tiny_rows
from tiny_recipe import TINY_RECIPE
from tiny_trainer import step_logs, training_arguments
from two_processes import run_in_two

from transformers_cbvila.data.collators import CBViLADataCollatorForPreTraining
from transformers_cbvila.data.label_maps import LabelMaps
from transformers_cbvila.data.masking import generator_for, mask_words
from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.training.codebook.ema_teacher import EMATeacher
from transformers_cbvila.training.pretrain import PretrainingJob, build_trainer
from transformers_cbvila.training.trainer import CBViLATrainer
from transformers_cbvila.training.training_images import image_batches

GUIDED = {"type": "class_guided", "size": 16, "dim": 8}
MOMENTUM = {"momentum_distill": 0.4, "momentum_decay": 0.5, "queue_size": 6}
# SGD and seven rows in order: the last batch has two on the first process and one on the second.
SEVEN = {
    "rows": 7,
    "max_steps": 4,
    "optim": "sgd",
    "learning_rate": 0.05,
    "train_sampling_strategy": "sequential",
    "accelerator_config": {"even_batches": False},
}
RUNS = {
    "lgvq": SEVEN | {"codebook_init": False},
    "lgvq with a momentum encoder": SEVEN | MOMENTUM | {"codebook_init": False},
    "class_guided": SEVEN | {"codebook_restart_threshold": 0.3, "codebook_restart_grace": 0, "burn_in_steps": 3},
}


def model_of(name):
    config = tiny_config()
    if "lgvq" in name:
        config.objectives = {**config.objectives, "lgvq": {"weight": 10.0}}
    else:
        config.quantizer_config = GUIDED
        config.objectives = {**config.objectives, "sgc_consistency": {}}
    return pretraining_model(config)


def trainer_of(folder, name, rows=8, callbacks=(), multi_gpu=False, **options):
    model, args = model_of(name), training_arguments(folder, **options)
    if multi_gpu:  # where there are no accelerators, accelerate falls back to DDP without a word
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    labels = LabelMaps() if "lgvq" not in name else None
    pairs = ImageTextPairs(
        tiny_labelled_rows(rows), label_maps=labels, two_views=labels is not None, crop_scale=0.75, flip=True
    )
    masks_words = model.needs("masked_words")
    return CBViLATrainer(
        model=model,
        args=args,
        train_dataset=pairs,
        data_collator=CBViLADataCollatorForPreTraining(
            tiny_processor(), PATCH, max_length=16, masks_words=masks_words
        ),
        callbacks=list(callbacks),
    )


def run(folder, name, processes):
    trainer = trainer_of(folder, name, **{"per_device_train_batch_size": 4 // processes} | RUNS[name])
    trainer.train()
    return trainer.model.state_dict(), step_logs(trainer)


def all_runs(rank, folder):
    return {name: run(f"{folder}/{name}", name, 2) for name in RUNS}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("relatives"))
    return run_in_two(all_runs, folder, folder, joined=False)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_equal_one_process(name, runs, tmp_path):
    (weights, logs), (others, other_logs) = runs[0][name], runs[1][name]
    assert_equal_tensors(weights, others)
    assert logs == other_logs
    expected, expected_logs = run(tmp_path, name, 1)
    for log, other in zip(logs, expected_logs, strict=True):
        assert log.keys() == other.keys()
        for key in log:
            if key.startswith(("loss", "codebook_label", "codebook_usage")):
                assert log[key] == pytest.approx(other[key], rel=1e-5, abs=1e-5), key
    for key, value in weights.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-5, msg=key)


def sharded(rank, folder, name, fsdp):
    """Logs of three steps, on sharded weights or not."""
    options = {"max_steps": 3}
    if fsdp:
        options |= {"fsdp": True, "fsdp_config": {"version": 2}}
    trainer = trainer_of(folder, name, multi_gpu=fsdp, **options)
    trainer.train()
    assert any(hasattr(parameter, "device_mesh") for parameter in trainer.model.parameters()) == fsdp
    return step_logs(trainer)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lgvq", "class_guided"])
def test_fsdp_trains_like_whole_weights(name, tmp_path):
    expected, _ = run_in_two(sharded, tmp_path, str(tmp_path / "whole"), name, False, joined=False)
    logs, others = run_in_two(sharded, tmp_path, str(tmp_path / "parts"), name, True, joined=False)
    assert logs == others and len(logs) == 3
    for log, other in zip(logs, expected, strict=True):
        assert log.keys() == other.keys()
        for key in log:
            if key.startswith("loss"):
                assert log[key] == pytest.approx(other[key], rel=1e-5, abs=1e-5), key


# Classes of patches


def test_trainer_fits_codes_class_by_class(tmp_path):
    trainer = trainer_of(tmp_path, "class_guided", max_steps=2)
    batches = list(image_batches(trainer.context, 0))
    assert sum(len(batch.pixel_values) for batch in batches) == 8
    assert all(batch.token_classes.shape == (len(batch.pixel_values), PATCHES) for batch in batches)
    trainer.train()
    labels = trainer.model.cbvila.quantizer.code_labels
    assert set(labels.tolist()) == {0, 1, 2, 3, 4} and (labels == 0).sum() > (labels == 1).sum()
    logs = step_logs(trainer)
    assert all(0 <= log["codebook_label_agreement"] <= 1 and log["loss_sgc_consistency"] >= 0 for log in logs)
    assert trainer.model.cbvila.quantizer.label_agreement is not None
    probe = trainer.codebook_callback.probe
    assert probe.token_classes.shape == probe.pixel_values[:, 0, ::PATCH, ::PATCH].flatten(1).shape


def test_ema_teacher_looks_codes_up_with_classes(tmp_path):
    trainer = trainer_of(tmp_path, "class_guided", max_steps=1)
    trainer.train()
    teacher = EMATeacher(trainer.context, 0.9)
    batch = next(image_batches(trainer.context, 0))
    guided = teacher.indices(batch.pixel_values, batch.hints)
    output = trainer.model.eval()(
        pixel_values=batch.pixel_values,
        input_ids=torch.full((len(batch.pixel_values), 3), 7),
        token_classes=batch.token_classes,
    )
    assert torch.equal(guided, output.codebook_indices)
    trainer.model.cbvila.quantizer.code_labels.copy_(torch.arange(16) % 5)
    assert not torch.equal(teacher.indices(batch.pixel_values, batch.hints), teacher.indices(batch.pixel_values))


def test_trainer_gives_the_teacher_the_classes(tmp_path, monkeypatch):
    given = []
    looked = EMATeacher.indices

    def watched(self, pixel_values, hints=None):
        given.append(hints)
        return looked(self, pixel_values, hints)

    monkeypatch.setattr(EMATeacher, "indices", watched)
    trainer_of(tmp_path, "class_guided", max_steps=3, burn_in_steps=1, codebook_target_decay=0.9).train()
    assert given and all(hints.token_classes.shape == (2, PATCHES) for hints in given)


@pytest.mark.parametrize("name", ["class_guided", "lgvq", "lgvq with a momentum encoder"])
def test_resumed_run_equals_an_uninterrupted_one(name, tmp_path):
    options = {"max_steps": 5, "save_strategy": "steps", "save_steps": 2, "burn_in_steps": 1}
    options |= MOMENTUM if "momentum" in name else {"codebook_restart_threshold": 0.3, "codebook_restart_grace": 0}
    whole = trainer_of(tmp_path / "whole", name, **options)
    whole.train()
    train_until(3, lambda callbacks: trainer_of(tmp_path / "parts", name, callbacks=callbacks, **options))
    resumed = trainer_of(tmp_path / "parts", name, **options)
    resumed.train(resume_from_checkpoint=True)
    assert_equal_tensors(resumed.model.state_dict(), whole.model.state_dict())
    assert step_logs(resumed) == step_logs(whole)
    if name == "class_guided":
        probes = (run.codebook_callback.probe for run in (whole, resumed))
        assert torch.equal(*(probe.token_classes for probe in probes))


# LG-VQ


def test_trainer_gives_lgvq_texts_of_the_momentum_encoder(tmp_path):
    trainer = trainer_of(tmp_path, "lgvq", max_steps=3, **MOMENTUM)
    seen = []
    trainer.model.objectives["lgvq"].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    before = copy.deepcopy(trainer.model.cbvila.text_model)
    trainer.train()
    texts = [step.momentum.texts for step in seen]
    assert len(texts) == 3 and not any(part.requires_grad for text in texts for part in text)
    expected = before.eval()(seen[0].input_ids, seen[0].attention_mask).last_hidden_state
    torch.testing.assert_close(texts[0].states, expected)
    slow = trainer.momentum.encoder.model.cbvila.text_model.embeddings.word_embeddings.weight
    assert texts[2].word_embeddings.shape == slow.shape
    assert not torch.equal(slow, trainer.model.cbvila.get_input_embeddings().weight)


def test_momentum_encoder_may_serve_lgvq_alone(tmp_path):
    config = tiny_config(objectives={"itc": {"weight": 0.0}, "mlm": {"weight": 0.0}, "lgvq": {}})
    trainer = trainer_of(tmp_path, "lgvq", max_steps=1, momentum_distill=0.4)
    trainer.model_init = None
    trainer = CBViLATrainer(
        model=pretraining_model(config),
        args=trainer.args,
        train_dataset=trainer.train_dataset,
        data_collator=trainer.data_collator,
    )
    trainer.train()
    assert "loss_lgvq_semantic" in step_logs(trainer)[0]


def test_lgvq_waits_for_stable_codes(tmp_path):
    trainer = trainer_of(tmp_path, "lgvq", max_steps=4, burn_in_steps=2)
    trainer.train()
    assert ["loss_lgvq_semantic" in log for log in step_logs(trainer)] == [False, False, True, True]


def test_mask_words_masks_a_tenth_to_three_tenths():
    maskable = torch.zeros(2010, dtype=torch.bool)
    maskable[5:2005] = True
    chosen = [mask_words(maskable, generator_for(seed)) for seed in range(60)]
    shares = torch.stack([mask[maskable].float().mean() for mask in chosen])
    assert not any(mask[~maskable].any() for mask in chosen)
    assert shares.min() > 0.08 and shares.max() < 0.34 and 0.24 < shares.mean() < 0.3, "the end of a normal curve"
    assert torch.equal(chosen[3], mask_words(maskable, generator_for(3)))


@pytest.mark.parametrize("words", [0, 1, 2])
def test_mask_words_of_short_texts(words):
    maskable = torch.tensor([False] + [True] * words + [False])
    for seed in range(20):
        assert mask_words(maskable, generator_for(seed)).any() == (words > 0)


def test_masked_words_change_no_other_mask():
    pairs = ImageTextPairs(tiny_rows())
    options = {"max_length": 16, "text_drop_prob": 0.5}
    plain, more = (
        CBViLADataCollatorForPreTraining(tiny_processor(), PATCH, masks_words=masks, **options)(
            [pairs[row] for row in range(4)]
        )
        for masks in (False, True)
    )
    assert set(more) - set(plain) == {"masked_words"}
    assert_equal_tensors(plain, {name: more[name] for name in plain})
    assert (more["masked_words"].sum(1) >= 1).all()
    assert not more["masked_words"][more["input_ids"] < 5].any(), "no special token"


# Jobs


def job(quantizer=None, objectives=None, data="scenes[rows=40]", **options):
    recipe = {name: TINY_RECIPE[name] for name in ("vocab_size", "max_length")}
    config = {name: value for name, value in TINY_RECIPE["model_config"].items() if name != "codebook_size"}
    config |= {"quantizer_config": {"size": 32, "dim": 4, **(quantizer or {})}, "objectives": objectives or {}}
    return PretrainingJob([data], model_config=config, **recipe | options)


def batch_of(trainer, count=4):
    return trainer.data_collator([trainer.train_dataset[row] for row in range(count)])


def test_job_with_scenes_knows_their_classes(tmp_path):
    objectives = {"sgc_consistency": {}, "lgvq": {}}
    trainer = build_trainer(job({"type": "class_guided"}, objectives, flip=True), training_arguments(tmp_path))
    batch = batch_of(trainer)
    assert {"token_classes", "other_token_classes", "other_pixel_values", "masked_words"} <= set(batch)
    assert batch["token_classes"].max() > 0 and batch["token_classes"].min() >= 0
    trainer.train()
    assert len(set(trainer.model.cbvila.quantizer.code_labels.tolist())) > 5
    assert {"loss_sgc_consistency", "loss_lgvq_relation"} <= set(step_logs(trainer)[-1])


@pytest.mark.parametrize("options", [{}, {"streaming": True}], ids=["whole", "stream"])
def test_job_reads_label_maps_for_quantizers_that_use_them(options, tmp_path):
    args = training_arguments(tmp_path)
    guided = build_trainer(job({"type": "class_guided"}, **options), args)
    plain = build_trainer(job({}, **options), args)
    examples = [next(iter(t.train_dataset)) if options else t.train_dataset[0] for t in (guided, plain)]
    assert "label_map" in examples[0] and "label_map" not in examples[1]
    assert "other_image" not in examples[0]


def test_job_with_a_share_of_labels(tmp_path):
    trainer = build_trainer(job({"type": "class_guided"}, label_share=0.5), training_arguments(tmp_path))
    known = (batch_of(trainer, 40)["token_classes"] >= 0).any(1)
    assert 8 < known.sum() < 32


def test_job_without_label_maps_trains_without_classes(tmp_path, caplog):
    trainer = build_trainer(job({"type": "class_guided"}, data="easy-vqa"), training_arguments(tmp_path, max_steps=1))
    assert (batch_of(trainer)["token_classes"] == -1).all()
    trainer.train()
    assert "fitted without classes of tokens" in caplog.text


@pytest.mark.parametrize(
    ("quantizer", "objectives", "options", "message"),
    [
        (
            {},
            {},
            {"label_map_column": "label_map"},
            "label_map_column='label_map' is of classes .*'nearest' does not use",
        ),
        ({}, {}, {"label_model": "some/model"}, "label_model='some/model' is of classes"),
        ({}, {}, {"label_share": 0.5}, "label_share=0.5 is of classes .*'nearest' does not use"),
        ({"type": "class_guided"}, {}, {"label_model": "gone"}, "label_model='gone' cannot be loaded"),
        ({"type": "class_guided"}, {}, {"label_map_column": "kinds"}, "no column 'kinds'; set label_map_column"),
        ({"type": "class_guided"}, {"sgc_consistency": {}}, {}, "sgc_consistency compares two views .*crop_scale"),
    ],
)
def test_job_rejects_options_that_do_not_fit(quantizer, objectives, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build_trainer(job(quantizer, objectives, **options), training_arguments(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_map_column": "a", "label_model": "b"}, "label_map_column='a' and label_model='b' both give"),
        ({"label_share": -0.1}, "label_share=-0.1 must be a share"),
    ],
)
def test_job_rejects_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        job(**options)
