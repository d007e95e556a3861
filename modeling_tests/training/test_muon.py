"""Muon for the matrices of transformer layers, beside AdamW."""

import copy
import math

import pytest
import torch
from tiny import pretraining_model
from tiny_trainer import pretrainer, training_arguments

from transformers_cbvila.training.muon import MuonWithAdamW, orthogonalized


def random_matrix(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def parameters(*shapes):
    made = [torch.nn.Parameter(random_matrix(*shape, seed=seed)) for seed, shape in enumerate(shapes)]
    for seed, parameter in enumerate(made):
        parameter.grad = random_matrix(*parameter.shape, seed=100 + seed)
    return made


def optimizer_of(matrix, other, **options):
    groups = [{"params": [other]}, {"params": [matrix], "muon": True, "lr": 2e-3, "weight_decay": 0.05}]
    return MuonWithAdamW(groups, **({"lr": 5e-4, "betas": (0.9, 0.98), "weight_decay": 0.01} | options))


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (32, 8)])
def test_orthogonalized_keeps_directions_and_evens_out_singular_values(shape):
    matrix = random_matrix(*shape)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.T @ orthogonalized(matrix) @ right.T
    found = inner.diagonal()
    torch.testing.assert_close(inner, torch.diag(found), atol=1e-4, rtol=0)
    assert values.max() / values.min() > 1.5 and found.min() > 0.6 and found.max() < 1.25


def test_orthogonalized_of_a_diagonal_matrix_by_hand():
    values = torch.tensor([3.0, 4.0]) / 5.0  # their norm is 1
    for _ in range(5):
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    torch.testing.assert_close(orthogonalized(torch.diag(torch.tensor([3.0, 4.0]))), torch.diag(values))


def test_orthogonalized_scale_transpose_and_zero():
    matrix = random_matrix(8, 12)
    torch.testing.assert_close(orthogonalized(1e3 * matrix), orthogonalized(matrix))
    torch.testing.assert_close(orthogonalized(matrix.T), orthogonalized(matrix).T)
    assert torch.equal(orthogonalized(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_muon_steps_as_torch_does():
    """Torch computes in bfloat16, which has three digits."""
    (ours, other), (peers, _) = parameters((16, 24), (4, 4)), parameters((16, 24), (4, 4))
    before = ours.detach().clone()
    optimizer = optimizer_of(ours, other)
    peer = torch.optim.Muon([peers], lr=2e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        ours.grad = peers.grad = random_matrix(16, 24, seed=step)
        optimizer.step()
        peer.step()
    assert (ours - peers).norm() < 0.02 * (peers - before).norm()


def test_muon_first_step_by_hand():
    matrix, other = parameters((2, 2), (2, 2))
    before = matrix.detach().clone()
    matrix.grad = torch.diag(torch.tensor([3.0, 4.0]))
    optimizer_of(matrix, other).step()
    expected = before * (1 - 2e-3 * 0.05) - 2e-3 * 0.2 * math.sqrt(2) * orthogonalized(matrix.grad)
    torch.testing.assert_close(matrix.detach(), expected)


def test_others_are_changed_by_adamw():
    (matrix, ours), (_, peers) = parameters((4, 4), (3, 5)), parameters((4, 4), (3, 5))
    optimizer = optimizer_of(matrix, ours)
    peer = torch.optim.AdamW([peers], lr=5e-4, betas=(0.9, 0.98), weight_decay=0.01)
    schedules = [torch.optim.lr_scheduler.LambdaLR(each, lambda step: 1 / (1 + step)) for each in (optimizer, peer)]
    for step in range(3):
        ours.grad = peers.grad = random_matrix(3, 5, seed=step)
        for each in (optimizer, peer, *schedules):
            each.step()
    assert torch.equal(ours, peers)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-4 / 4, 2e-3 / 4])


def test_saved_state_goes_on_as_if_never_saved():
    whole, broken = parameters((4, 6), (3, 5)), parameters((4, 6), (3, 5))
    optimizers = [optimizer_of(*whole), optimizer_of(*broken)]
    for each in optimizers:
        each.step()
    state = copy.deepcopy(optimizers[1].state_dict())
    optimizers[1] = optimizer_of(*broken, lr=1.0)
    optimizers[1].load_state_dict(state)
    for each in optimizers:
        each.step()
    assert all(torch.equal(one, other) for one, other in zip(whole, broken, strict=True))


def test_parameters_without_gradient_stay_and_have_no_state():
    matrix, other = parameters((4, 6), (3, 5))
    matrix.grad = None
    before, optimizer = matrix.detach().clone(), optimizer_of(matrix, other)
    optimizer.step()
    assert torch.equal(matrix, before) and matrix not in optimizer.state


def test_closure_is_called_with_gradients():
    matrix, other = parameters((4, 6), (3, 5))

    def closure():
        loss = (matrix**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer_of(matrix, other).step(closure) == pytest.approx((random_matrix(4, 6) ** 2).sum().item())


def test_muon_takes_matrices_only():
    vector = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match=r"has the shape \(3,\)"):
        optimizer_of(vector, torch.nn.Parameter(torch.zeros(3)))


def test_trainer_gives_muon_the_matrices_of_layers(tmp_path):
    trainer = pretrainer(tmp_path, model=pretraining_model(), weight_decay=0.02, muon_learning_rate=4e-3)
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    groups = trainer.create_optimizer().param_groups
    members = [{names[id(p)] for p in group["params"]} for group in groups]
    assert sorted(name for group in members for name in group) == sorted(names.values())
    assert [(group["muon"], group["lr"]) for group in groups] == [(False, 1e-3), (False, 1e-3), (True, 4e-3)]
    of_muon = members[-1]
    assert all(".layers." in name and name.endswith("weight") for name in of_muon)
    for tower in ("vision_model", "text_model", "fusion_model"):
        assert f"cbvila.{tower}.layers.0.mlp.fc1.weight" in of_muon
    assert not any("norm" in name for name in of_muon)


def test_a_tower_with_its_own_rate_is_left_to_adamw(tmp_path):
    trainer = pretrainer(
        tmp_path, model=pretraining_model(), muon_learning_rate=4e-3, vision_learning_rate=0.0, max_steps=2
    )
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    groups = trainer.create_optimizer().param_groups
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    of_muon = {names[id(p)] for group in groups if group["muon"] for p in group["params"]}
    assert of_muon and not any("vision_model" in name for name in of_muon)
    assert {group["lr"] for group in groups if not group["muon"]} == {1e-3, 0.0}
    trainer.train()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert "cbvila.fusion_model.layers.0.mlp.fc1.weight" in changed
    assert not any("vision_model" in name for name in changed), "0 keeps the image encoder as it is"


def test_trainer_learns_with_muon(tmp_path):
    trainer = pretrainer(tmp_path, model=pretraining_model(), muon_learning_rate=4e-3, max_steps=2)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}
    assert {"cbvila.vision_model.layers.0.mlp.fc1.weight", "objectives.itm.head.weight"} <= changed


@pytest.mark.parametrize(
    "options, said",
    [
        ({"muon_learning_rate": 0.0}, "muon_learning_rate=0.0 must be above 0"),
        ({"muon_learning_rate": 1e-3, "optim": "sgd"}, "with optim=sgd"),
    ],
)
def test_impossible_options_are_refused(options, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        training_arguments(tmp_path, **options)


def test_a_given_optimizer_is_not_replaced(tmp_path):
    model = pretraining_model()
    given = torch.optim.SGD(model.parameters(), lr=0.1)
    from transformers_cbvila.training.trainer import CBViLATrainer

    with pytest.raises(ValueError, match="muon_learning_rate=0.001: an optimizer is given"):
        CBViLATrainer(
            model=model, args=training_arguments(tmp_path, muon_learning_rate=1e-3), optimizers=(given, None)
        )
