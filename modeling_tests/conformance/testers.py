"""What transformers' suites ask about a model: its configuration, a batch, and the sizes to expect in its outputs."""

import tiny
import tiny_language
import tiny_qformer
import torch

from transformers_cbvila import CBViLAConditionalGenerationConfig
from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.model.modeling_cbvila_question_answering import decoder_config

SEQ_LENGTH = 7
BATCH = 4
IMAGE = 4  # the token that stands for images


def small_ids(inputs):
    """Ids that a vocabulary shrunk by 15 words still has; the suite cuts those of `input_ids` only."""
    words = ("input_ids", "input_ids_masked", "mlm_labels")
    return {name: value.clamp(max=40) if name in words else value for name, value in inputs.items()}


class ModelTester:
    """A whole CB-ViLA. Its `hidden_states` are the text tokens in the fusion layers."""

    batch_size = BATCH
    is_training = True
    seq_length = SEQ_LENGTH
    hidden_size = 24
    num_hidden_layers = 2
    num_attention_heads = 4
    image_size = tiny.SIDE
    patch_size = tiny.PATCH
    num_channels = 3
    mask_length = tiny.PATCHES  # of `bool_masked_pos`,
    num_masks = 9  # of which that many are hidden

    def get_config(self):
        return tiny.tiny_config()

    def prepare_config_and_inputs_for_common(self):
        inputs = small_ids(tiny.tiny_pairs(self.batch_size, self.seq_length))
        return self.get_config(), {name: inputs[name] for name in ("pixel_values", "input_ids", "attention_mask")}


class PreTrainingTester(ModelTester):
    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), small_ids(tiny.tiny_pairs(self.batch_size, self.seq_length))

    def prepare_config_and_inputs_for_model_class(self, model_class):
        """For the test that a batch equals its rows. ITM is off there: its mismatched pairs are made of the batch."""
        config, inputs = self.prepare_config_and_inputs_for_common()
        config.itm_weight = 0.0
        return config, inputs


class TextTester(ModelTester):
    def get_config(self):
        return super().get_config().text_config

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), small_ids(tiny.tiny_texts(self.batch_size, self.seq_length))


class VisionTester(ModelTester):
    seq_length = 1 + tiny.PATCHES
    hidden_size = 32

    def get_config(self):
        return super().get_config().vision_config

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), {"pixel_values": tiny.tiny_images(self.batch_size)}


class FusionTester(ModelTester):
    """The fusion encoder on its own: states of a text ask states of an image."""

    seq_length = ModelTester.hidden_size  # the suite takes the last size of the first input for its length

    def get_config(self):
        return super().get_config().multimodal_config

    def prepare_config_and_inputs_for_common(self):
        config, generator = self.get_config(), generator_for(0)
        states = torch.randn(self.batch_size, self.seq_length, config.hidden_size, generator=generator)
        asked = torch.randn(self.batch_size, 1 + tiny.PATCHES, config.encoder_hidden_size, generator=generator)
        return config, {"inputs_embeds": states, "encoder_hidden_states": asked}


class DecoderTester(ModelTester):
    """The answer decoder on its own, with some fused question. The loss is its owner's."""

    is_training = False
    is_decoder = True

    def get_config(self):
        return decoder_config(super().get_config())

    def prepare_config_and_inputs_for_common(self):
        config, texts = self.get_config(), small_ids(tiny.tiny_texts(self.batch_size, self.seq_length))
        question = torch.randn(self.batch_size, 5, config.hidden_size, generator=generator_for(0))
        return config, {**texts, "encoder_hidden_states": question}


class ReasoningTester(ModelTester):
    def prepare_config_and_inputs_for_common(self):
        config, inputs = super().prepare_config_and_inputs_for_common()
        inputs["pixel_values"] = tiny.tiny_images(2 * self.batch_size).unflatten(0, (-1, 2))
        return config, inputs


class QFormerTester(ModelTester):
    """A Q-Former on its own, with a text beside its queries."""

    seq_length = tiny_qformer.QUERIES + SEQ_LENGTH

    def get_config(self):
        # Without [DEC], which is the last token, and the suite takes the last tokens away.
        return tiny_qformer.tiny_qformer_config(vocab_size=tiny.VOCABULARY, dec_token_id=None, num_hidden_layers=2)

    def prepare_config_and_inputs_for_common(self):
        texts = small_ids(tiny.tiny_texts(self.batch_size, SEQ_LENGTH))
        return self.get_config(), {**texts, "encoder_hidden_states": tiny_qformer.image_tokens(self.batch_size)}


class QFormerPreTrainingTester(QFormerTester):
    def prepare_config_and_inputs_for_common(self):
        texts = small_ids(tiny.tiny_texts(self.batch_size, SEQ_LENGTH))
        return self.get_config(), {"pixel_values": tiny.tiny_images(self.batch_size), **texts}

    def prepare_config_and_inputs_for_model_class(self, model_class):
        """For the test that a batch equals its rows. The mismatched pairs of the loss are made of the batch."""
        config, inputs = self.prepare_config_and_inputs_for_common()
        return config, {**inputs, "return_loss": False}


class LanguageTester(ModelTester):
    """A language model of two layers that reads images: its states are those of texts, an image's tokens in them."""

    batch_size = 7  # to which the suite fills up batches, with texts that have no image in them
    hidden_size = 32  # of the language model
    seq_length = SEQ_LENGTH
    is_decoder = True

    def get_config(self):
        vision = tiny.tiny_config().vision_config
        # With a token for images in its vocabulary: the suite cuts and grows that.
        return CBViLAConditionalGenerationConfig(
            vision_config=vision, text_config=tiny_language.language_config(), image_token_id=IMAGE
        )

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        ids = tiny.tiny_texts(self.batch_size, self.seq_length)["input_ids"].clamp(IMAGE + 1, 40)
        ids[:, : config.num_image_tokens] = IMAGE
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return config, {"pixel_values": tiny.tiny_images(self.batch_size), **inputs}


class MaskedImageTester(ModelTester):
    """`hidden_states` are a query [CLS] and the patches in the fusion layers."""

    seq_length = 1 + tiny.PATCHES

    def prepare_config_and_inputs_for_common(self):
        inputs = small_ids(tiny.tiny_pairs(self.batch_size))
        names = ("pixel_values", "input_ids", "attention_mask", "bool_masked_pos")
        return self.get_config(), {name: inputs[name] for name in names}
