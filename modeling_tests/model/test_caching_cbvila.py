"""Generation with a cache equals generation without one, in every generation mode and under both cache names."""

import pytest
import torch
from tiny import CLS, SEP, VOCABULARY, answering_model, tiny_images, tiny_texts
from transformers import GenerationConfig
from transformers.cache_utils import DynamicCache, EncoderDecoderCache, StaticCache
from transformers.utils import logging

from transformers_cbvila.model.caching_cbvila import CACHE_NAME, one_cache, with_cache_named

NAMES = ("cache", "past_key_values")
TOKENS = 14
PADDED = (0, 2, 1, 3)
ANSWERS = torch.randint(5, VOCABULARY, (9, TOKENS), generator=torch.Generator().manual_seed(3))
ANSWERS[:, -1] = SEP
WAYS = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "beams, several": {"num_beams": 4, "num_return_sequences": 2},
    "sampled": {"do_sample": True, "temperature": 1.5},
    "sampled beams": {"num_beams": 2, "do_sample": True},
    "among answers": {"answer_labels": ANSWERS},
    "among answers, beams": {"answer_labels": ANSWERS, "num_beams": 3},
}


@pytest.fixture(scope="module")
def model():
    """A decoder whose next token depends on all before: embeddings and attention as large as a trained one's."""
    model = answering_model(text={"max_position_embeddings": 32})
    with torch.no_grad():
        for name, weight in model.answer_decoder.named_parameters():
            if weight.dim() == 2:
                weight.mul_(4.0 if "attention" in name or "embeddings" in name else 1.5)
    return model


def inputs(padding=PADDED):
    return {"pixel_values": tiny_images(4), **tiny_texts(4, padding=padding)}


def write(model, padding=PADDED, **options):
    torch.manual_seed(0)
    if "answer_labels" not in options:
        options |= {"suppress_tokens": [SEP], "no_repeat_ngram_size": 2}
    return model.generate(**inputs(padding), max_new_tokens=TOKENS, **options)


def forced(model):
    """Four answers of 14 tokens, and what the decoder is asked with."""
    answers = torch.randint(5, VOCABULARY, (4, TOKENS), generator=torch.Generator().manual_seed(1))
    answers[:, 0] = CLS
    question, mask = model.encode_question(**inputs()), inputs()["attention_mask"]
    return answers, {"encoder_hidden_states": question, "encoder_attention_mask": mask}


@pytest.mark.parametrize("padding", [PADDED, (0,)], ids=["padded", "whole"])
@pytest.mark.parametrize("way", WAYS)
def test_generate_is_the_same_with_and_without_cache(model, way, padding):
    cached, uncached = (write(model, padding, use_cache=use, **WAYS[way]) for use in (True, False))
    assert torch.equal(cached, uncached)
    assert cached.shape[1] >= 13 and all(len(set(row.tolist())) > 3 for row in cached)  # rows that say something


@pytest.mark.parametrize("way", ["greedy", "sampled", "beams", "among answers"])
@pytest.mark.parametrize("implementation", ["static", "dynamic"])
def test_generate_is_the_same_with_every_cache_implementation(model, way, implementation):
    assert torch.equal(
        write(model, cache_implementation=implementation, **WAYS[way]), write(model, use_cache=False, **WAYS[way])
    )


def test_generate_uses_the_cache(model, tokens_seen):
    write(model)
    with_cache = tokens_seen.pop()
    write(model, use_cache=False)
    assert with_cache == 4 * TOKENS
    assert tokens_seen.pop() == 4 * TOKENS * (TOKENS + 1) // 2


@pytest.fixture
def tokens_seen(model):
    """Counts tokens that the keys of the decoder's first layer are computed of; `pop` resets the count."""

    class Seen(list):
        def pop(self):
            total = sum(self)
            self.clear()
            return total

    seen = Seen()
    projection = model.answer_decoder.layers[0].attention.k_proj
    hook = projection.register_forward_hook(lambda module, given, output: seen.append(given[0].shape[:2].numel()))
    yield seen
    hook.remove()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("first", [1, 5])
def test_answer_decoder_steps_with_cache_equal_the_full_pass(model, name, first):
    answers, question = forced(model)
    expected = model.answer_decoder(answers, **question, use_cache=False).logits
    output = model.answer_decoder(answers[:, :first], **question, use_cache=True)
    logits = [output.logits]
    for step in range(first, TOKENS):
        given = {name: output[CACHE_NAME]}
        output = model.answer_decoder(answers[:, step : step + 1], **question, use_cache=True, **given)
        logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits, dim=1), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [DynamicCache, StaticCache, EncoderDecoderCache])
def test_generate_fills_a_given_cache(model, name, kind):
    config = model.answer_decoder.config
    cache = {
        DynamicCache: lambda: DynamicCache(config=config),
        StaticCache: lambda: StaticCache(config=config, max_cache_len=32),
        EncoderDecoderCache: lambda: EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config)),
    }[kind]()
    expected = write(model, use_cache=False)
    assert torch.equal(write(model, **{name: cache}), expected)
    assert int(cache.get_seq_length()) == TOKENS


def test_answer_decoder_output_names_the_cache_like_transformers(model):
    answers, question = forced(model)
    output = model.answer_decoder(answers, **question, use_cache=True)
    assert output[CACHE_NAME].get_seq_length() == TOKENS
    assert getattr(output, CACHE_NAME) is output[CACHE_NAME]
    assert CACHE_NAME not in model.answer_decoder(answers, **question, use_cache=False)
    written = write(model, return_dict_in_generate=True)
    assert written[CACHE_NAME].get_seq_length() == TOKENS


def test_answer_decoder_rejects_two_cache_names(model):
    answers, question = forced(model)
    caches = {name: DynamicCache(config=model.answer_decoder.config) for name in NAMES}
    with pytest.raises(ValueError, match="not both"):
        model.answer_decoder(answers, **question, **caches)
    with pytest.raises(ValueError, match="not both"):
        write(model, **caches)
    assert one_cache(None, None) is None
    assert with_cache_named({"past_key_values": None, "num_beams": 2}) == {"num_beams": 2}


def test_generate_and_answer_decoder_give_no_cache_warnings(model, logged, recwarn):
    logging.warning_once.cache_clear()  # or what an earlier test was warned of would not be said again
    for way in WAYS.values():
        write(model, **way)
    write(model, cache_implementation="static")
    answers, question = forced(model)
    output = model.answer_decoder(answers[:, :3], **question, use_cache=True)
    model.answer_decoder(answers[:, 3:], **question, use_cache=True, **{CACHE_NAME: output[CACHE_NAME]})
    write(model, **{CACHE_NAME: DynamicCache(config=model.answer_decoder.config)})
    assert "deprecated" not in logged.text
    assert not [warning for warning in recwarn if "past_key_values" in str(warning.message)]


def test_past_key_values_deprecation_is_warned_of(model, recwarn):
    answers, question = forced(model)
    for name in NAMES:
        cache = {name: DynamicCache(config=model.answer_decoder.config)}
        model.answer_decoder(answers, **question, **cache)
        write(model, **{name: DynamicCache(config=model.answer_decoder.config)})
        said = [str(w.message) for w in recwarn if "`past_key_values` is deprecated" in str(w.message)]
        assert bool(said) == (name == "past_key_values" and CACHE_NAME == "cache")
        recwarn.clear()


def test_gradient_checkpointing_leaves_the_cache_out(model):
    """Gradient checkpointing would fill it twice; the gradients are those without a cache."""
    answers, question = forced(model)
    question = {name: value.detach() for name, value in question.items()}
    gradients = []
    try:
        for cache in (None, DynamicCache(config=model.answer_decoder.config)):
            model.train().zero_grad()
            model.gradient_checkpointing_enable()
            options = {} if cache is None else {CACHE_NAME: cache}
            model.answer_decoder(answers, **question, **options).logits.square().mean().backward()
            gradients.append(model.answer_decoder.layers[0].mlp.fc1.weight.grad.clone())
            assert cache is None or cache.get_seq_length() == 0
    finally:
        model.gradient_checkpointing_disable()
        model.eval().zero_grad()
    torch.testing.assert_close(*gradients)


def test_generation_config_use_cache_false(model, tokens_seen):
    written = write(model, generation_config=GenerationConfig(max_new_tokens=TOKENS, use_cache=False))
    assert tokens_seen.pop() > 4 * TOKENS
    assert torch.equal(written, write(model))
