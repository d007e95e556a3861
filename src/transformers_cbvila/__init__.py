"""CB-ViLA for the Hugging Face ecosystem.

Importing the package registers its classes with transformers' Auto classes, and the pipeline
`visual-question-answering` for CB-ViLA checkpoints. Training and data code is imported when it is first used.

Example:

```python
import transformers_cbvila
from transformers import pipeline

ask = pipeline("visual-question-answering", model=transformers_cbvila.bundled_checkpoint("cbvila-tiny-easyvqa"))
ask("picture.png", "What shape is in the image?")
```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .bundled import bundled_checkpoint, bundled_checkpoints
from .model.configuration_cbvila import CBViLAConfig, CBViLAFusionConfig, CBViLATextConfig, CBViLAVisionConfig
from .model.image_processing_cbvila import CBViLAImageProcessor
from .model.image_processing_pil_cbvila import CBViLAImageProcessorPil
from .model.modeling_cbvila import CBViLAModel, CBViLAModelOutput
from .model.modeling_cbvila_classification import CBViLAClassificationOutput
from .model.modeling_cbvila_fusion import CBViLAFusionModel
from .model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval, CBViLAForImageTextRetrievalOutput
from .model.modeling_cbvila_masked_image_modeling import (
    CBViLAForMaskedImageModeling,
    CBViLAForMaskedImageModelingOutput,
)
from .model.modeling_cbvila_pretraining import CBViLAForPreTraining, CBViLAForPreTrainingOutput, CBViLALosses
from .model.modeling_cbvila_question_answering import (
    CBViLAAnswerRanking,
    CBViLAForQuestionAnswering,
    CBViLAForQuestionAnsweringOutput,
)
from .model.modeling_cbvila_text import CBViLATextModel
from .model.modeling_cbvila_vision import CBViLAVisionModel
from .model.modeling_cbvila_visual_entailment import CBViLAForVisualEntailment
from .model.modeling_cbvila_visual_reasoning import CBViLAForVisualReasoning
from .model.pipeline_cbvila import CBViLAVisualQuestionAnsweringPipeline
from .model.processing_cbvila import CBViLAProcessor
from .registration import register

if TYPE_CHECKING:
    from .data.collators import CBViLADataCollatorForPreTraining, CBViLADataCollatorForQuestionAnswering
    from .data.pairs import ImageTextPairs
    from .data.sources import load_pairs
    from .data.streams import StreamedImageTextPairs
    from .data.task_collators import (
        CBViLADataCollatorForImageTextRetrieval,
        CBViLADataCollatorForVisualEntailment,
        CBViLADataCollatorForVisualReasoning,
    )
    from .evaluation.retriever import CBViLARetriever, CBViLARetrieverOutput
    from .hub.publishing import publish
    from .training.arguments import CBViLATrainingArguments
    from .training.trainer import CBViLATrainer

__version__ = "0.1.0"

# Where the names of the block above are, relative to the package.
_MODULE_OF_LAZY_NAME = {
    "CBViLADataCollatorForImageTextRetrieval": "data.task_collators",
    "CBViLADataCollatorForPreTraining": "data.collators",
    "CBViLADataCollatorForQuestionAnswering": "data.collators",
    "CBViLADataCollatorForVisualEntailment": "data.task_collators",
    "CBViLADataCollatorForVisualReasoning": "data.task_collators",
    "CBViLARetriever": "evaluation.retriever",
    "CBViLARetrieverOutput": "evaluation.retriever",
    "CBViLATrainer": "training.trainer",
    "CBViLATrainingArguments": "training.arguments",
    "ImageTextPairs": "data.pairs",
    "load_pairs": "data.sources",
    "StreamedImageTextPairs": "data.streams",
    "publish": "hub.publishing",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_LAZY_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF_LAZY_NAME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register()

__all__ = [
    "CBViLAAnswerRanking",
    "CBViLAClassificationOutput",
    "CBViLAConfig",
    "CBViLADataCollatorForImageTextRetrieval",
    "CBViLADataCollatorForPreTraining",
    "CBViLADataCollatorForQuestionAnswering",
    "CBViLADataCollatorForVisualEntailment",
    "CBViLADataCollatorForVisualReasoning",
    "CBViLAForImageTextRetrieval",
    "CBViLAForImageTextRetrievalOutput",
    "CBViLAForMaskedImageModeling",
    "CBViLAForMaskedImageModelingOutput",
    "CBViLAForPreTraining",
    "CBViLAForPreTrainingOutput",
    "CBViLAForQuestionAnswering",
    "CBViLAForQuestionAnsweringOutput",
    "CBViLAForVisualEntailment",
    "CBViLAForVisualReasoning",
    "CBViLAFusionConfig",
    "CBViLAFusionModel",
    "CBViLAImageProcessor",
    "CBViLAImageProcessorPil",
    "CBViLALosses",
    "CBViLAModel",
    "CBViLAModelOutput",
    "CBViLAProcessor",
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
]
