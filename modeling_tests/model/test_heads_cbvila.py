"""Heads other than pretraining and question answering: outputs, loading and errors."""

import math

import pytest
import torch
from tiny import PATCHES, build, tiny_config, tiny_pairs
from tiny_heads import HEADS, batch_for, part_of
from transformers import AutoModelForMaskedImageModeling, Trainer, TrainingArguments, default_data_collator

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForMaskedImageModeling,
    CBViLAForPreTraining,
    CBViLAForVisualEntailment,
    CBViLAForVisualReasoning,
    CBViLAModel,
    CBViLATrainer,
    CBViLATrainingArguments,
)

NEW_MODULES = {
    CBViLAForImageTextRetrieval: {"objectives.itm"},
    CBViLAForVisualEntailment: {"entailment_head"},
    CBViLAForVisualReasoning: {"reasoning_head"},
    CBViLAForMaskedImageModeling: {"objectives.pixel", "objectives.mim"},
}


def small_batch(head):
    inputs = batch_for(head)
    return {name: value for name, value in inputs.items() if name not in ("labels", "return_loss")}


# Loading


@pytest.mark.parametrize("head", NEW_MODULES)
def test_head_from_base_checkpoint_has_new_head_only(head, tmp_path):
    base = build(CBViLAModel)
    base.save_pretrained(tmp_path)
    model, info = head.from_pretrained(tmp_path, output_loading_info=True)
    assert {part_of(name) for name in info["missing_keys"]} == NEW_MODULES[head]
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    for name, value in model.cbvila.state_dict().items():
        assert torch.equal(value, base.state_dict()[name]), name


@pytest.mark.parametrize("head", NEW_MODULES)
def test_head_from_pretraining_checkpoint_takes_its_heads(head, tmp_path):
    build(CBViLAForPreTraining).save_pretrained(tmp_path)
    _, info = head.from_pretrained(tmp_path, output_loading_info=True)
    taken = {"objectives.itm", "objectives.pixel", "objectives.mim"}
    assert {part_of(name) for name in info["missing_keys"]} == NEW_MODULES[head] - taken
    assert not info["unexpected_keys"]


@pytest.mark.parametrize("head", HEADS[1:])
def test_base_from_head_checkpoint(head, tmp_path):
    model = build(head)
    model.save_pretrained(tmp_path)
    base, info = CBViLAModel.from_pretrained(tmp_path, output_loading_info=True)
    has = model.cbvila.state_dict()
    assert set(info["missing_keys"]) == base.state_dict().keys() - has.keys()
    assert not info["unexpected_keys"]
    for name, value in has.items():
        assert torch.equal(base.state_dict()[name], value), name


def test_heads_have_no_unused_parts():
    parts = {"quantizer", "visual_queries", "vision_projection", "logit_scale", "text_key_projection"}
    have = {head: {name for name in parts if hasattr(head(tiny_config()).cbvila, name)} for head in HEADS[1:]}
    assert have.pop(CBViLAForPreTraining) == parts
    assert have.pop(CBViLAForImageTextRetrieval) == {"vision_projection", "logit_scale"}
    assert have.pop(CBViLAForMaskedImageModeling) == {"quantizer", "visual_queries", "text_key_projection"}
    assert all(not there for there in have.values())


@pytest.mark.parametrize("head", NEW_MODULES)
def test_heads_name_missing_inputs(head):
    model = build(head)
    with pytest.raises(ValueError, match="pixel_values"):
        model(input_ids=torch.tensor([[2, 5, 3]]))
    if head is not CBViLAForMaskedImageModeling:
        with pytest.raises(ValueError, match="input_ids is missing"):
            model(pixel_values=small_batch(head)["pixel_values"])


# Retrieval


def test_retrieval_equals_base_and_itm():
    model = build(CBViLAForImageTextRetrieval)
    inputs = small_batch(CBViLAForImageTextRetrieval)
    output, base = model(**inputs), model.cbvila(**inputs)
    torch.testing.assert_close(output.logits_per_image, base.logits_per_image)
    torch.testing.assert_close(output.itm_logits, model.objectives["itm"].head(base.pooler_output))
    assert output.loss is None and output.itc_loss is None


def test_retrieval_loss_equals_pretraining(tmp_path):
    pretraining = build(CBViLAForPreTraining)
    pretraining.save_pretrained(tmp_path)
    model = CBViLAForImageTextRetrieval.from_pretrained(tmp_path).eval()
    inputs = small_batch(CBViLAForImageTextRetrieval)
    ours, theirs = model(**inputs, return_loss=True), pretraining(**inputs)
    torch.testing.assert_close(ours.itc_loss, theirs.losses["itc"])
    torch.testing.assert_close(ours.itm_loss, theirs.losses["itm"])
    torch.testing.assert_close(ours.itm_logits, theirs.itm_logits)
    torch.testing.assert_close(ours.loss, ours.itc_loss + ours.itm_loss)


def test_retrieval_image_index_of_several_texts():
    model, inputs = build(CBViLAForImageTextRetrieval), tiny_pairs(4)
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    images, index = inputs["pixel_values"][:2], torch.tensor([0, 1, 1, 0])
    shared = model(pixel_values=images, image_index=index, return_loss=True, **texts)
    repeated = model(pixel_values=images[index], return_loss=True, **texts)
    assert shared.logits_per_image.shape == (2, 4)
    torch.testing.assert_close(shared.loss, repeated.loss)
    torch.testing.assert_close(shared.itm_logits, repeated.itm_logits)


def test_retrieval_without_itc_has_no_itc_loss():
    model = build(CBViLAForImageTextRetrieval, same_width=True, itc_weight=0.0)
    output = model(**batch_for(CBViLAForImageTextRetrieval))
    assert output.itc_loss is None and torch.equal(output.loss, output.itm_loss)
    cosines = output.logits_per_image / math.exp(model.config.logit_scale_init_value)
    assert cosines.abs().max() <= 1 + 1e-5


def test_retrieval_return_loss_rejects_other_counts():
    inputs = {**small_batch(CBViLAForImageTextRetrieval), "return_loss": True}
    with pytest.raises(ValueError, match="3 image.s. and 4 text"):
        build(CBViLAForImageTextRetrieval)(**{**inputs, "pixel_values": inputs["pixel_values"][:3]})


# Texts as candidates for every image


@pytest.mark.parametrize("images, texts", [(1, 4), (3, 4), (4, 1), (2, 3)])
def test_retrieval_candidates_are_compared_with_every_image(images, texts):
    model, batch = build(CBViLAForImageTextRetrieval), batch_for(CBViLAForImageTextRetrieval)
    del batch["return_loss"]
    expected = model(**batch).logits_per_image[:images, :texts]
    candidates = {name: batch[name][:texts] for name in ("input_ids", "attention_mask")}
    output = model(batch["pixel_values"][:images], **candidates)
    torch.testing.assert_close(output.logits_per_image, expected)
    torch.testing.assert_close(output.logits_per_text, expected.T)
    assert output.itm_logits is None and output.loss is None


def test_retrieval_rejects_equal_candidates_and_untrained_heads():
    model, batch = build(CBViLAForImageTextRetrieval), batch_for(CBViLAForImageTextRetrieval)
    texts = {name: batch[name][[0, 1, 0]] for name in ("input_ids", "attention_mask")}
    texts["input_ids"][2, -1], texts["attention_mask"][2, -1] = 9, 0  # padding tells nothing
    texts["attention_mask"][0, -1] = 0
    with pytest.raises(ValueError, match="'text 0' and 'text 2' are the same tokens"):
        model(batch["pixel_values"][:1], **texts)
    model = build(CBViLAForImageTextRetrieval, itc_weight=0.0, same_width=True)
    with pytest.raises(ValueError, match="never trained for it"):
        model(batch["pixel_values"][:1], **{name: value[:2] for name, value in texts.items()})


# Entailment


def test_entailment_labels_go_by_name():
    model = build(CBViLAForVisualEntailment)
    assert model.config.num_labels == 3
    assert model.label_ids(["contradiction", "Neutral", "entailment"]).tolist() == [2, 1, 0]
    names = {0: "contradiction", 1: "neutral", 2: "entailment"}
    other = build(CBViLAForVisualEntailment, id2label=names, label2id={v: k for k, v in names.items()})
    assert other.label_ids(["contradiction", "entailment"]).tolist() == [0, 2]
    with pytest.raises(ValueError, match="No class is named 'maybe'.*'neutral'"):
        model.label_ids(["maybe"])


def test_entailment_labels_are_saved(tmp_path):
    build(CBViLAForVisualEntailment).save_pretrained(tmp_path)
    config = CBViLAForVisualEntailment.from_pretrained(tmp_path).config
    assert config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}


def test_head_does_not_change_the_given_config():
    config = tiny_config()
    assert CBViLAForVisualEntailment(config).config.num_labels == 3 and config.num_labels == 2


@pytest.mark.parametrize("head", [CBViLAForVisualEntailment, CBViLAForVisualReasoning])
def test_classification_learns_its_batch(head):
    model, inputs = build(head).train(), batch_for(head)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = model(**inputs).loss.item()
    for _ in range(30):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()
    output = model(**inputs)
    assert output.loss.item() < first / 5
    assert torch.equal(output.logits.argmax(-1), inputs["labels"])


# Reasoning


def test_reasoning_depends_on_image_order():
    model, inputs = build(CBViLAForVisualReasoning), small_batch(CBViLAForVisualReasoning)
    logits = model(**inputs).logits
    swapped = model(**{**inputs, "pixel_values": inputs["pixel_values"].flip(1)}).logits
    assert logits.shape == (4, 2) and not torch.allclose(logits, swapped, atol=1e-3)
    joint = [model.cbvila(**{**inputs, "pixel_values": inputs["pixel_values"][:, i]}).pooler_output for i in (0, 1)]
    torch.testing.assert_close(logits, model.reasoning_head(torch.cat(joint, -1)), atol=1e-5, rtol=1e-5)


def test_reasoning_num_images_3():
    model, inputs = build(CBViLAForVisualReasoning, num_images=3), small_batch(CBViLAForVisualReasoning)
    images = inputs["pixel_values"]
    assert model(**{**inputs, "pixel_values": torch.cat([images, images[:, :1]], 1)}).logits.shape == (4, 2)
    with pytest.raises(ValueError, match=r"\(4, 2, 3, 32, 32\); expected \(batch, 3, 3, height, width\)"):
        model(**inputs)


def test_reasoning_rejects_flat_images():
    inputs = small_batch(CBViLAForVisualReasoning)
    with pytest.raises(ValueError, match=r"unflatten\(0, \(-1, 2\)\)"):
        build(CBViLAForVisualReasoning)(**{**inputs, "pixel_values": inputs["pixel_values"].flatten(0, 1)})


# Masked image modelling


def test_masked_image_modeling_is_auto_mapped(tmp_path):
    build(CBViLAForMaskedImageModeling).save_pretrained(tmp_path)
    assert type(AutoModelForMaskedImageModeling.from_pretrained(tmp_path)) is CBViLAForMaskedImageModeling


def test_masked_image_modeling_losses_equal_pretraining(tmp_path):
    pretraining = build(CBViLAForPreTraining)
    pretraining.save_pretrained(tmp_path)
    model = CBViLAForMaskedImageModeling.from_pretrained(tmp_path).eval()
    inputs = batch_for(CBViLAForMaskedImageModeling)
    ours, theirs = model(**inputs), pretraining(**inputs)
    for term in ("pixel", "commitment", "mim"):
        torch.testing.assert_close(ours.losses[term], theirs.losses[term], msg=term)
    torch.testing.assert_close(ours.logits[inputs["bool_masked_pos"]], theirs.mim_logits)


@pytest.mark.parametrize("preset", ["recommended", "paper"])
def test_masked_image_modeling_does_not_see_hidden_patches(preset):
    """Scores of hidden patches depend on nothing behind the mask but what the image encoder mixed into the others."""
    model, inputs = build(CBViLAForMaskedImageModeling, preset=preset), batch_for(CBViLAForMaskedImageModeling)
    hidden = torch.ones_like(inputs["bool_masked_pos"])
    first = model(**{**inputs, "bool_masked_pos": hidden})
    other = model(**{**inputs, "bool_masked_pos": hidden, "pixel_values": inputs["pixel_values"].flip(0)})
    torch.testing.assert_close(first.logits, other.logits)
    assert not torch.equal(first.codebook_indices, other.codebook_indices)


def test_masked_image_modeling_reconstruction_in_evaluation_only():
    model, inputs = build(CBViLAForMaskedImageModeling), batch_for(CBViLAForMaskedImageModeling)
    assert model(**inputs).reconstruction.shape == inputs["pixel_values"].shape
    assert model.train()(**inputs).reconstruction is None


@pytest.mark.parametrize("pixel_on", ["all", "masked"])
@pytest.mark.parametrize(
    "options", [{}, {"mim_mask_stage": "pre"}, {"fusion_visual_cls": "vit"}, {"mim_head": "tied"}]
)
def test_reconstruct_equals_masked_image_modeling(options, pixel_on, tmp_path):
    pretraining = build(CBViLAForPreTraining, pixel_on=pixel_on, **options)
    pretraining.save_pretrained(tmp_path)
    model, inputs = CBViLAForMaskedImageModeling.from_pretrained(tmp_path).eval(), tiny_pairs()
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    images, hidden = inputs["pixel_values"], inputs["bool_masked_pos"]
    for mask in (None, hidden):
        output = model(images, mask, **texts)
        drawn = pretraining.reconstruct(images, **texts, bool_masked_pos=mask)
        torch.testing.assert_close(drawn.pixel_values, output.reconstruction, atol=1e-5, rtol=0)
        if mask is None:
            assert torch.equal(drawn.codebook_indices, output.codebook_indices)
        else:
            assert torch.equal(drawn.codebook_indices[mask], output.logits.argmax(-1)[mask])
    silent = model(images, hidden).reconstruction
    torch.testing.assert_close(pretraining.reconstruct(images, bool_masked_pos=hidden).pixel_values, silent)


def test_reconstruct_pixels_give_the_pixel_loss():
    model, inputs = build(CBViLAForPreTraining), tiny_pairs()
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    drawn = model.reconstruct(inputs["pixel_values"], **texts).pixel_values
    error = (drawn - inputs["pixel_values"]).square().mean()
    torch.testing.assert_close(error, model(inputs["pixel_values"], **texts).losses["pixel"])
    assert not drawn.requires_grad


def test_reconstruct_uses_image_moments_with_norm_pix_loss():
    model, inputs = build(CBViLAForPreTraining, norm_pix_loss=True), tiny_pairs()
    torch.nn.init.zeros_(model.objectives["pixel"].head.weight)
    torch.nn.init.zeros_(model.objectives["pixel"].head.bias)
    images = inputs["pixel_values"]
    drawn = model.reconstruct(images, inputs["input_ids"]).pixel_values
    # a head that says nothing leaves the mean of each patch, over its pixels and channels
    patches = torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 8)
    means = patches.repeat_interleave(8, 2).repeat_interleave(8, 3).expand_as(images)
    torch.testing.assert_close(drawn, means)


def test_reconstruct_rejects_a_mask_of_other_shape():
    with pytest.raises(ValueError, match="one entry per patch"):
        build(CBViLAForPreTraining).reconstruct(tiny_pairs()["pixel_values"], bool_masked_pos=torch.ones(4, 3).bool())


def test_masked_image_modeling_without_mask_or_caption():
    model, inputs = build(CBViLAForMaskedImageModeling), batch_for(CBViLAForMaskedImageModeling)
    images = inputs["pixel_values"]
    output = model(images)
    assert output.loss is None and output.logits.shape == (4, PATCHES, 16)
    empty = torch.tensor([[2, 3]]).expand(4, -1)
    torch.testing.assert_close(output.logits, model(images, input_ids=empty).logits)


def test_masked_image_modeling_tied_head_has_a_loss():
    model = build(CBViLAForMaskedImageModeling, mim_head="tied")
    assert model(**batch_for(CBViLAForMaskedImageModeling)).loss.isfinite()


def test_masked_image_modeling_rejects_a_mask_of_other_shape():
    inputs = batch_for(CBViLAForMaskedImageModeling)
    with pytest.raises(ValueError, match=r"\(4, 15\); expected \(4, 16\)"):
        build(CBViLAForMaskedImageModeling)(**{**inputs, "bool_masked_pos": inputs["bool_masked_pos"][:, 1:]})


def test_masked_image_modeling_after_step_moves_codes():
    model, inputs = build(CBViLAForMaskedImageModeling).train(), batch_for(CBViLAForMaskedImageModeling)
    before = model.cbvila.quantizer.table.codes.clone()
    model(**inputs)
    model.after_step()
    assert not torch.equal(before, model.cbvila.quantizer.table.codes)


# What is said about loading, and about arguments that are none


@pytest.mark.parametrize(
    "source, head, parts",
    [
        (CBViLAModel, CBViLAForVisualEntailment, "logit_scale (1 tensor), quantizer (10 tensors)"),
        (CBViLAModel, CBViLAForImageTextRetrieval, "quantizer (10 tensors), text_key_projection (2 tensors)"),
        (CBViLAForPreTraining, CBViLAForMaskedImageModeling, "objectives.itm (2 tensors), objectives.mlm (5 tensors)"),
        (CBViLAForPreTraining, CBViLAModel, "objectives.pixel (2 tensors)"),
        (CBViLAForVisualReasoning, CBViLAModel, "reasoning_head (4 tensors)"),
    ],
)
def test_from_pretrained_logs_left_out_weights_at_info(source, head, parts, logged, tmp_path):
    build(source).save_pretrained(tmp_path)
    head.from_pretrained(tmp_path)
    assert not logged("modeling_cbvila_base")
    with logged.at_level("INFO"):
        head.from_pretrained(tmp_path)
    (message,) = logged("modeling_cbvila_base")
    assert message.startswith(f"{head.__name__} has no use for ") and message.endswith(" left out, as intended.")
    assert parts in message


@pytest.mark.parametrize("head", HEADS)
def test_from_pretrained_of_saved_model_logs_nothing(head, logged, tmp_path):
    build(head).save_pretrained(tmp_path)
    head.from_pretrained(tmp_path)
    assert not logged()


@pytest.mark.parametrize("head", HEADS)
def test_forward_rejects_misspelt_arguments(head):
    with pytest.raises(TypeError, match="atention_mask"):
        build(head)(**batch_for(head), atention_mask=None)


# Classes


def test_head_keeps_given_classes():
    config = tiny_config(num_labels=5)
    assert build(CBViLAForVisualEntailment, config).config.num_labels == 5
    names = {0: "no", 1: "yes"}
    config = tiny_config(id2label=names, label2id={"no": 0, "yes": 1})
    assert build(CBViLAForVisualEntailment, config).config.id2label == names


def test_head_does_not_take_default_classes_of_another(tmp_path):
    build(CBViLAForVisualEntailment).save_pretrained(tmp_path)
    assert CBViLAForVisualReasoning.from_pretrained(tmp_path).config.id2label == {0: "False", 1: "True"}
    build(CBViLAForVisualReasoning).save_pretrained(tmp_path)
    assert CBViLAForVisualEntailment.from_pretrained(tmp_path).config.num_labels == 3


@pytest.mark.parametrize("head", [CBViLAForVisualEntailment, CBViLAForVisualReasoning])
@pytest.mark.parametrize(
    "labels, message",
    [
        (torch.tensor([0, 1, 7, 0]), "labels hold 7, but the model has . classes"),
        (torch.tensor([0, -1, 1, 0]), "labels hold -1"),
        (torch.tensor([[0], [1], [1], [0]]), r"labels are \(4, 1\) of torch.int64; expected \(4,\)"),
        (torch.tensor([0.0, 1.0, 1.0, 0.0]), "of torch.float32"),
    ],
)
def test_labels_invalid_are_rejected(head, labels, message):
    with pytest.raises(ValueError, match=message):
        build(head)(**{**batch_for(head), "labels": labels})


def test_labels_of_minus_100_are_ignored():
    model, inputs = build(CBViLAForVisualEntailment), batch_for(CBViLAForVisualEntailment)
    labels = torch.tensor([0, -100, 1, -100])
    kept = {k: v[[0, 2]] for k, v in inputs.items()}
    torch.testing.assert_close(
        model(**{**inputs, "labels": labels}).loss, model(**kept | {"labels": labels[[0, 2]]}).loss
    )


# transformers' own Trainer


class Rows(torch.utils.data.Dataset):
    """Rows of a batch, as a data set."""

    def __init__(self, batch):
        self.batch = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}

    def __len__(self):
        return len(self.batch["pixel_values"])

    def __getitem__(self, i):
        return {name: value[i] for name, value in self.batch.items()}


@pytest.mark.parametrize("head", HEADS[1:])
def test_plain_trainer_trains_and_evaluates_heads(head, tmp_path):
    model, batch = build(head), batch_for(head)

    def collate(rows):
        return default_data_collator(rows) | ({"return_loss": True} if "return_loss" in batch else {})

    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        per_device_eval_batch_size=4,
        num_train_epochs=2,
        learning_rate=3e-4,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=Rows(batch), eval_dataset=Rows(batch), data_collator=collate)
    start = trainer.evaluate()["eval_loss"]
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) == 2 and losses[-1] < start
    prediction = trainer.predict(Rows(batch))
    assert prediction.metrics["test_loss"] == pytest.approx(min(losses), rel=1e-5)
    first = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    expected = {
        CBViLAForImageTextRetrieval: (12, 2),  # true pairs, wrong images, wrong texts
        CBViLAForVisualEntailment: (4, 3),
        CBViLAForVisualReasoning: (4, 2),
        CBViLAForMaskedImageModeling: (4, PATCHES, 16),
    }
    if head in expected:
        assert first.shape == expected[head]


def test_trainer_moves_codes_of_masked_image_modeling(tmp_path):
    model, batch = build(CBViLAForMaskedImageModeling), batch_for(CBViLAForMaskedImageModeling)
    before = model.cbvila.quantizer.table.codes.clone()
    arguments = CBViLATrainingArguments(output_dir=str(tmp_path), max_steps=2, use_cpu=True, disable_tqdm=True)
    CBViLATrainer(model, arguments, train_dataset=Rows(batch), data_collator=default_data_collator).train()
    table = model.cbvila.quantizer.table
    assert bool(table.initialized) and not torch.equal(before, table.codes)
    assert not table.pending_counts.any()
