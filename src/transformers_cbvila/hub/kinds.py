"""The kinds of checkpoints that can be published: which head, how it is loaded, which card it gets."""

from dataclasses import dataclass
from typing import Any

from ..model.modeling_cbvila import CBViLAModel
from ..model.modeling_cbvila_conditional_generation import CBViLAForConditionalGeneration
from ..model.modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.modeling_cbvila_qformer_pretraining import CBViLAForQFormerPreTraining
from ..model.processing_cbvila import CBViLAProcessor
from ..model.processing_cbvila_conditional_generation import CBViLAConditionalGenerationProcessor
from ..model.remote_code_cbvila import VQA_TASK, auto_class_of
from ..tasks.registry import TASKS


@dataclass(frozen=True)
class Kind:
    """One kind of checkpoint.

    Attributes:
        model_class: the head, or the model without one.
        card: the file of `hub_cards/` that its card is made from.
        task: its task in the card's metadata, also of results.
        pipeline_tag: the task that the Hub lists it under, where the Hub knows it.
    """

    model_class: Any
    card: str
    task: str
    pipeline_tag: str | None = None

    @property
    def has_pipeline(self) -> bool:
        """Whether `pipeline()` can run it."""
        return self.task == VQA_TASK

    @property
    def processor_class(self) -> Any:
        """The class of its processor."""
        return CBViLAConditionalGenerationProcessor if self.has_language_model else CBViLAProcessor

    @property
    def has_language_model(self) -> bool:
        """Whether a language model belongs to it that is not published with it."""
        return self.model_class is CBViLAForConditionalGeneration

    @property
    def has_codebook(self) -> bool:
        """Whether what it predicts are visual words, so that a card has to say how they fare."""
        return self.model_class in (CBViLAForPreTraining, CBViLAForMaskedImageModeling)

    @property
    def auto_class(self) -> str:
        """The Auto class of transformers that loads it without this package, with `trust_remote_code=True`."""
        return auto_class_of(self.model_class.__name__)


_KINDS = (
    Kind(CBViLAModel, "base.md", "feature-extraction", "feature-extraction"),
    Kind(CBViLAForPreTraining, "pretraining.md", "vision-language-pretraining"),
    Kind(CBViLAForQFormerPreTraining, "qformer.md", "vision-language-pretraining"),
    Kind(CBViLAForMaskedImageModeling, "masked_image_modeling.md", "masked-image-modeling"),
)


def kinds() -> dict[str, Kind]:
    """Returns the kinds of checkpoints by the class of their model, those of registered tasks among them."""
    of_tasks = (Kind(task.head, task.card, task.hub_task, task.pipeline_tag) for task in TASKS.values())
    return {kind.model_class.__name__: kind for kind in (*_KINDS, *of_tasks)}
