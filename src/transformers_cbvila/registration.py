"""Registers the CB-ViLA family with transformers: the Auto classes and the pipeline."""

from typing import Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMaskedImageModeling,
    AutoModelForPreTraining,
    AutoModelForVisualQuestionAnswering,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    AutoTokenizer,
    BertTokenizer,
    PreTrainedConfig,
    ProcessorMixin,
)

from .late_classes import LateClass, take_late_classes
from .model.configuration_cbvila import CBViLAConfig, CBViLAFusionConfig, CBViLATextConfig, CBViLAVisionConfig
from .model.configuration_cbvila_conditional_generation import CBViLAConditionalGenerationConfig
from .model.configuration_cbvila_qformer import CBViLAQFormerConfig
from .model.image_processing_cbvila import CBViLAImageProcessor
from .model.image_processing_pil_cbvila import CBViLAImageProcessorPil
from .model.processing_cbvila import CBViLAProcessor
from .model.processing_cbvila_conditional_generation import CBViLAConditionalGenerationProcessor
from .pipeline_dispatch import offer_pipeline

_CONFIGURATIONS: tuple[type[PreTrainedConfig], ...] = (
    CBViLAConfig,
    CBViLAVisionConfig,
    CBViLATextConfig,
    CBViLAFusionConfig,
    CBViLAConditionalGenerationConfig,
    CBViLAQFormerConfig,
)
_PROCESSORS: dict[type[PreTrainedConfig], type[ProcessorMixin]] = {
    CBViLAConfig: CBViLAProcessor,
    CBViLAConditionalGenerationConfig: CBViLAConditionalGenerationProcessor,
    CBViLAQFormerConfig: CBViLAProcessor,
}
# Auto class, configuration, and the model's file and class, which is imported on first use.
_MODELS: list[tuple[Any, type[PreTrainedConfig], str, str]] = [
    (AutoModel, CBViLAConfig, "modeling_cbvila", "CBViLAModel"),
    (AutoModel, CBViLAVisionConfig, "modeling_cbvila_vision", "CBViLAVisionModel"),
    (AutoModel, CBViLATextConfig, "modeling_cbvila_text", "CBViLATextModel"),
    (AutoModel, CBViLAFusionConfig, "modeling_cbvila_fusion", "CBViLAFusionModel"),
    (
        AutoModel,
        CBViLAConditionalGenerationConfig,
        "modeling_cbvila_image_language",
        "CBViLAConditionalGenerationModel",
    ),
    (
        AutoModelForImageTextToText,
        CBViLAConditionalGenerationConfig,
        "modeling_cbvila_conditional_generation",
        "CBViLAForConditionalGeneration",
    ),
    (AutoModelForPreTraining, CBViLAConfig, "modeling_cbvila_pretraining", "CBViLAForPreTraining"),
    (
        AutoModelForMaskedImageModeling,
        CBViLAConfig,
        "modeling_cbvila_masked_image_modeling",
        "CBViLAForMaskedImageModeling",
    ),
    (
        AutoModelForVisualQuestionAnswering,
        CBViLAConfig,
        "modeling_cbvila_question_answering",
        "CBViLAForQuestionAnswering",
    ),
    (
        AutoModelForImageTextToText,
        CBViLAConfig,
        "modeling_cbvila_question_answering",
        "CBViLAForQuestionAnswering",
    ),
    (
        AutoModelForZeroShotImageClassification,
        CBViLAConfig,
        "modeling_cbvila_image_text_retrieval",
        "CBViLAForImageTextRetrieval",
    ),
    (AutoModel, CBViLAQFormerConfig, "modeling_cbvila_qformer", "CBViLAQFormerModel"),
    (
        AutoModelForPreTraining,
        CBViLAQFormerConfig,
        "modeling_cbvila_qformer_pretraining",
        "CBViLAForQFormerPreTraining",
    ),
]


def register() -> None:
    """Registers CB-ViLA with transformers; done when the package is imported. A second call has no effect."""
    for config in _CONFIGURATIONS:
        AutoConfig.register(config.model_type, config, exist_ok=True)
    for auto_class, config_class, file, name in _MODELS:
        take_late_classes(auto_class._model_mapping)
        auto_class.register(config_class, LateClass(f"model.{file}", name), exist_ok=True)
    for config, processor in _PROCESSORS.items():
        if processor is CBViLAProcessor:  # other processors have the tokenizer of a language model
            AutoTokenizer.register(config, tokenizer_class=BertTokenizer, exist_ok=True)
        AutoProcessor.register(config, processor, exist_ok=True)
        AutoImageProcessor.register(
            config,
            image_processor_classes={"pil": CBViLAImageProcessorPil, "torchvision": CBViLAImageProcessor},
            exist_ok=True,
        )
    offer_pipeline()
