import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import transformers_cbvila

EAGER = {
    "CBViLAConfig",
    "CBViLAVisionConfig",
    "CBViLATextConfig",
    "CBViLAFusionConfig",
    "CBViLAModel",
    "CBViLAVisionModel",
    "CBViLATextModel",
    "CBViLAForPreTraining",
    "CBViLAForQuestionAnswering",
    "CBViLAForImageTextRetrieval",
    "CBViLAForVisualEntailment",
    "CBViLAForVisualReasoning",
    "CBViLAForMaskedImageModeling",
    "CBViLAModelOutput",
    "CBViLAForPreTrainingOutput",
    "CBViLAForQuestionAnsweringOutput",
    "CBViLAImageProcessor",
    "CBViLAImageProcessorPil",
    "CBViLAProcessor",
    "CBViLAVisualQuestionAnsweringPipeline",
    "bundled_checkpoint",
}
LAZY = {
    "CBViLATrainer",
    "CBViLATrainingArguments",
    "CBViLADataCollatorForImageTextRetrieval",
    "CBViLADataCollatorForPreTraining",
    "CBViLADataCollatorForQuestionAnswering",
    "CBViLADataCollatorForVisualEntailment",
    "CBViLADataCollatorForVisualReasoning",
    "CBViLARetriever",
    "CBViLARetrieverOutput",
    "ImageTextPairs",
    "StreamedImageTextPairs",
    "load_pairs",
    "publish",
}


def test_names():
    assert EAGER | LAZY <= set(transformers_cbvila.__all__) <= set(dir(transformers_cbvila))
    for name in transformers_cbvila.__all__:
        value = getattr(transformers_cbvila, name)
        assert value.__name__ == name
        assert inspect.getdoc(value), f"{name} has no docstring"


def test_unknown_name():
    with pytest.raises(AttributeError, match="'transformers_cbvila' has no attribute 'CBViLANothing'"):
        transformers_cbvila.CBViLANothing  # noqa: B018


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", transformers_cbvila.__version__)
    setup = Path(__file__).parents[1].joinpath("setup.cfg").read_text()
    assert "version = attr: transformers_cbvila.__version__" in setup


def test_type_checkers_see_the_lazy_names():
    tree = ast.parse(Path(transformers_cbvila.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {alias.name: statement.module for statement in block.body for alias in statement.names}
    assert seen == transformers_cbvila._MODULE_OF_LAZY_NAME
    assert set(seen) == LAZY


def test_import_leaves_training_and_data_code_alone():
    code = """
import sys, transformers_cbvila
ours = tuple(f"transformers_cbvila.{layer}" for layer in ("training", "data", "evaluation", "demo", "hub"))
print([name for name in sys.modules if name.startswith((*ours, "transformers.trainer"))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow
def test_import_adds_at_most_half_a_second():
    code = """
import time
from transformers import (
    AutoModel, AutoModelForVisualQuestionAnswering, AutoProcessor, BertTokenizer, GenerationMixin, Pipeline,
    PreTrainedConfig, PreTrainedModel, ProcessorMixin,
)
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
start = time.process_time()
import transformers_cbvila
print(time.process_time() - start)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert float(done.stdout) <= 0.5, done.stderr
