"""Training a Q-Former's first stage: where it starts, both trainers, resuming, evaluation, and the command."""

import json
import re

import pytest
import tiny
import torch
from equal_tensors import assert_equal_tensors, assert_equal_weights
from interrupted_runs import train_until
from tiny_qformer import QUERIES, build_qformer
from tiny_recipe import parse_pretrain
from tiny_trainer import step_logs, training_arguments
from transformers import AutoModelForPreTraining, Trainer, TrainingArguments
from two_processes import run_in_two

from transformers_cbvila.cli import main
from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.data.qformer_collator import CBViLADataCollatorForQFormerPreTraining
from transformers_cbvila.inspection.qformer_measure import inspect_qformer
from transformers_cbvila.model.modeling_cbvila_qformer_pretraining import CBViLAForQFormerPreTraining
from transformers_cbvila.training.pretraining_evaluation import EvaluationOptions
from transformers_cbvila.training.pretraining_job import NOT_OF_QFORMERS, PretrainingJob
from transformers_cbvila.training.qformer_start import starting_qformer
from transformers_cbvila.training.trainer import CBViLATrainer
from transformers_cbvila.training.view_options import ViewOptions

TERMS = {"loss_itc", "loss_itm", "loss_itg"}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A checkpoint of a whole model, whose image encoder a Q-Former reads."""
    folder = tmp_path_factory.mktemp("pretrained")
    tiny.pretraining_model(seed=4, text={"hidden_dropout_prob": 0.1}).save_pretrained(folder)
    tiny.tiny_processor().save_pretrained(folder)
    return folder


def collator():
    return CBViLADataCollatorForQFormerPreTraining(tiny.tiny_processor(), max_length=16)


def our_trainer(folder, callbacks=(), dropout=0.1, **options):
    return CBViLATrainer(
        model=build_qformer(CBViLAForQFormerPreTraining, dropout=dropout),
        args=training_arguments(folder, **options),
        train_dataset=ImageTextPairs(tiny.tiny_rows(8), crop_scale=0.75),
        data_collator=collator(),
        callbacks=list(callbacks),
    )


def plain_trainer(folder, callbacks=(), **options):
    options = {"logging_steps": 1, "per_device_train_batch_size": 2, "max_steps": 6, "save_strategy": "no"} | options
    quiet = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "remove_unused_columns": False}
    return Trainer(
        model=build_qformer(CBViLAForQFormerPreTraining, dropout=0.1),
        args=TrainingArguments(output_dir=str(folder), **quiet, **options),
        train_dataset=ImageTextPairs(tiny.tiny_rows(8)),
        eval_dataset=ImageTextPairs(tiny.tiny_rows(8)),
        data_collator=collator(),
        callbacks=list(callbacks),
    )


# Trainers


@pytest.mark.parametrize("make", [our_trainer, plain_trainer])
def test_trainer_resumes_bit_for_bit(make, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2}
    whole = make(tmp_path / "whole", **options)
    whole.train()
    train_until(4, make, tmp_path / "broken", **options)
    resumed = make(tmp_path / "broken", **options)
    resumed.train(resume_from_checkpoint=True)
    assert_equal_weights(resumed.model, whole.model)
    losses = [[log["loss"] for log in step_logs(trainer)] for trainer in (resumed, whole)]
    assert losses[0] == losses[1] and len(losses[0]) == 6


def test_training_leaves_the_image_encoder_alone(tmp_path):
    trainer = our_trainer(tmp_path, negative_hardening="0.2,0.8")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    frozen = {name for name in before if name.startswith("vision_model.")}
    assert_equal_tensors({name: after[name] for name in frozen}, {name: before[name] for name in frozen})
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"qformer.embeddings.query_tokens", "lm_head.dense.weight", "logit_scale"} <= moved and not moved & frozen
    trained = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not trained & {id(p) for p in trainer.model.vision_model.parameters()}
    assert step_logs(trainer)[0].keys() >= TERMS


def trained(rank, folder, processes=2):
    """Weights and losses of a run of three steps of four pairs, on so many processes."""
    trainer = our_trainer(
        folder,
        dropout=0.0,
        max_steps=3,
        optim="sgd",
        learning_rate=0.05,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=4 // processes,
    )
    trainer.train()
    return trainer.model.state_dict(), [log["loss"] for log in step_logs(trainer)]


def test_two_processes_train_as_one(tmp_path):
    (weights, losses), (others, _) = run_in_two(trained, tmp_path, str(tmp_path), joined=False)
    assert_equal_tensors(weights, others)
    expected, expected_losses = trained(0, tmp_path / "alone", processes=1)
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    for name, value in weights.items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-5, msg=name)


def test_plain_trainer_evaluates_the_loss(tmp_path):
    metrics = plain_trainer(tmp_path).evaluate()
    assert metrics["eval_loss"] > 0


def test_trainer_with_muon_trains_the_layers(tmp_path):
    trainer = our_trainer(tmp_path, muon_learning_rate=1e-2, max_steps=2)
    trainer.train()
    assert any(group["muon"] for group in trainer.optimizer.param_groups)


def test_trainer_refuses_options_of_other_heads(tmp_path):
    with pytest.raises(ValueError, match="burn_in_steps"):
        our_trainer(tmp_path, burn_in_steps=2)
    with pytest.raises(ValueError, match="a single pair has no mismatch"):
        our_trainer(tmp_path, per_device_train_batch_size=1)


# The start


def test_start_takes_image_encoder_and_text_layers(pretrained):
    model, processor, said = starting_qformer(str(pretrained), {"num_hidden_layers": 5, "num_query_tokens": 2})
    source = tiny.pretraining_model(seed=4).cbvila
    assert "4 of 5 layers start as those of its text and fusion encoders" in said
    assert_equal_weights(model.vision_model, source.vision_model)
    layers = [*source.text_model.layers, *source.fusion_model.layers]
    for layer, other in zip(model.qformer.layers, layers, strict=False):
        assert_equal_weights(layer.attention, other.attention)
        for queries in (layer.query_mlp, layer.mlp):
            assert_equal_weights(queries, other.mlp)
    words = model.qformer.embeddings.word_embeddings.weight
    assert torch.equal(words[: tiny.VOCABULARY], source.text_model.embeddings.word_embeddings.weight)
    assert torch.equal(words[-1], words[tiny.CLS]) and model.config.dec_token_id == len(words) - 1
    assert (
        model.config.hidden_dropout_prob == 0.1
        and not model.vision_model.layers[0].attention.q_proj.bias.requires_grad
    )
    ids = processor(text=["red half"], return_tensors="pt")["input_ids"]
    embedded = model.eval().qformer.embeddings(ids, None, None)
    torch.testing.assert_close(embedded, source.eval().text_model.embeddings(ids), atol=1e-5, rtol=1e-5)


def test_start_of_another_width_is_random_but_for_the_image_encoder(pretrained):
    model, _, said = starting_qformer(str(pretrained), {"hidden_size": 16})
    assert said.endswith("of other sizes than its text encoder, starts at random.")
    assert_equal_weights(model.vision_model, tiny.pretraining_model(seed=4).cbvila.vision_model)


def test_start_from_a_qformer_is_that_qformer(tmp_path):
    model = build_qformer(CBViLAForQFormerPreTraining)
    model.save_pretrained(tmp_path)
    tiny.tiny_processor().save_pretrained(tmp_path)
    started, _, _ = starting_qformer(str(tmp_path), {"label_smoothing": 0.0})
    assert_equal_weights(started, model)
    assert started.config.label_smoothing == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_query_token": 2}, "did you mean 'num_query_tokens'"),
        ({"vision_config": {}}, "the image encoder is that of"),
        ({"vocab_size": 30, "dec_token_id": None}, "vocab_size=30 of model_config is less than the checkpoint's 60"),
    ],
)
def test_start_says_what_is_wrong(pretrained, changes, message):
    with pytest.raises(ValueError, match=message):
        starting_qformer(str(pretrained), changes)


# Measuring


def test_measured_losses_are_those_of_a_batch():
    model, rows = build_qformer(CBViLAForQFormerPreTraining), tiny.tiny_rows(8)
    metrics = inspect_qformer(model.train(), tiny.tiny_processor(), rows, batch_size=8, progress=False)
    assert model.training
    with torch.no_grad():
        batch = collator()([{"image": row["image"], "text": row["captions"][0]} for row in rows])
        output = model.eval()(**batch)
    for name, value in {"loss": output.loss, **{f"loss_{n}": v for n, v in output.losses.items()}}.items():
        assert metrics[name] == pytest.approx(value.item(), rel=1e-5)
    best = (output.logits_per_image.argmax(1) == torch.arange(8)).float().mean().item()
    assert metrics["text_retrieval_r1"] == pytest.approx(best) and metrics["image_retrieval_r10"] == 1.0


# The command

OPTIONS = ["--max_steps", "3", "--per_device_train_batch_size", "2", "--logging_steps", "1", "--save_steps", "2"]
QUIET = ["--use_cpu", "True", "--disable_tqdm", "True", "--report_to", "none"]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for number, row in enumerate(tiny.tiny_rows(8)):
        row["image"].save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": row["captions"][0]}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return str(folder)


def test_command_pretrains_measures_and_goes_on(pretrained, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["pretrain", "--head", "qformer", "--model", str(pretrained), "--train_data", pictures]
    command += ["--model_config", '{"num_query_tokens": 3, "num_hidden_layers": 2}', "--output_dir", str(out)]
    command += [
        "--eval_data",
        pictures,
        "--eval_split",
        "train",
        "--per_device_eval_batch_size",
        "4",
        *OPTIONS,
        *QUIET,
    ]
    assert main(command) == 0
    assert re.search(r"text_retrieval_r1/5/10 +\d", capsys.readouterr().out)
    record = json.loads((out / "pretraining.json").read_text())
    assert record["job"]["head"] == "qformer" and record["config"]["num_query_tokens"] == QUERIES
    assert {"eval_loss_itg", "eval_image_retrieval_r10_high"} <= record["figures"].keys()
    loaded = AutoModelForPreTraining.from_pretrained(out)
    assert type(loaded) is CBViLAForQFormerPreTraining
    longer = [*command, "--max_steps", "4", "--resume"]
    assert main(longer) == 0
    assert json.loads((out / "pretraining.json").read_text())["steps"] == 4


def test_recipe_pretrains_a_qformer():
    job, args, _ = parse_pretrain(
        ["--config", "pretrain-qformer-scenes", "--model", "cbvila-tiny", "--train_data", "scenes"]
        + ["--output_dir", "out", "--use_cpu"]
    )
    assert job.head == "qformer" and job.model_config["num_query_tokens"] == 8
    assert args.negative_hardening == "0.4,0.8"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "other"}, "head='other' is none of cbvila, qformer"),
        ({"head": "qformer", "model": None}, "name a checkpoint that has one as model"),
        ({"head": "qformer", "mim_mask_ratio": 0.5}, "mim_mask_ratio=0.5 is an option of CB-ViLA's own pretraining"),
        ({"head": "qformer", "mlm_words": ["left"]}, "mlm_words=['left'] is an option of CB-ViLA's own pretraining"),
        ({"head": "qformer", "preset": "albef"}, "preset='albef' is an option of CB-ViLA's own pretraining"),
    ],
)
def test_job_says_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PretrainingJob(**({"train_data": ["a"], "model": "cbvila-tiny"} | options))


def test_every_option_of_corruption_is_refused_or_used():
    """What is in no list would be given in vain: data and views are used, and so is what names the model."""
    used = {
        *EvaluationOptions.__dataclass_fields__,
        *ViewOptions.__dataclass_fields__,
        "head",
        "model",
        "model_config",
    }
    used |= {"train_data", "train_data_weights", "train_split", "image_column", "caption_column", "keyword_columns"}
    used |= {"skip_bad_rows", "streaming", "shuffle_buffer", "max_length", "keyword_probability"}
    assert {*PretrainingJob.__dataclass_fields__} - used | {"eval_rerank_k"} == {*NOT_OF_QFORMERS}
