"""Muon for the weight matrices of transformer layers, beside AdamW for everything else.

The method is that of `torch.optim.Muon` (Jordan et al., 2024; step size of Liu et al., 2025, arXiv 2502.16982). That
one takes matrices alone, and computes in bfloat16 on every device. On a CPU without bfloat16 units this takes 25 times
as long as float32, and many steps of training: so its step is here once more.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.775, 2.0315)  # of the polynomial whose repetition moves singular values near 1
_REPETITIONS = 5
_MOMENTUM = 0.95
_LIKE_ADAMW = 0.2  # root mean square of AdamW's usual step, in learning rates


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for groups of parameters with `muon=True`, and AdamW for the others.

    Args:
        params: Groups of parameters. Those with `muon=True` hold matrices, and use `lr` and `weight_decay` alone.
        options: Of [`~torch.optim.AdamW`], also the defaults of all groups.

    Raises:
        ValueError: If a parameter for Muon is no matrix.
    """

    def __init__(self, params: Iterable[dict[str, Any]], **options: Any) -> None:
        groups = [{"muon": False, **group} for group in params]
        self._adamw = torch.optim.AdamW([group for group in groups if not group["muon"]], **options)
        super().__init__(groups, dict(self._adamw.defaults))
        for parameter in (parameter for group in self._of_muon() for parameter in group["params"]):
            if parameter.dim() != 2:
                shape = tuple(parameter.shape)
                raise ValueError(f"Muon is for matrices, and a parameter has the shape {shape}; leave it to AdamW.")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Changes all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # linked anew each time, as loading a state replaces groups and state
        self._adamw.param_groups = [group for group in self.param_groups if not group["muon"]]
        self._adamw.state = self.state
        self._adamw.step()
        for group in self._of_muon():
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._change(parameter, parameter.grad, group["lr"], group["weight_decay"])
        return loss

    def _of_muon(self) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group["muon"]]

    def _change(self, parameter: Tensor, gradient: Tensor, rate: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average = state["momentum_buffer"].lerp_(gradient, 1 - _MOMENTUM)
        change = orthogonalized(gradient.lerp(average, _MOMENTUM))
        parameter.mul_(1 - rate * weight_decay)
        parameter.add_(change.to(parameter.dtype), alpha=-rate * _LIKE_ADAMW * math.sqrt(max(parameter.shape)))


def orthogonalized(matrix: Tensor) -> Tensor:
    """Returns nearly U Vᵀ of a matrix U S Vᵀ, by Newton–Schulz: singular values become 0.7 to 1.2, except near 0.

    Args:
        matrix: (M, N), of any float type.

    Returns:
        (M, N), in bfloat16 on GPUs and in float32 elsewhere.
    """
    wide = matrix.to(torch.bfloat16 if matrix.is_cuda else torch.float32)
    wide = wide.T if wide.shape[0] > wide.shape[1] else wide
    wide = wide / wide.norm().clamp(min=1e-7)  # no singular value above 1
    linear, cubic, quintic = _COEFFICIENTS
    for _ in range(_REPETITIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic), wide, beta=linear)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide
