"""The kinds of checkpoints that can be published: which head, how it is loaded, which card it gets."""

from dataclasses import dataclass
from typing import Any

from ..model.configuration_cbvila import CBViLAConfig
from ..model.image_processing_cbvila import CBViLAImageProcessor
from ..model.image_processing_pil_cbvila import CBViLAImageProcessorPil
from ..model.modeling_cbvila import CBViLAModel
from ..model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from ..model.modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from ..model.modeling_cbvila_visual_entailment import CBViLAForVisualEntailment
from ..model.modeling_cbvila_visual_reasoning import CBViLAForVisualReasoning
from ..model.pipeline_cbvila import CBViLAVisualQuestionAnsweringPipeline
from ..model.processing_cbvila import CBViLAProcessor

VQA_TASK = "visual-question-answering"


@dataclass(frozen=True)
class Kind:
    """One kind of checkpoint.

    Attributes:
        model_class: the head, or the model without one.
        auto_class: transformers' Auto class that loads it without this package, with `trust_remote_code=True`.
        card: the file of `hub_cards/` that its card is made from.
        task: its task in the card's metadata, also of results.
        pipeline_tag: the task that the Hub lists it under, where the Hub knows it.
    """

    model_class: Any
    auto_class: str
    card: str
    task: str
    pipeline_tag: str | None = None

    @property
    def has_pipeline(self) -> bool:
        """Whether `pipeline()` can run it."""
        return self.task == VQA_TASK

    @property
    def has_codebook(self) -> bool:
        """Whether what it predicts are visual words, so that a card has to say how they fare."""
        return self.model_class in (CBViLAForPreTraining, CBViLAForMaskedImageModeling)

    def auto_map(self) -> dict[str, str]:
        """What transformers loads by each Auto class from the code beside the weights, as config.json has it.

        A head without an Auto class of its own takes the place of the base model in `AutoModel`.
        """
        classes = {
            "AutoConfig": CBViLAConfig,
            "AutoModel": CBViLAModel,
            "AutoModelForPreTraining": CBViLAForPreTraining,
            "AutoModelForVisualQuestionAnswering": CBViLAForQuestionAnswering,
            "AutoModelForMaskedImageModeling": CBViLAForMaskedImageModeling,
            "AutoModelForZeroShotImageClassification": CBViLAForImageTextRetrieval,
            self.auto_class: self.model_class,
        }
        return {auto_class: reference(target) for auto_class, target in classes.items()}

    def custom_pipelines(self) -> dict[str, dict[str, Any]]:
        """The pipeline that comes with the weights, as config.json has it; empty for heads that no pipeline runs.

        Under one name only: `pipeline(model=...)` without a task needs it to be the only one.
        """
        if not self.has_pipeline:
            return {}
        return {VQA_TASK: {"impl": reference(CBViLAVisualQuestionAnsweringPipeline), "pt": [self.auto_class]}}


def reference(target: type) -> str:
    """A class as transformers' remote-code loader names it: `"modeling_cbvila.CBViLAModel"`."""
    return f"{target.__module__.rpartition('.')[2]}.{target.__name__}"


# Of processor_config.json, and of the image processor in it (for Pillow, for torchvision).
PROCESSOR_AUTO_MAP = {"AutoProcessor": reference(CBViLAProcessor)}
IMAGE_PROCESSOR_AUTO_MAP = {
    "AutoImageProcessor": [reference(CBViLAImageProcessorPil), reference(CBViLAImageProcessor)]
}

_KINDS = (
    Kind(CBViLAModel, "AutoModel", "base.md", "feature-extraction", "feature-extraction"),
    Kind(CBViLAForPreTraining, "AutoModelForPreTraining", "pretraining.md", "vision-language-pretraining"),
    Kind(
        CBViLAForQuestionAnswering,
        "AutoModelForVisualQuestionAnswering",
        "question_answering.md",
        VQA_TASK,
        VQA_TASK,
    ),
    Kind(
        CBViLAForMaskedImageModeling,
        "AutoModelForMaskedImageModeling",
        "masked_image_modeling.md",
        "masked-image-modeling",
    ),
    Kind(CBViLAForImageTextRetrieval, "AutoModel", "retrieval.md", "image-text-retrieval"),
    Kind(CBViLAForVisualEntailment, "AutoModel", "entailment.md", "visual-entailment"),
    Kind(CBViLAForVisualReasoning, "AutoModel", "reasoning.md", "visual-reasoning"),
)
KINDS: dict[str, Kind] = {kind.model_class.__name__: kind for kind in _KINDS}
