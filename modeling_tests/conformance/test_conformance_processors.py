"""transformers' ProcessorTesterMixin and ImageProcessingTestMixin on our processor and image processors."""

import subprocess
import unittest
from unittest.mock import patch

import tiny
from conformance import upstream
from transformers.utils import is_torchvision_available

from transformers_cbvila import CBViLAImageProcessor, CBViLAImageProcessorPil, CBViLAProcessor

upstream.require()
image_suite = upstream.load("test_image_processing_common")
processor_suite = upstream.load("test_processing_common")


class ImageTester(image_suite.ImageProcessingTester):
    def __init__(self, parent, **kwargs):
        super().__init__(parent, **{"size": {"height": 18, "width": 18}, **kwargs})

    def _get_image_processing_classes(self):
        # Looked up by the folder of the test's file otherwise.
        classes = {"pil": CBViLAImageProcessorPil}
        return classes | {"torchvision": CBViLAImageProcessor} if is_torchvision_available() else classes


class TestImageProcessor(image_suite.ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = ImageTester

    def test_backends_equivalence(self):
        # On a picture of noise, the hardest to resize alike, instead of a photograph from the network.
        with patch.object(image_suite, "load_test_image", lambda url: tiny.noise_image((131, 97))):
            super().test_backends_equivalence()

    def test_new_models_require_torchvision_backend(self):
        # Our class for it is there also where torchvision is not.
        self.image_processor_tester.image_processing_classes["torchvision"] = CBViLAImageProcessor
        super().test_new_models_require_torchvision_backend()

    def test_pil_can_run_without_torchvision(self):
        # It loads by AutoImageProcessor in a process of its own, which knows ours once the package is imported.
        first = "import sys\nsys.modules['torchvision'] = None\nimport transformers_cbvila\n"

        def run(command, **options):
            return original([command[0], "-c", first + command[2], *command[3:]], **options)

        original = subprocess.run
        with patch.object(subprocess, "run", run):
            super().test_pil_can_run_without_torchvision()


class TestProcessor(processor_suite.ProcessorTesterMixin, unittest.TestCase):
    processor_class = CBViLAProcessor

    @classmethod
    def _setup_tokenizer(cls):
        return tiny.tiny_tokenizer()

    @classmethod
    def _setup_image_processor(cls):
        return CBViLAImageProcessorPil(size={"height": 18, "width": 18})

    # A chat is a question to this processor: the last text of the user. No other message is rendered.
    def _test_apply_chat_template(self, *args, **kwargs):
        self.skipTest("The template renders one question, which is not continued")

    def test_apply_chat_template_assistant_mask(self):
        self.skipTest("The template renders one question, in which no assistant speaks")

    def test_processor_text_has_no_visual(self):
        # Without the template, for which the test takes images from the network.
        plain = self.get_processor()
        plain.chat_template = None
        with patch.object(self, "get_processor", lambda: plain):
            super().test_processor_text_has_no_visual()
