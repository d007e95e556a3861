import pytest
import torch
from tiny import CODES, PATCHES, build, tiny_config, tiny_pairs
from torch import nn
from transformers import set_seed

from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.model.code_generator_cbvila import CBViLACodeGenerator
from transformers_cbvila.model.configuration_cbvila import CBViLAConfig
from transformers_cbvila.model.losses_cbvila import codebook_loss, commitment_loss
from transformers_cbvila.model.modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining
from transformers_cbvila.model.nearest_codes_cbvila import nearest_codes

TERMS = ("raq_pixel", "raq_codebook", "raq_commitment")


def generator_of(dim=4, max_codes=12, feed="table", unit_norm=False, dropout=0.0):
    set_seed(0)
    generator = CBViLACodeGenerator(dim, max_codes, feed, unit_norm, dropout).double()
    with torch.no_grad():
        generator.init_own_weights(0.1)
    return generator


def raq_model(model_class=CBViLAForPreTraining, raq=None, **fields):
    """A pretraining model with the objective and codes that differ, in training mode."""
    model = build(model_class, tiny_config(objectives={"raq": raq or {}}, **fields)).train()
    (table,) = model.cbvila.quantizer.tables()
    table.set_codes(torch.randn(CODES, table.codes.shape[1], generator=generator_for(3)))
    return model


# The generator


@pytest.mark.parametrize(
    "given, number, expected",
    [
        (3, 8, "d0 e1 d1 e2 d3 e3 d5 d6"),
        (3, 2, "d0 e1"),
        (3, 3, "d0 e1 d1"),
        (2, 5, "d0 e1 d1 e2 d3"),
        (3, 1, "d0"),
    ],
)
def test_generator_table_feed_by_hand(given, number, expected):
    generator = generator_of(dim=1)
    with torch.no_grad():
        generator.table.copy_(torch.arange(12.0).unsqueeze(-1))
    codes = 100 + torch.arange(1.0, given + 1, dtype=torch.double).unsqueeze(-1)
    inputs = generator._table_inputs(codes, number).flatten().int().tolist()
    assert " ".join(f"e{i - 100}" if i > 100 else f"d{i}" for i in inputs) == expected


class Counting(nn.Module):
    """A decoder whose n-th output is n."""

    def __init__(self):
        super().__init__()
        self.inputs = []

    def forward(self, fed, state):
        self.inputs.append(int(fed))
        return torch.full((1, 1, 1), len(self.inputs), dtype=torch.double), state


@pytest.mark.parametrize(
    "given, number, expected",
    [
        (3, 8, "e1 o1 e2 o3 e3 o5 o6 o7"),
        (3, 2, "e1 o1"),
        (3, 3, "e1 o1 e2"),
        (2, 5, "e1 o1 e2 o3 o4"),
    ],
)
def test_generator_own_feed_by_hand(given, number, expected):
    generator = generator_of(dim=1, feed="own")
    generator.decoder = Counting()
    codes = 100 + torch.arange(1.0, given + 1, dtype=torch.double).unsqueeze(-1)
    assert generator(codes, number).shape == (number, 1)
    assert " ".join(f"e{i - 100}" if i > 100 else f"o{i}" for i in generator.decoder.inputs) == expected


@pytest.mark.parametrize("width, number", [(32, 33_792), (64, 133_120)])
def test_generator_has_the_parameters_of_two_lstms(width, number):
    generator = generator_of(dim=width)
    lstms = [*generator.encoder.parameters(), *generator.decoder.parameters()]
    assert sum(parameter.numel() for parameter in lstms) == number == 4 * 4 * (2 * width**2 + 2 * width)
    assert generator.table.shape == (12, width) and not hasattr(generator_of(feed="own"), "table")


def test_generator_is_a_sequence_to_sequence_model():
    """Cell by cell: the decoder starts from the last states of both encoder layers, and its states are the codes."""
    generator = generator_of(unit_norm=False)
    codes = torch.randn(3, 4, dtype=torch.double)

    def run(lstm, inputs, states):
        outputs = []
        for value in inputs:
            for layer in range(2):
                hidden, cell = states[layer]
                gates = value @ getattr(lstm, f"weight_ih_l{layer}").T + getattr(lstm, f"bias_ih_l{layer}")
                gates = gates + hidden @ getattr(lstm, f"weight_hh_l{layer}").T + getattr(lstm, f"bias_hh_l{layer}")
                enter, forget, new, leave = gates.chunk(4)
                cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
                hidden = leave.sigmoid() * cell.tanh()
                states[layer], value = (hidden, cell), hidden
            outputs.append(value)
        return torch.stack(outputs), states

    zero = torch.zeros(4, dtype=torch.double)
    _, states = run(generator.encoder, codes, [(zero, zero), (zero, zero)])
    expected, _ = run(generator.decoder, generator._table_inputs(codes, 8), states)
    torch.testing.assert_close(generator(codes, 8), expected)
    assert expected.abs().max() < 1
    generator.scale.data.fill_(3.0)
    generator.shift.data.fill_(0.5)
    torch.testing.assert_close(generator(codes, 8), 3 * expected + 0.5)


@pytest.mark.parametrize("feed", ["table", "own"])
def test_generator_unit_norm(feed):
    generator = generator_of(unit_norm=True, feed=feed)
    codes = generator(torch.randn(3, 4, dtype=torch.double), 9)
    torch.testing.assert_close(codes.norm(dim=-1), torch.ones(9, dtype=torch.double))
    assert not hasattr(generator, "scale")


def test_generator_rows_that_are_not_fed_have_no_gradient():
    """Rows t with even 0 < t < 2 K."""
    generator = generator_of()
    generator(torch.randn(3, 4, dtype=torch.double), 12).square().sum().backward()
    reached = generator.table.grad.abs().amax(-1) > 0
    assert reached.nonzero().flatten().tolist() == [0, 1, 3, 5, 6, 7, 8, 9, 10]
    assert (generator.table.grad[[2, 4, 11]] == 0).all()


@pytest.mark.parametrize("number", [0, 13])
def test_generator_rejects_numbers_that_it_has_no_rows_for(number):
    with pytest.raises(ValueError, match=f"{number} codes were asked for: this model generates 1 to 12"):
        generator_of()(torch.zeros(3, 4, dtype=torch.double), number)


# The objective


def test_raq_losses_are_those_of_generated_codes():
    model, batch = raq_model(), tiny_pairs()
    raq, quantizer = model.objectives["raq"], model.cbvila.quantizer
    number = raq.number_of_codes()
    output = model(**batch)
    codes = raq.generator(quantizer.table(), number)
    tokens = model.cbvila.vision_model(batch["pixel_values"]).last_hidden_state[:, 1:]
    latents = quantizer.encode(tokens)
    chosen = codes[nearest_codes(latents.flatten(0, 1), codes)].view_as(latents)
    torch.testing.assert_close(output.losses["raq_codebook"], codebook_loss(latents, chosen))
    torch.testing.assert_close(output.losses["raq_commitment"], commitment_loss(latents, chosen))
    pixels = model.eval().reconstruct(batch["pixel_values"], batch["input_ids"], batch["attention_mask"], codes=codes)
    error = (pixels.pixel_values - batch["pixel_values"]).square().mean()
    torch.testing.assert_close(output.losses["raq_pixel"], error)
    assert pixels.codebook_indices.max() < number


GROUPS = {
    "vit": "cbvila.vision_model.",
    "text": "cbvila.text_model.",
    "fusion": "cbvila.fusion_model.",
    "in_proj": "cbvila.quantizer.table.in_proj.",
    "out_proj": "cbvila.quantizer.table.out_proj.",
    "codes": "cbvila.quantizer.table.codes",
    "pixel head": "objectives.pixel.head.",
    "mim head": "objectives.mim.head.",
    "generator": "objectives.raq.generator.",
}
PIXEL = {"vit", "text", "fusion", "in_proj", "out_proj", "pixel head"}
ROUTES = {
    "ema": {"raq_pixel": PIXEL, "raq_codebook": {"generator"}, "raq_commitment": {"vit", "in_proj"}},
    "loss": {"raq_pixel": PIXEL, "raq_codebook": {"generator", "codes"}, "raq_commitment": {"vit", "in_proj"}},
    "not to the image encoder": {
        "raq_pixel": PIXEL - {"vit", "in_proj"},
        "raq_codebook": {"generator"},
        "raq_commitment": {"vit", "in_proj"},
    },
}


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("kind", ROUTES)
def test_raq_terms_train_what_the_table_says(term, kind):
    fields = {"codebook_update": "loss"} if kind == "loss" else {}
    model = raq_model(**fields, **({"pixel_grad_to_vit": False} if kind.startswith("not") else {}))
    model(**tiny_pairs()).losses[term].backward()
    reached = {
        group
        for group, prefix in GROUPS.items()
        for name, parameter in model.named_parameters()
        if name.startswith(prefix) and parameter.grad is not None and parameter.grad.abs().max() > 1e-9
    }
    assert reached == ROUTES[kind][term]


def test_raq_does_not_count_in_moving_averages():
    with_raq, without = raq_model(), build(CBViLAForPreTraining, tiny_config()).train()
    without.load_state_dict({n: v for n, v in with_raq.state_dict().items() if "raq" not in n})
    batch = tiny_pairs()
    seed = {"negative_seed": 1}
    first, second = with_raq(**batch, **seed), without(**batch, **seed)
    for name, loss in second.losses.items():
        assert torch.equal(first.losses[name], loss), name
    for model in (with_raq, without):
        model.after_step()
    for name, value in without.cbvila.quantizer.state_dict().items():
        assert torch.equal(with_raq.cbvila.quantizer.state_dict()[name], value), name


def test_raq_numbers_of_codes_are_uniform_and_repeatable():
    model = raq_model(raq={"min_codes": 3, "max_codes": 6})
    raq, again, other = (
        raq_model(raq={"min_codes": 3, "max_codes": 6, "seed": s}).objectives["raq"] for s in (0, 0, 1)
    )
    drawn = []
    for _ in range(2000):
        drawn.append(raq.number_of_codes())
        raq.after_step()
    counts = torch.bincount(torch.tensor(drawn), minlength=7)
    assert counts[:3].sum() == 0 and (counts[3:] > 430).all() and len(counts) == 7
    assert again.number_of_codes() == drawn[0]
    again.steps += 1000
    assert again.number_of_codes() == drawn[1000]
    numbers = []
    for _ in range(20):
        numbers.append(other.number_of_codes())
        other.after_step()
    assert numbers != drawn[:20]
    model.after_step()
    assert model.objectives["raq"].steps == 1


def test_raq_limits_are_an_eighth_to_four_times_the_codes():
    assert raq_model().objectives["raq"].limits == (2, 4 * CODES)
    options = CBViLAConfig(objectives={"raq": {}}).objectives["raq"]
    assert options.limits(512) == (64, 2048)
    assert type(options)(min_codes=5, max_codes=9).limits(512) == (5, 9)


def test_raq_weights_and_phases():
    config = CBViLAConfig(objectives={"raq": {"weight": 0.5, "move_latents": 0.25}})
    weights, phases = config.loss_weights(), config.loss_phases()
    assert [weights[term] for term in TERMS] == [1.5, 0.5, 0.125]
    assert [phases[term] for term in TERMS] == ["stable"] * 3
    assert not set(TERMS) & CBViLAConfig().loss_weights().keys(), "it is off by default"
    assert "raq" not in CBViLAConfig(objectives={"raq": {"weight": 0.0}}).active_objectives()


def test_raq_is_absent_in_evaluation():
    model, batch = raq_model().eval(), tiny_pairs()
    assert not set(TERMS) & model(**batch).losses.keys()


def test_raq_dropout_is_off_for_codes_of_another_rate():
    model = raq_model(raq={"dropout": 0.5})
    raq, codes = model.objectives["raq"], model.cbvila.quantizer.table()
    first = raq.codes_at(codes, 7)
    assert first.shape == (7, codes.shape[1]) and not first.requires_grad and raq.generator.training
    assert torch.equal(raq.codes_at(codes, 7), first) and not torch.equal(raq.generator(codes, 7), first)


@pytest.mark.parametrize(
    "objectives, quantizer, message",
    [
        ({"raq": {}}, {"type": "residual"}, r"needs a quantizer that can use other codes \(nearest\), not 'residual'"),
        ({"raq": {}, "pixel": None}, {}, "needs the objective 'pixel'"),
        ({"raq": {"min_codes": 9, "max_codes": 8}}, {}, "min_codes=9 is above max_codes=8"),
        ({"raq": {"dropout": 1.0}}, {}, "dropout"),
        ({"raq": {"feed": "none"}}, {}, "feed"),
    ],
)
def test_raq_rejects_impossible_options(objectives, quantizer, message):
    with pytest.raises(ValueError, match=message):
        CBViLAConfig(objectives=objectives, quantizer_config=quantizer)


def test_raq_save_and_load(tmp_path):
    model = raq_model()
    model.after_step()
    model.save_pretrained(tmp_path)
    loaded = CBViLAForPreTraining.from_pretrained(tmp_path)
    before, after = model.objectives["raq"], loaded.objectives["raq"]
    assert after.steps == 1 and before.number_of_codes() == after.number_of_codes()
    codes = model.cbvila.quantizer.table()
    assert torch.equal(before.codes_at(codes, 20), after.codes_at(loaded.cbvila.quantizer.table(), 20))


def test_raq_starts_from_random_weights_in_a_checkpoint_without_it(tmp_path):
    build(CBViLAForPreTraining, tiny_config()).save_pretrained(tmp_path)
    loaded = CBViLAForPreTraining.from_pretrained(tmp_path, objectives={"raq": {}})
    generator = loaded.objectives["raq"].generator
    assert all(0 < p.abs().max() < 2 and p.isfinite().all() for p in generator.parameters())
    assert loaded.objectives["raq"].steps == 0


def test_raq_in_masked_image_modeling():
    model, batch = raq_model(CBViLAForMaskedImageModeling), tiny_pairs()
    inputs = {name: batch[name] for name in ("pixel_values", "bool_masked_pos", "input_ids", "attention_mask")}
    output = model(**inputs)
    assert set(TERMS) <= output.losses.keys()
    output.loss.backward()
    assert not set(TERMS) & model.eval()(**inputs).losses.keys()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_raq_in_other_precisions(dtype):
    model = raq_model().to(dtype)
    batch = {name: v.to(dtype) if v.is_floating_point() else v for name, v in tiny_pairs().items()}
    output = model(**batch)
    output.loss.backward()
    assert output.loss.isfinite() and output.losses["raq_codebook"].dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize("feed", ["table", "own"])
def test_raq_with_the_paper_preset(feed):
    """Codes of any length as a parameter, gumbel noise for the base codebook, and both kinds of pixel queries."""
    model = raq_model(raq={"feed": feed, "min_codes": 3, "max_codes": 9}, preset="paper")
    output = model(**tiny_pairs())
    output.loss.backward()
    assert set(TERMS) <= output.losses.keys() and model.objectives["raq"].generator.scale.grad.abs().max() > 0
    assert not [name for name, p in model.objectives["raq"].named_parameters() if p.grad is None]


# Reconstruction from other codes


def test_reconstruct_with_own_codes_is_the_same():
    model, batch = raq_model().eval(), tiny_pairs()
    inputs = [batch[name] for name in ("pixel_values", "input_ids", "attention_mask")]
    own = model.reconstruct(*inputs)
    given = model.reconstruct(*inputs, codes=model.cbvila.quantizer.table())
    assert torch.equal(own.pixel_values, given.pixel_values)
    assert torch.equal(own.codebook_indices, given.codebook_indices)


def test_reconstruct_with_fewer_codes_uses_them_only():
    model, batch = raq_model().eval(), tiny_pairs()
    codes = model.cbvila.quantizer.table()[:3]
    found = model.reconstruct(batch["pixel_values"], codes=codes)
    assert found.codebook_indices.shape == (4, PATCHES) and found.codebook_indices.max() <= 2


def test_reconstruct_masked_patches_with_other_codes_needs_a_tied_head():
    batch = tiny_pairs()
    model = raq_model().eval()
    codes = model.cbvila.quantizer.table()[:3]
    inputs = [batch[name] for name in ("pixel_values", "input_ids", "attention_mask", "bool_masked_pos")]
    with pytest.raises(ValueError, match="cannot predict other codes: leave bool_masked_pos or codes out"):
        model.reconstruct(*inputs, codes=codes)
    tied = raq_model(mim_head="tied").eval()
    found = tied.reconstruct(*inputs, codes=tied.cbvila.quantizer.table()[:3])
    assert found.codebook_indices.max() <= 2 and found.pixel_values.shape == batch["pixel_values"].shape


@pytest.mark.parametrize("codes", [torch.zeros(3, 5), torch.zeros(8)])
def test_reconstruct_rejects_codes_of_another_width(codes):
    with pytest.raises(ValueError, match=r"codes have shape .* expected \(number of codes, 8\)"):
        raq_model().eval().reconstruct(tiny_pairs()["pixel_values"], codes=codes)


def test_reconstruct_rejects_other_codes_where_the_quantizer_has_several_tables():
    config = tiny_config()
    config.quantizer_config = {"type": "residual", "size": 8, "dim": 6}
    model = build(CBViLAForPreTraining, config)
    with pytest.raises(ValueError, match="quantizer 'residual' does not use codes"):
        model.reconstruct(tiny_pairs()["pixel_values"], codes=torch.zeros(3, 6))
