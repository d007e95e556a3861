"""Outputs of heads do not depend on attention back end, padding, compilation, export, storage or adapters of 0."""

import pytest
import torch
from tiny import SIDE, build
from tiny_heads import HEADS, assert_close, batch_for, floats
from torch.export import Dim
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.utils import is_torch_flex_attn_available

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForMaskedImageModeling,
    CBViLAForPreTraining,
    CBViLAForQuestionAnswering,
    CBViLAForVisualReasoning,
)
from transformers_cbvila.model import nearest_codes_cbvila

every_head = pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)


def run(model, inputs):
    with torch.no_grad():
        return model(**inputs)


@every_head
@pytest.mark.parametrize("padded", [True, False])
def test_sdpa_equals_eager_attention(head, padded):
    model, inputs = build(head), batch_for(head)
    if not padded:
        inputs.pop("attention_mask")
    model.set_attn_implementation("eager")
    expected = run(model, inputs)
    model.set_attn_implementation("sdpa")
    assert_close(run(model, inputs), expected)


@every_head
@pytest.mark.slow
@pytest.mark.skipif(not is_torch_flex_attn_available(), reason="this torch has no flex attention")
def test_flex_attention_equals_eager_attention(head):
    model, inputs = build(head), batch_for(head)
    model.set_attn_implementation("eager")
    expected = run(model, inputs)
    model.set_attn_implementation("flex_attention")
    torch._dynamo.reset()
    # One kernel per shape: torch 2.13's flex kernel for CPUs fails its own bounds check when a size is dynamic.
    with torch._dynamo.config.patch(automatic_dynamic_shapes=False):
        assert_close(run(model, inputs), expected)


@every_head
def test_padding_does_not_change_outputs(head):
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
def test_batch_of_one_equals_a_row_of_a_batch(head):
    """Losses and similarities are of batches; and pretraining has no negative in a batch of one."""
    model, inputs = build(head), batch_for(head)
    if head in (CBViLAForPreTraining, CBViLAForImageTextRetrieval):
        inputs.pop("return_loss", None)
        model.config.itm_weight = 0.0
    expected = run(model, inputs)
    of_batches = ("loss", "losses", "itc_loss", "logits_per_image", "logits_per_text", "codebook_statistics")
    masked = ("mlm_logits", "mim_logits")  # one row per masked place
    for row in range(2):
        output = run(model, {k: v[row : row + 1] if isinstance(v, torch.Tensor) else v for k, v in inputs.items()})
        for name, value in floats(output).items():
            if name.partition(".")[0] not in of_batches + masked:
                torch.testing.assert_close(value[0], floats(expected)[name][row], atol=1e-5, rtol=1e-5, msg=name)


@every_head
def test_compile_gives_one_graph(head):
    model, inputs = build(head), batch_for(head)
    expected = run(model, inputs)
    torch._dynamo.reset()
    assert_close(run(torch.compile(model, backend="eager", fullgraph=True), inputs), expected)


@every_head
def test_compile_training_gives_one_graph(head):
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
def test_compile_inductor_equals_eager(head):
    model, inputs = build(head), batch_for(head)
    expected = run(model, inputs)
    torch._dynamo.reset()
    assert_close(run(torch.compile(model, fullgraph=True), inputs), expected)


@every_head
@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
def test_export_equals_eager(head, strict):
    model, inputs = build(head), batch_for(head)
    expected = run(model, inputs)
    with torch.no_grad():
        program = torch.export.export(model, (), inputs, strict=strict)
    assert_close(run(program.module(), inputs), expected)


# Which size of an input is the batch's, and which the text's.
DYNAMIC = {name: {0: Dim.AUTO, 1: Dim.AUTO} for name in ("input_ids", "attention_mask")}
DYNAMIC |= {name: {0: Dim.AUTO} for name in ("pixel_values", "bool_masked_pos")}


def served(head, **sizes):
    """Inputs without a loss, as a model is served."""
    return {name: value for name, value in batch_for(head, **sizes).items() if name in DYNAMIC}


@every_head
def test_export_for_any_batch_and_text_length(head, monkeypatch):
    """With more tokens than are compared with the codes at once in some batches, and fewer in others."""
    monkeypatch.setattr(nearest_codes_cbvila, "_CHUNK", 50)
    model, inputs = build(head), served(head, batch=4, length=7)
    with torch.no_grad():
        shapes = {name: DYNAMIC[name] for name in inputs}
        module = torch.export.export(model, (), inputs, dynamic_shapes=shapes, strict=False).module()
    for sizes in ({"batch": 3, "length": 9}, {"batch": 1, "length": 5}, {"batch": 9, "length": 4}):
        other = served(head, **sizes)
        assert_close(run(module, other), run(model, other))


@every_head
@pytest.mark.slow
@pytest.mark.parametrize("side", [64, 256])
def test_export_takes_any_batch_size(head, side):
    """At 256 pixels, 17 images have more patches than are compared with the codes at once."""
    vision = {"image_size": side, "patch_size": 16, "num_hidden_layers": 1}
    model = build(head, vision=vision, text={"num_hidden_layers": 1}, fusion={"num_hidden_layers": 1})

    def inputs(batch):
        made = served(head, batch=batch, side=side)
        if "bool_masked_pos" in made:
            made["bool_masked_pos"] = torch.rand(batch, (side // 16) ** 2) < 0.4
        return made

    batch = Dim("batch", max=64)
    with torch.no_grad():
        shapes = {name: {0: batch} for name in inputs(2)}
        module = torch.export.export(model, (), inputs(2), dynamic_shapes=shapes).module()
    for size in (1, 2, 17, 64):
        given = inputs(size)
        assert_close(run(module, given), run(model, given))


@every_head
def test_peft_zero_adapter_does_not_change_outputs(head):
    peft = pytest.importorskip("peft")
    model, inputs = build(head), batch_for(head)
    expected = run(model, inputs)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).eval()
    assert_close(run(adapted, inputs), expected)
    output = adapted(**inputs)
    (output.loss if "loss" in output else output.last_hidden_state.sum()).backward()
    trained = [name for name, p in adapted.named_parameters() if p.grad is not None and p.grad.any()]
    assert trained and all("lora_" in name for name in trained)


# Every head, and those that other options make of it.
ADAPTED = [(head, {}) for head in HEADS] + [
    (CBViLAForPreTraining, {"mim_head": "tied", "itm_kv": "both", "mim_cls_bag_weight": 1.0}),
    (CBViLAForPreTraining, {"quantizer_config": {"type": "class_guided", "feature_layers": [1, 2]}}),
    (CBViLAForVisualReasoning, {"reasoning_fusion": "twin"}),
    (CBViLAForQuestionAnswering, {"tie_word_embeddings": False}),
]


EMBEDDINGS = ["word_embeddings", "position_embeddings", "patch_embedding", "q_proj"]


@pytest.mark.parametrize("targets", ["all-linear", EMBEDDINGS], ids=["linear", "embeddings"])
@pytest.mark.parametrize("head, fields", ADAPTED, ids=lambda value: getattr(value, "__name__", str(value)))
def test_peft_merged_adapter_equals_the_adapter(head, fields, targets):
    peft = pytest.importorskip("peft")
    model, inputs = build(head, **fields), batch_for(head)
    if targets == EMBEDDINGS:  # where words are tied, PEFT adapts both or neither; here, neither is merged
        targets = [name for name in EMBEDDINGS if name != "word_embeddings" or not model._tied_weights_keys]
    before = run(model, inputs)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=targets)).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = run(adapted, inputs)
    assert max((value - floats(before)[name]).abs().max() for name, value in floats(expected).items()) > 1e-2
    assert_close(run(adapted.merge_and_unload(), inputs), expected)


@every_head
def test_output_embeddings_name_all_tied_weights(head):
    """What asks for output embeddings, such as PEFT, is told of all that are tied to a table of words."""
    model = build(head)
    tied = {name.removesuffix(".weight") for name in model._tied_weights_keys or {}}
    named = {name for name, module in model.named_modules() if module is model.get_output_embeddings()}
    assert named == tied
    if tied:
        other = torch.nn.Linear(1, 1)
        model.set_output_embeddings(other)
        assert model.get_output_embeddings() is other


@every_head
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_close_to_single(head, dtype, tmp_path):
    """Within 4 units of the last place of an output's largest value on average, and 16 at most.

    Where rounding changes a decision (the nearest code of a patch, the hardest negative, the likeliest hidden word),
    what follows from it is another thing and not compared.
    """
    model, inputs = build(head), batch_for(head)
    model.save_pretrained(tmp_path)
    half = head.from_pretrained(tmp_path, dtype=dtype).eval()
    assert half.dtype == half.config.dtype == dtype
    for name, tensor in half.state_dict().items():
        if tensor.is_floating_point():
            assert tensor.dtype == (torch.float32 if "quantizer." in name or "logit_scale" in name else dtype), name
    expected, actual = run(model, inputs), run(half, inputs)
    same = torch.ones(4, dtype=torch.bool)
    if "codebook_indices" in expected:
        agreement = actual.codebook_indices == expected.codebook_indices
        same = agreement.all(-1)
        assert agreement.float().mean() > 0.9 and same.any()
    for name, value in floats(expected).items():
        if name.partition(".")[0] in ("losses", "codebook_statistics", "mlm_logits", "mim_logits", "reconstruction"):
            continue
        found = floats(actual)[name].float()
        if value.dim():
            value, found = value[:4][same], found[:4][same]  # of `itm_logits` the true pairs
        unit = torch.finfo(dtype).eps * value.abs().max()
        mean, most = (found - value).abs().mean() / unit, (found - value).abs().max() / unit
        assert mean <= 4 and most <= 16, f"{name}: {mean} on average, {most} at most"


class CastsDown(TorchDispatchMode):
    """Records operations that take a tensor of fp64 with more than one number and make one of lower precision."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        wide = any(isinstance(x, torch.Tensor) and x.dtype == torch.float64 and x.numel() > 1 for x in args)
        if wide and isinstance(result, torch.Tensor) and result.dtype in (torch.float32, torch.float16):
            self.found.add(str(operation))
        return result


@every_head
@pytest.mark.parametrize("preset", ["recommended", "paper"])
def test_double_precision_is_kept(head, preset):
    model, inputs = build(head, preset=preset).double(), batch_for(head)
    inputs["pixel_values"] = inputs["pixel_values"].double()
    with CastsDown() as casts:
        output = run(model, inputs)
    assert not casts.found
    dtypes = {name: value.dtype for name, value in floats(output).items() if "statistics" not in name}  # of counts
    assert set(dtypes.values()) == {torch.float64}


@every_head
def test_sharded_checkpoint_device_map_and_meta_loading(head, tmp_path):
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


def map_with(parts, name, module):
    """A device map of `module` with the named `parts` on disk."""
    if name in parts:
        return {name: "disk"}
    if not any(part.startswith(f"{name}.".lstrip(".")) for part in parts):
        return {name: "cpu"}
    full = f"{name}.".lstrip(".")
    found = {full + own: "cpu" for own in (*module._parameters, *module._buffers)}
    for child, part in module.named_children():
        found |= map_with(parts, full + child, part)
    return found


@every_head
@pytest.mark.parametrize("preset", ["recommended", "paper"])
@pytest.mark.parametrize("way", ["explicit", "auto"])
def test_device_map_offload_to_disk(way, preset, head, tmp_path):
    """With a part of every kind on disk, and with whatever does not fit into 60 KB."""
    model, inputs = build(head, preset=preset), batch_for(head)
    expected = run(model, inputs)
    model.save_pretrained(tmp_path)
    base = getattr(model, "cbvila", model)
    # Not an embedding that is tied to a head elsewhere: accelerate refuses that.
    text = "layers.0" if head is CBViLAForPreTraining else "embeddings"
    parts = ["vision_model.layers.1", f"text_model.{text}", "fusion_model.layers.0"]
    parts += ["quantizer", "visual_queries"] if base.has_quantizer else []
    parts = {part if base is model else f"cbvila.{part}" for part in parts}
    options = {"device_map": map_with(parts, "", model)}
    if way == "auto":
        options = {"device_map": "auto", "max_memory": {"cpu": "60KB"}}
    offloaded = head.from_pretrained(tmp_path, offload_folder=tmp_path / "offload", **options).eval()
    assert "disk" in offloaded.hf_device_map.values()
    assert_close(run(offloaded, inputs), expected)


@every_head
def test_interpolate_pos_encoding_takes_larger_images(head):
    inputs = batch_for(head, batch=2, side=SIDE * 2)
    model = build(head)
    expected = run(model, {**inputs, "interpolate_pos_encoding": True})
    assert "loss" not in expected or torch.isfinite(expected["loss"])
    with pytest.raises(ValueError, match="interpolate_pos_encoding=True"):
        model(**inputs)
    # What interpolation makes for one forward, made once and for all.
    for name, parameter in model.named_parameters():
        if name.endswith("vision_model.embeddings.position_embeddings") or name.endswith(
            "visual_queries.position_embeddings"
        ):
            grid = parameter[:, 1:].detach().unflatten(1, (4, 4)).permute(0, 3, 1, 2)
            resized = torch.nn.functional.interpolate(grid, size=(8, 8), mode="bicubic")
            parameter.data = torch.cat([parameter[:, :1], resized.flatten(2).mT], 1)
    model.config.vision_config.image_size = 2 * SIDE
    torch.testing.assert_close(run(model, {**inputs, "interpolate_pos_encoding": True}), expected)


@every_head
def test_inputs_embeds_equal_input_ids(head):
    if head is CBViLAForPreTraining:
        pytest.skip("pretraining masks and compares ids")
    model, inputs = build(head), batch_for(head)
    expected = run(model, inputs)
    inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids")).detach()
    assert_close(run(model, inputs), expected)


@every_head
def test_gradient_checkpointing_does_not_change_gradients(head):
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
def test_loss_reaches_every_weight(head):
    if head is HEADS[0]:
        pytest.skip("the base model has no loss")
    model = build(head).train()
    model(**batch_for(head)).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@every_head
def test_config_output_options_are_respected(head):
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
