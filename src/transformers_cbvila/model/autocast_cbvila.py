"""Computing in the precision of the tensors inside a region of mixed precision."""

from collections.abc import Callable
from functools import wraps

from torch import Tensor
from transformers.utils.generic import maybe_autocast


def without_autocast(method: Callable) -> Callable:
    """Decorator that disables autocast in a method whose first argument is a tensor.

    Casting inputs to fp32 would not suffice: autocast casts them back for every matrix product.
    """

    @wraps(method)
    def in_own_precision(self, tensor: Tensor, *args, **kwargs):
        with maybe_autocast(tensor.device.type, enabled=False):
            return method(self, tensor, *args, **kwargs)

    return in_own_precision
