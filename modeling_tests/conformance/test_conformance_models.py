"""transformers' ModelTesterMixin on each of our models."""

import unittest
from collections import OrderedDict
from unittest.mock import patch

import tiny
import torch
from conformance.common_tests import CommonTests
from conformance.testers import (
    DecoderTester,
    FusionTester,
    LanguageTester,
    MaskedImageTester,
    ModelTester,
    PreTrainingTester,
    QFormerPreTrainingTester,
    QFormerTester,
    ReasoningTester,
    TextTester,
    VisionTester,
)
from torch import nn
from transformers import AutoModelForCausalLM, initialization

from transformers_cbvila import (
    CBViLAForConditionalGeneration,
    CBViLAForImageTextRetrieval,
    CBViLAForMaskedImageModeling,
    CBViLAForPreTraining,
    CBViLAForQFormerPreTraining,
    CBViLAForQuestionAnswering,
    CBViLAForVisualEntailment,
    CBViLAForVisualReasoning,
    CBViLAFusionModel,
    CBViLAModel,
    CBViLAQFormerModel,
    CBViLATextModel,
    CBViLAVisionModel,
)
from transformers_cbvila.model.modeling_cbvila_question_answering import CBViLAAnswerDecoder


class CallableStateDict(OrderedDict):
    """`test_torch_save_load` calls the state dict, by mistake, when it holds a bool; here it can be called."""

    def __call__(self):
        return self

    def __reduce__(self):
        return OrderedDict, (list(self.items()),)


class OurTests(CommonTests):
    make_tester = ModelTester

    def test_init_weights_can_init_buffers(self):
        # It wants buffers to start the same each time, and sets the spread of random ones that it knows to 0. An EMA
        # codebook, which it does not know, is a buffer with a random start.
        with patch.object(initialization, "normal_", lambda tensor, *args, **kwargs: tensor.zero_()):
            super().test_init_weights_can_init_buffers()

    def test_torch_save_load(self):
        (model_class,) = self.all_model_classes
        original = model_class.state_dict
        with patch.object(model_class, "state_dict", lambda model: CallableStateDict(original(model))):
            super().test_torch_save_load()


class PairTests(OurTests):
    """Of models that take images and texts."""

    _is_composite = True
    additional_model_inputs = ("input_ids",)


class TestCBViLAModel(PairTests, unittest.TestCase):
    all_model_classes = (CBViLAModel,)


class TestCBViLATextModel(OurTests, unittest.TestCase):
    all_model_classes = (CBViLATextModel,)
    make_tester = TextTester


class TestCBViLAVisionModel(OurTests, unittest.TestCase):
    all_model_classes = (CBViLAVisionModel,)
    make_tester = VisionTester
    test_resize_embeddings = False  # of words; there are none

    def test_model_get_set_embeddings(self):
        # As in transformers' vision models: what is embedded are patches, not words.
        model = CBViLAVisionModel(self.model_tester.get_config())
        self.assertIsInstance(model.get_input_embeddings(), nn.Conv2d)
        self.assertIsNone(model.get_output_embeddings())


class TestCBViLAFusionModel(OurTests, unittest.TestCase):
    all_model_classes = (CBViLAFusionModel,)
    make_tester = FusionTester
    additional_model_inputs = ("encoder_hidden_states",)
    test_resize_embeddings = False  # of words; there are none

    def test_model_get_set_embeddings(self):
        # It embeds nothing: what it takes are states.
        model = CBViLAFusionModel(self.model_tester.get_config())
        self.assertRaises(NotImplementedError, model.get_input_embeddings)
        self.assertIsNone(model.get_output_embeddings())

    def test_inputs_embeds(self):
        # They are all it takes, instead of ids that it has no table for.
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = CBViLAFusionModel(config).eval()
        with torch.no_grad():
            first, other = (model(**{**inputs, "inputs_embeds": k * inputs["inputs_embeds"]})[0] for k in (1, 2))
        self.assertEqual(first.shape, inputs["inputs_embeds"].shape)
        self.assertFalse(torch.equal(first, other))

    def test_inputs_embeds_matches_input_ids(self):
        self.skipTest("This model doesn't use `input_ids`")

    def test_retain_grad_hidden_states_attentions(self):
        # It asks for the gradient of the first states, which are no result of weights here.
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        inputs["inputs_embeds"].requires_grad_()
        self.model_tester.prepare_config_and_inputs_for_common = lambda: (config, inputs)
        super().test_retain_grad_hidden_states_attentions()


class TestCBViLAAnswerDecoder(OurTests, unittest.TestCase):
    all_model_classes = (CBViLAAnswerDecoder,)
    make_tester = DecoderTester
    additional_model_inputs = ("encoder_hidden_states",)
    # As for CBViLAForQuestionAnswering, whose `generate` is what people call.
    all_generative_model_classes = ()


class TestCBViLAForPreTraining(PairTests, unittest.TestCase):
    all_model_classes = (CBViLAForPreTraining,)
    make_tester = PreTrainingTester
    additional_model_inputs = ("input_ids", "input_ids_masked", "mlm_labels")


class TestCBViLAForQuestionAnswering(PairTests, unittest.TestCase):
    all_model_classes = (CBViLAForQuestionAnswering,)
    # The suite of `generate` is not in the source distribution; test_modeling_cbvila_question_answering.py tests it.
    all_generative_model_classes = ()

    def labels(self, inputs):
        return {"labels": tiny.tiny_answers(self.model_tester.batch_size).clamp(max=40)}


class TestCBViLAForImageTextRetrieval(PairTests, unittest.TestCase):
    all_model_classes = (CBViLAForImageTextRetrieval,)

    def labels(self, inputs):
        return {"return_loss": True}


class TestCBViLAForVisualEntailment(PairTests, unittest.TestCase):
    all_model_classes = (CBViLAForVisualEntailment,)

    def labels(self, inputs):
        return {"labels": torch.arange(self.model_tester.batch_size) % 3}


class TestCBViLAForVisualReasoning(PairTests, unittest.TestCase):
    all_model_classes = (CBViLAForVisualReasoning,)
    make_tester = ReasoningTester

    def labels(self, inputs):
        return {"labels": torch.arange(self.model_tester.batch_size) % 2}


class TestCBViLAForMaskedImageModeling(PairTests, unittest.TestCase):
    all_model_classes = (CBViLAForMaskedImageModeling,)
    make_tester = MaskedImageTester

    def labels(self, inputs):
        return {"bool_masked_pos": tiny.tiny_pairs(self.model_tester.batch_size)["bool_masked_pos"]}


class WithLanguageModel(CBViLAForConditionalGeneration):
    """With a random language model from the start, as the suite makes models from configurations alone."""

    def __init__(self, config):
        super().__init__(config)
        if self.device.type != "meta":  # from_pretrained attaches one when its weights are there
            self.attach_language_model(random_language_model(config))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        config = kwargs.get("config") or cls.config_class.from_pretrained(pretrained_model_name_or_path)
        language_model = random_language_model(config, kwargs.get("attn_implementation"))
        return super().from_pretrained(
            pretrained_model_name_or_path, *args, **{"language_model": language_model, **kwargs}
        )


def random_language_model(config, attn_implementation=None):
    options = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config.text_config, **options)


class TestCBViLAForConditionalGeneration(PairTests, unittest.TestCase):
    all_model_classes = (WithLanguageModel,)
    make_tester = LanguageTester
    additional_model_inputs = ("pixel_values",)
    # The suite of `generate` is not in the source distribution; test_conditional_generation_cbvila.py tests it.
    all_generative_model_classes = ()
    test_resize_embeddings = False  # the language model is frozen

    ABOUT_THE_LANGUAGE_MODEL = (
        "test_all_tensors_are_parameter_or_buffer",
        "test_correct_missing_keys",
        "test_gradient_checkpointing_backward_compatibility",
        "test_init_weights_can_init_buffers",
        "test_model_weights_reload_no_missing_tied_weights",
        "test_tp_plan_matches_params",
    )

    def setUp(self):
        super().setUp()
        if self._testMethodName in self.ABOUT_THE_LANGUAGE_MODEL:
            self.skipTest("The language model is attached after loading, and is no part of the checkpoint")

    def labels(self, inputs):
        return {"labels": inputs["input_ids"].clone()}

    def test_inputs_embeds(self):
        # Embeddings have the images in them: they are instead of ids and images.
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = WithLanguageModel(config).eval()
        with torch.no_grad():
            features = model.get_image_features(inputs["pixel_values"]).pooler_output
            embeddings = model.model.embed_inputs(inputs["input_ids"], features)
            given = model(inputs_embeds=embeddings, attention_mask=inputs["attention_mask"]).logits
            self.assertTrue(torch.equal(given, model(**inputs).logits))


class TestCBViLAQFormerModel(OurTests, unittest.TestCase):
    all_model_classes = (CBViLAQFormerModel,)
    make_tester = QFormerTester
    additional_model_inputs = ("encoder_hidden_states",)


class TestCBViLAForQFormerPreTraining(PairTests, unittest.TestCase):
    all_model_classes = (CBViLAForQFormerPreTraining,)
    make_tester = QFormerPreTrainingTester

    def setUp(self):
        super().setUp()
        if "pad_left" in self._testMethodName:
            self.skipTest("The first token stands for the text, so that texts are padded on the right")
