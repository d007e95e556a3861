"""The contract of quantizers, for every registered one."""

import copy

import pytest
import torch
from equal_tensors import assert_equal_tensors, assert_equal_weights
from tiny import PATCHES, tiny_pairs
from tiny_quantizers import WIDTH, fitted_model, latents_of, tiny_quantizer, visual_tokens

from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.model.configuration_cbvila import CBViLAConfig
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining
from transformers_cbvila.model.quantizer_output_cbvila import CBViLAGradients, CBViLAQuantizerHints
from transformers_cbvila.model.quantizers_cbvila import QUANTIZERS

# Small options of each kind, and further ones that are worth a test of their own. A new quantizer without an entry is
# tested with its defaults.
VARIANTS = {
    "adaptive": [{"tables": [[8, 8], [16, 4]]}, {"tables": [[4, 12], [8, 6], [16, 3]], "norm": "none"}],
    "nearest": [
        {"size": 16, "dim": 8},
        {"size": 16, "dim": None, "norm": "none", "update": "loss", "gradient": "gumbel"},
        {"size": 16, "dim": 8, "gradient": "rotation"},
    ],
    "fsq": [{"levels": [3, 5]}, {"levels": [4, 3, 2]}],
    "class_guided": [{"size": 16, "dim": 8}, {"size": 16, "dim": None, "norm": "none", "update": "loss"}],
    "residual": [{"depth": 3, "size": 8, "dim": 6}, {"size": 8, "dim": None, "update": "loss"}],
}
ALL = [{"type": name, **options} for name in QUANTIZERS for options in VARIANTS.get(name, [{}])]
ONE_OF_EACH = [{"type": name, **VARIANTS.get(name, [{}])[0]} for name in QUANTIZERS]


def shown(options):
    return "-".join(str(value) for value in options.values()).replace(" ", "")


each = pytest.mark.parametrize("options", ALL, ids=shown)
one_of_each = pytest.mark.parametrize("options", ONE_OF_EACH, ids=shown)


def by_book(quantizer, indices):
    """Indices (B, N) or (B, N, R) as (B, N, R)."""
    return indices.unsqueeze(-1) if len(quantizer.book_sizes) == 1 else indices


def state(quantizer):
    return {name: value.clone() for name, value in quantizer.state_dict().items()}


# What it gives


@each
def test_quantizer_indices_are_the_same_in_training_and_evaluation(options):
    quantizer = tiny_quantizer(options)
    tokens = visual_tokens()
    in_training = quantizer(tokens, remember=False).indices
    assert torch.equal(in_training, quantizer.eval()(tokens).indices)
    assert torch.equal(in_training, quantizer.lookup(quantizer.encode(tokens)))
    assert len(by_book(quantizer, in_training).flatten(0, 1).unique(dim=0)) > 3


@each
def test_quantizer_output_shapes(options):
    quantizer = tiny_quantizer(options)
    output = quantizer(visual_tokens())
    books = quantizer.book_sizes
    assert type(quantizer).sizes(quantizer.options) == books and quantizer.num_codes == sum(books)
    assert output.indices.shape == ((4, PATCHES) if len(books) == 1 else (4, PATCHES, len(books)))
    assert output.indices.dtype == output.counts.dtype == torch.long
    assert output.quantized.shape == output.detached.shape == (4, PATCHES, WIDTH)
    assert [len(codes) for codes in output.codes] == list(books)
    assert not any(codes.requires_grad for codes in output.codes)
    assert all(torch.equal(*pair) for pair in zip(output.codes, quantizer.head_codes(), strict=True))
    assert all(term.shape == () and term.isfinite() for term in (output.terms or {}).values())


@each
def test_quantizer_counts_are_those_of_each_book(options):
    quantizer = tiny_quantizer(options)
    output = quantizer(visual_tokens())
    of_books = by_book(quantizer, output.indices).unbind(-1)
    expected = [
        torch.bincount(indices.flatten(), minlength=size)
        for indices, size in zip(of_books, quantizer.book_sizes, strict=True)
    ]
    assert torch.equal(output.counts, torch.cat(expected))


@each
def test_quantizer_indices_to_quantized_equals_quantized(options):
    quantizer = tiny_quantizer(options).eval()
    output = quantizer(visual_tokens())
    assert torch.equal(quantizer.indices_to_quantized(output.indices), output.quantized)
    torch.testing.assert_close(output.detached, output.quantized)
    one = output.indices[0, 0]
    torch.testing.assert_close(quantizer.indices_to_quantized(one), output.quantized[0, 0])


@each
def test_quantizer_training_output_equals_evaluation(options):
    quantizer = tiny_quantizer(options)
    output = quantizer(visual_tokens(), remember=False)
    torch.testing.assert_close(output.detached, quantizer.indices_to_quantized(output.indices))
    samples = options.get("gradient") == "gumbel" or options["type"] == "adaptive"
    if not samples:
        torch.testing.assert_close(output.quantized, output.detached)


@each
def test_quantizer_takes_an_empty_batch(options):
    output = tiny_quantizer(options)(visual_tokens(0))
    assert output.indices.shape[:2] == (0, PATCHES) and output.quantized.shape == (0, PATCHES, WIDTH)
    assert output.counts.sum() == 0


@one_of_each
def test_quantizer_rejects_unused_hints(options):
    quantizer = tiny_quantizer(options)
    hints = CBViLAQuantizerHints(token_classes=torch.zeros(4, PATCHES, dtype=torch.long))
    if "token_classes" in quantizer.takes_hints:
        quantizer(visual_tokens(), hints=hints)
    else:
        with pytest.raises(ValueError, match=f"quantizer '{options['type']}' does not use token_classes"):
            quantizer(visual_tokens(), hints=hints)
    quantizer(visual_tokens(), hints=CBViLAQuantizerHints())


# Gradients


@each
@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("detached", [True, False])
def test_quantizer_gradients_flags_route_gradients(options, quantized, detached):
    quantizer = tiny_quantizer(options, CBViLAGradients(quantized, detached))
    for name, flag in (("quantized", quantized), ("detached", detached)):
        tokens = visual_tokens().requires_grad_()
        shown_tokens = quantizer(tokens)[name]
        if not shown_tokens.requires_grad:  # nothing is behind them
            assert not flag
            continue
        upstream = torch.randn(shown_tokens.shape, generator=generator_for(3))
        (gradient,) = torch.autograd.grad((shown_tokens * upstream).sum(), tokens, allow_unused=True)
        assert (gradient is not None and bool(gradient.any())) == flag, name


@each
def test_quantizer_detached_has_no_gradient_to_codes(options):
    quantizer = tiny_quantizer(options)
    codes = list(quantizer.code_parameters())
    detached = quantizer(visual_tokens().requires_grad_()).detached
    if codes:
        assert torch.autograd.grad(detached.sum(), codes, allow_unused=True) == (None,) * len(codes)


@each
def test_quantizer_terms_train_tokens_or_codes(options):
    quantizer = tiny_quantizer(options)
    tokens = visual_tokens().requires_grad_()
    terms = quantizer(tokens).terms or {}
    own = {name: terms.pop(name) for name in type(quantizer).loss_weights(quantizer.options)}
    for name, term in own.items():
        assert any(
            part is not None and part.any()
            for part in torch.autograd.grad(term, list(quantizer.parameters()), allow_unused=True, retain_graph=True)
        ), name
    for name, term in terms.items():
        inputs = list(quantizer.code_parameters()) if name == "codebook" else [tokens]
        others = [tokens] if name == "codebook" else list(quantizer.code_parameters())
        assert all(part.any() for part in torch.autograd.grad(term, inputs, retain_graph=True)), name
        if others:
            assert not any(
                part is not None and part.any()
                for part in torch.autograd.grad(term, others, allow_unused=True, retain_graph=True)
            ), name


# Precision


@each
def test_quantizer_ignores_autocast(options):
    quantizer = tiny_quantizer(options).eval()
    tokens = visual_tokens(32)
    plain = quantizer(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = quantizer(tokens)
        assert torch.equal(quantizer.lookup(quantizer.encode(tokens)), plain.indices)
        assert torch.equal(quantizer.indices_to_quantized(plain.indices), plain.quantized)
    assert torch.equal(mixed.indices, plain.indices) and torch.equal(mixed.quantized, plain.quantized)


@each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_quantizer_cast_as_a_whole_computes_in_at_least_fp32(options, dtype):
    quantizer = tiny_quantizer(options)
    before = quantizer(visual_tokens(), remember=False).indices
    output = quantizer.to(dtype)(visual_tokens().to(dtype))
    wide = torch.promote_types(dtype, torch.float32)
    assert quantizer.encode(visual_tokens().to(dtype)).dtype == wide
    assert all(codes.dtype == wide for codes in output.codes)
    assert all(term.dtype == wide for term in (output.terms or {}).values())
    assert (output.indices == before).float().mean() > 0.8
    quantizer.after_step()


@one_of_each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_quantizer_stays_fp32_in_half_precision_models(options, dtype, tmp_path):
    model = fitted_model(options)
    model.save_pretrained(tmp_path)
    half = CBViLAForPreTraining.from_pretrained(tmp_path, dtype=dtype)
    assert half.dtype == dtype
    quantizer = half.cbvila.quantizer
    tensors = [*quantizer.parameters(), *quantizer.buffers()]
    assert all(tensor.dtype == torch.float32 for tensor in tensors if tensor.is_floating_point())
    tokens = visual_tokens()
    assert torch.equal(quantizer(tokens).indices, model.cbvila.quantizer(tokens).indices)
    pairs = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tiny_pairs().items()}
    output = half.train()(**pairs)
    output.loss.backward()
    assert output.loss.isfinite()


# In a model


@one_of_each
def test_quantizer_save_and_load(options, tmp_path):
    model = fitted_model(options)
    model.save_pretrained(tmp_path)
    loaded = CBViLAForPreTraining.from_pretrained(tmp_path)
    assert loaded.config.quantizer_config == model.config.quantizer_config
    assert_equal_weights(model.cbvila.quantizer, loaded.cbvila.quantizer)
    assert loaded.cbvila.quantizer.is_fitted
    batch = tiny_pairs()
    before, after = model(**batch), loaded(**batch)
    assert torch.equal(before.codebook_indices, after.codebook_indices)
    assert torch.equal(before.mim_logits, after.mim_logits) and torch.equal(before.loss, after.loss)


@each
@pytest.mark.parametrize("training", [True, False])
def test_quantizer_compiles_in_one_graph(options, training):
    quantizer = tiny_quantizer(options).train(training)
    twin = copy.deepcopy(quantizer)
    torch.compiler.reset()
    compiled = torch.compile(twin, backend="eager", fullgraph=True)
    torch.manual_seed(0)
    expected = quantizer(visual_tokens())
    torch.manual_seed(0)
    output = compiled(visual_tokens())
    assert torch.equal(output.indices, expected.indices)
    torch.testing.assert_close(output.quantized, expected.quantized)
    quantizer.after_step()
    twin.after_step()
    for name, value in quantizer.state_dict().items():
        torch.testing.assert_close(twin.state_dict()[name], value)


# Hooks of training


@each
def test_quantizer_after_step_moves_ema_codes(options):
    quantizer = tiny_quantizer(options)
    before = state(quantizer)
    moves = any(table.is_moving_average for table in quantizer.tables())
    assert not quantizer.waits_for_step
    quantizer(visual_tokens(seed=1))
    assert quantizer.waits_for_step or not moves
    quantizer.after_skipped_step()
    quantizer.after_step()
    for name, value in state(quantizer).items():
        torch.testing.assert_close(value, before[name])
    quantizer(visual_tokens(seed=1))
    quantizer.after_step()
    assert not quantizer.waits_for_step
    changed = [name for name, value in state(quantizer).items() if not torch.allclose(value, before[name])]
    assert any("codes" in name for name in changed) == moves


@each
def test_quantizer_remembers_training_forwards_only(options):
    quantizer = tiny_quantizer(options)
    quantizer(visual_tokens(), remember=False)
    with torch.no_grad():
        quantizer(visual_tokens())
    quantizer.eval()(visual_tokens())
    assert not any(table.waits_for_step for table in quantizer.tables())


@each
def test_quantizer_frozen_does_not_change(options):
    quantizer = tiny_quantizer(options)
    has_parameters = any(True for _ in quantizer.parameters())
    assert not quantizer.is_frozen and quantizer.learns
    quantizer.requires_grad_(False)
    assert quantizer.is_frozen == has_parameters and not quantizer.learns
    before = state(quantizer)
    quantizer(visual_tokens(seed=1))
    quantizer.after_step()
    assert quantizer.restart(1e9, 1.0, generator_for(0)) == 0
    assert_equal_tensors(state(quantizer), before)


@each
def test_quantizer_restart_moves_unused_codes(options):
    quantizer = tiny_quantizer(options)
    quantizer(visual_tokens())
    quantizer.after_step()
    moved = quantizer.restart(1e9, 1.0, generator_for(0))
    assert moved == (quantizer.num_codes if quantizer.can_restart else 0)
    assert quantizer(visual_tokens(), remember=False).indices.shape[:2] == (4, PATCHES)


@each
def test_quantizer_training_state_is_tensors(options):
    quantizer = tiny_quantizer(options)
    quantizer(visual_tokens())
    quantizer.after_step()
    held = quantizer.training_state()
    tables = [table for table in quantizer.tables() if table.is_moving_average]
    assert len(held) == 2 * len(tables) and all(isinstance(value, torch.Tensor) for value in held.values())
    quantizer.synchronize()


@each
def test_quantizer_encodes_with_followed_copies(options):
    quantizer = tiny_quantizer(options)
    slower = {name: copy.deepcopy(module) for name, module in quantizer.followed().items()}
    tokens = visual_tokens()
    expected = quantizer.encode(tokens)
    assert torch.equal(quantizer.encode(tokens, slower), expected)
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter.add_(0.1)
    assert torch.equal(quantizer.encode(tokens, slower), expected)
    assert latents_of(quantizer, tokens).shape == (4 * PATCHES, expected.shape[-1])


# Layers of the image encoder


@one_of_each
@pytest.mark.parametrize("layers", [[0], [1, 2]])
def test_feature_layers_are_quantized(options, layers):
    model = fitted_model({**options, "feature_layers": layers})
    pixels = tiny_pairs()["pixel_values"]
    output = model.cbvila.vision_model(pixels, output_hidden_states=True)
    states = [output.hidden_states[layer][:, 1:] for layer in layers]
    mean = sum(each / each.norm(dim=-1, keepdim=True) for each in states) / len(layers)
    torch.testing.assert_close(output.pyramid, states[0] if len(layers) == 1 else mean)
    expected = model.cbvila.quantizer(output.pyramid).indices
    assert not torch.equal(model.cbvila.quantizer(output.last_hidden_state[:, 1:]).indices, expected)
    assert torch.equal(model(**tiny_pairs()).codebook_indices, expected)
    assert torch.equal(model.cbvila(pixels).codebook_indices, expected)
    assert torch.equal(model.reconstruct(pixels).codebook_indices, expected)
    assert torch.equal(model.tokenize(pixels), expected)


@one_of_each
def test_feature_layers_add_no_parameters_and_change_no_other_output(options, tmp_path):
    plain, model = (fitted_model({**options, "feature_layers": layers}) for layers in (None, [1]))
    assert plain.state_dict().keys() == model.state_dict().keys()
    pixels = tiny_pairs()["pixel_values"]
    outputs = [m.cbvila.vision_model(pixels) for m in (plain, model)]
    assert torch.equal(outputs[0].last_hidden_state, outputs[1].last_hidden_state)
    assert "pyramid" not in outputs[0]
    model.save_pretrained(tmp_path)
    loaded = CBViLAForPreTraining.from_pretrained(tmp_path)
    assert torch.equal(loaded(**tiny_pairs()).codebook_indices, model(**tiny_pairs()).codebook_indices)


def test_embeddings_as_features_tell_a_patch_and_nothing_of_others():
    model = fitted_model({"type": "nearest", "size": 16, "feature_layers": [0]})
    pixels = tiny_pairs()["pixel_values"]
    changed = pixels.clone()
    side = model.config.vision_config.patch_size
    changed[:, :, :side, :side] += 3.0
    before, after = model.tokenize(pixels), model.tokenize(changed)
    assert not torch.equal(before[:, 0], after[:, 0])
    assert torch.equal(before[:, 1:], after[:, 1:])


@one_of_each
def test_only_the_layers_up_to_the_last_feature_layer_learn_from_codes(options):
    model = fitted_model({**options, "feature_layers": [1]}).train()
    weights = dict.fromkeys(model.config.loss_weights(), 0.0) | {"pixel": 1.0}
    model(**tiny_pairs(), loss_weights=weights).loss.backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert any("vision_model.layers.0" in name for name in reached)
    assert not any("vision_model.layers.1" in name for name in reached)


@pytest.mark.parametrize("layer", [-1, 13])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_feature_layers_must_exist(name, layer):
    with pytest.raises(
        ValueError, match=rf"feature_layers=\[{layer}\] must be layers of the image encoder, from 1 to 12, or 0 for"
    ):
        CBViLAConfig(quantizer_config={"type": name, "feature_layers": [layer]})


def test_feature_layers_exclude_texts_that_attend_to_quantized_tokens():
    with pytest.raises(ValueError, match="itm_kv='both' quantizes the image encoder's output"):
        CBViLAConfig(quantizer_config={"feature_layers": [1]}, itm_kv="both")
