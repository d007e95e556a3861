import math

import pytest
import torch
from tiny import PATCHES, tiny_pairs
from tiny_quantizers import fitted_model, latents_of, tiny_quantizer, visual_tokens
from torch import nn

import transformers_cbvila.model.quantizer_adaptive_cbvila as adaptive
from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.inspection.gradient_gap import gradient_gap
from transformers_cbvila.model.configuration_cbvila import CBViLAConfig
from transformers_cbvila.model.quantizer_output_cbvila import CBViLAGradients

OPTIONS = {"type": "adaptive", "tables": [[8, 8], [16, 4], [32, 2]]}
LOGITS = torch.tensor([[1.0, 0.0], [0.0, 0.5]], dtype=torch.double)
NOISE = torch.tensor([[0.0, 0.5], [0.2, 0.0]], dtype=torch.double)
SOFT = torch.tensor([[0.622459, 0.377541], [0.425557, 0.574443]], dtype=torch.double)


class Fixed(nn.Module):
    """A router whose logits are given."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, tokens):
        return self.logits[: len(tokens)]


def routed(logits, sizes=((2, 1), (2, 1)), **options):
    """A quantizer of scalars in fp64, without noise, that chooses tables by these logits."""
    options = {"temperature": 1.0, "final_temperature": 1.0, "norm": "none", "decay": 0.5, "router_heads": 1} | options
    built = adaptive.CBViLAAdaptiveQuantizerOptions(type="adaptive", tables=[list(size) for size in sizes], **options)
    quantizer = adaptive.CBViLAAdaptiveQuantizer(built, 1, CBViLAGradients(True, True)).double().train()
    quantizer.router = Fixed(logits)
    return quantizer


def set_codes(quantizer, *tables):
    for table, codes in zip(quantizer.tables(), tables, strict=True):
        table.set_codes(torch.tensor(codes, dtype=torch.double).unsqueeze(-1))


@pytest.fixture
def noise(monkeypatch):
    monkeypatch.setattr(adaptive, "gumbel_noise", lambda seed, first, like: NOISE[first : first + len(like)])


@pytest.fixture
def silence(monkeypatch):
    monkeypatch.setattr(adaptive, "gumbel_noise", lambda seed, first, like: torch.zeros_like(like))


def by_hand():
    """Image 1 has 1 in the first table and 2 in the second, image 2 has 3 and 1."""
    quantizer = routed(LOGITS.clone())
    set_codes(quantizer, [1.0, 3.0], [2.0, 1.0])
    turned = nn.Linear(1, 1).double()
    nn.init.constant_(turned.weight, -1.0)
    nn.init.constant_(turned.bias, 3.5)
    quantizer.code_tables[1].in_proj = turned
    return quantizer, torch.tensor([[[1.6]], [[2.5]]], dtype=torch.double)


# The choice of a table


def test_adaptive_sample_by_hand(noise):
    quantizer, tokens = by_hand()
    output = quantizer(tokens)
    torch.testing.assert_close(output.quantized.flatten(), torch.ones(2, dtype=torch.double), atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(output.quantized.sum(), quantizer.router.logits)
    expected = torch.tensor([[-0.235004, 0.235004], [0.488917, -0.488917]], dtype=torch.double)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)


def test_adaptive_route_by_hand(noise, monkeypatch):
    seen = []
    monkeypatch.setattr(adaptive, "balance_loss", lambda soft: seen.append(soft) or soft.sum())
    hard, _ = routed(LOGITS.clone())._sample(LOGITS, remember=True)
    torch.testing.assert_close(seen[0], SOFT, atol=1e-6, rtol=0)
    assert hard.tolist() == [[1, 0], [0, 1]]


def test_adaptive_balance_by_hand(noise):
    quantizer, tokens = by_hand()
    assert quantizer(tokens).terms["adq_balance"].item() == pytest.approx(0.001153, abs=1e-6)
    assert adaptive.balance_loss(SOFT).item() == pytest.approx(0.001153, abs=1e-6)
    collapsed = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.double)
    assert adaptive.balance_loss(collapsed).item() == pytest.approx(math.log(2), abs=1e-12)
    assert adaptive.balance_loss(collapsed[:1]) == 0  # of one image it says nothing


def test_adaptive_commitment_by_hand():
    """Mean squared errors .2 .1 of the first image, .4 .3 of the second, which choose the first and second table."""
    errors = torch.tensor([[0.2, 0.1], [0.4, 0.3]], dtype=torch.double)
    latents = [errors[:, i].sqrt().view(2, 1, 1).expand(2, 3, 4 >> i) for i in range(2)]
    codes = [torch.zeros_like(part) for part in latents]
    route = torch.eye(2, dtype=torch.double, requires_grad=True)
    loss = adaptive._commitment(latents, codes, route)
    assert loss.item() == pytest.approx(0.25, abs=1e-9) and not loss.requires_grad


def test_adaptive_moving_average_by_hand(silence):
    """A chosen image with tokens 2 and 4: N from 1 to 1.5, m from 0 to 3, c = 2. The other image changes nothing."""
    quantizer = routed(torch.tensor([[9.0, 0.0], [0.0, 9.0]], dtype=torch.double))
    set_codes(quantizer, [0.0, 100.0], [50.0, 60.0])
    table, other = quantizer.tables()
    quantizer(torch.tensor([[[2.0], [4.0]], [[51.0], [52.0]]], dtype=torch.double))
    quantizer.after_step()
    assert (table.ema_counts[0], table.ema_sums[0], table.codes[0]) == (1.5, 3.0, 2.0)
    assert table.ema_counts[1] == 0.5 and table.codes[1] == 100.0
    assert other.ema_counts.tolist() == [1.5, 0.5] and other.codes.flatten().tolist() == [pytest.approx(153 / 3), 60.0]


def test_adaptive_table_that_nothing_chooses_keeps_its_codes(silence):
    quantizer = tiny_quantizer(OPTIONS)
    nn.init.constant_(quantizer.router.out.bias, 0.0)
    with torch.no_grad():
        quantizer.router.out.bias[0] = 100.0
    before = [{name: value.clone() for name, value in table.state_dict().items()} for table in quantizer.tables()]
    output = quantizer(visual_tokens())
    quantizer.after_step()
    for i, (table, state) in enumerate(zip(quantizer.tables(), before, strict=True)):
        assert torch.equal(table.ema_sums, state["ema_sums"]) == (i > 0)
        assert torch.allclose(table.codes, state["codes"]) == (i > 0)
    metrics = {name: float(value) for name, value in output.metrics.items()}
    assert metrics["share_table_1"] == 1 and metrics["bits_per_token"] == 3
    assert "the table(s) 16 x 4, 32 x 2 for less than 1%" in quantizer.metric_alarm(metrics)
    assert quantizer.metric_alarm({"share_table_1": 0.3, "share_table_2": 0.3, "share_table_3": 0.4}) is None


def test_adaptive_restart_takes_latents_of_images_that_chose_the_table(silence):
    quantizer = routed(torch.tensor([[9.0, 0.0], [0.0, 9.0]], dtype=torch.double))
    set_codes(quantizer, [0.0, 100.0], [50.0, 60.0])
    quantizer(torch.tensor([[[2.0], [4.0]], [[51.0], [52.0]]], dtype=torch.double))
    quantizer.after_step()
    assert quantizer.restart(1e9, 1.0, generator_for(0)) == 4
    assert [set(table.codes.flatten().tolist()) for table in quantizer.tables()] == [{2.0, 4.0}, {51.0, 52.0}]


def test_adaptive_indices_follow_the_route_without_noise(noise):
    """Noise turns the second image to the first table; its indices stay in the second."""
    quantizer = routed(torch.tensor([[1.0, 0.0], [0.0, 0.1]], dtype=torch.double))
    set_codes(quantizer, [1.0, 3.0], [2.0, 1.0])
    output = quantizer(torch.tensor([[[1.6]], [[2.6]]], dtype=torch.double))
    assert output.indices.tolist() == [[0], [2]] and output.counts.tolist() == [1, 0, 1, 0]
    assert output.detached.flatten().tolist() == [1.0, 2.0]
    torch.testing.assert_close(output.quantized.flatten(), torch.tensor([1.0, 3.0], dtype=torch.double))
    assert output.metrics["route_argmax_share"] == 0.5 and output.metrics["share_table_2"] == 0.5


def test_adaptive_bits_are_those_of_the_chosen_tables():
    quantizer = tiny_quantizer(OPTIONS).eval()
    output = quantizer(visual_tokens(32))
    ends = torch.tensor([8, 24, 56])
    tables = torch.bucketize(output.indices, ends, right=True)
    assert (tables == tables[:, :1]).all(), "an image has one table"
    expected = torch.tensor([3.0, 4.0, 5.0])[tables[:, 0]].mean()
    torch.testing.assert_close(output.metrics["bits_per_token"], expected)


def test_adaptive_temperature_and_balance_anneal_by_step():
    quantizer = tiny_quantizer(OPTIONS | {"anneal_steps": 4})
    found = []
    for step in range(6):
        found.append(quantizer.temperature().item())
        assert quantizer.steps == step
        balance = quantizer(visual_tokens(seed=step)).terms["adq_balance"]
        assert (balance > 0) == (step < 4)
        quantizer.after_step()
    assert found == [2.0, 1.625, 1.25, 0.875, 0.5, 0.5]
    quantizer(visual_tokens())
    quantizer.after_skipped_step()
    quantizer.after_step()
    assert quantizer.steps == 6
    quantizer.fit(latents_of(quantizer, visual_tokens(8)), generator_for(1), 1.0)
    assert quantizer.steps == 0, "after alignment, in which nothing trains the router"


def test_adaptive_noise_depends_on_seed_step_and_draw():
    def routes(quantizer, draws=1):
        return [quantizer._sample(torch.zeros(64, 3), remember=True)[0].argmax(-1) for _ in range(draws)]

    first, second = routes(tiny_quantizer(OPTIONS), draws=2)
    assert torch.equal(routes(tiny_quantizer(OPTIONS))[0], first) and not torch.equal(first, second)
    assert not torch.equal(routes(tiny_quantizer(OPTIONS | {"seed": 1}))[0], first)
    later = tiny_quantizer(OPTIONS)
    later.steps += 1
    assert not torch.equal(routes(later)[0], first)
    assert {0, 1, 2} == set(first.tolist())


def test_adaptive_evaluation_has_no_balance_and_draws_nothing():
    quantizer = tiny_quantizer(OPTIONS).eval()
    output = quantizer(visual_tokens())
    assert list(output.terms) == ["commitment"] and output.metrics["route_argmax_share"] == 1 and quantizer.draws == 0
    assert torch.equal(output.quantized, quantizer(visual_tokens()).quantized)


def test_adaptive_fit_is_of_every_table_on_all_latents():
    quantizer = tiny_quantizer(OPTIONS)
    latents, again = latents_of(quantizer, visual_tokens(8, seed=9)), generator_for(1)
    for table, part in zip(quantizer.tables(), latents.split([8, 4, 2, 3], dim=-1), strict=False):
        codes = table.codes.clone()
        table.fit(part.contiguous(), again, 1.0)  # the same draws as in `tiny_quantizer`
        torch.testing.assert_close(table.codes, codes)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tables": [[8, 8]]}, r"len\(tables\)=1 must be at least 2"),
        ({"tables": [[8, 8], [16]]}, r"tables\[1\]=\[16\] must be \[number of codes, code width\]"),
        ({"tables": [[8, 8], [16, 8]]}, "8 x 8 = 64, 16 x 8 = 128"),
        ({"tables": [[1, 8], [2, 4]]}, r"tables\[0\]\[0\]=1 must be at least 2"),
        ({"temperature": 0}, "temperature"),
        ({"anneal_steps": 0}, "anneal_steps"),
        ({"update": "loss"}, "no option 'update'"),
    ],
)
def test_adaptive_rejects_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        CBViLAConfig(quantizer_config={"type": "adaptive", **options})


def test_adaptive_rejects_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="router_heads=5 does not divide the width 32"):
        tiny_quantizer(OPTIONS | {"router_heads": 5})


# In a model

GROUPS = {
    "vit": "cbvila.vision_model.",
    "router": "cbvila.quantizer.router.",
    "first in": "cbvila.quantizer.code_tables.0.in_proj.",
    "first out": "cbvila.quantizer.code_tables.0.out_proj.",
    "other in": "cbvila.quantizer.code_tables.1.in_proj.",
    "other out": "cbvila.quantizer.code_tables.1.out_proj.",
}
ROUTES = {
    "pixel": {"vit", "router", "first in", "first out"},
    "commitment": {"vit", "first in"},
    "adq_balance": {"router"},
    "mim": {"first out"},
}


@pytest.mark.parametrize("term", ROUTES)
def test_adaptive_terms_train_what_the_table_says(term, silence):
    """With all images in the first table."""
    model = fitted_model(OPTIONS).train()
    router = model.cbvila.quantizer.router
    with torch.no_grad():
        router.out.bias.copy_(torch.tensor([3.0, 0.0, 0.0]))
    model(**tiny_pairs()).losses[term].backward()
    reached = {
        group
        for group, prefix in GROUPS.items()
        for name, parameter in model.named_parameters()
        if name.startswith(prefix) and parameter.grad is not None and parameter.grad.abs().max() > 1e-9
    }
    assert reached == ROUTES[term]
    assert not [name for name, _ in model.named_parameters() if name.endswith(".codes")], "codes are moving averages"


def test_adaptive_pretraining_losses_and_metrics():
    model, batch = fitted_model(OPTIONS).train(), tiny_pairs()
    output = model(**batch)
    assert output.codebook_indices.shape == (4, PATCHES) and output.codebook_counts.shape == (56,)
    assert output.mim_logits.shape[-1] == 56 and {"commitment", "adq_balance"} <= output.losses.keys()
    assert {"bits_per_token", "share_table_3", "usage"} <= output.codebook_statistics.keys()
    weights = model.config.loss_weights()
    assert weights["adq_balance"] == 0.01 and model.config.loss_phases()["adq_balance"] == "start"
    expected = sum(weights[name] * loss for name, loss in output.losses.items())
    torch.testing.assert_close(output.loss, expected)
    assert "adq_balance" not in model(**batch, loss_weights={"adq_balance": 0.0}).losses
    assert "adq_balance" not in model.eval()(**batch).losses


@pytest.mark.parametrize("head", ["linear", "tied"])
def test_adaptive_reconstruct(head):
    model, batch = fitted_model(OPTIONS, objectives={"mim": {"head": head}}), tiny_pairs()
    inputs = [batch[name] for name in ("pixel_values", "input_ids", "attention_mask", "bool_masked_pos")]
    found = model.reconstruct(*inputs)
    assert found.pixel_values.shape == batch["pixel_values"].shape and found.codebook_indices.max() < 56


def test_adaptive_gradient_gap_is_0_for_tokens_that_are_their_codes():
    model, batch = fitted_model(OPTIONS), tiny_pairs()
    inputs = [batch[name] for name in ("pixel_values", "input_ids", "attention_mask")]
    gap = gradient_gap(model, *inputs)
    assert gap > 0 and not model.training and all(p.grad is None for p in model.parameters())
    quantizer = model.cbvila.quantizer
    quantizer.unquantized = lambda tokens: quantizer(tokens).quantized
    assert gradient_gap(model, *inputs) == 0
