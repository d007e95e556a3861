"""CB-ViLA for the Hugging Face ecosystem.

Importing the package registers its classes with transformers' Auto classes, and the pipeline
`visual-question-answering` for CB-ViLA checkpoints. The code of models, training and data is imported when it is first
used.

Example:
```python
import transformers_cbvila
from transformers import pipeline

ask = pipeline("visual-question-answering", model=transformers_cbvila.bundled_checkpoint("cbvila-tiny-easyvqa"))
ask("picture.png", "What shape is in the image?")
```
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from sysconfig import get_path
from typing import TYPE_CHECKING, Any

from .bundled import bundled_checkpoint, bundled_checkpoints
from .garbage_collection import garbage_collection_paused

if TYPE_CHECKING:
    from .data.collators import CBViLADataCollatorForPreTraining, CBViLADataCollatorForQuestionAnswering
    from .data.pairs import ImageTextPairs
    from .data.qformer_collator import CBViLADataCollatorForQFormerPreTraining
    from .data.sources import load_pairs
    from .data.streams import StreamedImageTextPairs
    from .data.task_collators import (
        CBViLADataCollatorForImageTextRetrieval,
        CBViLADataCollatorForVisualEntailment,
        CBViLADataCollatorForVisualReasoning,
    )
    from .explaining.explain import explain
    from .explaining.explanation import Explanation
    from .explaining.pipeline import CBViLAVisualQuestionAnsweringPipeline
    from .export.onnx_export import export_onnx
    from .hub.publishing import publish, stage_repository
    from .model.answer_ranking_cbvila import CBViLAAnswerRanking
    from .model.code_table_cbvila import CBViLACodeTable
    from .model.configuration_cbvila import CBViLAConfig, CBViLAFusionConfig, CBViLATextConfig, CBViLAVisionConfig
    from .model.configuration_cbvila_conditional_generation import CBViLAConditionalGenerationConfig
    from .model.configuration_cbvila_qformer import CBViLAQFormerConfig
    from .model.image_processing_cbvila import CBViLAImageProcessor
    from .model.image_processing_pil_cbvila import CBViLAImageProcessorPil
    from .model.modeling_cbvila import CBViLAModel, CBViLAModelOutput
    from .model.modeling_cbvila_classification import CBViLAClassificationOutput
    from .model.modeling_cbvila_conditional_generation import (
        CBViLAForConditionalGeneration,
        CBViLAForConditionalGenerationOutput,
    )
    from .model.modeling_cbvila_fusion import CBViLAFusionModel
    from .model.modeling_cbvila_image_language import CBViLAConditionalGenerationModel
    from .model.modeling_cbvila_image_text_retrieval import (
        CBViLAForImageTextRetrieval,
        CBViLAForImageTextRetrievalOutput,
    )
    from .model.modeling_cbvila_masked_image_modeling import (
        CBViLAForMaskedImageModeling,
        CBViLAForMaskedImageModelingOutput,
    )
    from .model.modeling_cbvila_pretraining import CBViLAForPreTraining, CBViLAForPreTrainingOutput
    from .model.modeling_cbvila_qformer import CBViLAQFormerModel
    from .model.modeling_cbvila_qformer_pretraining import (
        CBViLAForQFormerPreTraining,
        CBViLAForQFormerPreTrainingOutput,
    )
    from .model.modeling_cbvila_question_answering import (
        CBViLAForQuestionAnswering,
        CBViLAForQuestionAnsweringOutput,
    )
    from .model.modeling_cbvila_text import CBViLATextModel
    from .model.modeling_cbvila_vision import CBViLAVisionModel
    from .model.modeling_cbvila_visual_entailment import CBViLAForVisualEntailment
    from .model.modeling_cbvila_visual_reasoning import CBViLAForVisualReasoning
    from .model.objective_cbvila import CBViLAObjective, CBViLAObjectiveOptions
    from .model.objectives_cbvila import register_objective
    from .model.processing_cbvila import CBViLAProcessor
    from .model.processing_cbvila_conditional_generation import CBViLAConditionalGenerationProcessor
    from .model.projector_cbvila import CBViLAProjector, CBViLAProjectorOptions
    from .model.projectors_cbvila import register_projector
    from .model.quantizer_cbvila import CBViLAQuantizer, CBViLAQuantizerOptions
    from .model.quantizer_output_cbvila import CBViLAQuantizerOutput
    from .model.quantizers_cbvila import register_quantizer
    from .onnx_runtime.question_answering import CBViLAOnnxQuestionAnswering
    from .onnx_runtime.retriever import CBViLAOnnxRetriever, CBViLAOnnxRetrieverOutput
    from .retrieval.cross_encoder import CBViLAMatchingModule
    from .retrieval.retriever import CBViLARetriever, CBViLARetrieverOutput
    from .retrieval.sentence_transformers_files import write_sentence_transformers_files
    from .space.publishing import publish_space
    from .static_page.publishing import publish_static_page, stage_static_page
    from .training.arguments import CBViLATrainingArguments
    from .training.trainer import CBViLATrainer

__version__ = "0.2.0"

# The modules of the names above, relative to the package.
_MODULE_OF_LAZY_NAME = {
    "CBViLAAnswerRanking": "model.answer_ranking_cbvila",
    "CBViLAClassificationOutput": "model.modeling_cbvila_classification",
    "CBViLAConfig": "model.configuration_cbvila",
    "CBViLAConditionalGenerationConfig": "model.configuration_cbvila_conditional_generation",
    "CBViLAConditionalGenerationModel": "model.modeling_cbvila_image_language",
    "CBViLAConditionalGenerationProcessor": "model.processing_cbvila_conditional_generation",
    "CBViLAForConditionalGeneration": "model.modeling_cbvila_conditional_generation",
    "CBViLAForConditionalGenerationOutput": "model.modeling_cbvila_conditional_generation",
    "CBViLADataCollatorForImageTextRetrieval": "data.task_collators",
    "CBViLADataCollatorForPreTraining": "data.collators",
    "CBViLADataCollatorForQFormerPreTraining": "data.qformer_collator",
    "CBViLADataCollatorForQuestionAnswering": "data.collators",
    "CBViLADataCollatorForVisualEntailment": "data.task_collators",
    "CBViLADataCollatorForVisualReasoning": "data.task_collators",
    "CBViLAForImageTextRetrieval": "model.modeling_cbvila_image_text_retrieval",
    "CBViLAForImageTextRetrievalOutput": "model.modeling_cbvila_image_text_retrieval",
    "CBViLAForMaskedImageModeling": "model.modeling_cbvila_masked_image_modeling",
    "CBViLAForMaskedImageModelingOutput": "model.modeling_cbvila_masked_image_modeling",
    "CBViLAForPreTraining": "model.modeling_cbvila_pretraining",
    "CBViLAForPreTrainingOutput": "model.modeling_cbvila_pretraining",
    "CBViLAForQFormerPreTraining": "model.modeling_cbvila_qformer_pretraining",
    "CBViLAForQFormerPreTrainingOutput": "model.modeling_cbvila_qformer_pretraining",
    "CBViLAForQuestionAnswering": "model.modeling_cbvila_question_answering",
    "CBViLAForQuestionAnsweringOutput": "model.modeling_cbvila_question_answering",
    "CBViLAForVisualEntailment": "model.modeling_cbvila_visual_entailment",
    "CBViLAForVisualReasoning": "model.modeling_cbvila_visual_reasoning",
    "CBViLAFusionConfig": "model.configuration_cbvila",
    "CBViLAFusionModel": "model.modeling_cbvila_fusion",
    "CBViLAImageProcessor": "model.image_processing_cbvila",
    "CBViLAImageProcessorPil": "model.image_processing_pil_cbvila",
    "CBViLAMatchingModule": "retrieval.cross_encoder",
    "CBViLAModel": "model.modeling_cbvila",
    "CBViLAModelOutput": "model.modeling_cbvila",
    "CBViLAOnnxQuestionAnswering": "onnx_runtime.question_answering",
    "CBViLAOnnxRetriever": "onnx_runtime.retriever",
    "CBViLAOnnxRetrieverOutput": "onnx_runtime.retriever",
    "CBViLAProcessor": "model.processing_cbvila",
    "CBViLAQFormerConfig": "model.configuration_cbvila_qformer",
    "CBViLAQFormerModel": "model.modeling_cbvila_qformer",
    "CBViLARetriever": "retrieval.retriever",
    "CBViLARetrieverOutput": "retrieval.retriever",
    "CBViLATextConfig": "model.configuration_cbvila",
    "CBViLATextModel": "model.modeling_cbvila_text",
    "CBViLATrainer": "training.trainer",
    "CBViLATrainingArguments": "training.arguments",
    "CBViLAVisionConfig": "model.configuration_cbvila",
    "CBViLAVisionModel": "model.modeling_cbvila_vision",
    "CBViLAVisualQuestionAnsweringPipeline": "explaining.pipeline",
    "CBViLACodeTable": "model.code_table_cbvila",
    "CBViLAObjective": "model.objective_cbvila",
    "CBViLAObjectiveOptions": "model.objective_cbvila",
    "CBViLAProjector": "model.projector_cbvila",
    "CBViLAProjectorOptions": "model.projector_cbvila",
    "CBViLAQuantizer": "model.quantizer_cbvila",
    "CBViLAQuantizerOptions": "model.quantizer_cbvila",
    "CBViLAQuantizerOutput": "model.quantizer_output_cbvila",
    "Explanation": "explaining.explanation",
    "ImageTextPairs": "data.pairs",
    "explain": "explaining.explain",
    "export_onnx": "export.onnx_export",
    "load_pairs": "data.sources",
    "StreamedImageTextPairs": "data.streams",
    "publish": "hub.publishing",
    "publish_space": "space.publishing",
    "publish_static_page": "static_page.publishing",
    "stage_repository": "hub.publishing",
    "stage_static_page": "static_page.publishing",
    "register_objective": "model.objectives_cbvila",
    "register_projector": "model.projectors_cbvila",
    "register_quantizer": "model.quantizers_cbvila",
    "write_sentence_transformers_files": "retrieval.sentence_transformers_files",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_LAZY_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF_LAZY_NAME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _is_command_line() -> bool:
    """Returns whether this process is `cbvila` or `python -m transformers_cbvila`, not a program that imports us."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # while Python searches for the module to run
        return __name__ in sys.orig_argv
    # Worker processes inherit the program's name but were not started by it.
    script = os.path.join(get_path("scripts"), "cbvila")
    return program in sys.orig_argv and os.path.realpath(program).removesuffix(".exe") == os.path.realpath(script)


# The exception: the command line registers after it has parsed its command (`cli.main`), because registering imports
# transformers' Auto classes and torch, which its help does not need. Where torch is not installed there is nothing to
# register: `onnx_runtime/` runs without.
if not _is_command_line() and find_spec("torch") is not None:
    with garbage_collection_paused():
        from .registration import register

        register()

__all__ = [
    "CBViLAAnswerRanking",
    "CBViLAClassificationOutput",
    "CBViLACodeTable",
    "CBViLAConditionalGenerationConfig",
    "CBViLAConditionalGenerationModel",
    "CBViLAConditionalGenerationProcessor",
    "CBViLAConfig",
    "CBViLADataCollatorForImageTextRetrieval",
    "CBViLADataCollatorForPreTraining",
    "CBViLADataCollatorForQFormerPreTraining",
    "CBViLADataCollatorForQuestionAnswering",
    "CBViLADataCollatorForVisualEntailment",
    "CBViLADataCollatorForVisualReasoning",
    "CBViLAForConditionalGeneration",
    "CBViLAForConditionalGenerationOutput",
    "CBViLAForImageTextRetrieval",
    "CBViLAForImageTextRetrievalOutput",
    "CBViLAForMaskedImageModeling",
    "CBViLAForMaskedImageModelingOutput",
    "CBViLAForPreTraining",
    "CBViLAForPreTrainingOutput",
    "CBViLAForQFormerPreTraining",
    "CBViLAForQFormerPreTrainingOutput",
    "CBViLAForQuestionAnswering",
    "CBViLAForQuestionAnsweringOutput",
    "CBViLAForVisualEntailment",
    "CBViLAForVisualReasoning",
    "CBViLAFusionConfig",
    "CBViLAFusionModel",
    "CBViLAImageProcessor",
    "CBViLAImageProcessorPil",
    "CBViLAMatchingModule",
    "CBViLAModel",
    "CBViLAModelOutput",
    "CBViLAObjective",
    "CBViLAObjectiveOptions",
    "CBViLAOnnxQuestionAnswering",
    "CBViLAOnnxRetriever",
    "CBViLAOnnxRetrieverOutput",
    "CBViLAProcessor",
    "CBViLAProjector",
    "CBViLAProjectorOptions",
    "CBViLAQFormerConfig",
    "CBViLAQFormerModel",
    "CBViLAQuantizer",
    "CBViLAQuantizerOptions",
    "CBViLAQuantizerOutput",
    "CBViLARetriever",
    "CBViLARetrieverOutput",
    "CBViLATextConfig",
    "CBViLATextModel",
    "CBViLATrainer",
    "CBViLATrainingArguments",
    "CBViLAVisionConfig",
    "CBViLAVisionModel",
    "CBViLAVisualQuestionAnsweringPipeline",
    "Explanation",
    "ImageTextPairs",
    "StreamedImageTextPairs",
    "bundled_checkpoint",
    "bundled_checkpoints",
    "explain",
    "export_onnx",
    "load_pairs",
    "publish",
    "publish_space",
    "publish_static_page",
    "register_objective",
    "register_projector",
    "register_quantizer",
    "stage_repository",
    "stage_static_page",
    "write_sentence_transformers_files",
]
