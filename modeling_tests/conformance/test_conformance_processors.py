"""transformers' ProcessorTesterMixin and ImageProcessingTestMixin on our processor and image processors."""

import unittest

import tiny
from conformance import upstream
from transformers import BertTokenizer
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


class TestProcessor(processor_suite.ProcessorTesterMixin, unittest.TestCase):
    processor_class = CBViLAProcessor

    @classmethod
    def _setup_tokenizer(cls):
        return BertTokenizer(vocab={word: i for i, word in enumerate(tiny.WORDS)})

    @classmethod
    def _setup_image_processor(cls):
        return CBViLAImageProcessorPil(size={"height": 18, "width": 18})
