import pytest
import torch
from tiny import PATCHES, build, tiny_config, tiny_pairs
from tiny_quantizers import fitted_model, latents_of, tiny_quantizer, visual_tokens
from torch import nn

from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.model.codebook_statistics_cbvila import codebook_statistics
from transformers_cbvila.model.configuration_cbvila import CBViLAConfig
from transformers_cbvila.model.losses_cbvila import (
    bag_loss,
    books_bag_loss,
    books_loss,
    classification_loss,
    likeliest_codes,
)
from transformers_cbvila.model.modeling_cbvila import CBViLAModel
from transformers_cbvila.model.modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling

R, K, C = 3, 8, 6
OPTIONS = {"type": "residual", "depth": R, "size": K, "dim": C}
LITERAL = {**OPTIONS, "dim": None}  # latents are the tokens, quantized tokens the sums of codes


def set_codes(quantizer, *books):
    for table, codes in zip(quantizer.tables(), books, strict=True):
        table.set_codes(torch.tensor(codes))


def plane(update="ema"):
    """Two books of two codes in a plane."""
    quantizer = tiny_quantizer({"type": "residual", "depth": 2, "size": 2, "dim": 2, "update": update, "decay": 0.5})
    quantizer.in_proj = quantizer.out_proj = nn.Identity()
    set_codes(quantizer, [[4.0, 0.0], [0.0, 4.0]], [[1.0, 0.0], [0.0, -1.0]])
    return quantizer


TOKENS = torch.tensor([[[4.5, 0.0], [1.0, 3.0]]])


# The quantizer


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_residual_two_tokens_by_hand(update):
    """(4.5, 0): (4, 0) leaves (0.5, 0), (1, 0) leaves (-0.5, 0). (1, 3): (0, 4) leaves (1, -1), a tie: the first."""
    quantizer = plane(update)
    output = quantizer(TOKENS)
    assert output.indices.tolist() == [[[0, 0], [1, 0]]]
    assert output.quantized.tolist() == [[[5, 0], [1, 4]]]
    assert output.counts.tolist() == [1, 1, 2, 0]
    first, second = (0.25 + 1 + 1) / 4, (0.25 + 1) / 4
    assert output.terms["commitment"].item() == pytest.approx((first + second) / 2)
    assert ("codebook" in output.terms) == (update == "loss")
    if update == "loss":
        assert output.terms["codebook"].item() == pytest.approx((first + second) / 2)


def test_residual_ema_averages_residuals():
    quantizer = plane()
    quantizer(TOKENS)
    quantizer.after_step()
    first, second = quantizer.tables()
    # counts 1 1 and sums (4, 0) (0, 4), half way to 1 1 and (4.5, 0) (1, 3)
    torch.testing.assert_close(first.codes, torch.tensor([[4.25, 0.0], [0.5, 3.5]]))
    # code 0: count 1 to 2, sum (1, 0) to (1.5, -1); code 1: nothing, and its mean stays
    torch.testing.assert_close(second.codes, torch.tensor([[1.25 / 1.5, -0.5 / 1.5], [0.0, -1.0]]))


def test_residual_gradients_by_hand():
    quantizer = plane("loss")
    tokens = TOKENS.clone().requires_grad_()
    output = quantizer(tokens)
    (gradient,) = torch.autograd.grad(output.terms["commitment"], tokens, retain_graph=True)
    # mean over books of 2 / 4 times what a book's code leaves over
    left = [torch.tensor([[[0.5, 0.0], [1.0, -1.0]]]), torch.tensor([[[-0.5, 0.0], [0.0, -1.0]]])]
    torch.testing.assert_close(gradient, (left[0] + left[1]) / 4)
    of_codes = torch.autograd.grad(output.terms["codebook"], [table.codes for table in quantizer.tables()])
    torch.testing.assert_close(of_codes[0], -left[0][0] / 4)
    torch.testing.assert_close(of_codes[1], torch.stack([-left[1][0].sum(0), torch.zeros(2)]) / 4)


def test_residual_books_reduce_the_error():
    quantizer = tiny_quantizer(LITERAL).eval()
    tokens = visual_tokens(8, seed=9)  # those that it was fitted to
    indices = quantizer(tokens).indices
    left, errors = tokens, [tokens.square().mean()]
    for book, table in enumerate(quantizer.tables()):
        left = left - table.codes[indices[..., book]]
        errors.append(left.square().mean())
    assert errors == sorted(errors, reverse=True) and len(set(errors)) == R + 1


def test_residual_fit_is_book_by_book():
    quantizer = tiny_quantizer(LITERAL)
    latents, again = latents_of(quantizer, visual_tokens(8, seed=9)), generator_for(1)
    for table in quantizer.tables():
        codes = table.codes.clone()
        table.fit(latents, again, 1.0)  # the same draws as in `tiny_quantizer`
        torch.testing.assert_close(table.codes, codes)
        latents = latents - codes[table.lookup(latents)]


def test_residual_restart_takes_residuals():
    quantizer = plane()
    quantizer(TOKENS)
    quantizer.after_step()
    assert quantizer.restart(1e9, 1.0, generator_for(0)) == 4
    residuals = {(0.5, 0.0), (1.0, -1.0)}
    assert {tuple(code) for code in quantizer.tables()[1].codes.tolist()} <= residuals


@pytest.mark.parametrize(
    "field, value", [("depth", 1), ("size", 1), ("dim", 0), ("decay", 1.0), ("update", "never"), ("norm", "l2")]
)
def test_residual_rejects_impossible_options(field, value):
    with pytest.raises(ValueError, match=field):
        CBViLAConfig(quantizer_config={"type": "residual", field: value})


def test_residual_equals_vector_quantize_pytorch():
    peers = pytest.importorskip("vector_quantize_pytorch")
    peer = peers.ResidualVQ(dim=32, num_quantizers=R, codebook_size=K)
    quantizer = tiny_quantizer(LITERAL)
    for layer, table in zip(peer.layers, quantizer.tables(), strict=True):
        layer._codebook.embed.data.copy_(table.codes)
    tokens = visual_tokens()
    expected, indices, losses = peer(tokens, freeze_codebook=True)
    output = quantizer(tokens)
    assert torch.equal(output.indices, indices)
    torch.testing.assert_close(output.quantized, expected)
    torch.testing.assert_close(output.terms["commitment"], losses.mean())


# Several books in losses and statistics


def test_books_loss_is_the_mean_over_books():
    logits, labels = torch.randn(5, 7), torch.tensor([[0, 3], [1, 2], [2, 1], [0, 0], [1, 3]])
    expected = [classification_loss(logits[:, :3], labels[:, 0]), classification_loss(logits[:, 3:], labels[:, 1])]
    torch.testing.assert_close(books_loss(logits, labels, (3, 4)), sum(expected) / 2)
    torch.testing.assert_close(books_loss(logits, labels[:, 0], (7,)), classification_loss(logits, labels[:, 0]))


def test_bag_loss_is_the_mean_over_books():
    logits, mask = torch.randn(2, 7), torch.tensor([[True, False, True], [False, True, True]])
    indices = torch.tensor([[[0, 3], [1, 2], [2, 1]], [[0, 0], [1, 3], [2, 2]]])
    expected = [bag_loss(logits[:, :3], indices[..., 0], mask), bag_loss(logits[:, 3:], indices[..., 1], mask)]
    torch.testing.assert_close(books_bag_loss(logits, indices, mask, (3, 4)), sum(expected) / 2)


def test_books_loss_of_nothing_is_0():
    logits = torch.randn(0, 7, requires_grad=True)
    loss = books_loss(logits, torch.zeros(0, 2, dtype=torch.long), (3, 4))
    loss.backward()
    assert loss == 0


def test_likeliest_codes_of_each_book():
    logits = torch.tensor([[[0.0, 2.0, 1.0, 5.0, 9.0]]])
    assert likeliest_codes(logits, (3, 2)).tolist() == [[[1, 1]]]
    assert likeliest_codes(logits, (5,)).tolist() == [[4]]


def test_codebook_statistics_of_books_and_their_mean():
    found = codebook_statistics(torch.tensor([2, 2, 0, 0, 4, 0]), (4, 2))
    assert found["usage_book_1"] == 0.5 and found["usage_book_2"] == 0.5 and found["usage"] == 0.5
    assert found["perplexity_book_1"].item() == pytest.approx(2) and found["perplexity_book_2"].item() == 1
    assert found["perplexity"].item() == pytest.approx(1.5)
    assert found["top_share"].item() == pytest.approx(0.75)


# Several books in models


@pytest.mark.parametrize("stage", ["post", "pre"])
@pytest.mark.parametrize("head", ["linear", "tied"])
def test_residual_pretraining_losses(head, stage):
    objectives = {"mim": {"head": head, "mask_stage": stage}, "mim_cls_bag": {"weight": 1.0}}
    model = fitted_model(OPTIONS, objectives=objectives).train()
    batch = tiny_pairs()
    output = model(**batch)
    hidden, indices = batch["bool_masked_pos"], output.codebook_indices
    assert indices.shape == (4, PATCHES, R) and output.codebook_counts.shape == (R * K,)
    assert output.mim_logits.shape == (hidden.sum(), R * K)
    logits = output.mim_logits.split(K, dim=-1)
    expected = [classification_loss(part, indices[hidden][:, book]) for book, part in enumerate(logits)]
    torch.testing.assert_close(output.losses["mim"], sum(expected) / R)
    assert {"commitment", "mim_cls_bag", "pixel"} <= output.losses.keys()
    assert {f"usage_book_{book}" for book in range(1, R + 1)} <= output.codebook_statistics.keys()
    output.loss.backward()
    learning = [name for name, p in model.named_parameters() if p.grad is None]
    assert not [name for name in learning if "quantizer" in name or "objectives.mim" in name]
    codes = [table.codes.clone() for table in model.cbvila.quantizer.tables()]
    model.after_step()
    assert all(not torch.equal(t.codes, c) for t, c in zip(model.cbvila.quantizer.tables(), codes, strict=True))


def test_residual_mim_targets():
    model, batch = fitted_model(OPTIONS), tiny_pairs()
    targets = torch.randint(K, (4, PATCHES, R), generator=generator_for(0))
    output = model(**batch, mim_targets=targets)
    rows = targets[batch["bool_masked_pos"]]
    torch.testing.assert_close(output.losses["mim"], books_loss(output.mim_logits, rows, (K,) * R))
    own = model(**batch, mim_targets=output.codebook_indices)
    torch.testing.assert_close(own.losses["mim"], model(**batch).losses["mim"])
    with pytest.raises(ValueError, match=rf"mim_targets has shape \(4, 16\); .* \(4, 16, {R}\)"):
        model(**batch, mim_targets=targets[..., 0])
    with pytest.raises(ValueError, match="8 codes"):
        model(**batch, mim_targets=targets + K)


@pytest.mark.parametrize("hidden_too", [False, True])
@pytest.mark.parametrize("on", ["all", "masked"])
def test_residual_reconstruct(hidden_too, on):
    model = fitted_model(OPTIONS, objectives={"pixel": {"on": on}})
    batch = tiny_pairs()
    hidden = batch["bool_masked_pos"] if hidden_too else None
    found = model.reconstruct(batch["pixel_values"], batch["input_ids"], batch["attention_mask"], hidden)
    assert found.pixel_values.shape == batch["pixel_values"].shape
    own = model(batch["pixel_values"], batch["input_ids"]).codebook_indices
    visible = ~batch["bool_masked_pos"] if hidden_too else torch.ones(4, PATCHES, dtype=torch.bool)
    assert found.codebook_indices.shape == own.shape and torch.equal(found.codebook_indices[visible], own[visible])


@pytest.mark.parametrize("head", ["linear", "tied"])
def test_residual_masked_image_modeling(head):
    config = tiny_config(objectives={"mim": {"head": head}})
    config.quantizer_config = OPTIONS
    model, batch = build(CBViLAForMaskedImageModeling, config), tiny_pairs()
    inputs = {name: batch[name] for name in ("pixel_values", "bool_masked_pos", "input_ids", "attention_mask")}
    output = model(**inputs)
    assert output.logits.shape == (4, PATCHES, R * K) and output.codebook_indices.shape == (4, PATCHES, R)
    assert output.reconstruction.shape == batch["pixel_values"].shape
    hidden = batch["bool_masked_pos"]
    expected = books_loss(output.logits[hidden], output.codebook_indices[hidden], (K,) * R)
    torch.testing.assert_close(output.losses["mim"], expected)
    model.train()(**inputs).loss.backward()


def test_residual_base_model_with_itm_kv_both():
    config = tiny_config(itm_kv="both")
    config.quantizer_config = OPTIONS
    batch = tiny_pairs()
    output = build(CBViLAModel, config)(batch["pixel_values"], batch["input_ids"])
    assert output.codebook_indices.shape == (4, PATCHES, R)


def test_residual_model_compiles():
    model, batch = fitted_model(OPTIONS), tiny_pairs()
    inputs = {name: batch[name] for name in ("pixel_values", "input_ids")}
    torch.compiler.reset()
    compiled = torch.compile(model.cbvila, backend="eager", fullgraph=True)
    assert torch.equal(compiled(**inputs).codebook_indices, model.cbvila(**inputs).codebook_indices)
