"""Q-Formers of transformers convert into ours and back, with the same outputs on random weights."""

import pytest
import tiny
import torch
from command import run
from convert_blip2 import convert
from convert_blip2 import main as convert_main
from equal_tensors import assert_equal_weights
from export_blip2 import exported
from export_blip2 import main as export_main
from tiny_qformer import build_qformer
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2QFormerModel,
    set_seed,
)

from transformers_cbvila import CBViLAForQFormerPreTraining, CBViLAProcessor, CBViLAQFormerModel

QUERIES = 3
SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def theirs(model_class=Blip2ForImageTextRetrieval, with_text=True):
    """A model of transformers with random weights, biases and norms."""
    set_seed(0)
    fields = SIZES | {"vocab_size": tiny.VOCABULARY, "max_position_embeddings": 16}
    qformer = Blip2QFormerConfig(**fields, encoder_hidden_size=32, use_qformer_text_input=with_text)
    if model_class is Blip2QFormerModel:
        model = model_class(qformer)
    else:
        vision = VISION | {"image_size": tiny.SIDE, "patch_size": tiny.PATCH}
        model = model_class(
            Blip2Config(
                vision_config=vision,
                qformer_config=qformer.to_dict(),
                num_query_tokens=QUERIES,
                image_text_hidden_size=16,
            )
        )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def config_of(model):
    return model.config.to_dict() | {"architectures": [type(model).__name__]}


def batch():
    return {"pixel_values": tiny.tiny_images(), **tiny.tiny_texts()}


@torch.no_grad()
def assert_same_outputs(ours, theirs):
    """Similarities, matching logits and all states, as with an image, as of a text alone."""
    inputs = batch()
    contrast = theirs(**inputs)
    matching = theirs(**inputs, use_image_text_matching_head=True)
    output = ours(**inputs, return_loss=False)
    real = inputs["attention_mask"].bool()
    images = ours.encode_images(inputs["pixel_values"])
    texts = ours.qformer(inputs["input_ids"], inputs["attention_mask"])
    both = ours.qformer(inputs["input_ids"], inputs["attention_mask"], images)
    for value, expected in (
        (images, contrast.vision_model_output.last_hidden_state),
        (output.image_embeds, contrast.image_embeds),
        (output.text_embeds, contrast.text_embeds),
        (output.logits_per_image / ours.similarity_scale(), contrast.logits_per_image),
        (output.itm_logits, matching.logits_per_image),
        (texts.last_hidden_state[real], contrast.text_model_output.last_hidden_state[real]),
        (both.last_hidden_state[:, :QUERIES], matching.text_model_output.last_hidden_state[:, :QUERIES]),
        (both.last_hidden_state[:, QUERIES:][real], matching.text_model_output.last_hidden_state[:, QUERIES:][real]),
    ):
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=0)


def test_retrieval_model_converts_with_the_same_outputs():
    source = theirs()
    model, table = convert(source.state_dict(), config_of(source))
    assert type(model) is CBViLAForQFormerPreTraining
    assert {row.target.partition(".")[0] for row in table.of("fresh")} == {"lm_head", "logit_scale"}
    assert not table.of("unknown") and not table.of("missing") and len(table.of("split")) == 12
    assert_same_outputs(model, source)


def test_retrieval_model_comes_back():
    source = theirs()
    model, _ = convert(source.state_dict(), config_of(source))
    back, left_out = exported(model)
    assert_equal_weights(back, source)
    assert {name.partition(".")[0] for name in left_out} == {"lm_head", "logit_scale"}
    assert back.config.qformer_config.to_dict() == source.config.qformer_config.to_dict()


def test_our_model_exports_with_the_same_outputs():
    model = build_qformer(CBViLAForQFormerPreTraining)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    assert_same_outputs(model, exported(model)[0])


@torch.no_grad()
def test_qformer_alone_converts_and_comes_back():
    source = theirs(Blip2QFormerModel)
    model, table = convert(source.state_dict(), config_of(source))
    assert type(model) is CBViLAQFormerModel
    parts = {row.target for row in table.of("fresh")}
    assert parts == {
        "embeddings.query_tokens",
        "embeddings.word_embeddings.weight",
        "embeddings.position_embeddings.weight",
    }
    images, ids = torch.randn(2, 5, 32), torch.tensor([[2, 7, 3], [2, 8, 3]])
    queries = model.embeddings.query_tokens.expand(2, -1, -1)
    words = model.embeddings.word_embeddings(ids) + model.embeddings.position_embeddings.weight[:3]
    number = queries.shape[1]
    everything = torch.ones(2, 5, dtype=torch.long)
    expected = source(torch.cat([queries, words], 1), number, None, images, everything).last_hidden_state
    torch.testing.assert_close(model(ids, encoder_hidden_states=images).last_hidden_state, expected, atol=1e-5, rtol=0)
    alone = source(words, query_length=0).last_hidden_state
    torch.testing.assert_close(model(ids).last_hidden_state, alone, atol=1e-5, rtol=0)
    assert_equal_weights(exported(model)[0], source)


@torch.no_grad()
def test_qformer_without_text_converts_into_queries():
    source = theirs(Blip2QFormerModel, with_text=False)
    model, table = convert(source.state_dict(), config_of(source))
    assert {row.note for row in table.of("fresh")} == {
        "not part of a Blip2QFormerModel",
        "this Q-Former takes no text",
    }
    images = torch.randn(2, 5, 32)
    queries = model.embeddings.query_tokens.expand(2, -1, -1)
    expected = source(queries, encoder_hidden_states=images).last_hidden_state
    torch.testing.assert_close(model(encoder_hidden_states=images).last_hidden_state, expected, atol=1e-5, rtol=0)


def test_conversion_names_what_does_not_fit():
    source = theirs()
    with pytest.raises(ValueError, match="This is a Blip2Model; expected Blip2ForImageTextRetrieval or"):
        convert({}, config_of(source) | {"architectures": ["Blip2Model"]})
    weights = source.state_dict()
    weights["qformer.other"] = weights.pop("itm_head.bias")
    with pytest.raises(ValueError, match="1 key is unknown: qformer.other; 1 key is missing: matching_head.bias"):
        convert(weights, config_of(source))


def test_commands_convert_and_export_a_folder(tmp_path, capsys):
    source = theirs()
    source.save_pretrained(tmp_path / "blip2")
    tiny.tiny_tokenizer([*tiny.WORDS, *map(str, range(tiny.VOCABULARY - len(tiny.WORDS)))]).save_pretrained(
        tmp_path / "bert"
    )

    def command(main, *arguments):
        return run(main, "command", [str(argument) for argument in arguments])

    made, back = tmp_path / "qformer", tmp_path / "back"
    options = "--tokenizer", tmp_path / "bert", "--output_dir", made
    assert command(convert_main, "--model", tmp_path / "blip2", *options) == 0
    assert "read back and equal" in capsys.readouterr().out
    assert len(CBViLAProcessor.from_pretrained(made).tokenizer) == tiny.VOCABULARY
    assert command(export_main, "--model", made, "--output_dir", back) == 0
    assert "Left out: lm_head.decoder.bias, " in capsys.readouterr().out
    assert_equal_weights(Blip2ForImageTextRetrieval.from_pretrained(back), source)
    assert command(export_main, "--model", tmp_path / "blip2", "--output_dir", tmp_path / "none") == 1
    assert "is no folder of a CBViLAForQFormerPreTraining" in capsys.readouterr().err
