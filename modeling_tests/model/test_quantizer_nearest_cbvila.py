import math

import pytest
import torch
from tiny import CODES, PATCHES, pretraining_model, quantizer_of_config, tiny_config, tiny_pairs
from torch.nn.functional import normalize
from transformers import set_seed

from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.model import nearest_codes_cbvila
from transformers_cbvila.model.code_gradients_cbvila import rotate_to
from transformers_cbvila.model.codebook_statistics_cbvila import codebook_statistics
from transformers_cbvila.model.modeling_cbvila import CBViLAModel
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining
from transformers_cbvila.model.nearest_codes_cbvila import nearest_codes


def codebook(preset="recommended", seed=0, **fields):
    """A codebook whose codes lie among the latents of `tokens()`, in training mode."""
    set_seed(seed)
    book = quantizer_of_config(tiny_config(preset, **fields))
    book.table.set_codes(book.encode(tokens(seed=9)).flatten(0, 1)[:CODES].detach())
    return book.train()


def tokens(batch=4, seed=0):
    return torch.randn(batch, PATCHES, 32, generator=generator_for(seed))


def state(book):
    return {name: value.clone() for name, value in [*book.named_parameters(), *book.named_buffers()]}


# The look-up


@pytest.mark.parametrize("preset", ["recommended", "paper"])
def test_nearest_indices_equal_slow_argmin(preset):
    book = codebook(preset)
    output, latents = book(tokens()), book.encode(tokens())
    distances = [[(latent - code).norm() for code in book.table.codes] for latent in latents.flatten(0, 1)]
    assert output.indices.flatten().tolist() == [row.index(min(row)) for row in distances]
    assert output.counts.tolist() == torch.bincount(output.indices.flatten(), minlength=CODES).tolist()
    assert len(output.indices.unique()) > 3


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_nearest_codes_do_not_depend_on_chunks(chunk, monkeypatch):
    latents, codes = torch.randn(64, 8), torch.randn(CODES, 8)
    expected = torch.cdist(latents, codes).argmin(-1)
    monkeypatch.setattr(nearest_codes_cbvila, "_CHUNK", chunk)
    assert torch.equal(nearest_codes(latents, codes), expected)


@pytest.mark.parametrize("preset", ["recommended", "paper"])
def test_indices_to_quantized_equals_evaluation(preset):
    book = codebook(preset).eval()
    output = book(tokens())
    torch.testing.assert_close(book.indices_to_quantized(output.indices), output.quantized)
    torch.testing.assert_close(output.detached, output.quantized)


def test_norm_l2_gives_unit_latents_and_codes():
    book = codebook()
    ones = torch.ones(())
    torch.testing.assert_close(book.encode(tokens()).norm(dim=-1), ones.expand(4, PATCHES))
    torch.testing.assert_close(book.table.codes.norm(dim=-1), ones.expand(CODES))


def test_paper_codes_have_the_width_of_tokens():
    book = codebook("paper")
    assert book.table.codes.shape == (CODES, 32) and torch.equal(book.encode(tokens()), tokens())
    assert {name for name, _ in book.named_parameters()} == {"table.codes"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_nearest_lookup_is_in_at_least_fp32(dtype):
    book = codebook()
    if dtype == torch.float64:
        book.double()
    output = book(tokens().to(dtype))
    assert output.quantized.dtype == output.terms["commitment"].dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize("preset", ["recommended", "paper"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_nearest_quantizer_cast_as_a_whole(preset, dtype):
    """`model.to(dtype)` casts codes too; the arithmetic on them stays in fp32."""
    book = codebook(preset)
    before = book(tokens())
    after = book.to(dtype)(tokens().to(dtype))
    assert (after.indices == before.indices).float().mean() > 0.8
    assert after.terms["commitment"].dtype == torch.float32
    torch.testing.assert_close(after.terms["commitment"], before.terms["commitment"], atol=1e-2, rtol=1e-1)
    book.after_step()


@pytest.mark.parametrize("preset", ["recommended", "paper"])
def test_nearest_quantizer_ignores_autocast(preset):
    """bf16 distances flip the nearest code of one token in ten or so."""
    book = codebook(preset).eval()
    visual = tokens(batch=64)
    plain = book(visual)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = book(visual)
        assert torch.equal(book.lookup(book.encode(visual)), plain.indices)
    assert torch.equal(mixed.indices, plain.indices)
    assert mixed.terms["commitment"].dtype == torch.float32
    torch.testing.assert_close(mixed.terms["commitment"], plain.terms["commitment"])


# Gradients


def test_gradient_straight_through_is_unchanged():
    book = codebook("paper", quantizer_gradient="straight_through")
    visual = tokens().requires_grad_()
    output = book(visual)
    upstream = torch.randn(output.quantized.shape)
    (gradient,) = torch.autograd.grad((output.quantized * upstream).sum(), visual)
    assert torch.equal(gradient, upstream)
    torch.testing.assert_close(output.quantized, book.table.codes[output.indices])


def rotation_matrix(source, target):
    """Turns `source` to the direction of `target` in the plane of both, and scales it to the length of `target`."""
    e, q = normalize(source, dim=0), normalize(target, dim=0)
    cosine = e @ q
    side = normalize(q - cosine * e, dim=0)
    sine, identity = (1 - cosine**2).sqrt(), torch.eye(len(e), dtype=e.dtype)
    turn = sine * (torch.outer(side, e) - torch.outer(e, side))
    turn = turn + (cosine - 1) * (torch.outer(e, e) + torch.outer(side, side))
    return target.norm() / source.norm() * (identity + turn)


def test_gradient_rotation_is_codes_forward_and_rotation_backward():
    latents = torch.randn(6, 8, dtype=torch.float64, requires_grad=True)
    codes = torch.randn(6, 8, dtype=torch.float64, requires_grad=True)
    rotated, upstream = rotate_to(latents, codes), torch.randn(6, 8, dtype=torch.float64)
    torch.testing.assert_close(rotated, codes)
    gradient, none = torch.autograd.grad((rotated * upstream).sum(), [latents, codes], allow_unused=True)
    assert none is None
    for row in range(6):
        matrix = rotation_matrix(latents[row].detach(), codes[row].detach())
        torch.testing.assert_close(matrix @ latents[row], codes[row])
        torch.testing.assert_close(gradient[row], matrix.T @ upstream[row])


def test_gumbel_noise_changes_quantized_but_not_indices():
    book = codebook("paper")
    first, second = book(tokens()), book(tokens())
    assert torch.equal(first.indices, second.indices) and not torch.equal(first.quantized, second.quantized)
    distances = (first.quantized.flatten(0, 1).unsqueeze(1) - book.table.codes).norm(dim=-1)
    assert distances.min(-1).values.max() < 1e-3, "every word is some code"
    share = (distances.argmin(-1) == first.indices.flatten()).float().mean()
    assert 0.2 < share < 0.95, "noise of the data's scale: neither only the nearest code nor any"
    book.eval()
    assert torch.equal(book(tokens()).quantized, book(tokens()).quantized)


@pytest.mark.parametrize(
    "gradient, update, reached",
    [("gumbel", "loss", True), ("straight_through", "loss", False), ("rotation", "loss", False)],
)
def test_gradient_of_quantized_reaches_codes_through_gumbel_only(gradient, update, reached):
    book = codebook("paper", quantizer_gradient=gradient, codebook_update=update)
    output = book(tokens().requires_grad_())
    weighted = (output.quantized * torch.randn(32)).sum()
    (through_words,) = torch.autograd.grad(weighted, book.table.codes, allow_unused=True)
    assert (through_words is not None and through_words.abs().max() > 1e-6) == reached


def test_gumbel_is_finite_with_equal_codes():
    book = codebook("paper")
    book.table.set_codes(torch.ones(CODES, 32))
    assert book(tokens()).quantized.isfinite().all()


def slow_gumbel(book, latents, noise_seed):
    """The hard Gumbel softmax of torch, on all distances at once."""
    flat = latents.flatten(0, 1)
    distances = (flat.unsqueeze(1) - book.table.codes).square().sum(-1)
    nearest = distances.detach().sort().values[:, :8]
    scale = (nearest[:, 1:] - nearest[:, :1]).mean()
    torch.manual_seed(noise_seed)
    sample = torch.nn.functional.gumbel_softmax(-distances / scale, book.options.temperature, hard=True)
    share = (sample.argmax(-1) == distances.argmin(-1)).float().mean()
    return (sample @ book.table.codes).view_as(latents), share, scale.detach()


def test_gumbel_equals_slow_reference():
    book = codebook("paper", gumbel_temperature=0.7)
    upstream, results = torch.randn(4, PATCHES, 32), []
    visual = tokens().requires_grad_()
    for slow in (True, False):
        if slow:
            words, share, scale = slow_gumbel(book, visual, noise_seed=4)
        else:
            torch.manual_seed(4)
            output = book(visual)
            words, share = output.quantized, output.metrics["argmin_share"]
        results.append((words, share, *torch.autograd.grad((words * upstream).sum(), [visual, book.table.codes])))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert 0.2 < share < 0.95 and results[0][2].abs().max() > 1e-3
    book.after_step()
    torch.testing.assert_close(book.gumbel.scale, scale)
    book.gumbel.scale.mul_(2)
    book(visual)
    book.after_step()  # a running mean: a hundredth of the way back
    torch.testing.assert_close(book.gumbel.scale, 2 * scale - 0.01 * scale)


@pytest.mark.parametrize("chunk", [1, 7])
def test_gumbel_does_not_depend_on_chunks(chunk, monkeypatch):
    book = codebook("paper")
    book(tokens())
    book.after_step()
    results = []
    for size in (1000, chunk):
        monkeypatch.setattr(nearest_codes_cbvila, "_CHUNK", size)
        visual = tokens().requires_grad_()
        torch.manual_seed(3)
        output = book(visual)
        results.append(
            (
                output.quantized,
                output.indices,
                *torch.autograd.grad(output.quantized.sum(), [visual, book.table.codes]),
            )
        )
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gumbel_saves_the_softmax_only_for_backward():
    """Of tensors with an entry per token and code, the softmax alone."""
    book, visual = codebook("paper"), tokens().requires_grad_()
    kept = {}

    def keep(tensor):
        if tensor.shape == (4 * PATCHES, CODES):
            kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = book(visual)
    assert output.quantized.requires_grad and len(kept) == 1


@pytest.mark.parametrize("preset", ["recommended", "paper"])
def test_nearest_training_forward_compiles_in_one_graph(preset):
    book, twin, visual = codebook(preset), codebook(preset), tokens().requires_grad_()
    torch.compiler.reset()
    compiled = torch.compile(twin, backend="eager", fullgraph=True)
    for _ in range(2):
        torch.manual_seed(2)
        expected = torch.autograd.grad(book(visual).quantized.square().sum(), visual)[0]
        torch.manual_seed(2)
        torch.testing.assert_close(torch.autograd.grad(compiled(visual).quantized.square().sum(), visual)[0], expected)
        book.after_step()
        twin.after_step()
    for name, value in state(book).items():
        torch.testing.assert_close(state(twin)[name], value)


def test_argmin_share_is_a_metric_of_gumbel_only():
    assert set(codebook("paper")(tokens()).metrics) == {"argmin_share"}
    assert not codebook()(tokens()).metrics and not codebook("paper").eval()(tokens()).metrics


@pytest.mark.parametrize("to_vit", [False, True])
def test_mim_grad_to_vit_routes_detached_gradients(to_vit):
    book = codebook("paper", mim_grad_to_vit=to_vit)
    visual = tokens().requires_grad_()
    words = book(visual).detached
    assert words.requires_grad == to_vit
    if to_vit:
        reached, codes = torch.autograd.grad(words.sum(), [visual, book.table.codes], allow_unused=True)
        assert codes is None and reached.abs().max() > 0


# The moving average


class SlowAverage:
    """The moving average written out, token by token."""

    def __init__(self, book):
        self.decay, self.codes = book.options.decay, book.table.codes.clone()
        self.counts, self.sums = book.table.ema_counts.clone(), book.table.ema_sums.clone()

    def update(self, latents, indices):
        for k in range(len(self.codes)):
            mine = [latent for latent, index in zip(latents, indices, strict=True) if index == k]
            total = torch.stack(mine).sum(0) if mine else torch.zeros(self.codes.shape[1])
            self.counts[k] = self.decay * self.counts[k] + (1 - self.decay) * len(mine)
            self.sums[k] = self.decay * self.sums[k] + (1 - self.decay) * total
            self.codes[k] = self.sums[k] / self.counts[k]


@pytest.mark.parametrize("norm", ["l2", "none"])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_ema_step_equals_slow_average(norm, micro_batches):
    book = codebook(codebook_norm=norm, codebook_decay=0.8)
    slow = SlowAverage(book)
    for step in range(4):
        outputs, latents = [], []
        for micro in range(micro_batches):
            visual = tokens(seed=10 * step + micro)
            latents.append(book.encode(visual).detach().flatten(0, 1))
            outputs.append(book(visual).indices.flatten())
        book.after_step()
        slow.update(torch.cat(latents), torch.cat(outputs))
        if norm == "l2":
            slow.codes = normalize(slow.codes, dim=-1)
        torch.testing.assert_close(book.table.codes, slow.codes)
        torch.testing.assert_close(book.table.ema_counts, slow.counts)
        torch.testing.assert_close(book.table.ema_sums, slow.sums)
        assert not book.table.pending_counts.any() and not book.table.pending_sums.any()


def test_ema_step_keeps_unused_codes():
    book = codebook(codebook_decay=0.5)
    far = book.encode(tokens()).flatten(0, 1).mean(0)
    book.table.codes[3] = -normalize(far.detach(), dim=0)
    book.table.ema_sums[3] = book.table.codes[3]
    visual = tokens(batch=1)[:, :1].expand(1, PATCHES, 32)  # all tokens are the same: one code is chosen
    chosen = book(visual).indices[0, 0]
    before = book.table.codes.clone()
    for _ in range(300):  # long enough for both averages to become 0
        book(visual)
        book.after_step()
    moved = (book.table.codes - before).abs().amax(-1) > 1e-5
    assert moved.nonzero().flatten().tolist() == [chosen]
    assert book.table.codes.isfinite().all()


def test_nearest_forward_without_training_changes_no_state():
    for book in (codebook(), codebook("paper")):
        before = state(book)
        with torch.no_grad():
            book(tokens())
        book.eval()(tokens())
        assert all(torch.equal(value, before[name]) for name, value in state(book).items())


def test_after_step_without_training_forward_changes_nothing():
    book = codebook()
    before = state(book)
    for _ in range(50):
        book.after_step()
    for name, value in state(book).items():
        torch.testing.assert_close(value, before[name])


def test_after_step_leaves_codes_learned_by_loss():
    book = codebook("paper")
    before = state(book)
    book(tokens())
    book.after_step()
    assert torch.equal(book.table.codes, before["table.codes"]) and isinstance(book.table.codes, torch.nn.Parameter)


def test_ema_codes_are_buffers():
    assert "table.codes" not in dict(codebook().named_parameters()) and "table.codes" in dict(
        codebook().named_buffers()
    )


def test_set_codes_sets_codes_and_averages():
    book, codes = codebook(), torch.randn(CODES, 8)
    book(tokens())
    book.table.set_codes(codes, counts=torch.arange(CODES))
    torch.testing.assert_close(book.table.codes, normalize(codes, dim=-1))
    torch.testing.assert_close(book.table.ema_sums, book.table.codes * torch.arange(CODES).unsqueeze(-1))
    assert book.table.initialized and not book.table.pending_counts.any()
    book.after_step()  # nothing was assigned to the new codes yet
    torch.testing.assert_close(book.table.codes, normalize(codes, dim=-1))
    with pytest.raises(ValueError, match=r"\(3, 8\).*\(16, 8\)"):
        book.table.set_codes(torch.randn(3, 8))


def test_fit_resets_the_gumbel_scale():
    book = codebook("paper").train()
    book(tokens())
    book.after_step()
    book(tokens())
    assert book.gumbel.scale > 0 and book.gumbel.pending_gap.any()
    book.fit(torch.randn(4 * CODES, 32), generator_for(1), scale=1.0)
    assert book.gumbel.scale == 0 and not book.gumbel.pending_gap.any()


# Restarts


def test_restart_unused_moves_codes_and_averages():
    book = codebook()
    book(tokens())
    book.after_step()
    book.table.ema_counts.fill_(10.0)
    book.table.ema_counts[[2, 5]] = 0.5
    before = book.table.codes.clone()
    assert book.table.restart_unused(0.3, limit=CODES, generator=generator_for(1)) == 2
    assert (book.table.codes != before).any(-1).nonzero().flatten().tolist() == [2, 5]
    latents = book.encode(tokens()).flatten(0, 1)
    assert torch.cdist(book.table.codes[[2, 5]], latents).min(-1).values.max() < 1e-3, "a latent of the last batch"
    expected = 4 * PATCHES / CODES
    torch.testing.assert_close(book.table.ema_counts[[2, 5]], torch.full((2,), expected))
    torch.testing.assert_close(book.table.ema_sums[[2, 5]], book.table.codes[[2, 5]] * expected)
    revived = book.table.codes.clone()
    book(tokens())
    book.after_step()
    assert torch.cdist(book.table.codes[[2, 5]], revived[[2, 5]]).diagonal().max() < 0.1, (
        "the next update undid the move"
    )
    assert book.table.restart_unused(0.3, limit=CODES, generator=generator_for(1)) == 0


def test_restart_unused_limit_and_generator():
    books = [codebook(), codebook(), codebook()]
    for book, seed in zip(books, (1, 1, 2), strict=True):
        book(tokens())
        book.after_step()
        book.table.ema_counts[1:] = 0.0
        assert book.table.restart_unused(0.5, limit=3, generator=generator_for(seed)) == 3
    assert torch.equal(books[0].table.codes, books[1].table.codes) and not torch.equal(
        books[0].table.codes, books[2].table.codes
    )


class SlowRestarts:
    """The rules of restarts, code by code."""

    def __init__(self, threshold, limit, grace):
        self.threshold, self.limit, self.grace = threshold, limit, grace
        self.ages = [0] * CODES

    def choose(self, counts, tokens_per_update):
        """Codes to restart after an update, by their moving counts."""
        self.ages = [age + 1 for age in self.ages]
        expected = tokens_per_update / CODES
        unused = [k for k in range(CODES) if counts[k] < self.threshold * expected and self.ages[k] >= self.grace]
        chosen = sorted(unused, key=lambda k: (counts[k], k))[: self.limit]
        for k in chosen:
            self.ages[k] = 0
        return chosen


@pytest.mark.parametrize("threshold, limit, grace", [(0.5, 3, 0), (0.9, 2, 3), (1.5, CODES, 2), (0.3, 1, 0)])
def test_restart_unused_equals_slow_reference(threshold, limit, grace):
    book, slow = codebook(codebook_decay=0.6), SlowRestarts(threshold, limit, grace)
    total = 0
    for step in range(8):
        book(tokens(batch=2, seed=step))
        book.after_step()
        latents = book.encode(tokens(batch=2, seed=step)).flatten(0, 1)
        before = {name: value.clone() for name, value in book.table.named_buffers()}
        chosen = slow.choose(book.table.ema_counts.tolist(), tokens_per_update=2 * PATCHES)
        moved = book.table.restart_unused(threshold, limit, generator_for(step), grace)
        assert moved == len(chosen)
        total += len(chosen)
        rows = []
        for k in range(CODES):
            if k in chosen:
                rows.append(int(torch.cdist(book.table.codes[[k]], latents).argmin()))
                assert torch.equal(book.table.codes[k], latents[rows[-1]])
                assert book.table.ema_counts[k] == 2 * PATCHES / CODES and book.table.ages[k] == 0
                assert torch.equal(book.table.ema_sums[k], book.table.codes[k] * 2 * PATCHES / CODES)
            else:
                for name in ("codes", "ema_counts", "ema_sums", "ages"):
                    assert torch.equal(getattr(book.table, name)[k], before[name][k]), name
        assert len(set(rows)) == len(rows), "two codes at the same place"
    assert total > 0


def test_restart_unused_grace_of_fitted_codes():
    book = codebook()
    for age in range(3):
        book(tokens())
        book.after_step()
        assert book.table.ages.tolist() == [age + 1] * CODES
        book.table.ema_counts[5] = 0
        assert book.table.restart_unused(0.5, 1, generator_for(0), grace=3) == (age == 2)
    book.table.set_codes(torch.randn(CODES, 8))
    assert not book.table.ages.any()


def test_restart_unused_needs_a_batch_and_ema():
    book = codebook()
    book.table.ema_counts[1:] = 0.0
    assert book.table.restart_unused(0.5, 3, generator_for(0)) == 0
    book = codebook("paper")
    book(tokens())
    assert book.table.restart_unused(0.5, 3, generator_for(0)) == 0


# Saving and loading


@pytest.mark.parametrize("preset", ["recommended", "paper"])
def test_save_and_load_keeps_the_codebook_state(preset, tmp_path):
    model, batch = pretraining_model(preset=preset).train(), tiny_pairs()
    book = model.cbvila.quantizer
    book.table.set_codes(torch.randn(book.table.codes.shape))
    model(**batch)
    model.after_step()
    model.save_pretrained(tmp_path)
    loaded = CBViLAForPreTraining.from_pretrained(tmp_path).cbvila.quantizer
    assert loaded.table.initialized
    for name, value in state(book).items():
        if name not in ("table.ages", "table.expected_count"):  # which belong to a training run
            assert torch.equal(state(loaded)[name], value), name
    if preset == "paper":
        assert loaded.gumbel.scale > 0


@pytest.mark.parametrize("missing", ["table.codes", "table.ema_sums", "table.in_proj.0.weight", "table.initialized"])
def test_from_pretrained_without_one_codebook_key_keeps_others(missing, tmp_path):
    model = pretraining_model()
    book = model.cbvila.quantizer
    book.table.set_codes(torch.randn(book.table.codes.shape), counts=torch.arange(1, CODES + 1))
    weights = model.state_dict()
    del weights[f"cbvila.quantizer.{missing}"]
    model.save_pretrained(tmp_path, state_dict=dict(weights))  # which empties it
    loaded = CBViLAForPreTraining.from_pretrained(tmp_path)
    after = state(loaded.cbvila.quantizer)
    for name, value in state(book).items():
        if name != missing:
            assert torch.equal(after[name], value), name
    assert all(value.isfinite().all() for value in after.values())
    if missing == "table.ema_sums":
        assert torch.equal(after["table.ema_sums"], after["table.codes"]), "codes must not jump at the first update"
    assert bool(after["table.initialized"]) == (missing != "table.initialized")


# Statistics


def test_codebook_statistics_by_hand():
    health = codebook_statistics(torch.tensor([2, 1, 1, 0]))
    assert health["usage"] == 0.75 and health["top_share"] == 0.5
    assert health["perplexity"].item() == pytest.approx(math.exp(1.5 * math.log(2)))


@pytest.mark.parametrize(
    "counts, perplexity", [([5, 5, 5, 5], 4), ([0, 9, 0, 0], 1), ([0, 0, 0, 0], 1), ([1, 0, 0, 1], 2)]
)
def test_codebook_statistics_perplexity_limits(counts, perplexity):
    assert codebook_statistics(torch.tensor(counts))["perplexity"].item() == pytest.approx(perplexity)


@pytest.mark.parametrize("made_in, kept_in", [(torch.float16, torch.float32), (torch.float64, torch.float64)], ids=str)
def test_codes_and_logit_scale_are_at_least_fp32(made_in, kept_in):
    model = CBViLAModel._from_config(tiny_config(), dtype=made_in)
    assert model.dtype == made_in and model.logit_scale.dtype == kept_in
    assert {tensor.dtype for tensor in model.quantizer.state_dict().values() if tensor.is_floating_point()} == {
        kept_in
    }
