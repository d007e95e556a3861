"""Garbage collection is paused while a program starts, and is as it was afterwards."""

import gc

import pytest

from transformers_cbvila.garbage_collection import garbage_collection_paused


def test_collection_is_taken_up_again_also_after_an_error():
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), garbage_collection_paused():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()


def test_collection_that_was_off_stays_off():
    gc.disable()
    try:
        with garbage_collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
