"""The cache of keys and values, under the name that the installed transformers uses.

transformers 5.24 calls it `cache`, older versions `past_key_values`. This code, which is also published with weights,
accepts both names and passes the cache on under the expected one.
"""

import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

_NAMES = ("cache", "past_key_values")
# The name in outputs, masks and generation of the installed transformers.
CACHE_NAME = next(
    name for name in _NAMES if name in {field.name for field in fields(CausalLMOutputWithCrossAttentions)}
)


def one_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """Returns the cache given under either name; warns where that name is deprecated.

    Raises:
        ValueError: If both are given.
    """
    if cache is not None and past_key_values is not None:
        raise ValueError("Pass cache or past_key_values, not both: they are two names of one cache.")
    if past_key_values is not None and CACHE_NAME != "past_key_values":
        warnings.warn("`past_key_values` is deprecated. Use `cache` instead.", FutureWarning, stacklevel=3)
    return past_key_values if cache is None else cache


def named_cache(cache: Cache | None) -> dict[str, Any]:
    """Returns the cache as a keyword argument of the installed transformers."""
    return {CACHE_NAME: cache}


def with_cache_named(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns keyword arguments in which the cache, if present, has the name that the installed transformers uses."""
    named = dict(options)
    cache = one_cache(*(named.pop(name, None) for name in _NAMES))
    return named if cache is None else {**named, **named_cache(cache)}


def as_cross_cache(cache: Cache | None, use_cache: bool | None, config: Any) -> EncoderDecoderCache | None:
    """Adds a cache for the encoder's keys and values to `cache`; creates both if `use_cache` is set and none given."""
    if cache is None and use_cache:
        cache = DynamicCache(config=config)
    if cache is None or isinstance(cache, EncoderDecoderCache):
        return cache
    return EncoderDecoderCache(cache, DynamicCache(config=config))
