"""CODIS: hand values, limits, gradients by term, the teacher's view, and its place in configurations."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import pretraining_model, tiny_pairs

from transformers_cbvila.model import momentum_cbvila, objective_codis_cbvila
from transformers_cbvila.model.configuration_cbvila import CBViLAConfig
from transformers_cbvila.model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining
from transformers_cbvila.model.momentum_cbvila import MomentumPairs, MomentumTargets
from transformers_cbvila.model.objective_codis_cbvila import health, instance_losses, swap_loss, transport_loss
from transformers_cbvila.model.transport_cbvila import as_targets, ipot, sinkhorn

TERMS = {"codis_instance", "codis_transport", "codis_swap"}


def double(rows):
    return torch.tensor(rows, dtype=torch.float64)


IMAGES, TEXTS = double([[1, 0], [0, 1]]), double([[0.6, 0.8], [-0.8, 0.6]])
TEACHER = double([[0.8, 0.6], [0, 1]]), double([[1, 0], [0, 1]])
QUEUE = double([[-1, 0]]), double([[0, -1]])
CODES = double([[1, 0], [0.6, 0.8]])


def similarity(one, other):
    return one @ other.T / 0.5


def momentum_of(images, texts, alpha=0.0, image_ids=None):
    count = len(images)
    ids = torch.arange(count) if image_ids is None else torch.tensor(image_ids)
    known = torch.empty(count, 0, dtype=torch.long)
    return MomentumTargets(alpha, MomentumPairs(images, texts, ids, torch.arange(100, 100 + count), known))


@pytest.mark.parametrize(
    "queue, alpha, expected, mean",
    [
        (False, 0.0, (0.126928, 0.352321, 0.277501, 0.486024), 0.310694),
        (True, 0.0, (0.191238, 0.775466, 0.333376, 0.539108), 0.459797),
        (False, 0.4, (0.335134, 0.472201, 0.277501, 0.486024), 0.392715),
    ],
)
def test_instance_hand_values(queue, alpha, expected, mean):
    keys = [torch.cat([rows, more]) if queue else rows for rows, more in zip(TEACHER, QUEUE, strict=True)]
    found = instance_losses(similarity, IMAGES, TEXTS, momentum_of(*keys, alpha))
    assert [loss.item() for loss in found] == pytest.approx(expected, abs=1e-6)
    assert torch.stack(found).mean().item() == pytest.approx(mean, abs=1e-6)


def test_instance_losses_leave_known_matches_out_within_a_modality():
    """The queue's pair is of the first image: that row has two candidates, not three."""
    keys = [torch.cat([rows, more]) for rows, more in zip(TEACHER, QUEUE, strict=True)]
    found = instance_losses(similarity, IMAGES, TEXTS, momentum_of(*keys, image_ids=[1, 2, 1]))
    of_images = similarity(IMAGES, keys[0])
    rows = [-of_images[0, :2].log_softmax(0)[0], -of_images[1].log_softmax(0)[1]]
    torch.testing.assert_close(found.image_to_image, torch.stack(rows).mean())


def test_known_matches_are_compared_once_for_images_and_once_for_texts(monkeypatch):
    calls, compare = [], momentum_cbvila.matches_between
    monkeypatch.setattr(momentum_cbvila, "matches_between", lambda *ids: calls.append(ids) or compare(*ids))
    instance_losses(similarity, IMAGES, TEXTS, momentum_of(*TEACHER))
    assert len(calls) == 2


def test_instance_losses_need_a_teachers_pair_for_each_of_theirs():
    with pytest.raises(ValueError, match="momentum has 1 pair"):
        instance_losses(similarity, IMAGES, TEXTS, momentum_of(TEACHER[0][:1], TEACHER[1][:1]))


def test_instance_losses_of_one_pair_are_0():
    found = instance_losses(similarity, IMAGES[:1], TEXTS[:1], momentum_of(TEACHER[0][:1], TEACHER[1][:1]))
    assert [loss.item() for loss in found] == [0.0] * 4


def test_transport_and_swap_hand_values():
    targets = [as_targets(ipot(rows @ CODES.T)) for rows in TEACHER]
    for found in targets:
        torch.testing.assert_close(found, double([[1, 0], [0, 1]]), atol=1e-4, rtol=0)
    exact = double([[1, 0], [0, 1]])
    transport = [transport_loss(rows, exact, CODES).item() for rows in TEACHER]
    assert transport == pytest.approx([0.2, 0.1])
    for temperature, of_texts, of_images in ((0.1, 2.009243, 0.009243), (0.5, 0.677501, 0.277501)):
        assert swap_loss(TEXTS, exact, CODES, temperature).item() == pytest.approx(of_texts, abs=1e-6)
        assert swap_loss(IMAGES, exact, CODES, temperature).item() == pytest.approx(of_images, abs=1e-6)


def test_health_by_hand():
    plans = [double([[0.2, 0.1, 0], [0.2, 0.1, 0], [0, 0, 0.4]]), double([[0, 0.3, 0], [0, 0.3, 0], [0, 0.3, 0.1]])]
    found = health(plans, [plans[0][:1], plans[0][:1]])
    assert found["codis_usage"].item() == pytest.approx((2 / 3 + 1 / 3) / 2)
    two_thirds = math.exp(-(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)))
    assert found["codis_perplexity"].item() == pytest.approx((two_thirds + 1) / 2)
    assert found["codis_agreement"].item() == 1.0
    assert health(plans, [plans[0][:2], plans[1][:2]])["codis_agreement"].item() == 0.0


# Models


def codis_model(preset="codis", **options):
    return pretraining_model(preset=preset, objectives={"codis": {"num_codes": 4, **options}})


def batch_and_momentum(model, alpha=0.4, queue=6, seed=5):
    batch = tiny_pairs()
    generator = torch.Generator().manual_seed(seed)
    count, size = len(batch["input_ids"]) + queue, model.config.projection_dim
    images, texts = F.normalize(torch.randn(2, count, size, generator=generator), dim=-1)
    return batch | {"momentum": momentum_of(images, texts, alpha)}


def test_preset_is_albef_with_codis_for_contrast():
    config = CBViLAConfig.from_preset("codis")
    active = {name for name, weight in config.loss_weights().items() if weight > 0}
    assert active == {"itm", "mlm", *TERMS} and config.has_contrastive_head and not config.has_quantizer
    assert config.objectives["codis"].num_codes == 4000
    assert {phase for term, phase in config.loss_phases().items() if term in TERMS} == {"align"}


def test_terms_are_there_in_training_with_a_teacher_only():
    model = codis_model().train()
    batch = batch_and_momentum(model)
    output = model(**batch)
    assert set(output.losses) == {"itm", "mlm", *TERMS}
    assert set(output.metrics) == {"codis_usage", "codis_perplexity", "codis_agreement"}
    assert set(model(**tiny_pairs()).losses) == {"itm", "mlm"}
    assert set(model.eval()(**batch).losses) == {"itm", "mlm"}


@pytest.mark.parametrize("solver", ["ipot", "sinkhorn"])
def test_model_by_hand(solver):
    model = codis_model(solver=solver, temperature=0.2).train()
    batch = batch_and_momentum(model)
    output, codes = model(**batch), model.objectives["codis"].codes
    keys = batch["momentum"].pairs
    scale = model.cbvila.similarity_scale()
    instance = instance_losses(
        lambda i, t: scale * i @ t.T, output.image_embeds, output.text_embeds, batch["momentum"]
    )
    torch.testing.assert_close(output.losses["codis_instance"], sum(instance) / 4)
    solve = {"ipot": ipot, "sinkhorn": sinkhorn}[solver]
    of_images, of_texts = (as_targets(solve(rows @ codes.T)[:4]) for rows in keys[:2])
    cost = (of_images * (1 - keys[0][:4] @ codes.T)).sum() / 4 + (of_texts * (1 - keys[1][:4] @ codes.T)).sum() / 4
    torch.testing.assert_close(output.losses["codis_transport"], cost)
    swapped = -(of_images * (output.text_embeds @ codes.T / 0.2).log_softmax(1)).sum() / 4
    swapped = swapped - (of_texts * (output.image_embeds @ codes.T / 0.2).log_softmax(1)).sum() / 4
    torch.testing.assert_close(output.losses["codis_swap"], swapped)


def touched(model, loss):
    model.zero_grad()
    loss.backward()
    names = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()]
    parts = {
        "vision": "cbvila.vision_model",
        "text": "cbvila.text_model",
        "projections": "_projection.",
        "temperature": "logit_scale",
        "prototypes": "objectives.codis.codes",
        "fusion": "fusion_model",
        "codebook": "quantizer",
    }
    return {part for part, pattern in parts.items() if any(pattern in name for name in names)}


@pytest.mark.parametrize(
    "term, expected",
    [
        ("instance", {"vision", "text", "projections", "temperature"}),
        ("transport", {"prototypes"}),
        ("swap", {"vision", "text", "projections", "prototypes"}),
    ],
)
def test_what_each_term_trains(term, expected):
    model = codis_model().train()
    output = model(**batch_and_momentum(model))
    assert touched(model, output.losses[f"codis_{term}"]) == expected


def test_nothing_reaches_the_teacher():
    model = codis_model().train()
    batch = batch_and_momentum(model)
    images = batch["momentum"].pairs.image_embeds.requires_grad_()
    model(**batch).loss.backward()
    assert images.grad is None


def test_prototypes_have_length_1_at_first_and_after_steps():
    model = codis_model().train()
    codes = model.objectives["codis"].codes
    torch.testing.assert_close(codes.norm(dim=-1), torch.ones(4))
    with torch.no_grad():
        codes.mul_(3)
    model.step_objectives()
    torch.testing.assert_close(codes.norm(dim=-1), torch.ones(4))


def test_frozen_prototypes_stay_for_so_many_steps(tmp_path):
    model = codis_model(freeze_codes_steps=2).train()
    batch = batch_and_momentum(model)
    moved = []
    for _ in range(3):
        model.zero_grad()
        model(**batch).loss.backward()
        moved.append(bool(model.objectives["codis"].codes.grad.any()))
        model.step_objectives()
    assert moved == [False, False, True]
    model.save_pretrained(tmp_path)
    again = CBViLAForPreTraining.from_pretrained(tmp_path)
    assert again.objectives["codis"].steps == 3, "a resumed run counts on"


def test_a_single_pair_has_instance_losses_of_0_and_no_prototypes():
    model = codis_model().train()
    batch = {name: value[:1] if torch.is_tensor(value) else value for name, value in tiny_pairs().items()}
    unit = F.normalize(torch.randn(2, 1, model.config.projection_dim), dim=-1)
    losses = model(**batch, momentum=momentum_of(*unit)).losses
    assert losses["codis_instance"].item() == pytest.approx(0) and not {"codis_transport", "codis_swap"} & set(losses)


def test_few_pairs_for_many_prototypes_are_said_once(monkeypatch):
    said = []
    monkeypatch.setattr(objective_codis_cbvila.logger, "warning", said.append)
    model = codis_model(num_codes=50).train()
    batch = batch_and_momentum(model)
    model(**batch)
    model(**batch)
    assert len(said) == 1 and "50 prototypes, and batch and queue have 10 pairs" in said[0]
    few = codis_model().train()
    few(**batch_and_momentum(few))
    assert len(said) == 1


def test_weights_of_terms():
    config = CBViLAConfig.from_preset("codis", objectives={"codis": {"weight": 2.0, "swap_weight": 0.5}})
    weights = config.loss_weights()
    assert [weights[f"codis_{term}"] for term in ("instance", "transport", "swap")] == [2.0, 2.0, 1.0]


def test_codis_beside_the_codebook():
    model = pretraining_model(objectives={"codis": {"num_codes": 4}, "itc": {"weight": 0.0}}).train()
    losses = model(**batch_and_momentum(model)).losses
    assert {"mim", "pixel", "commitment", *TERMS} <= set(losses)


def test_published_and_loaded(tmp_path):
    model = codis_model()
    model.save_pretrained(tmp_path)
    again = CBViLAForPreTraining.from_pretrained(tmp_path)
    assert torch.equal(again.objectives["codis"].codes, model.objectives["codis"].codes)


def test_fine_tuning_for_retrieval_has_contrast_from_its_projections(tmp_path):
    model = codis_model()
    model.save_pretrained(tmp_path)
    retrieval = CBViLAForImageTextRetrieval.from_pretrained(tmp_path).train()
    assert torch.equal(retrieval.cbvila.vision_projection.weight, model.cbvila.vision_projection.weight)
    names = ("pixel_values", "input_ids", "attention_mask")
    output = retrieval(**{name: value for name, value in tiny_pairs().items() if name in names}, return_loss=True)
    torch.testing.assert_close(output.loss, output.itc_loss + output.itm_loss)


@pytest.mark.parametrize(
    "objectives, said",
    [
        ({"codis": {}, "itc": {"weight": 1.0}}, "codis are both contrast"),
        ({"codis": {"num_codes": 0}}, "num_codes=0 must be at least 1"),
        ({"codis": {"beta": 0.0}}, "beta=0.0 must be above 0"),
        ({"codis": {"solver": "exact"}}, "solver='exact' is not one of 'ipot', 'sinkhorn'"),
        ({"codis": {"swap_weight": -1.0}}, "swap_weight=-1.0 must be at least 0"),
    ],
)
def test_impossible_options(objectives, said):
    with pytest.raises(ValueError, match=said):
        CBViLAConfig(objectives={"itc": {"weight": 0.0}, **objectives})
