"""Optimizer states for sharded weights, on one process; `test_processes.py` trains and resumes with them."""

import pytest
import torch
from torch import nn

from transformers_cbvila.training.fsdp import complete_optimizer_state

OPTIMIZERS = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.5, amsgrad=True),
    "fused adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.5, fused=True),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.1, weight_decay=0.5, momentum=0.9),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, weight_decay=0.5, momentum=0.9),
}


def trained(make_optimizer, complete):
    """Weights of two layers after five steps, of which the second layer has a gradient in the last three."""
    torch.manual_seed(0)
    first, second = nn.Linear(3, 4), nn.Linear(4, 2)
    optimizer, x = make_optimizer([*first.parameters(), *second.parameters()]), torch.randn(5, 3)
    for step in range(5):
        if complete and step in (1, 2):
            complete_optimizer_state(optimizer)
            assert len(optimizer.state) == 4, "everything has a state"
        (first(x).square().mean() if step < 2 else second(first(x)).square().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [*first.parameters(), *second.parameters()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_complete_optimizer_state_changes_no_step(name):
    """Neither weight decay nor the correction of moments by the number of steps begins any sooner."""
    plain, completed = (trained(OPTIMIZERS[name], complete) for complete in (False, True))
    assert all(torch.equal(own, other) for own, other in zip(plain, completed, strict=True))


def test_complete_optimizer_state_rejects_other_shapes():
    layer, idle = nn.Linear(3, 4), nn.Linear(2, 2)
    optimizer = torch.optim.Adafactor([*layer.parameters(), *idle.parameters()])
    complete_optimizer_state(optimizer)
    assert not optimizer.state, "nothing is known before the first step"
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    with pytest.raises(ValueError, match="'row_var' is not of its parameter's shape.*adamw_torch"):
        complete_optimizer_state(optimizer)
