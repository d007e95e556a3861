"""Pauses Python's garbage collection while a program starts."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Pauses the search for cycles of objects, and takes it up again if it was on.

    Imports make hundreds of thousands of objects that stay. Looking through all of them, time and again, takes a sixth
    of the time that torch, transformers and Gradio need to be imported.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
