"""The same suites on transformers' own BLIP, which only `make conformance` runs: the measure of our counts.

As it comes: nothing is skipped or mended for it. What fails there does not fail the run.
"""

import unittest

import tiny
from conformance import upstream
from conformance.common_tests import CommonTests
from conformance.testers import SEQ_LENGTH, ModelTester, small_ids
from transformers import (
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    BlipModel,
    BlipProcessor,
    BlipTextConfig,
    BlipTextModel,
    BlipVisionConfig,
    BlipVisionModel,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel

upstream.require()
ConfigTester = upstream.load("test_configuration_common").ConfigTester
image_suite = upstream.load("test_image_processing_common")
processor_suite = upstream.load("test_processing_common")

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
VISION = SIZES | {"image_size": tiny.SIDE, "patch_size": tiny.PATCH}
TEXT = SIZES | {
    "vocab_size": tiny.VOCABULARY,
    "encoder_hidden_size": 32,
    "max_position_embeddings": 16,
    "bos_token_id": tiny.CLS,
    "eos_token_id": tiny.SEP,
    "sep_token_id": tiny.SEP,
    "pad_token_id": tiny.PAD,
}


class BlipTester(ModelTester):
    """A whole BLIP. Its states are those of the image."""

    hidden_size = 32
    seq_length = 1 + tiny.PATCHES

    def get_config(self):
        return BlipConfig(text_config=TEXT, vision_config=VISION, projection_dim=16, image_text_hidden_size=16)

    def prepare_config_and_inputs_for_common(self):
        inputs = small_ids(tiny.tiny_pairs(self.batch_size, SEQ_LENGTH))
        names = ("input_ids", "pixel_values", "attention_mask")
        return self.get_config(), {name: inputs[name] for name in names}


class BlipQuestionTester(BlipTester):
    def prepare_config_and_inputs_for_common(self):
        config, inputs = super().prepare_config_and_inputs_for_common()
        return config, inputs | {"decoder_input_ids": inputs["input_ids"]}


class BlipTextTester(BlipTester):
    seq_length = SEQ_LENGTH
    is_decoder = False

    def get_config(self):
        return BlipTextConfig(**TEXT, is_decoder=self.is_decoder)

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), small_ids(tiny.tiny_texts(self.batch_size, self.seq_length))


class BlipDecoderTester(BlipTextTester):
    is_decoder = True


class BlipVisionTester(BlipTester):
    def get_config(self):
        return BlipVisionConfig(**VISION)

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), {"pixel_values": tiny.tiny_images(self.batch_size)}


class BlipTests(CommonTests):
    make_tester = BlipTester


class PairTests(BlipTests):
    _is_composite = True
    additional_model_inputs = ("input_ids",)


class TestBlipModel(PairTests, unittest.TestCase):
    all_model_classes = (BlipModel,)

    def labels(self, inputs):
        return {"return_loss": True}


class TestBlipTextModel(BlipTests, unittest.TestCase):
    all_model_classes = (BlipTextModel,)
    make_tester = BlipTextTester


class TestBlipVisionModel(BlipTests, unittest.TestCase):
    all_model_classes = (BlipVisionModel,)
    make_tester = BlipVisionTester
    test_resize_embeddings = False


class TestBlipTextLMHeadModel(BlipTests, unittest.TestCase):
    all_model_classes = (BlipTextLMHeadModel,)
    make_tester = BlipDecoderTester

    def labels(self, inputs):
        return {"labels": inputs["input_ids"]}


class TestBlipForImageTextRetrieval(PairTests, unittest.TestCase):
    all_model_classes = (BlipForImageTextRetrieval,)


class TestBlipForQuestionAnswering(PairTests, unittest.TestCase):
    all_model_classes = (BlipForQuestionAnswering,)
    make_tester = BlipQuestionTester

    def labels(self, inputs):
        return {"labels": inputs["input_ids"]}


class TestBlipConfigs(unittest.TestCase):
    def run_common_tests(self, config_class, **fields):
        ConfigTester(self, config_class, has_text_modality=config_class is BlipTextConfig, **fields).run_common_tests()

    def test_config(self):
        self.model_tester = BlipTester()
        self.run_common_tests(BlipConfig, projection_dim=37, common_properties=["text_config", "vision_config"])

    def test_text_config(self):
        self.run_common_tests(BlipTextConfig, hidden_size=36)

    def test_vision_config(self):
        self.run_common_tests(BlipVisionConfig, hidden_size=36)


class ImageTester(image_suite.ImageProcessingTester):
    def __init__(self, parent, **kwargs):
        super().__init__(parent, **{"size": {"height": 18, "width": 18}, **kwargs})

    def _get_image_processing_classes(self):
        return {"pil": BlipImageProcessorPil}


class TestBlipImageProcessor(image_suite.ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = ImageTester


class TestBlipProcessor(processor_suite.ProcessorTesterMixin, unittest.TestCase):
    processor_class = BlipProcessor

    @classmethod
    def _setup_tokenizer(cls):
        return tiny.tiny_tokenizer()

    @classmethod
    def _setup_image_processor(cls):
        return BlipImageProcessorPil(size={"height": 18, "width": 18})
