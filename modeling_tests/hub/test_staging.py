"""Files of a staged repository: complete, loadable, and nothing else."""

import ast
import json

import pytest
from publishable import save_checkpoint
from tiny import half_image
from tiny_heads import HEADS
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForVisualQuestionAnswering,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForQuestionAnswering,
    CBViLAModel,
    CBViLAProcessor,
    CBViLAVisualQuestionAnsweringPipeline,
)
from transformers_cbvila.hub.checking import find_checkpoint
from transformers_cbvila.hub.staging import stage
from transformers_cbvila.model.remote_code_cbvila import code_files

HEADS_OF_AUTO_CLASSES = {
    "AutoModel": "CBViLAModel",
    "AutoModelForPreTraining": "CBViLAForPreTraining",
    "AutoModelForVisualQuestionAnswering": "CBViLAForQuestionAnswering",
    "AutoModelForMaskedImageModeling": "CBViLAForMaskedImageModeling",
    "AutoModelForZeroShotImageClassification": "CBViLAForImageTextRetrieval",
    "AutoModelForImageTextToText": "CBViLAForQuestionAnswering",
}
WITHOUT_AUTO_CLASS = ("CBViLAForImageTextRetrieval", "CBViLAForVisualEntailment", "CBViLAForVisualReasoning")


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")

    def stage_head(head):
        source, target = folder / head.__name__, folder / f"staged-{head.__name__}"
        if not target.exists():
            save_checkpoint(head, source)
            for rest in ("optimizer.pt", "training_args.bin", "trainer_state.json"):
                (source / rest).write_text("of the run")
            target.mkdir()
            stage(find_checkpoint(source), "# card\n", target)
        return target

    return stage_head


@pytest.mark.parametrize("head", HEADS)
def test_stage_maps_every_auto_class_with_its_code(head, staged):
    folder = staged(head)
    config, processor = (json.loads((folder / f"{name}.json").read_text()) for name in ("config", "processor_config"))
    expected = dict(HEADS_OF_AUTO_CLASSES)
    if head.__name__ in WITHOUT_AUTO_CLASS:
        expected["AutoModel"] = head.__name__
    references = dict(config["auto_map"])
    assert references.pop("AutoConfig") == "configuration_cbvila.CBViLAConfig"
    assert {name: reference.partition(".")[2] for name, reference in references.items()} == expected
    assert processor["auto_map"] == {"AutoProcessor": "processing_cbvila.CBViLAProcessor"}
    (backends,) = processor["image_processor"]["auto_map"].values()
    for reference in (*config["auto_map"].values(), *processor["auto_map"].values(), *backends):
        module, _, name = reference.partition(".")
        tree = ast.parse((folder / f"{module}.py").read_text())
        assert name in [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def test_stage_tokenizer_returns_model_inputs(tmp_path):
    """Also of a checkpoint that was saved before tokenizers said so."""
    source, target = tmp_path / "source", tmp_path / "staged"
    save_checkpoint(CBViLAModel, source)
    written = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(
        json.dumps({k: v for k, v in written.items() if k != "model_input_names"})
    )
    target.mkdir()
    stage(find_checkpoint(source), "# card\n", target)
    texts = AutoTokenizer.from_pretrained(target)("a half red", return_tensors="pt")
    assert AutoModel.from_pretrained(target)(**texts).last_hidden_state.shape[:2] == texts["input_ids"].shape


def test_stage_includes_every_imported_file(staged):
    folder = staged(CBViLAModel)
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert (folder / f"{node.module}.py").is_file(), (path.name, node.module)
    assert {path.name for path in folder.glob("*.py")} == {path.name for path in code_files()}


@pytest.mark.parametrize("head", HEADS)
def test_stage_adds_the_pipeline_to_answering_heads_only(head, staged):
    config = json.loads((staged(head) / "config.json").read_text())
    expected = {
        "visual-question-answering": {
            "impl": "pipeline_cbvila.CBViLAVisualQuestionAnsweringPipeline",
            "pt": ["AutoModelForVisualQuestionAnswering"],
        }
    }
    assert config.get("custom_pipelines") == (expected if head is CBViLAForQuestionAnswering else None)


def test_stage_leaves_files_of_the_run_out(staged):
    names = {path.name for path in staged(CBViLAModel).iterdir() if path.suffix != ".py"}
    assert names == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.parametrize("options", [{}, {"trust_remote_code": True}])
def test_staged_model_uses_the_installed_package(options, staged):
    folder = staged(CBViLAForQuestionAnswering)
    assert type(AutoModel.from_pretrained(staged(CBViLAForImageTextRetrieval), **options)) is CBViLAModel
    assert type(AutoProcessor.from_pretrained(folder, **options)) is CBViLAProcessor
    for task in ({"task": "visual-question-answering"}, {}):
        ask = pipeline(**task, model=str(folder), **options)
        assert type(ask) is CBViLAVisualQuestionAnsweringPipeline
        assert ask(half_image("red", "left"), "red", answers=["yes", "no"])[0]["answer"] in ("yes", "no")


def test_staged_pipeline_is_kept_when_saved_again(staged, tmp_path):
    folder = staged(CBViLAForQuestionAnswering)
    AutoModelForVisualQuestionAnswering.from_pretrained(folder).save_pretrained(tmp_path)
    before, after = (json.loads((path / "config.json").read_text()) for path in (folder, tmp_path))
    assert after["custom_pipelines"] == before["custom_pipelines"] and after["auto_map"] == before["auto_map"]
    assert AutoConfig.from_pretrained(tmp_path).custom_pipelines == {}
