"""Quantizers, objectives and tasks from outside the package, registered for the time of a test."""

import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path

from transformers_cbvila.model.objectives_cbvila import OBJECTIVES
from transformers_cbvila.model.quantizers_cbvila import QUANTIZERS
from transformers_cbvila.tasks.registry import TASKS

EXAMPLES = Path(__file__).parents[1] / "examples"


@contextmanager
def registered_for_now():
    """Takes back what is registered meanwhile: other tests ask what there is."""
    before = [(registry, dict(registry)) for registry in (QUANTIZERS, OBJECTIVES)]
    tasks = set(TASKS)
    modules = set(sys.modules)
    try:
        yield
    finally:
        for registry, content in before:
            registry.clear()
            registry.update(content)
        for name in set(TASKS) - tasks:
            del TASKS[name]
        for name in set(sys.modules) - modules:
            if getattr(sys.modules[name], "__loaded_for_now__", False):
                del sys.modules[name]


def load_module(path):
    """Runs a file as a module that is not `__main__`."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    module.__loaded_for_now__ = True
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
