"""Visual reasoning with alternating fusion layers, against the layers called one by one."""

import pytest
import tiny
import torch
from tiny_heads import HEADS, assert_close, batch_for

from transformers_cbvila import (
    CBViLAForPreTraining,
    CBViLAForVisualReasoning,
    CBViLAModel,
)
from transformers_cbvila.model.modeling_cbvila_layers import CBViLATextLayer

TWINS = "cbvila.fusion_model.twin_layers."


def twin_model(**fields):
    return tiny.build(CBViLAForVisualReasoning, reasoning_fusion="twin", **fields)


def batch():
    return batch_for(CBViLAForVisualReasoning)


@torch.no_grad()
def slow_logits(model, pixel_values, input_ids, attention_mask):
    """One statement at a time, without padding, each twin as a whole layer with keys and values of its pair."""
    encoders, rows = model.cbvila, []
    for images, ids, mask in zip(pixel_values, input_ids, attention_mask, strict=True):
        tokens = [encoders.vision_model(image[None]).last_hidden_state for image in images]
        states = [encoders.image_states_for_text(image) for image in tokens]
        text = encoders.text_model(ids[mask.bool()][None]).last_hidden_state
        for layer, twin in zip(encoders.fusion_model.layers, encoders.fusion_model.twin_layers, strict=True):
            config = encoders.fusion_model.config
            whole = CBViLATextLayer(config, 0, key_value_size=config.encoder_hidden_size).eval()
            shared = {
                k: v for k, v in layer.state_dict().items() if k.startswith(("crossattention.k", "crossattention.v"))
            }
            whole.load_state_dict(twin.state_dict() | shared)
            text = layer(text, None, states[0])
            text = whole(text, None, states[1])
        rows.append(model.reasoning_head(text[0, 0]))
    return torch.stack(rows)


@pytest.mark.parametrize("itm_kv", ["continuous", "quantized", "both"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_twin_fusion_layers_alternate_between_images(itm_kv, attention):
    model, inputs = twin_model(itm_kv=itm_kv), batch()
    model.set_attn_implementation(attention)
    output = model(**inputs, output_hidden_states=True, output_attentions=attention == "eager")
    inputs.pop("labels")
    torch.testing.assert_close(output.logits, slow_logits(model, **inputs), atol=1e-5, rtol=1e-5)
    assert len(output.hidden_states) == 1 + 4 and output.hidden_states[0].shape[0] == 4
    if attention == "eager":
        assert len(output.cross_attentions) == 4
    swapped = model(**inputs | {"pixel_values": inputs["pixel_values"].flip(1)}).logits
    assert (output.logits - swapped).abs().max() > 1e-3


def test_twin_layers_have_no_keys_and_values():
    model = twin_model()
    prefix = "cbvila.fusion_model.layers."
    layer = {name.removeprefix(prefix) for name in model.state_dict() if name.startswith(prefix)}
    twins = {name.removeprefix(TWINS) for name in model.state_dict() if name.startswith(TWINS)}
    assert layer - twins == {
        f"{i}.crossattention.{part}_proj.{ending}" for i in (0, 1) for part in "kv" for ending in ("weight", "bias")
    }
    assert twins < layer
    assert not [name for name in tiny.build(CBViLAForVisualReasoning).state_dict() if "twin" in name]


def test_twin_fusion_weights_learn_and_are_saved(tmp_path):
    model = twin_model().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(**batch()).loss.backward()
    optimizer.step()
    still = [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    assert all("k_proj.bias" in name for name in still)  # a softmax does not see them
    model.eval().save_pretrained(tmp_path)
    loaded, info = CBViLAForVisualReasoning.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert_close(loaded(**batch()), model(**batch()), atol=0)


def test_twin_fusion_keys_learn_from_both_images():
    model, inputs = twin_model(), batch()
    gradients = []
    for layer in ("layers", "twin_layers"):
        model.zero_grad()
        cut = getattr(model.cbvila.fusion_model, layer)
        with torch.no_grad():
            kept = [module.crossattention.o_proj.weight.clone() for module in cut]
            for module in cut:
                module.crossattention.o_proj.weight.zero_()
        model(**inputs).loss.backward()
        gradients.append(model.cbvila.fusion_model.layers[0].crossattention.v_proj.weight.grad.clone())
        with torch.no_grad():
            for module, weight in zip(cut, kept, strict=True):
                module.crossattention.o_proj.weight.copy_(weight)
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_twin_fusion_gradient_checkpointing_does_not_change_gradients():
    model, inputs = twin_model().train(), batch()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**inputs).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert_close(gradients[0], gradients[1])


def test_twin_layers_start_from_the_fusion_encoder(tmp_path, logged):
    pretrained = tiny.build(CBViLAForPreTraining)
    pretrained.save_pretrained(tmp_path)
    model, info = CBViLAForVisualReasoning.from_pretrained(tmp_path, reasoning_fusion="twin", output_loading_info=True)
    assert "were copied from the fusion layers" in logged.text
    assert {name.partition(".")[0] for name in info["missing_keys"]} == {"reasoning_head"}
    layers = pretrained.cbvila.fusion_model.layers.state_dict()
    for name, value in model.cbvila.fusion_model.twin_layers.state_dict().items():
        assert torch.equal(value, layers[name]), name


def test_twin_layers_lacking_a_weight_are_not_overwritten(tmp_path):
    model = twin_model()
    state = model.state_dict()
    lost = f"{TWINS}1.mlp.fc1.bias"
    model.save_pretrained(tmp_path, state_dict={name: value for name, value in state.items() if name != lost})
    loaded, info = CBViLAForVisualReasoning.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == {lost}
    kept = f"{TWINS}1.mlp.fc2.weight"
    assert torch.equal(loaded.state_dict()[kept], state[kept])


@pytest.mark.parametrize(
    "head", [head for head in HEADS if head not in (CBViLAForPreTraining, CBViLAForVisualReasoning)]
)
def test_twin_layers_are_left_out_by_other_heads(tmp_path, logged, head):
    model = twin_model()
    model.save_pretrained(tmp_path)
    with logged.at_level("INFO"):
        loaded, info = head.from_pretrained(tmp_path, output_loading_info=True)
    assert "twin_layers (44 tensors)" in logged.text
    assert not [name for name in info["unexpected_keys"] if "twin" in name]
    fusion = loaded.fusion_model if head is CBViLAModel else loaded.cbvila.fusion_model
    for name, value in fusion.state_dict().items():
        assert torch.equal(value, model.cbvila.fusion_model.state_dict()[name])


def test_twin_fusion_rejects_impossible_options():
    with pytest.raises(ValueError, match="reasoning_fusion='both' is not one of 'separate', 'twin'"):
        tiny.tiny_config(reasoning_fusion="both")
    with pytest.raises(ValueError, match="takes two images and num_images=3"):
        tiny.tiny_config(reasoning_fusion="twin", num_images=3)
    fusion, text = twin_model().cbvila.fusion_model, torch.zeros(2, 3, 24)
    with pytest.raises(ValueError, match=r"Got 3 image\(s\) for 2 text\(s\): twin layers need two for each"):
        fusion(text, encoder_hidden_states=torch.zeros(3, 5, 32))
    with pytest.raises(ValueError, match=r"Got 0 image\(s\)"):
        fusion(text)


@pytest.mark.slow
def test_twin_fusion_compiles_in_one_graph():
    model, inputs = twin_model(), batch()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_close(compiled(**inputs), model(**inputs))
