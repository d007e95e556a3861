"""The cache of keys and values, by the name that the installed transformers has for it.

transformers 5.24 calls it `cache`, older versions `past_key_values`. What is written here, and published with weights,
takes either name and hands on the one that is expected.
"""

import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

_NAMES = ("cache", "past_key_values")
# What outputs, masks and generation of the installed transformers call it.
CACHE_NAME = next(
    name for name in _NAMES if name in {field.name for field in fields(CausalLMOutputWithCrossAttentions)}
)


def one_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """The cache that was given under one of its names, with a warning if that name is on its way out.

    Raises:
        ValueError: If both were given.
    """
    if cache is not None and past_key_values is not None:
        raise ValueError("Pass cache or past_key_values, not both: they are two names of one cache.")
    if past_key_values is not None and CACHE_NAME != "past_key_values":
        warnings.warn("`past_key_values` is deprecated. Use `cache` instead.", FutureWarning, stacklevel=3)
    return past_key_values if cache is None else cache


def named_cache(cache: Cache | None) -> dict[str, Any]:
    """The cache as a keyword argument of the installed transformers."""
    return {CACHE_NAME: cache}


def with_cache_named(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments in which the cache, if there is one, has the name that is expected."""
    named = dict(options)
    cache = one_cache(*(named.pop(name, None) for name in _NAMES))
    return named if cache is None else {**named, **named_cache(cache)}


def as_cross_cache(cache: Cache | None, use_cache: bool | None, config: Any) -> EncoderDecoderCache | None:
    """A cache with room for the keys and values of an encoder, too; a new one if `use_cache` asks for it."""
    if cache is None and use_cache:
        cache = DynamicCache(config=config)
    if cache is None or isinstance(cache, EncoderDecoderCache):
        return cache
    return EncoderDecoderCache(cache, DynamicCache(config=config))
