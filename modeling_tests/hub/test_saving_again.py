"""A published model that is saved again has every file that its configuration names."""

import json
import sys
from pathlib import Path

import pytest
from publishable import in_another_process, run_offline, save_checkpoint, staged
from transformers import (
    AutoModelForVisualQuestionAnswering,
    AutoProcessor,
)

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForPreTraining,
    CBViLAForQuestionAnswering,
    CBViLAForVisualEntailment,
    CBViLAModel,
)
from transformers_cbvila.model.remote_code_cbvila import code_files, published_classes

MODES = ("with package", "without package")
CODE = {path.name for path in code_files()}


def references(value):
    """Every `module.Class` that a saved JSON file names, wherever in it."""
    if isinstance(value, dict):
        named = value.get("auto_map", {})
        found = [
            reference for entry in named.values() for reference in (entry if isinstance(entry, list) else [entry])
        ]
        found += [task["impl"] for task in value.get("custom_pipelines", {}).values()]
        return found + [reference for entry in value.values() for reference in references(entry)]
    return []


def assert_complete(folder, names=("config.json",)):
    """Everything that the files name is there, with all that it imports."""
    for name in names:
        found = references(json.loads((Path(folder) / name).read_text()))
        assert found, f"{name} names no code"
        for reference in found:
            module, _, name_of_class = reference.partition(".")
            assert f"class {name_of_class}(" in (Path(folder) / f"{module}.py").read_text(), reference
    assert {path.name for path in Path(folder).glob("*.py")} >= CODE


# Run once in this process and once in one without the package, where the classes come from the folder.
SAVE = """
import sys
from transformers import (
    AutoConfig, AutoImageProcessor, AutoModel, AutoModelForVisualQuestionAnswering, AutoProcessor, Trainer,
    TrainingArguments, default_data_collator,
)
published, out = sys.argv[1:]
trust = {"trust_remote_code": True}
model = AutoModelForVisualQuestionAnswering.from_pretrained(published, **trust)
processor = AutoProcessor.from_pretrained(published, **trust)
model.save_pretrained(f"{out}/model")
processor.save_pretrained(f"{out}/processor")
AutoConfig.from_pretrained(published, **trust).save_pretrained(f"{out}/config")
AutoImageProcessor.from_pretrained(published, **trust).save_pretrained(f"{out}/image_processor")
AutoModel.from_pretrained(published, **trust).save_pretrained(f"{out}/base")
rows = [{"pixel_values": [[[0.0] * 32] * 32] * 3, "input_ids": [2, 7, 3], "labels": [8, 3]}] * 2
arguments = TrainingArguments(f"{out}/run", max_steps=1, save_steps=1, remove_unused_columns=False, report_to=[])
trainer = Trainer(
    model, arguments, train_dataset=rows, data_collator=default_data_collator, processing_class=processor
)
trainer.train()
trainer.save_model(f"{out}/trained")
"""
LOAD = """
import sys
import torch
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForVisualQuestionAnswering
from transformers import AutoProcessor, pipeline
from PIL import Image
folder, trust = sys.argv[1], {"trust_remote_code": True}
for auto_class in (AutoModel, AutoModelForPreTraining, AutoModelForVisualQuestionAnswering):
    print(type(auto_class.from_pretrained(folder, **trust)).__module__.partition(".")[0])
AutoProcessor.from_pretrained(folder, **trust)
ask = pipeline("visual-question-answering", model=folder, **trust)
assert ask(Image.new("RGB", (9, 9)), "red", answers=["yes", "no"])[0]["answer"] in ("yes", "no")
print("asked")
"""
SAVED = {
    "model": ["config.json"],
    "base": ["config.json"],
    "config": ["config.json"],
    "processor": ["processor_config.json"],
    "image_processor": ["preprocessor_config.json"],
    "trained": ["config.json", "processor_config.json"],
    "run/checkpoint-1": ["config.json", "processor_config.json"],
}


def code_for(mode, code):
    return f"import transformers_cbvila\n{code}" if mode == "with package" else code


@pytest.mark.parametrize("mode", MODES)
def test_published_model_saved_again_is_complete(mode, tmp_path):
    published = staged(CBViLAForQuestionAnswering, tmp_path)
    run_offline(code_for(mode, SAVE), tmp_path, published, tmp_path, without_package=mode == "without package")
    for name, files in SAVED.items():
        assert_complete(tmp_path / name, files)
    for path in published.rglob("*"):  # which is somewhere else now
        if path.is_file():
            path.unlink()
    again = run_offline(LOAD, tmp_path, tmp_path / "trained").split()
    assert again == ["transformers_modules"] * 3 + ["asked"]


def test_published_model_saved_as_another_head_names_it(tmp_path):
    """Fine-tuned from a published checkpoint, it is loaded as what it has become."""
    published = staged(CBViLAForPreTraining, tmp_path)
    for head, auto_class in (
        (CBViLAForQuestionAnswering, "AutoModelForVisualQuestionAnswering"),
        (CBViLAForVisualEntailment, "AutoModel"),
        (CBViLAForImageTextRetrieval, "AutoModel"),
        (CBViLAModel, "AutoModel"),
    ):
        folder = tmp_path / head.__name__
        head.from_pretrained(published).save_pretrained(folder)
        assert_complete(folder)
        config = json.loads((folder / "config.json").read_text())
        assert config["auto_map"][auto_class].endswith(f".{head.__name__}")
        assert ("custom_pipelines" in config) == (head is CBViLAForQuestionAnswering)


def test_unpublished_model_saved_again_has_no_code(tmp_path):
    save_checkpoint(CBViLAForQuestionAnswering, tmp_path)
    AutoModelForVisualQuestionAnswering.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    AutoProcessor.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    assert not [*tmp_path.rglob("*.py")]


def test_remote_code_of_every_class_imports_all_files():
    """The files that transformers copies for a class are those that its file imports, and their imports."""
    from transformers.dynamic_module_utils import get_relative_import_files

    for found in published_classes().values():
        start = sys.modules[found.__module__].__file__
        reached = {Path(start).name, *(Path(path).name for path in get_relative_import_files(start))}
        assert reached == CODE, (found.__name__, CODE - reached)


PUSH = """
import sys
from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained("org/first", trust_remote_code=True)
AutoProcessor.from_pretrained("org/first", trust_remote_code=True).push_to_hub("org/{name}")
model.push_to_hub("org/{name}")
model.config.push_to_hub("org/{name}-config")
"""
LOAD_PUSHED = """
from transformers import AutoModel, AutoModelForPreTraining, AutoProcessor
for auto_class in (AutoModel, AutoModelForPreTraining, AutoProcessor):
    print(type(auto_class.from_pretrained("org/{name}", trust_remote_code=True)).__module__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_published_model_pushed_again_is_complete(mode, hub, api, tmp_path):
    folder = staged(CBViLAForVisualEntailment, tmp_path)
    api.create_repo("org/first")
    api.upload_folder(repo_id="org/first", folder_path=folder)
    name = mode.replace(" ", "-")
    code = code_for(mode, PUSH.format(name=name))
    in_another_process(code, hub, tmp_path, without_package=mode == "without package")
    for repository in (f"org/{name}", f"org/{name}-config"):
        assert hub.repositories[repository].files.keys() >= CODE
    printed = in_another_process(LOAD_PUSHED.format(name=name), hub, tmp_path, without_package=True)
    assert all(f".{name.replace('-', '_hyphen_')}." in line for line in printed.split()), printed
