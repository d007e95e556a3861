"""The Q-Former without heads: what attends to what, its two feed-forward parts, and its inputs."""

import pytest
import tiny
import torch
from equal_tensors import assert_equal_weights
from tiny_qformer import DEC, QUERIES, WIDTH, build_qformer, image_tokens

from transformers_cbvila.model.configuration_cbvila_qformer import CBViLAQFormerConfig
from transformers_cbvila.model.encoder_configurations_cbvila import CBViLAVisionConfig
from transformers_cbvila.model.modeling_cbvila_qformer import CBViLAQFormerModel

PATTERNS = ("unimodal", "bidirectional", "causal")


def states(model, text=None, image=None, **options):
    with torch.no_grad():
        return model(**(text or {}), encoder_hidden_states=image, **options).last_hidden_state


def changed_rows(model, pattern, place):
    """Rows of the last states that change with the text token at `place`."""
    text, image = tiny.tiny_texts(1, 3, padding=(0,)), image_tokens(1)
    before = states(model, text, image, attention_pattern=pattern)
    text["input_ids"] = text["input_ids"].clone()
    text["input_ids"][0, place] = 20
    after = states(model, text, image, attention_pattern=pattern)
    return ((before - after).abs().amax(-1)[0] > 1e-6).nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("pattern", "rows"), [("unimodal", [2, 3, 4]), ("bidirectional", [0, 1, 2, 3, 4]), ("causal", [3, 4])]
)
def test_moving_the_second_text_token_changes_what_sees_it(pattern, rows):
    """Rows 4 and 5, counted from 1, under generation's mask; no query but under matching's."""
    assert changed_rows(build_qformer(num_query_tokens=2), pattern, 1) == rows


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padded_text_equals_text_alone(pattern, attention):
    model, image = build_qformer(), image_tokens(3)
    model.set_attn_implementation(attention)
    text = tiny.tiny_texts(3, 7, padding=(0, 2, 3))
    together = states(model, text, image, attention_pattern=pattern)
    for row, length in enumerate((7, 5, 4)):
        one = {"input_ids": text["input_ids"][row : row + 1, :length]}
        alone = states(model, one, image[row : row + 1], attention_pattern=pattern)
        torch.testing.assert_close(together[row : row + 1, : QUERIES + length], alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_attention_back_ends_are_equal(pattern):
    model, text, image = build_qformer().double(), tiny.tiny_texts(), image_tokens(dtype=torch.float64)
    outputs = []
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        outputs.append(states(model, text, image, attention_pattern=pattern))
    torch.testing.assert_close(*outputs, atol=1e-10, rtol=0)


def test_unimodal_pass_equals_passes_of_each():
    model, text, image = build_qformer(), tiny.tiny_texts(), image_tokens()
    both = states(model, text, image, attention_pattern="unimodal")
    torch.testing.assert_close(both[:, :QUERIES], states(model, image=image), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(both[:, QUERIES:], states(model, text), atol=1e-6, rtol=1e-5)


def test_queries_of_a_causal_pass_are_those_without_text():
    model, image = build_qformer(), image_tokens()
    both = states(model, tiny.tiny_texts(), image, attention_pattern="causal")
    torch.testing.assert_close(both[:, :QUERIES], states(model, image=image), atol=1e-6, rtol=1e-5)


def test_cross_attention_is_in_every_second_layer_and_of_queries_only():
    model = build_qformer(num_hidden_layers=5)
    assert [layer.has_cross_attention for layer in model.layers] == [True, False, True, False, True]
    text, image = tiny.tiny_texts(), image_tokens()
    with torch.no_grad():
        output = model(**text, encoder_hidden_states=image, output_attentions=True, output_hidden_states=True)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(**text, encoder_hidden_states=image, output_attentions=True, output_hidden_states=True)
    assert [tuple(weights.shape) for weights in output.cross_attentions] == [(4, 4, QUERIES, 17)] * 3
    assert [tuple(weights.shape) for weights in output.attentions] == [(4, 4, QUERIES + 7, QUERIES + 7)] * 5
    assert len(output.hidden_states) == 6 and torch.equal(output.hidden_states[-1], output.last_hidden_state)


def test_encoder_index_is_the_image_of_each_row():
    model, text, image = build_qformer(), tiny.tiny_texts(), image_tokens(2)
    index = torch.tensor([1, 0, 0, 1])
    shared = states(model, text, image, encoder_index=index)
    torch.testing.assert_close(shared, states(model, text, image[index]), atol=1e-6, rtol=1e-5)


def test_inputs_embeds_are_token_embeddings():
    model, text, image = build_qformer(), tiny.tiny_texts(), image_tokens()
    embeds = model.get_input_embeddings()(text["input_ids"])
    other = states(model, {"inputs_embeds": embeds, "attention_mask": text["attention_mask"]}, image)
    assert torch.equal(states(model, text, image), other)


def test_initial_weights_copy_feed_forward_parts_and_first_token():
    model = build_qformer()
    for layer in model.layers:
        assert_equal_weights(layer.query_mlp, layer.mlp)
        assert_equal_weights(layer.query_layernorm, layer.output_layernorm)
        assert layer.query_mlp.fc1.weight.std().item() == pytest.approx(0.1, rel=0.2)
    words = model.embeddings.word_embeddings.weight
    assert torch.equal(words[DEC], words[tiny.CLS]) and not torch.equal(words[DEC], words[tiny.SEP])
    assert model.embeddings.query_tokens.std().item() == pytest.approx(0.1, rel=0.3)
    assert not words[tiny.PAD].any()


def test_text_weights_of_a_checkpoint_without_queries_start_those_of_queries(tmp_path):
    model = build_qformer(seed=1)
    kept = {name: value for name, value in model.state_dict().items() if ".query_" not in name}
    model.save_pretrained(tmp_path, state_dict=kept)
    loaded, info = CBViLAQFormerModel.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == {"embeddings.query_tokens"}
    for layer, other in zip(loaded.layers, model.layers, strict=True):
        assert_equal_weights(layer.query_mlp, other.mlp)


def test_checkpoint_loads_again(tmp_path):
    model = build_qformer()
    model.layers[0].query_mlp.fc1.weight.data.add_(1.0)  # no longer that of text
    model.save_pretrained(tmp_path)
    loaded, info = CBViLAQFormerModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert_equal_weights(loaded, model)
    assert type(loaded.config.vision_config) is CBViLAVisionConfig and loaded.config.num_query_tokens == QUERIES


def test_qformer_without_text_has_the_same_queries():
    model = build_qformer()
    queries = CBViLAQFormerModel(model.config, add_text=False).eval()
    missing, unexpected = queries.load_state_dict(model.state_dict(), strict=False)
    assert not missing and {name.split(".")[-2] for name in unexpected} == {
        "word_embeddings",
        "position_embeddings",
        "fc1",
        "fc2",
        "output_layernorm",
    }
    image = image_tokens()
    assert torch.equal(states(queries, image=image), states(model, image=image))
    with pytest.raises(ValueError, match="built without text"):
        queries(torch.tensor([[2, 7, 3]]))


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = build_qformer().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        output = model(**tiny.tiny_texts(), encoder_hidden_states=image_tokens())
        output.last_hidden_state.square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Nothing to encode"),
        ({"input_ids": torch.ones(1, 3, dtype=torch.long), "inputs_embeds": torch.ones(1, 3, WIDTH)}, "not both"),
        ({"input_ids": torch.full((1, 3), DEC + 1)}, "hold 61, but the vocabulary has 61 tokens"),
        ({"input_ids": torch.ones(1, 17, dtype=torch.long)}, "has 17 tokens; the model takes 1 to 16"),
        (
            {"input_ids": torch.ones(3, 3, dtype=torch.long), "encoder_hidden_states": image_tokens(2)},
            r"Got 2 image\(s\) and 3 text\(s\)",
        ),
        ({"encoder_hidden_states": torch.ones(1, 5, 48)}, "are 48 wide, and this Q-Former reads image tokens 32 wide"),
    ],
)
def test_model_says_what_is_wrong(given, message):
    with pytest.raises(ValueError, match=message):
        build_qformer()(**given)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_query_tokens": 0}, "qformer_config: num_query_tokens=0 must be positive"),
        ({"cross_attention_frequency": 0}, "cross_attention_frequency=0 must be positive"),
        ({"hidden_size": 25}, "hidden_size 25 is not a multiple of num_attention_heads 12"),
        ({"label_smoothing": 1.0}, r"label_smoothing=1.0 must be in \[0, 1\)"),
        ({"dec_token_id": DEC + 1}, "dec_token_id=61 is none of the 61 tokens"),
        ({"num_query_token": 4}, "did you mean 'num_query_tokens'"),
        ({"vision_config": 3}, "vision_config is 3"),
    ],
)
def test_configuration_says_what_is_wrong(fields, message):
    with pytest.raises(ValueError, match=message):
        CBViLAQFormerConfig(**({"vocab_size": DEC + 1, "dec_token_id": DEC} | fields))
