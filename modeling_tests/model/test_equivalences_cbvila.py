"""What must not change a head's outputs: attention back end, padding, compilation, export, storage, adapters at 0."""

import pytest
import torch
from tiny import SIDE, build
from tiny_heads import HEADS, assert_close, batch_for

from transformers_cbvila import CBViLAForMaskedImageModeling, CBViLAForPreTraining, CBViLAForQuestionAnswering

every_head = pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)


def run(model, inputs):
    with torch.no_grad():
        return model(**inputs)


@every_head
@pytest.mark.parametrize("padded", [True, False])
def test_sdpa_is_eager(head, padded):
    model, inputs = build(head), batch_for(head)
    if not padded:
        inputs.pop("attention_mask")
    model.set_attn_implementation("eager")
    expected = run(model, inputs)
    model.set_attn_implementation("sdpa")
    assert_close(run(model, inputs), expected)


@every_head
def test_padding_changes_nothing(head):
    model = build(head)
    bare = batch_for(head, padding=(0,))
    padded = dict(bare)
    for name, filler in {"input_ids": 0, "attention_mask": 0, "input_ids_masked": 0, "mlm_labels": -100}.items():
        if name in bare:
            padded[name] = torch.nn.functional.pad(bare[name], (0, 3), value=filler)
    expected, actual = run(model, bare), run(model, padded)
    for name in ("last_hidden_state", "text_last_hidden_state", "question_hidden_states"):
        if name in actual:
            actual[name] = actual[name][:, :-3]
    assert_close(actual, expected)


@every_head
def test_a_batch_of_one(head):
    model, inputs = build(head), batch_for(head, batch=1)
    output = run(model, inputs)
    assert "loss" not in output or torch.isfinite(output["loss"])


@every_head
def test_compiles_as_one_graph(head):
    model, inputs = build(head), batch_for(head)
    expected = run(model, inputs)
    torch._dynamo.reset()
    assert_close(run(torch.compile(model, backend="eager", fullgraph=True), inputs), expected)


@every_head
def test_training_compiles_as_one_graph(head):
    if head is HEADS[0]:
        pytest.skip("the base model has no loss")
    inputs = batch_for(head)
    gradients = []
    for compiled in (False, True):
        model = build(head).train()
        if head is CBViLAForPreTraining:  # a compiled draw of negatives is another draw
            model.config.itm_weight = 0.0
        torch._dynamo.reset()
        runner = torch.compile(model, backend="eager", fullgraph=True) if compiled else model
        torch.manual_seed(0)
        runner(**inputs).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@every_head
@pytest.mark.slow
def test_inductor(head):
    model, inputs = build(head), batch_for(head)
    expected = run(model, inputs)
    torch._dynamo.reset()
    assert_close(run(torch.compile(model, fullgraph=True), inputs), expected, atol=1e-4)


@every_head
def test_export(head):
    model, inputs = build(head), batch_for(head)
    expected = run(model, inputs)
    with torch.no_grad():
        program = torch.export.export(model, (), inputs, strict=False)
    assert_close(run(program.module(), inputs), expected)


@every_head
def test_an_adapter_of_zero(head):
    peft = pytest.importorskip("peft")
    model, inputs = build(head), batch_for(head)
    expected = run(model, inputs)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).eval()
    assert_close(run(adapted, inputs), expected)
    output = adapted(**inputs)
    (output.loss if "loss" in output else output.last_hidden_state.sum()).backward()
    trained = [name for name, p in adapted.named_parameters() if p.grad is not None and p.grad.any()]
    assert trained and all("lora_" in name for name in trained)


@every_head
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(head, dtype, tmp_path):
    """Within 2 % of the loss, or 0.05 of joint representations: the nearest code of a few patches may change."""
    model, inputs = build(head), batch_for(head)
    model.save_pretrained(tmp_path)
    half = head.from_pretrained(tmp_path, dtype=dtype).eval()
    expected, actual = run(model, inputs), run(half, inputs)
    if "loss" in expected:
        torch.testing.assert_close(actual.loss.float(), expected.loss, rtol=0.02, atol=0.02)
    else:
        torch.testing.assert_close(actual.pooler_output.float(), expected.pooler_output, rtol=0.05, atol=0.05)


@every_head
def test_double_precision_is_kept(head):
    model, inputs = build(head).double(), batch_for(head)
    inputs["pixel_values"] = inputs["pixel_values"].double()
    output = run(model, inputs)
    value = output.loss if "loss" in output else output.last_hidden_state
    assert value.dtype == torch.float64


@every_head
def test_shards_device_map_and_meta(head, tmp_path):
    model, inputs = build(head), batch_for(head)
    expected = run(model, inputs)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_close(run(head.from_pretrained(tmp_path, device_map={"": "cpu"}).eval(), inputs), expected)
    with torch.device("meta"):
        empty = head(model.config).eval()
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    empty.load_state_dict(model.state_dict(), assign=True)
    empty.tie_weights()
    for name, buffer in model.named_buffers():  # those that no state dict holds
        owner, _, leaf = name.rpartition(".")
        setattr(empty.get_submodule(owner), leaf, buffer)
    assert_close(run(empty, inputs), expected)


@every_head
def test_larger_images(head):
    inputs = batch_for(head, batch=2, side=SIDE * 2)
    model = build(head)
    output = model(**inputs, interpolate_pos_encoding=True)
    assert "loss" not in output or torch.isfinite(output["loss"])
    with pytest.raises(ValueError, match="interpolate_pos_encoding=True"):
        model(**inputs)


@every_head
def test_embeddings_in_the_place_of_ids(head):
    if head is CBViLAForPreTraining:
        pytest.skip("pretraining masks and compares ids")
    model, inputs = build(head), batch_for(head)
    expected = run(model, inputs)
    inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids")).detach()
    assert_close(run(model, inputs), expected)


@every_head
def test_gradient_checkpointing_changes_no_gradient(head):
    if head is HEADS[0]:
        pytest.skip("the base model has no loss")
    inputs, gradients = batch_for(head), []
    for checkpointing in (False, True):
        model = build(head).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(0)
        model(**inputs).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-5, msg=name)


@every_head
def test_every_weight_is_reached_by_the_loss(head):
    if head is HEADS[0]:
        pytest.skip("the base model has no loss")
    model = build(head).train()
    model(**batch_for(head)).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@every_head
def test_options_of_the_configuration(head):
    """What the configuration says to return is returned, and comes last."""
    model, inputs = build(head), batch_for(head)
    model.set_attn_implementation("eager")
    assert not {"hidden_states", "attentions"} & run(model, inputs).keys()
    model.config.output_hidden_states = model.config.output_attentions = True
    output = run(model, inputs)
    assert len(output.hidden_states) == 3 and len(output.attentions) == len(output.cross_attentions) == 2
    assert list(output)[-3:] == ["hidden_states", "attentions", "cross_attentions"]
    assert "hidden_states" not in run(model, {**inputs, "output_hidden_states": False})


@pytest.mark.parametrize("head", [CBViLAForPreTraining, CBViLAForMaskedImageModeling, CBViLAForQuestionAnswering])
def test_loss_comes_first_in_tuples(head):
    model, inputs = build(head), batch_for(head)
    assert torch.equal(run(model, {**inputs, "return_dict": False})[0], run(model, inputs).loss)
