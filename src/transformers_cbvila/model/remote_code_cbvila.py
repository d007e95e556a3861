"""What is published beside weights, so that they load without this package: the code, and the names of its classes.

transformers finds the classes by `auto_map` and `custom_pipelines` of config.json, by `auto_map` of
processor_config.json, and by that of the image processor inside it (Pillow's class first, torchvision's second).
"""

import json
import shutil
from pathlib import Path
from typing import Any

VQA_TASK = "visual-question-answering"


def published_classes() -> dict[str, Any]:
    """The classes that transformers loads by their names, by what config.json calls them.

    They are imported here, when somebody asks: transformers takes every file that an import names, wherever it stands,
    along with the one that it loads, so that whichever class was loaded, the code of all is at hand to be saved again.
    """
    from .configuration_cbvila import CBViLAConfig
    from .image_processing_cbvila import CBViLAImageProcessor
    from .image_processing_pil_cbvila import CBViLAImageProcessorPil
    from .modeling_cbvila import CBViLAModel
    from .modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
    from .modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling
    from .modeling_cbvila_pretraining import CBViLAForPreTraining
    from .modeling_cbvila_question_answering import CBViLAForQuestionAnswering
    from .modeling_cbvila_visual_entailment import CBViLAForVisualEntailment
    from .modeling_cbvila_visual_reasoning import CBViLAForVisualReasoning
    from .pipeline_cbvila import CBViLAVisualQuestionAnsweringPipeline
    from .processing_cbvila import CBViLAProcessor

    classes = (
        CBViLAConfig,
        CBViLAImageProcessor,
        CBViLAImageProcessorPil,
        CBViLAModel,
        CBViLAForImageTextRetrieval,
        CBViLAForMaskedImageModeling,
        CBViLAForPreTraining,
        CBViLAForQuestionAnswering,
        CBViLAForVisualEntailment,
        CBViLAForVisualReasoning,
        CBViLAVisualQuestionAnsweringPipeline,
        CBViLAProcessor,
    )
    return {found.__name__: found for found in classes}


# The Auto classes that every published model has, and those of heads; a head without one takes the base model's place.
_AUTO_CLASSES = {
    "AutoConfig": "CBViLAConfig",
    "AutoModel": "CBViLAModel",
    "AutoModelForPreTraining": "CBViLAForPreTraining",
    "AutoModelForVisualQuestionAnswering": "CBViLAForQuestionAnswering",
    "AutoModelForMaskedImageModeling": "CBViLAForMaskedImageModeling",
}
# An Auto class for one of the things that a head does: `AutoModel` gives the head for all of them.
_OTHER_USES = {"AutoModelForZeroShotImageClassification": "CBViLAForImageTextRetrieval"}
_AUTO_CLASS_OF_HEAD = {head: auto_class for auto_class, head in reversed(_AUTO_CLASSES.items())}


def auto_class_of(architecture: str) -> str:
    """transformers' Auto class that loads a head without this package, with `trust_remote_code=True`."""
    return _AUTO_CLASS_OF_HEAD.get(architecture, "AutoModel")


def names_in_config(architecture: str) -> dict[str, Any]:
    """`auto_map` of a head and, for the one that answers, `custom_pipelines`, as config.json has them."""
    auto_class = auto_class_of(architecture)
    auto_map = {**_AUTO_CLASSES, **_OTHER_USES, auto_class: architecture}
    names: dict[str, Any] = {"auto_map": {name: _reference(target) for name, target in auto_map.items()}}
    if auto_class == "AutoModelForVisualQuestionAnswering":
        # Under one name only: `pipeline(model=...)` without a task needs it to be the only one.
        pipeline = {"impl": _reference("CBViLAVisualQuestionAnsweringPipeline"), "pt": [auto_class]}
        names["custom_pipelines"] = {VQA_TASK: pipeline}
    return names


def names_in_processor_config() -> dict[str, str]:
    """`auto_map` of processor_config.json."""
    return {"AutoProcessor": _reference("CBViLAProcessor")}


def names_in_image_processor_config() -> dict[str, list[str]]:
    """`auto_map` of an image processor: for Pillow, for torchvision."""
    return {"AutoImageProcessor": [_reference("CBViLAImageProcessorPil"), _reference("CBViLAImageProcessor")]}


def _reference(name: str) -> str:
    """A class as transformers' remote-code loader names it: `"modeling_cbvila.CBViLAModel"`."""
    return f"{published_classes()[name].__module__.rpartition('.')[2]}.{name}"


def code_files() -> list[Path]:
    """The files of code that this one is among."""
    return sorted(Path(__file__).parent.glob("*_cbvila*.py"))


class SavedWithItsCode:
    """A configuration or processor that, where the file it is saved in names code, has the code saved beside it.

    A published checkpoint names code. Loaded and saved again, by whomever and in whichever way, with the package or
    without, it goes on naming it; the file is written last before anything is uploaded.
    """

    def to_json_file(self, json_file_path, *args, **kwargs) -> None:
        super().to_json_file(json_file_path, *args, **kwargs)  # type: ignore[misc]
        path = Path(json_file_path)
        written = json.loads(path.read_text(encoding="utf-8"))
        if _names_code(written):
            path.write_text(json.dumps(_named_anew(written), indent=2, sort_keys=True) + "\n", encoding="utf-8")
            save_code(path.parent)


def save_code(folder: str | Path) -> None:
    """Copies the code into a folder, unless it is there."""
    for source in code_files():
        target = Path(folder, source.name)
        if not target.exists() or not target.samefile(source):
            shutil.copyfile(source, target)


def _names_code(written: dict[str, Any]) -> bool:
    return "auto_map" in written or "auto_map" in (written.get("image_processor") or {})


def _named_anew(written: dict[str, Any]) -> dict[str, Any]:
    """The names of what is saved, which may be another head than the one that was published."""
    if "image_processor" in written:
        image_processor = {**written["image_processor"], "auto_map": names_in_image_processor_config()}
        return {**written, "image_processor": image_processor, "auto_map": names_in_processor_config()}
    if "image_processor_type" in written:
        return {**written, "auto_map": names_in_image_processor_config()}
    architecture = (written.get("architectures") or [None])[0]
    if architecture not in published_classes():  # of no model yet, or of somebody else's class
        return written
    others = {name: value for name, value in written.items() if name != "custom_pipelines"}
    return {**others, **names_in_config(architecture)}
