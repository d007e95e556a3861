import ast
import copy
import inspect
import pickle
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from transformers import AutoModel

import transformers_cbvila
from transformers_cbvila import registration

EAGER = {"bundled_checkpoint", "bundled_checkpoints"}
PUBLIC = {
    "CBViLAConfig",
    "CBViLADataCollatorForImageTextRetrieval",
    "CBViLADataCollatorForPreTraining",
    "CBViLADataCollatorForQFormerPreTraining",
    "CBViLADataCollatorForQuestionAnswering",
    "CBViLADataCollatorForVisualEntailment",
    "CBViLADataCollatorForVisualReasoning",
    "CBViLAForImageTextRetrieval",
    "CBViLAForMaskedImageModeling",
    "CBViLAForPreTraining",
    "CBViLAForPreTrainingOutput",
    "CBViLAForQFormerPreTraining",
    "CBViLAForQFormerPreTrainingOutput",
    "CBViLAForQuestionAnswering",
    "CBViLAForQuestionAnsweringOutput",
    "CBViLAForVisualEntailment",
    "CBViLAForVisualReasoning",
    "CBViLAFusionConfig",
    "CBViLAImageProcessor",
    "CBViLAImageProcessorPil",
    "CBViLAMatchingModule",
    "CBViLAModel",
    "CBViLAModelOutput",
    "CBViLAProcessor",
    "CBViLAQFormerConfig",
    "CBViLAQFormerModel",
    "CBViLARetriever",
    "CBViLARetrieverOutput",
    "CBViLATextConfig",
    "CBViLATextModel",
    "CBViLATrainer",
    "CBViLATrainingArguments",
    "CBViLAVisionConfig",
    "CBViLAVisionModel",
    "CBViLAVisualQuestionAnsweringPipeline",
    "ImageTextPairs",
    "StreamedImageTextPairs",
    "bundled_checkpoint",
    "bundled_checkpoints",
    "load_pairs",
    "publish",
    "publish_space",
    "publish_static_page",
    "stage_repository",
    "stage_static_page",
}


def test_public_names_are_listed_and_documented():
    assert PUBLIC <= set(transformers_cbvila.__all__) <= set(dir(transformers_cbvila))
    for name in transformers_cbvila.__all__:
        value = getattr(transformers_cbvila, name)
        assert value.__name__ == name
        assert inspect.getdoc(value), f"{name} has no docstring"


def test_package_rejects_unknown_attributes():
    with pytest.raises(AttributeError, match="'transformers_cbvila' has no attribute 'CBViLANothing'"):
        transformers_cbvila.CBViLANothing  # noqa: B018


def test_package_version_is_that_of_setup_cfg():
    assert re.fullmatch(r"\d+\.\d+\.\d+", transformers_cbvila.__version__)
    setup = Path(__file__).parents[1].joinpath("setup.cfg").read_text()
    assert "version = attr: transformers_cbvila.__version__" in setup


def test_type_checking_block_lists_lazy_names():
    tree = ast.parse(Path(transformers_cbvila.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {alias.name: statement.module for statement in block.body for alias in statement.names}
    assert seen == transformers_cbvila._MODULE_OF_LAZY_NAME
    assert set(seen) == set(transformers_cbvila.__all__) - EAGER


def loaded_after(code):
    """Modules of this package, torch and transformers that a fresh process has loaded after some code."""
    code += """
import sys
seen = {name for name in sys.modules if name.startswith("transformers_cbvila.") or name in ("torch", "transformers")}
print(*sorted(seen))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


def test_import_does_not_load_models_training_and_data():
    loaded = loaded_after("import transformers_cbvila, transformers")
    assert "transformers_cbvila.registration" in loaded
    # quantizers and objectives, and with them the losses, are what a configuration knows
    ours = "model.modeling|model.pipeline|training|data|metrics|retrieval|inspection|evaluation|demo|hub|cli"
    assert [name for name in loaded if re.match(rf"transformers_cbvila\.({ours})", name)] == []


USES = {
    "the Auto class": "AutoModelForVisualQuestionAnswering.from_config(transformers_cbvila.CBViLAConfig())",
    "the registry": "list(AutoModelForVisualQuestionAnswering._model_mapping.values())",
    "pickle": "pickle.dumps(AutoModelForVisualQuestionAnswering._model_mapping)",
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_late_classes_load_when_used(use):
    code = f"import pickle, transformers_cbvila\nfrom transformers import AutoModelForVisualQuestionAnswering\n{use}"
    assert "transformers_cbvila.model.modeling_cbvila_question_answering" in loaded_after(code)


def test_auto_registries_hold_classes():
    for auto_class, config, _, name in registration._MODELS:
        assert auto_class._model_mapping[config] is getattr(transformers_cbvila, name)
        content = auto_class._model_mapping._extra_content
        assert dict(content)[config] is content.get(config) is dict(content.items())[config]
        assert all(isinstance(value, type) for value in content.values())
        copied = pickle.loads(pickle.dumps(auto_class._model_mapping))
        assert copied[config] is auto_class._model_mapping[config]
    registration.register()
    for auto_class, config, _, name in registration._MODELS:
        assert auto_class._model_mapping[config] is getattr(transformers_cbvila, name)


def test_auto_model_register_replaces_our_class(monkeypatch):
    mapping = AutoModel._model_mapping
    monkeypatch.setattr(mapping, "_extra_content", copy.copy(mapping._extra_content))

    class Theirs(transformers_cbvila.CBViLAModel):
        pass

    AutoModel.register(transformers_cbvila.CBViLAConfig, Theirs, exist_ok=True)
    assert mapping[transformers_cbvila.CBViLAConfig] is Theirs


@pytest.mark.parametrize(
    ("argv", "orig_argv", "is_command_line"),
    [
        (["-m"], ["python", "-X", "dev", "-m", "transformers_cbvila", "--help"], True),
        (["-m"], ["python", "-m", "pytest", "modeling_tests"], False),
        (["SCRIPTS/cbvila", "--help"], ["python", "SCRIPTS/cbvila", "--help"], True),
        (["SCRIPTS/cbvila.exe"], ["python.exe", "SCRIPTS/cbvila.exe"], True),
        (["SCRIPTS/cbvila", "--help"], ["python", "-c", "from multiprocessing.spawn import spawn_main"], False),
        (["/home/me/cbvila"], ["python", "/home/me/cbvila"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_is_command_line_by_argv(monkeypatch, argv, orig_argv, is_command_line):
    scripts = sysconfig.get_path("scripts")
    monkeypatch.setattr(sys, "argv", [word.replace("SCRIPTS", scripts) for word in argv])
    monkeypatch.setattr(sys, "orig_argv", [word.replace("SCRIPTS", scripts) for word in orig_argv])
    assert transformers_cbvila._is_command_line() == is_command_line
