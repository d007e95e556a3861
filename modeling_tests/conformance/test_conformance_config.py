"""transformers' ConfigTester on each of our configurations."""

import unittest

from conformance import upstream
from conformance.testers import ModelTester

from transformers_cbvila import (
    CBViLAConfig,
    CBViLAFusionConfig,
    CBViLAQFormerConfig,
    CBViLATextConfig,
    CBViLAVisionConfig,
)

upstream.require()
ConfigTester = upstream.load("test_configuration_common").ConfigTester


class TestConfigs(unittest.TestCase):
    def run_common_tests(self, config_class, **fields):
        ConfigTester(
            self, config_class, has_text_modality=config_class is CBViLATextConfig, **fields
        ).run_common_tests()

    def test_config(self):
        self.model_tester = ModelTester()
        self.run_common_tests(CBViLAConfig, projection_dim=37, common_properties=["text_config", "vision_config"])

    def test_text_config(self):
        self.run_common_tests(CBViLATextConfig, hidden_size=36)

    def test_vision_config(self):
        self.run_common_tests(CBViLAVisionConfig, hidden_size=36)

    def test_multimodal_config(self):
        self.run_common_tests(CBViLAFusionConfig, hidden_size=36)

    def test_qformer_config(self):
        self.run_common_tests(CBViLAQFormerConfig, hidden_size=36, dec_token_id=None)
