import pytest
import torch
from tiny import CODES, build, pretraining_model, tiny_config, tiny_pairs

from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.model.code_rates_cbvila import dkm, ikm, mean_discrepancy, most_used
from transformers_cbvila.model.codebook_resizing_cbvila import resize_codebook
from transformers_cbvila.model.modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining


def fp64(values):
    return torch.tensor(values, dtype=torch.double)


E4 = fp64([[0.0, 0.0], [0.0, 1.0], [4.0, 0.0], [4.0, 2.0]])
FAR = E4[[0, 2]]


def assert_near(found, expected):
    torch.testing.assert_close(found, fp64(expected), atol=1e-6, rtol=0)


# Fewer codes


@pytest.mark.parametrize(
    "temperature, expected",
    [
        (0.01, [[0.0, 0.5], [4.0, 1.0]]),
        (1.0, [[0.196263, 0.518677], [3.867468, 0.989497]]),
        (5.0, [[2.0, 0.75], [2.0, 0.75]]),
    ],
)
def test_dkm_by_hand(temperature, expected):
    assert_near(dkm(E4, 2, start=FAR, temperature=temperature), expected)


def test_dkm_needs_few_iterations_at_a_low_temperature():
    assert_near(dkm(E4, 2, start=FAR, iterations=2), [[0.0, 0.5], [4.0, 1.0]])
    assert_near(dkm(E4, 2, start=FAR, temperature=1.0, iterations=10), [[0.196263, 0.518677], [3.867468, 0.989497]])


def test_dkm_from_the_first_codes_ends_in_a_poor_optimum():
    assert_near(dkm(E4, 2, start=E4[:2]), [[2.0, 0.0], [2.0, 1.5]])
    found = dkm(E4, 2, generator=generator_for(0))
    assert_near(found[found[:, 0].argsort()], [[0.0, 0.5], [4.0, 1.0]])


def test_dkm_of_as_many_codes_returns_them():
    assert torch.equal(dkm(E4, 4), E4)


def test_dkm_keeps_a_centre_that_no_code_is_assigned_to():
    assert_near(dkm(E4, 3, start=torch.cat([FAR, fp64([[1e4, 1e4]])])), [[0.0, 0.5], [4.0, 1.0], [1e4, 1e4]])


def test_dkm_of_unit_codes_has_unit_codes():
    codes = torch.nn.functional.normalize(torch.randn(64, 8, generator=generator_for(1)), dim=-1)
    found = dkm(codes, 9, generator_for(2), unit_norm=True)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(9))
    assert torch.equal(dkm(codes, 9, generator_for(2), unit_norm=True), found)


def test_dkm_is_better_than_the_most_used_codes():
    codes = torch.randn(64, 8, generator=generator_for(1))

    def error(few):
        return torch.cdist(codes, few).amin(-1).square().mean()

    for number in (4, 8, 16, 32):
        kept = most_used(codes, torch.rand(64, generator=generator_for(3)), number)
        assert error(dkm(codes, number, generator_for(2))) < error(kept)


@pytest.mark.parametrize("number", [0, 5])
def test_dkm_rejects_numbers_above_those_of_the_codes(number):
    with pytest.raises(ValueError, match=f"DKM makes 1 to 4 codes of 4, not {number}; IKM makes more"):
        dkm(E4, number)


def test_most_used_codes_keep_their_order():
    codes = torch.arange(5.0).unsqueeze(-1)
    assert most_used(codes, torch.tensor([3.0, 0.0, 5.0, 3.0, 4.0]), 3).flatten().tolist() == [0, 2, 4]
    assert most_used(codes, torch.ones(5), 5).flatten().tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="There are 5 codes, of which 6 cannot be kept"):
        most_used(codes, torch.ones(5), 6)


# More codes


def test_mean_discrepancy_by_hand():
    first, second = fp64([[0.0], [1.0]]), fp64([[0.0], [2.0]])
    assert mean_discrepancy(first, second).item() == pytest.approx(1.342886, abs=1e-6)
    assert mean_discrepancy(first, first).item() == pytest.approx(0, abs=1e-12)


def test_ikm_matches_the_distribution_of_the_codes():
    codes = 0.3 * torch.randn(8, 4, generator=generator_for(1)) + 0.2
    found = ikm(codes, 24, generator_for(2), iterations=600)
    assert found.shape == (24, 4) and not found.requires_grad
    start = 0.125 * torch.randn(24, 4, generator=generator_for(2))
    assert mean_discrepancy(found, codes) < 0.1 * mean_discrepancy(start, codes)
    assert torch.equal(ikm(codes, 24, generator_for(2), iterations=600), found)


def test_ikm_starts_again_where_the_result_is_poor(monkeypatch):
    import transformers_cbvila.model.code_rates_cbvila as rates

    deviations = []

    def poor(start, codes, iterations):
        deviations.append(start.std().item())
        return start, 0.5 / len(deviations)

    monkeypatch.setattr(rates, "_match_distribution", poor)
    ikm(torch.randn(200, 32, generator=generator_for(1)), 400, generator_for(2))
    assert deviations == [pytest.approx(0.125, rel=0.05), pytest.approx(0.2, rel=0.05)]


@pytest.mark.parametrize("number, decay", [(1000, 0.01), (1001, 0.05)])
def test_ikm_decays_weights_more_where_there_are_many(number, decay, monkeypatch):
    seen = {}
    adamw = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *args, **options: seen.update(options) or adamw(*args, **options))
    ikm(torch.randn(4, 2, generator=generator_for(1)), number, iterations=1)
    assert seen == {"lr": 5e-3, "weight_decay": decay}


def test_ikm_rejects_numbers_up_to_those_of_the_codes():
    with pytest.raises(ValueError, match="IKM makes more than 4 codes of 4, not 4; DKM makes fewer"):
        ikm(E4, 4)


# Models


def trained(model_class=CBViLAForPreTraining, objectives=None, **fields):
    model = build(model_class, tiny_config(objectives=objectives or {}, **fields))
    (table,) = model.cbvila.quantizer.tables()
    table.set_codes(torch.randn(CODES, table.codes.shape[1], generator=generator_for(3)))
    return model


@pytest.mark.parametrize("model_class", [CBViLAForPreTraining, CBViLAForMaskedImageModeling])
@pytest.mark.parametrize("head", ["linear", "tied"])
@pytest.mark.parametrize("number", [5, 40])
def test_resized_model_saves_and_loads(number, head, model_class, tmp_path):
    model = trained(model_class, {"mim": {"head": head}})
    codes = torch.randn(number, 8, generator=generator_for(4))
    resized, left_out = resize_codebook(model, codes)
    assert left_out == [] and resized.config.quantizer_config.size == number
    assert model.config.quantizer_config.size == CODES
    batch = tiny_pairs()
    pixels = model.reconstruct(batch["pixel_values"], codes=resized.cbvila.quantizer.table()).pixel_values
    torch.testing.assert_close(resized.reconstruct(batch["pixel_values"]).pixel_values, pixels)
    resized.save_pretrained(tmp_path)
    loaded = model_class.from_pretrained(tmp_path)
    for name, value in resized.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    inputs = {name: batch[name] for name in ("pixel_values", "input_ids", "attention_mask", "bool_masked_pos")}
    loaded.train()(**inputs).loss.backward()
    loaded.after_step()


def test_resized_model_with_kept_codes_keeps_their_weights():
    model = trained(objectives={"mim_cls_bag": {"weight": 1.0}})
    table, kept = model.cbvila.quantizer.table, torch.tensor([1, 4, 9])
    resized, _ = resize_codebook(model, table.codes[kept], torch.arange(float(CODES)))
    for name in ("mim", "mim_cls_bag"):
        head, before = (m.objectives[name].head for m in (resized, model))
        assert torch.equal(head.weight, before.weight[kept]) and torch.equal(head.bias, before.bias[kept])
    assert torch.equal(resized.cbvila.quantizer.table.codes, table.codes[kept])
    assert resized.cbvila.quantizer.table.ema_counts.sum() == sum(range(CODES))
    for name, value in model.state_dict().items():
        if "quantizer.table" not in name and ".head." not in name:
            assert torch.equal(resized.state_dict()[name], value), name


def test_resized_model_shares_counts_among_more_codes():
    model = trained()
    codes = model.cbvila.quantizer.table.codes.repeat(2, 1)
    resized, _ = resize_codebook(model, codes, torch.arange(float(CODES)))
    assert resized.cbvila.quantizer.table.ema_counts.tolist() == [
        count / 2 for count in [*range(CODES), *range(CODES)]
    ]


def test_resized_model_leaves_out_objectives_that_do_not_fit():
    model = trained(objectives={"raq": {}})
    resized, left_out = resize_codebook(model, torch.randn(5, 8))
    assert left_out == ["raq"] and "raq" not in resized.objectives and "raq" not in resized.config.active_objectives()
    fitting = trained(objectives={"raq": {"min_codes": 2, "max_codes": 64}})
    resized, left_out = resize_codebook(fitting, torch.randn(5, 8))
    assert left_out == [] and resized.objectives["raq"].limits == (2, 64)


@pytest.mark.parametrize("options", [{"type": "fsq", "levels": [3, 5]}, {"type": "residual", "size": 8, "dim": 6}])
def test_resize_rejects_quantizers_without_a_single_table(options):
    config = tiny_config()
    config.quantizer_config = options
    with pytest.raises(ValueError, match=f"quantizer '{options['type']}' cannot change its number of codes"):
        resize_codebook(build(CBViLAForPreTraining, config), torch.randn(5, 8))


def test_models_resize_their_codebook():
    model = pretraining_model()
    before = model.cbvila.quantizer.num_codes
    smaller = model.resize_codebook(before // 2)
    assert smaller.cbvila.quantizer.num_codes == before // 2 and model.cbvila.quantizer.num_codes == before
    torch.testing.assert_close(
        smaller.cbvila.quantizer.table(), dkm(model.cbvila.quantizer.table(), before // 2, unit_norm=True)
    )
    with pytest.raises(ValueError, match="method='mean' must be one of dkm, ikm and most_used"):
        model.resize_codebook(4, method="mean")
