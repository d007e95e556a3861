"""Decorator for methods that must not run under autocast."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from torch import Tensor
from transformers.utils.generic import maybe_autocast

Method = TypeVar("Method", bound=Callable[..., Any])


def without_autocast(method: Method) -> Method:
    """Disables autocast in a method whose first argument is a tensor, or in a function whose second one is.

    Casting inputs to fp32 would not suffice: autocast casts them back for every matrix product.
    """

    @wraps(method)
    def run_without_autocast(self: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        with maybe_autocast(tensor.device.type, enabled=False):
            return method(self, tensor, *args, **kwargs)

    return cast(Method, run_without_autocast)
