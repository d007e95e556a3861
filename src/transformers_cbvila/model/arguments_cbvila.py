"""Decorator that rejects keyword arguments which a method does not know."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Any, TypeVar, cast

from .messages_cbvila import shown

Method = TypeVar("Method", bound=Callable[..., Any])

# Keyword arguments that transformers' decorators of a forward read or remove.
_READ_BY_DECORATORS = ("return_dict", "output_attentions", "output_hidden_states")


def takes_no_other_arguments(method: Method) -> Method:
    """Makes a method with `**kwargs` raise a TypeError for unknown keyword arguments.

    A forward needs `**kwargs` for transformers' decorators, and would silently accept a misspelt argument, or one that
    a newer transformers has renamed. Place this decorator above those of transformers.
    """
    parameters = signature(method).parameters.values()
    named = [parameter.name for parameter in parameters if parameter.kind is not Parameter.VAR_KEYWORD]
    known = {*named, *_READ_BY_DECORATORS}

    @wraps(method)
    def check_then_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        unknown = [name for name in kwargs if name not in known]
        if unknown:
            raise TypeError(
                f"{type(self).__name__}.{method.__name__}() got an unexpected keyword argument {shown(unknown[0])}. "
                f"It takes {', '.join(named[1:])}, {', '.join(_READ_BY_DECORATORS)}."
            )
        return method(self, *args, **kwargs)

    return cast(Method, check_then_call)
