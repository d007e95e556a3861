"""transformers' ModelTesterMixin on each of our models."""

import unittest
from collections import OrderedDict
from unittest.mock import patch

import tiny
import torch
from conformance import upstream
from conformance.testers import (
    MaskedImageTester,
    ModelTester,
    PreTrainingTester,
    ReasoningTester,
    TextTester,
    VisionTester,
)
from torch import nn
from transformers import initialization

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForMaskedImageModeling,
    CBViLAForPreTraining,
    CBViLAForQuestionAnswering,
    CBViLAForVisualEntailment,
    CBViLAForVisualReasoning,
    CBViLAModel,
    CBViLATextModel,
    CBViLAVisionModel,
)

upstream.require()
ModelTesterMixin = upstream.load("test_modeling_common").ModelTesterMixin


class CommonTests(ModelTesterMixin):
    test_can_init_all_missing_weights_before_2023 = True  # asks for a year in the file's head otherwise
    make_tester = ModelTester

    def setUp(self):
        self.model_tester = self.make_tester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        return inputs | self.labels() if return_labels else inputs

    def labels(self):
        """What turns a batch into one with a loss."""
        return {}

    def test_init_weights_can_init_buffers(self):
        # It wants buffers to start the same each time, and sets the spread of random ones that it knows to 0. An EMA
        # codebook, which it does not know, is a buffer with a random start.
        with patch.object(initialization, "normal_", lambda tensor, *args, **kwargs: tensor.zero_()):
            super().test_init_weights_can_init_buffers()


class CallableStateDict(OrderedDict):
    """`test_torch_save_load` calls the state dict, by mistake, when it holds a bool; here it can be called."""

    def __call__(self):
        return self

    def __reduce__(self):
        return OrderedDict, (list(self.items()),)


class PairTests(CommonTests):
    """Of models that take images and texts."""

    _is_composite = True
    additional_model_inputs = ("input_ids",)


class TestCBViLAModel(PairTests, unittest.TestCase):
    all_model_classes = (CBViLAModel,)


class TestCBViLATextModel(CommonTests, unittest.TestCase):
    all_model_classes = (CBViLATextModel,)
    make_tester = TextTester


class TestCBViLAVisionModel(CommonTests, unittest.TestCase):
    all_model_classes = (CBViLAVisionModel,)
    make_tester = VisionTester
    test_resize_embeddings = False  # of words; there are none

    def test_model_get_set_embeddings(self):
        # As in transformers' vision models: what is embedded are patches, not words.
        model = CBViLAVisionModel(self.model_tester.get_config())
        self.assertIsInstance(model.get_input_embeddings(), nn.Conv2d)
        self.assertIsNone(model.get_output_embeddings())


class TestCBViLAForPreTraining(PairTests, unittest.TestCase):
    all_model_classes = (CBViLAForPreTraining,)
    make_tester = PreTrainingTester
    additional_model_inputs = ("input_ids", "input_ids_masked", "mlm_labels")

    def test_torch_save_load(self):
        original = CBViLAForPreTraining.state_dict
        with patch.object(CBViLAForPreTraining, "state_dict", lambda model: CallableStateDict(original(model))):
            super().test_torch_save_load()


class TestCBViLAForQuestionAnswering(PairTests, unittest.TestCase):
    all_model_classes = (CBViLAForQuestionAnswering,)

    def labels(self):
        return {"labels": tiny.tiny_answers(self.model_tester.batch_size).clamp(max=40)}


class TestCBViLAForImageTextRetrieval(PairTests, unittest.TestCase):
    all_model_classes = (CBViLAForImageTextRetrieval,)

    def labels(self):
        return {"return_loss": True}


class TestCBViLAForVisualEntailment(PairTests, unittest.TestCase):
    all_model_classes = (CBViLAForVisualEntailment,)

    def labels(self):
        return {"labels": torch.arange(self.model_tester.batch_size) % 3}


class TestCBViLAForVisualReasoning(PairTests, unittest.TestCase):
    all_model_classes = (CBViLAForVisualReasoning,)
    make_tester = ReasoningTester

    def labels(self):
        return {"labels": torch.arange(self.model_tester.batch_size) % 2}


class TestCBViLAForMaskedImageModeling(PairTests, unittest.TestCase):
    all_model_classes = (CBViLAForMaskedImageModeling,)
    make_tester = MaskedImageTester

    def labels(self):
        return {"bool_masked_pos": tiny.tiny_pairs(self.model_tester.batch_size)["bool_masked_pos"]}
