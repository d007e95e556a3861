"""Runs the examples in the docstrings of public names."""

import doctest

import pytest

import transformers_cbvila

MODELS = [name for name in transformers_cbvila.__all__ if name.startswith("CBViLAFor") and "Output" not in name]


def examples(value):
    module = __import__(value.__module__, fromlist=["_"])
    tests = doctest.DocTestFinder(recurse=False).find(value, value.__name__, module=module)
    return [test for test in tests if test.examples]


@pytest.mark.parametrize("name", [name for name in transformers_cbvila.__all__ if name.startswith("CBViLA")])
def test_docstring_examples_run(name):
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in examples(getattr(transformers_cbvila, name)):
        assert runner.run(test).failed == 0


@pytest.mark.parametrize(
    "name", ["CBViLAModel", "CBViLATextModel", "CBViLAVisionModel", "CBViLAFusionModel", "CBViLAProcessor", *MODELS]
)
def test_docstring_of_every_model_has_an_example(name):
    assert examples(getattr(transformers_cbvila, name))
