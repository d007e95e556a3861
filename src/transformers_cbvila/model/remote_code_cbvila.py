"""The code in published checkpoints, which load with `trust_remote_code=True` without this package.

transformers finds the classes by `auto_map` and `custom_pipelines` in config.json, by `auto_map` in
processor_config.json, and by that of the image processor in it (first Pillow's class, second torchvision's).
"""

import json
import os
import shutil
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

Kind = TypeVar("Kind")

VQA_TASK = "visual-question-answering"


def published_classes() -> dict[str, Any]:
    """Returns the published classes by name.

    The imports are in the function to avoid circular ones. transformers also follows these: with any class it loads
    the files of all, so that checkpoints can be saved again with their code.
    """
    from .configuration_cbvila import CBViLAConfig
    from .configuration_cbvila_conditional_generation import CBViLAConditionalGenerationConfig
    from .configuration_cbvila_qformer import CBViLAQFormerConfig
    from .image_processing_cbvila import CBViLAImageProcessor
    from .image_processing_pil_cbvila import CBViLAImageProcessorPil
    from .modeling_cbvila import CBViLAModel
    from .modeling_cbvila_conditional_generation import CBViLAForConditionalGeneration
    from .modeling_cbvila_image_language import CBViLAConditionalGenerationModel
    from .modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
    from .modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling
    from .modeling_cbvila_pretraining import CBViLAForPreTraining
    from .modeling_cbvila_qformer import CBViLAQFormerModel
    from .modeling_cbvila_qformer_pretraining import CBViLAForQFormerPreTraining
    from .modeling_cbvila_question_answering import CBViLAForQuestionAnswering
    from .modeling_cbvila_visual_entailment import CBViLAForVisualEntailment
    from .modeling_cbvila_visual_reasoning import CBViLAForVisualReasoning
    from .pipeline_cbvila import CBViLAVisualQuestionAnsweringPipeline
    from .processing_cbvila import CBViLAProcessor
    from .processing_cbvila_conditional_generation import CBViLAConditionalGenerationProcessor

    classes = (
        CBViLAConfig,
        CBViLAImageProcessor,
        CBViLAImageProcessorPil,
        CBViLAModel,
        CBViLAForImageTextRetrieval,
        CBViLAForMaskedImageModeling,
        CBViLAForPreTraining,
        CBViLAForQFormerPreTraining,
        CBViLAForQuestionAnswering,
        CBViLAForVisualEntailment,
        CBViLAForVisualReasoning,
        CBViLAVisualQuestionAnsweringPipeline,
        CBViLAProcessor,
        CBViLAConditionalGenerationConfig,
        CBViLAConditionalGenerationModel,
        CBViLAForConditionalGeneration,
        CBViLAConditionalGenerationProcessor,
        CBViLAQFormerConfig,
        CBViLAQFormerModel,
    )
    return {published.__name__: published for published in classes}


# Auto classes of every published CB-ViLA and their classes; a head without one takes the place of the base model.
_AUTO_CLASSES = {
    "AutoConfig": "CBViLAConfig",
    "AutoModel": "CBViLAModel",
    "AutoModelForPreTraining": "CBViLAForPreTraining",
    "AutoModelForVisualQuestionAnswering": "CBViLAForQuestionAnswering",
    "AutoModelForMaskedImageModeling": "CBViLAForMaskedImageModeling",
}
# Auto classes for single uses of a head, which is otherwise loaded by `AutoModel`.
_OTHER_USES = {
    "AutoModelForZeroShotImageClassification": "CBViLAForImageTextRetrieval",
    "AutoModelForImageTextToText": "CBViLAForQuestionAnswering",
}
# Those of models with a configuration of their own.
_OF_OTHER_CONFIGURATIONS = (
    {
        "AutoConfig": "CBViLAConditionalGenerationConfig",
        "AutoModel": "CBViLAConditionalGenerationModel",
        "AutoModelForImageTextToText": "CBViLAForConditionalGeneration",
    },
    {
        "AutoConfig": "CBViLAQFormerConfig",
        "AutoModel": "CBViLAQFormerModel",
        "AutoModelForPreTraining": "CBViLAForQFormerPreTraining",
    },
)
_AUTO_CLASS_OF_HEAD = {
    head: auto_class
    for classes in (*_OF_OTHER_CONFIGURATIONS, _AUTO_CLASSES)
    for auto_class, head in reversed(classes.items())
}


def auto_class_of(architecture: str) -> str:
    """Returns the name of the Auto class that loads a head with `trust_remote_code=True`."""
    return _AUTO_CLASS_OF_HEAD.get(architecture, "AutoModel")


def names_in_config(architecture: str) -> dict[str, Any]:
    """Returns `auto_map` for the config.json of a head and, for question answering, `custom_pipelines`."""
    auto_class = auto_class_of(architecture)
    auto_map = {**_AUTO_CLASSES, **_OTHER_USES, auto_class: architecture}
    for auto_classes in _OF_OTHER_CONFIGURATIONS:
        if architecture in auto_classes.values():
            auto_map = auto_classes
    names: dict[str, Any] = {"auto_map": {name: _reference(target) for name, target in auto_map.items()}}
    if auto_class == "AutoModelForVisualQuestionAnswering":
        # A single name, as `pipeline(model=...)` without a task needs.
        pipeline = {"impl": _reference("CBViLAVisualQuestionAnsweringPipeline"), "pt": [auto_class]}
        names["custom_pipelines"] = {VQA_TASK: pipeline}
    return names


def names_in_processor_config(processor_class: str) -> dict[str, str]:
    """Returns `auto_map` for the processor_config.json of a class of processors."""
    return {"AutoProcessor": _reference(processor_class)}


def names_in_image_processor_config() -> dict[str, list[str]]:
    """Returns `auto_map` for an image processor, with the classes for Pillow and torchvision."""
    return {"AutoImageProcessor": [_reference("CBViLAImageProcessorPil"), _reference("CBViLAImageProcessor")]}


def _reference(name: str) -> str:
    """Returns the reference to a class in an `auto_map`: `"modeling_cbvila.CBViLAModel"`."""
    return f"{published_classes()[name].__module__.rpartition('.')[2]}.{name}"


def code_files() -> list[Path]:
    """Returns the files of `model/`, which are published with checkpoints."""
    return sorted(Path(__file__).parent.glob("*_cbvila*.py"))


def saved_with_its_code(kind: type[Kind]) -> type[Kind]:
    """Decorates a configuration or processor to save the code if its file has an `auto_map`.

    Published checkpoints have one. Loaded and saved again, with or without the package, they keep it and need code.
    The decorator wraps `to_json_file`, which all ways of saving call before an upload. (It is not a base class, as
    transformers' tests inspect those.)
    """
    decorated: Any = kind
    write = decorated.to_json_file

    @wraps(write)
    def to_json_file(self: Any, json_file_path: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        write(self, json_file_path, *args, **kwargs)
        path = Path(json_file_path)
        written = json.loads(path.read_text(encoding="utf-8"))
        if _has_auto_map(written):
            path.write_text(json.dumps(_update_names(written), indent=2, sort_keys=True) + "\n", encoding="utf-8")
            save_code(path.parent)

    decorated.to_json_file = to_json_file
    return kind


def save_code(folder: str | Path) -> None:
    """Copies the code to a folder, unless it is the folder of the code."""
    for source in code_files():
        target = Path(folder, source.name)
        if not target.exists() or not target.samefile(source):
            shutil.copyfile(source, target)


def _has_auto_map(written: dict[str, Any]) -> bool:
    return "auto_map" in written or "auto_map" in (written.get("image_processor") or {})


def _update_names(written: dict[str, Any]) -> dict[str, Any]:
    """Returns the contents of a file with the names for the saved class, which may be another head."""
    if "image_processor" in written:
        image_processor = {**written["image_processor"], "auto_map": names_in_image_processor_config()}
        names = names_in_processor_config(written["processor_class"])
        return {**written, "image_processor": image_processor, "auto_map": names}
    if "image_processor_type" in written:
        return {**written, "auto_map": names_in_image_processor_config()}
    architecture = (written.get("architectures") or [None])[0]
    if architecture not in published_classes():  # a configuration without a model, or that of a user's class
        return written
    others = {name: value for name, value in written.items() if name != "custom_pipelines"}
    return {**others, **names_in_config(architecture)}
