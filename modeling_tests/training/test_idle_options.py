"""Options of training that a model or another option leaves without effect: errors, or named if recipes have them."""

import pytest
import torch
from tiny import pretraining_model
from tiny_finetuning import finetuning_arguments
from tiny_trainer import pretrainer, training_arguments

from transformers_cbvila.data.sources import load_pairs
from transformers_cbvila.tasks.retrieval import ImageTextRetrieval
from transformers_cbvila.training.pretrain import PretrainingJob, build_trainer

NO_CODES = ("pixel", "mim", "codebook", "commitment")
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def without(*names):
    """The options of objectives of which some have weight 0."""
    return {name: {"weight": 0.0} for name in names}


def model_config(*off, **text_config):
    """The fields of a tiny model without some objectives."""
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    text = {**SMALL, "max_position_embeddings": 32, **text_config}
    fields = {"quantizer_config": {"size": 16}, "multimodal_config": {"num_hidden_layers": 1}, "projection_dim": 16}
    return {"vision_config": vision, "text_config": text, **fields, "objectives": without(*off)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codebook_probe_images": 0, "stability_window": 5}, "^stability_window=5 is for codebook_probe_images"),
        ({"codebook_probe_images": 0, "stability_every": 5}, "^stability_every=5 is for .*, which is 0. Set both"),
    ],
)
def test_options_of_the_codebook_need_what_they_say_more_of(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        training_arguments(tmp_path, **options)


@pytest.mark.parametrize(
    ("off", "options", "message"),
    [
        (NO_CODES, {"codebook_refit": True, "burn_in_steps": 2}, "^codebook_refit=True: .* no codebook that learns"),
        (["mim"], {"mim_gate": 0.8, "burn_in_steps": 2}, "^mim_gate=0.8: .*waits for stable codes"),
        (["mim"], {"codebook_target_decay": 0.9}, "^codebook_target_decay=0.9: .*predicts codes"),
    ],
)
def test_options_without_an_objective_that_uses_them_are_refused(off, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        pretrainer(tmp_path, model=pretraining_model(objectives=without(*off)), **options)


@pytest.mark.parametrize("tower", ["vision", "text", "codebook"])
def test_learning_rate_of_a_frozen_tower_is_refused_unless_it_is_0(tower, tmp_path):
    model = pretraining_model()
    frozen = "quantizer" if tower == "codebook" else f"{tower}_model"
    getattr(model.cbvila, frozen).requires_grad_(False)
    with pytest.raises(ValueError, match=f"^{tower}_learning_rate=0.1: nothing of that is trained here"):
        pretrainer(tmp_path, model=model, **{f"{tower}_learning_rate": 0.1})
    pretrainer(tmp_path, model=model, **{f"{tower}_learning_rate": 0.0})


def test_learning_rates_beside_a_given_optimizer_are_refused(tmp_path):
    model = pretraining_model()
    trainer = pretrainer(tmp_path, model=model)
    args = training_arguments(tmp_path, text_learning_rate=0.1)
    given = torch.optim.SGD(model.parameters(), lr=0.1), None
    options = {"train_dataset": trainer.train_dataset, "data_collator": trainer.data_collator}
    with pytest.raises(ValueError, match="^text_learning_rate=0.1: an optimizer is given, which has its own groups"):
        type(trainer)(model=model, args=args, optimizers=given, **options)


def test_muon_without_a_matrix_is_refused(tmp_path):
    model = pretraining_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".layers." not in name)
    with pytest.raises(ValueError, match="^muon_learning_rate=0.002: no matrix of a transformer layer is left"):
        pretrainer(tmp_path, model=model, muon_learning_rate=0.002).train()


@pytest.mark.parametrize(
    ("off", "options", "named"),
    [
        (["mlm"], {"mlm_probability": 0.3, "mlm_replace": 1.0}, ["mlm_probability=0.3", "mlm_replace=1.0"]),
        (["mlm"], {"mlm_words": ["red"]}, ["mlm_words=['red']"]),
        (["mim"], {"mim_mask_schedule": "cosine"}, ["mim_mask_schedule='cosine'"]),
        (["mim", "pixel"], {"text_drop_prob": 0.1}, ["text_drop_prob=0.1"]),
        (["itm"], {"eval_rerank_k": 8, "eval_data": ["scenes[rows=8]"]}, ["eval_rerank_k=8"]),
    ],
)
def test_options_of_the_data_that_objectives_do_not_use_are_named(off, options, named, tmp_path, capsys):
    options |= {"vocab_size": 200, "train_data": ["scenes[rows=8]"]}
    for config in (model_config(*off), model_config()):
        args = finetuning_arguments(tmp_path)
        build_trainer(PretrainingJob(**options, model_config=config), args)
        said = capsys.readouterr().err
        assert all(
            (f"\n  {name}: " in said) == ("objectives" in config and bool(config["objectives"])) for name in named
        )


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"quantizer_config": {"temperature": 0.5}}, "quantizer_config.temperature=0.5: gradient='straight_through'"),
        ({"quantizer_config": {"update": "loss", "decay": 0.9}}, "quantizer_config.decay=0.9: codes that learn by"),
        ({"quantizer_config": {"type": "residual", "update": "loss", "decay": 0.9}}, "quantizer_config.decay=0.9"),
        (
            {"quantizer_config": {"type": "class_guided", "hard": True, "penalty": 2.0}},
            "quantizer_config.penalty=2.0: hard=True",
        ),
        (
            {"objectives": {"itc": {"weight": 0.0}, "codis": {"num_codes": 8, "epsilon": 0.1}}},
            "objectives.codis.epsilon=0.1: solver='ipot'",
        ),
    ],
)
def test_options_of_parts_that_others_of_theirs_leave_without_effect_are_named(fields, named, tmp_path, capsys):
    config = model_config() | fields
    job = PretrainingJob(["scenes[rows=8]"], vocab_size=200, model_config=config, crop_scale=0.5)
    build_trainer(job, finetuning_arguments(tmp_path))
    said = capsys.readouterr().err
    assert "Options without effect on this model:" in said and f"\n  {named}" in said


def test_options_of_the_schedule_that_objectives_do_not_use_are_named(tmp_path, capsys):
    options = {"burn_in_steps": 2, "mlm_from_start": True, "negative_hardening": "0,2"}
    pretrainer(tmp_path, **options)
    assert "without effect" not in capsys.readouterr().err
    pretrainer(tmp_path, model=pretraining_model(objectives=without(*NO_CODES, "mlm", "itm")), **options)
    said = capsys.readouterr().err
    assert "Options without effect on this model:" in said
    assert all(f"\n  {name}=" in said for name in options)


def test_size_of_a_vocabulary_that_is_there_already_is_named(tmp_path, capsys):
    job = PretrainingJob(["scenes[rows=8]"], model="cbvila-tiny", vocab_size=300)
    build_trainer(job, finetuning_arguments(tmp_path))
    assert "cbvila-tiny brings its vocabulary: vocab_size=300 is not used." in capsys.readouterr().err
    job = PretrainingJob(["scenes[rows=8]"], tokenizer="cbvila-tiny", vocab_size=300, model_config=model_config())
    build_trainer(job, finetuning_arguments(tmp_path))
    assert "cbvila-tiny brings its vocabulary: vocab_size=300 is not used." in capsys.readouterr().err


def test_what_the_tokenizer_decides_is_refused_in_model_config(tmp_path):
    job = PretrainingJob(["scenes[rows=8]"], model_config=model_config(vocab_size=900))
    with pytest.raises(
        ValueError, match="text_config has vocab_size=900, which is the tokenizer's; leave it out, and"
    ):
        build_trainer(job, finetuning_arguments(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keyword_probability": 0.1}, "keyword_probability=0.1 is for keyword_columns, which is not given"),
    ],
)
def test_options_of_data_need_what_they_say_more_of(options, message):
    with pytest.raises(ValueError, match=message):
        PretrainingJob(["a"], **options)


def test_what_says_more_of_what_is_off_is_named(tmp_path, capsys):
    job = PretrainingJob(["scenes[rows=8]"], model="cbvila-tiny", shuffle_buffer=5)
    build_trainer(job, finetuning_arguments(tmp_path, codebook_restart_grace=5))
    said = capsys.readouterr().err
    assert "shuffle_buffer=5: train_data are not streamed" in said
    assert "codebook_restart_grace=5: no code restarts (codebook_restart_threshold=0)" in said
    options = {"codebook_restart_threshold": 0.1, "codebook_learning_rate": 0.0}
    build_trainer(job, finetuning_arguments(tmp_path, **options))
    assert "codebook_restart_threshold=0.1: codes rest (codebook_learning_rate=0)" in capsys.readouterr().err


def test_keywords_that_no_row_has_are_named(tmp_path, capsys):
    columns = {"keyword_columns": ["tags"], "model": "cbvila-tiny"}
    build_trainer(PretrainingJob(["scenes[rows=8]"], **columns), finetuning_arguments(tmp_path))
    assert "No row of train_data has keywords: keyword_columns=['tags']." in capsys.readouterr().err


def test_a_column_of_label_maps_is_read_with_labels_only():
    with pytest.raises(ValueError, match="label_map_column='a' is read with with_labels=True; set both"):
        load_pairs("scenes[rows=8]", label_map_column="a")


def test_retrieval_refuses_to_rerank_without_matching():
    config = pretraining_model(objectives=without("itm")).config
    ImageTextRetrieval().check_model(config)
    ImageTextRetrieval(rerank_k=0).check_model(config)
    with pytest.raises(ValueError, match="rerank_k=8: the model was trained without matching"):
        ImageTextRetrieval(rerank_k=8).check_model(config)
