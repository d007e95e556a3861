"""forward, generate and get_*_features of every public class reject arguments they do not use."""

from inspect import signature

import pytest
import tiny
import tiny_heads
import tiny_language
import tiny_qformer
import torch

import transformers_cbvila
from transformers_cbvila import CBViLAForQFormerPreTraining, CBViLAForVisualReasoning
from transformers_cbvila.model.arguments_cbvila import takes_no_other_arguments
from transformers_cbvila.model.modeling_cbvila_base import CBViLAPreTrainedModel

# Misspelt, of other models, and what transformers hands to every model that would swallow it.
STRANGERS = (
    "input_id",
    "atention_mask",
    "token_type_ids",
    "num_items_in_batch",
    "output_router_logits",
    "position_id",
)


def models():
    """Each public model class, with a batch; the encoders and the answer decoder out of those that have them."""
    found = {}
    for head in tiny_heads.HEADS:
        found[head.__name__] = tiny.build(head), tiny_heads.batch_for(head)
    base, batch = found["CBViLAModel"]
    pixels, texts = batch["pixel_values"], tiny.tiny_texts()
    image = base.vision_model(pixels).last_hidden_state
    text = base.text_model(**texts).last_hidden_state
    found |= {
        "CBViLAVisionModel": (base.vision_model, {"pixel_values": pixels}),
        "CBViLATextModel": (base.text_model, texts),
        "CBViLAFusionModel": (base.fusion_model, {"inputs_embeds": text, "encoder_hidden_states": image}),
    }
    decoder = found["CBViLAForQuestionAnswering"][0].answer_decoder
    asked = {"input_ids": texts["input_ids"], "encoder_hidden_states": text}
    twin = tiny.build(CBViLAForVisualReasoning, reasoning_fusion="twin").cbvila.fusion_model
    both = {"inputs_embeds": text, "encoder_hidden_states": image.repeat_interleave(2, 0)}
    reader, queries = tiny_language.reading_model(), tiny_qformer.build_qformer()
    return found | {
        "CBViLAAnswerDecoder": (decoder, asked),
        "CBViLATwinFusionModel": (twin, both),
        "CBViLAForConditionalGeneration": (reader, tiny_language.prompts()),
        "CBViLAConditionalGenerationModel": (reader.model, tiny_language.prompts()),
        "CBViLAQFormerModel": (queries, {"encoder_hidden_states": tiny_qformer.image_tokens()}),
        "CBViLAForQFormerPreTraining": (
            tiny_qformer.build_qformer(CBViLAForQFormerPreTraining),
            {**texts, "pixel_values": pixels},
        ),
    }


# Trainer counts labelled tokens for heads whose loss is a mean over them.
TAKEN = {("CBViLAForConditionalGeneration", "num_items_in_batch")}


@pytest.fixture(scope="module")
def all_models():
    return models()


def test_all_models_cover_public_classes(all_models):
    public = {
        name
        for name in transformers_cbvila.__all__
        if isinstance(getattr(transformers_cbvila, name), type)
        and issubclass(getattr(transformers_cbvila, name), CBViLAPreTrainedModel)
    }
    assert public <= all_models.keys() and len(public) >= 10


@pytest.mark.parametrize("stranger", STRANGERS)
def test_forward_rejects_unknown_arguments(all_models, stranger):
    for name, (model, batch) in all_models.items():
        model(**batch)
        if (name, stranger) in TAKEN:
            continue
        with pytest.raises(TypeError, match=f"forward\\(\\) got an unexpected keyword argument '{stranger}'"):
            model(**batch, **{stranger: torch.ones(1)})
            pytest.fail(f"{name} took {stranger}")


@pytest.mark.parametrize("stranger", STRANGERS)
def test_get_features_reject_unknown_arguments(all_models, stranger):
    model, batch = all_models["CBViLAModel"]
    texts = tiny.tiny_texts()
    model.get_text_features(**texts)
    with pytest.raises(TypeError, match=f"get_text_features\\(\\) got an unexpected keyword argument '{stranger}'"):
        model.get_text_features(**texts, **{stranger: None})
    with pytest.raises(TypeError, match=f"get_image_features\\(\\) got an unexpected keyword argument '{stranger}'"):
        model.get_image_features(batch["pixel_values"], **{stranger: None})


@pytest.mark.parametrize("stranger", ["max_new_token", "num_beam", *STRANGERS])
def test_generate_rejects_unknown_arguments(all_models, stranger):
    model, batch = all_models["CBViLAForQuestionAnswering"]
    asked = {name: value for name, value in batch.items() if name != "labels"}
    # The first is transformers' own error; what it lets pass for all models is refused by the decoder's forward.
    with pytest.raises((ValueError, TypeError), match=stranger):
        model.generate(**asked, **{stranger: torch.ones(1)}, max_new_tokens=2)


def test_forward_takes_output_options(all_models):
    for model, batch in all_models.values():
        output = model(**batch, output_hidden_states=True, output_attentions=True, return_dict=True)
        assert output.hidden_states or output.attentions
        assert isinstance(model(**batch, return_dict=False), tuple)


def test_get_text_features_takes_encoder_arguments(all_models):
    model, _ = all_models["CBViLAModel"]
    texts = tiny.tiny_texts()
    embeds = model.get_input_embeddings()(texts["input_ids"])
    expected = model.get_text_features(**texts).pooler_output
    positions = torch.arange(embeds.shape[1]).unsqueeze(0)
    given = model.get_text_features(
        inputs_embeds=embeds, attention_mask=texts["attention_mask"], position_ids=positions
    ).pooler_output
    torch.testing.assert_close(given, expected)


def test_takes_no_other_arguments_keeps_the_signature():
    class Reader:
        @takes_no_other_arguments
        def read(self, page: int, **kwargs):
            """Reads."""
            return page, kwargs

    assert list(signature(Reader.read).parameters) == ["self", "page", "kwargs"] and Reader.read.__doc__ == "Reads."
    assert Reader().read(3, return_dict=True) == (3, {"return_dict": True})
    with pytest.raises(
        TypeError, match=r"Reader.read\(\) got an unexpected keyword argument 'pages'. It takes page, "
    ):
        Reader().read(3, pages=4)
    with pytest.raises(TypeError) as error:
        Reader().read(3, **{"x" * 5000: 4})
    assert len(str(error.value)) < 500
