"""Keyword arguments that a method takes, and no others."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature

from .messages_cbvila import shown

# What transformers' decorators of a forward take out of its keyword arguments, or read there.
_READ_BY_DECORATORS = ("return_dict", "output_attentions", "output_hidden_states")


def takes_no_other_arguments(method: Callable) -> Callable:
    """Has a method with `**kwargs` refuse those that nothing below it uses, as any Python function does.

    A forward needs `**kwargs` for transformers' decorators (put this one above them), and would swallow with them what
    is misspelt, or what a newer transformers has renamed.
    """
    parameters = signature(method).parameters.values()
    named = [parameter.name for parameter in parameters if parameter.kind is not Parameter.VAR_KEYWORD]
    known = {*named, *_READ_BY_DECORATORS}

    @wraps(method)
    def strict(self, *args, **kwargs):
        unknown = [name for name in kwargs if name not in known]
        if unknown:
            raise TypeError(
                f"{type(self).__name__}.{method.__name__}() got an unexpected keyword argument {shown(unknown[0])}. "
                f"It takes {', '.join(named[1:])}, {', '.join(_READ_BY_DECORATORS)}."
            )
        return method(self, *args, **kwargs)

    return strict
