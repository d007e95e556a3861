"""Makes the CB-ViLA family known to transformers: the Auto classes and the pipeline."""

import contextlib

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForMaskedImageModeling,
    AutoModelForPreTraining,
    AutoModelForVisualQuestionAnswering,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    AutoTokenizer,
    BertTokenizer,
)

from .model.configuration_cbvila import CBViLAConfig, CBViLAFusionConfig, CBViLATextConfig, CBViLAVisionConfig
from .model.image_processing_cbvila import CBViLAImageProcessor
from .model.image_processing_pil_cbvila import CBViLAImageProcessorPil
from .model.modeling_cbvila import CBViLAModel
from .model.modeling_cbvila_fusion import CBViLAFusionModel
from .model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from .model.modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling
from .model.modeling_cbvila_pretraining import CBViLAForPreTraining
from .model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from .model.modeling_cbvila_text import CBViLATextModel
from .model.modeling_cbvila_vision import CBViLAVisionModel
from .model.processing_cbvila import CBViLAProcessor
from .pipeline_dispatch import offer_pipeline


def register() -> None:
    """Registers CB-ViLA with transformers; importing the package does it. A second call changes nothing."""
    for config in (CBViLAConfig, CBViLAVisionConfig, CBViLATextConfig, CBViLAFusionConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(CBViLAConfig, CBViLAModel, exist_ok=True)
    AutoModel.register(CBViLAVisionConfig, CBViLAVisionModel, exist_ok=True)
    AutoModel.register(CBViLATextConfig, CBViLATextModel, exist_ok=True)
    AutoModel.register(CBViLAFusionConfig, CBViLAFusionModel, exist_ok=True)
    AutoModelForPreTraining.register(CBViLAConfig, CBViLAForPreTraining, exist_ok=True)
    AutoModelForMaskedImageModeling.register(CBViLAConfig, CBViLAForMaskedImageModeling, exist_ok=True)
    AutoModelForVisualQuestionAnswering.register(CBViLAConfig, CBViLAForQuestionAnswering, exist_ok=True)
    AutoModelForZeroShotImageClassification.register(CBViLAConfig, CBViLAForImageTextRetrieval, exist_ok=True)
    AutoTokenizer.register(CBViLAConfig, tokenizer_class=BertTokenizer, exist_ok=True)
    AutoProcessor.register(CBViLAConfig, CBViLAProcessor, exist_ok=True)
    # In transformers 5.17 AutoImageProcessor is a placeholder that raises where torchvision is missing.
    with contextlib.suppress(ImportError):
        AutoImageProcessor.register(
            CBViLAConfig,
            image_processor_classes={"pil": CBViLAImageProcessorPil, "torchvision": CBViLAImageProcessor},
            exist_ok=True,
        )
    offer_pipeline()
