"""A frozen language model that reads images: what it computes, generates, trains and saves."""

import json
from math import log

import pytest
import torch
from safetensors.torch import load_file
from tiny import VOCABULARY, noise_image, tiny_images
from tiny_language import (
    EOS,
    IMAGE,
    PAD,
    PROMPT_IDS,
    language_config,
    language_model,
    prompts,
    reading_model,
    reading_processor,
    save_language_model,
    save_vision_model,
    second_prompt,
)
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from transformers_cbvila import (
    CBViLAConditionalGenerationConfig,
    CBViLAConditionalGenerationModel,
    CBViLAForConditionalGeneration,
    CBViLAModel,
    CBViLAProjector,
    CBViLAProjectorOptions,
    register_projector,
)
from transformers_cbvila.model.caching_cbvila import CACHE_NAME
from transformers_cbvila.model.losses_cbvila import next_token_loss
from transformers_cbvila.model.projectors_cbvila import PROJECTORS

WAYS = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "static cache": {"cache_implementation": "static"},
}
NEW = 8


@pytest.fixture(scope="module")
def model():
    return reading_model()


def written(model, inputs, **options):
    return model.generate(**inputs, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, **options)


# What it computes


def test_logits_are_the_language_models_with_images_in_their_places():
    language = language_model()
    model, batch = reading_model(language), prompts()
    features = model.get_image_features(batch["pixel_values"]).pooler_output
    assert features.shape == (3, 2, 32)
    embeddings = language.get_input_embeddings()(batch["input_ids"].clamp(max=VOCABULARY - 1))
    embeddings[0, [0, 1, 4, 5]] = features[:2].flatten(0, 1)
    embeddings[1, 3:5] = features[2]
    mask = batch["attention_mask"]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    expected = language(inputs_embeds=embeddings, attention_mask=mask, position_ids=positions).logits
    output = model(**batch)
    torch.testing.assert_close(output.logits, expected)
    torch.testing.assert_close(output.image_hidden_states, features)


def positions_of(model, **batch):
    """The positions of tokens at each call of the language model."""
    seen = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, given, options: seen.append(options["position_ids"].tolist()), with_kwargs=True
    )
    model(**batch)
    hook.remove()
    return seen


def test_positions_are_counted_without_padding_on_the_left(model):
    assert positions_of(model, **prompts()) == [[[0, 1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 1, 2, 3]]]


def test_batch_equals_single_texts_under_left_padding(model):
    together, alone = model(**prompts()).logits, model(**second_prompt()).logits
    torch.testing.assert_close(together[1:, 3:], alone, atol=1e-4, rtol=1e-4)


def test_images_matter_and_only_to_what_follows(model):
    batch = prompts()
    changed = {**batch, "pixel_values": batch["pixel_values"].flip(0)}
    difference = (model(**batch).logits - model(**changed).logits).abs().amax(-1)
    assert (difference[0, :4] > 1e-3).all() and (difference[1, 3:] > 1e-3).all()
    second_only = {**batch, "pixel_values": batch["pixel_values"][[0, 2, 2]]}
    difference = (model(**batch).logits - model(**second_only).logits).abs().amax(-1)
    assert (difference[0, :4] == 0).all() and (difference[0, 4:] > 1e-3).all() and (difference[1, 3:] == 0).all()


def test_embeddings_in_place_of_tokens(model):
    batch = prompts()
    features = model.get_image_features(batch["pixel_values"]).pooler_output
    embeddings = model.model.embed_inputs(batch["input_ids"], features)
    given = {"inputs_embeds": embeddings, "attention_mask": batch["attention_mask"]}
    torch.testing.assert_close(model(**given).logits, model(**batch).logits)
    assert torch.equal(written(model, given), written(model, batch)[:, PROMPT_IDS.shape[1] :])


def test_last_logits_only(model):
    batch = prompts()
    last = model(**batch, logits_to_keep=1).logits
    torch.testing.assert_close(last, model(**batch).logits[:, -1:])
    with pytest.raises(ValueError, match="logits_to_keep"):
        model(**batch, labels=batch["input_ids"], logits_to_keep=1)


def test_text_without_images(model):
    ids = torch.tensor([[7, 8, 9]])
    expected = model.model.language_model(ids).last_hidden_state @ model.lm_head.weight.T
    torch.testing.assert_close(model(ids).logits, expected)


def test_sources_of_the_prefix():
    batch, seen = prompts(), {}
    tokens = reading_model().model.vision_tower(batch["pixel_values"]).last_hidden_state
    vectors = {"cls": tokens[:, 0], "patches": tokens[:, 1:].mean(1)}
    for pooling, vector in vectors.items():
        model = reading_model(projector={"length": 2, "pooling": pooling})
        seen[pooling] = model.get_image_features(batch["pixel_values"]).pooler_output
        projector = model.model.multi_modal_projector
        torch.testing.assert_close(seen[pooling], projector.linear(vector).view(3, 2, 32))
    assert not torch.allclose(seen["cls"], seen["patches"])


def test_prefix_of_visual_words(tmp_path):
    folder, projector = save_vision_model(tmp_path), {"pooling": "words", "length": 3}
    model = CBViLAForConditionalGeneration.from_vision_language_pretrained(folder, language_model(), projector)
    base, images = CBViLAModel.from_pretrained(folder).eval(), tiny_images(2)
    tokens = base.vision_model(images).last_hidden_state[:, 1:]
    words = base.quantizer.indices_to_quantized(base.quantizer.lookup(base.quantizer.encode(tokens)))
    expected = model.model.multi_modal_projector.linear(words.mean(1)).view(2, 3, 32)
    torch.testing.assert_close(model.get_image_features(images).pooler_output, expected)
    assert not any(parameter.requires_grad for parameter in model.model.quantizer.parameters())
    model.train()
    assert not model.model.quantizer.training
    counts = model.model.quantizer.table.ema_counts.clone()
    model.get_image_features(images)
    assert torch.equal(model.model.quantizer.table.ema_counts, counts)


# Generation


@pytest.mark.parametrize("way", WAYS)
def test_generation_with_a_cache_equals_without(model, way):
    options = dict(WAYS[way])
    cached = written(model, prompts(), **options)
    options.pop("cache_implementation", None)
    assert torch.equal(cached, written(model, prompts(), use_cache=False, **options))
    assert cached.shape == (2, PROMPT_IDS.shape[1] + NEW) and int(cached.max()) <= IMAGE
    assert int(cached[:, PROMPT_IDS.shape[1] :].max()) < VOCABULARY


@pytest.mark.parametrize("way", WAYS)
def test_generation_in_a_batch_equals_alone(model, way):
    together = written(model, prompts(), **WAYS[way])
    alone = written(model, second_prompt(), **WAYS[way])
    assert torch.equal(together[1, PROMPT_IDS.shape[1] :], alone[0, 4:])


def test_beams_keep_the_order_of_several_images(model):
    first = {"input_ids": PROMPT_IDS[:1], "pixel_values": tiny_images(3)[:2]}
    together, alone = written(model, prompts(), num_beams=3), written(model, first, num_beams=3)
    assert torch.equal(together[:1, PROMPT_IDS.shape[1] :], alone[:, PROMPT_IDS.shape[1] :])


def test_token_of_images_is_never_written(tmp_path):
    language, vision = language_model(), save_vision_model(tmp_path)
    with torch.no_grad():
        language.lm_head.weight[30] = 3 * language.lm_head.weight[31]
        language.lm_head.weight[29] = -language.lm_head.weight[30]
    model = CBViLAForConditionalGeneration.from_vision_language_pretrained(vision, language, image_token_id=30)
    batch = {**prompts(), "input_ids": torch.where(PROMPT_IDS == IMAGE, 30, PROMPT_IDS)}
    with pytest.raises(ValueError, match="1 image tokens"):  # it has been written, and there is no image for it
        written(model, batch, suppress_tokens=[])
    assert 30 not in written(model, batch)[:, PROMPT_IDS.shape[1] :]


def test_states_and_attentions_of_the_language_model():
    model = reading_model(language_model(attn_implementation="eager"))
    output = model(**prompts(), output_attentions=True, output_hidden_states=True)
    assert [tuple(states.shape) for states in output.hidden_states] == [(2, 7, 32)] * 3
    assert [tuple(weights.shape) for weights in output.attentions] == [(2, 4, 7, 7)] * 2
    assert isinstance(model(**prompts(), return_dict=False), tuple)
    with pytest.raises(TypeError, match="atention_mask"):
        model(**prompts(), atention_mask=None)


def test_exporters_find_the_parts(model):
    exporters = pytest.importorskip("transformers.exporters.utils")
    parts = exporters.decompose_for_generation(model, prompts())
    assert {"image_encoder", "multi_modal_projector", "language_model", "lm_head", "decode"} <= set(parts)


# Training


def scored(*losses):
    """Logits (1, T + 1, 2) in fp64, and labels, of T tokens with these losses."""
    shares = torch.tensor([*losses, 1.0], dtype=torch.float64).neg().exp()
    return torch.stack([1 - shares, shares], dim=-1).log().unsqueeze(0), torch.ones(1, len(losses) + 1).long()


def test_loss_is_the_mean_over_labelled_tokens():
    """Probabilities of .5, .25 and .125."""
    logits, labels = scored(log(2), 2 * log(2), 3 * log(2))
    assert next_token_loss(logits, labels).item() == pytest.approx(2 * log(2), abs=1e-12)
    labels[0, 2:] = -100
    assert next_token_loss(logits, labels).item() == pytest.approx(log(2), abs=1e-12)
    none = next_token_loss(logits.requires_grad_(), torch.full_like(labels, -100))
    none.backward()
    assert none.item() == 0 and not logits.grad.any()


def test_loss_of_two_processes_is_the_mean_over_the_tokens_of_both():
    """Two labels of mean .5 and one of 2: 1, and not 1.25."""
    parts = [next_token_loss(*scored(*losses), 3) for losses in ((0.25, 0.75), (2.0,))]
    assert sum(parts).item() == pytest.approx(1.0, abs=1e-12)


def test_labels_of_images_and_padding_do_not_count(model):
    batch = prompts()
    everything = model(**batch, labels=batch["input_ids"])
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == IMAGE, -100)
    labels = labels.masked_fill(batch["attention_mask"] == 0, -100)
    torch.testing.assert_close(everything.loss, model(**batch, labels=labels).loss)
    scores = everything.logits.log_softmax(-1)
    rows, places = [0, 0, 0, 1, 1], [2, 3, 6, 5, 6]
    expected = -torch.stack([scores[r, t - 1, PROMPT_IDS[r, t]] for r, t in zip(rows, places, strict=True)]).mean()
    torch.testing.assert_close(everything.loss, expected)
    torch.testing.assert_close(model(**batch, labels=labels, num_items_in_batch=10).loss, expected / 2)


def trained_parts(model):
    """Names of the parts whose parameters a training step would change."""
    model.train()(**prompts(), labels=PROMPT_IDS).loss.backward()
    names = {"vision_tower", "multi_modal_projector", "language_model", "lm_head"}
    parameters = dict(model.named_parameters())
    return {part for part in names if any(part in n and p.grad is not None for n, p in parameters.items())}


def test_vision_tower_and_projector_get_gradients_and_the_language_model_none():
    model = reading_model()
    assert trained_parts(model) == {"vision_tower", "multi_modal_projector"}
    for name, parameter in model.model.vision_tower.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert not model.model.language_model.training and model.model.vision_tower.training


@pytest.mark.parametrize("padding", [0, 2])
def test_layout_of_one_shot(padding):
    """Fifteen tokens, of which the query's answer, the full stop and the end are labelled."""
    model, processor = reading_model(), reading_processor()
    text = "<image> this is a dog.<image> this is a cat.<eos>"
    images = [noise_image(seed=1), noise_image(seed=2)]
    options = {"padding": "max_length", "max_length": 15 + padding, "return_tensors": "pt"}
    batch = processor(images=images, text=text, **options)
    this, is_, a, dog, cat, stop = 4, 5, 6, 7, 8, 21
    ids = [IMAGE, IMAGE, this, is_, a, dog, stop, IMAGE, IMAGE, this, is_, a, cat, stop, EOS]
    assert batch["input_ids"].tolist() == [[PAD] * padding + ids]
    assert batch["attention_mask"].tolist() == [[0] * padding + [1] * 15]
    labels = batch["input_ids"].clone()
    labels[:, : padding + 12] = -100
    seen = positions_of(model, **batch)
    assert seen == [[[0] * padding + list(range(15))]]
    output = model(**batch, labels=labels)
    scores = output.logits[0, padding + 11 : padding + 14].log_softmax(-1)
    torch.testing.assert_close(output.loss, -scores[range(3), [cat, stop, EOS]].mean())


def test_frozen_vision_tower():
    model = reading_model(freeze_vision_tower=True)
    assert trained_parts(model) == {"multi_modal_projector"}
    assert not model.model.vision_tower.training and model.model.multi_modal_projector.training


def test_frozen_parts_have_no_dropout_in_training():
    language = language_model(attention_dropout=0.5)
    model = reading_model(language, projector={"dropout": 0.5}).train()
    drawn = [model(**prompts()).logits for _ in range(2)]
    assert not torch.equal(*drawn)
    features = model.get_image_features(tiny_images(3)).pooler_output.detach()
    given = {"inputs_embeds": model.model.embed_inputs(PROMPT_IDS, features)}
    assert torch.equal(model(**given).logits, model(**given).logits)


# Saving and loading


@pytest.fixture
def saved(tmp_path):
    """A model that is made from folders, and where it is saved."""
    folders = save_vision_model(tmp_path / "vision"), save_language_model(tmp_path / "language")
    model = CBViLAForConditionalGeneration.from_vision_language_pretrained(*folders)
    model.save_pretrained(tmp_path / "saved")
    return model, tmp_path / "saved"


def test_checkpoint_holds_the_models_own_weights(saved):
    model, folder = saved
    assert model.config.image_token_id == IMAGE and model.config.language_model.endswith("language")
    names = set(load_file(folder / "model.safetensors"))
    assert names == {n for n in model.state_dict() if n.startswith(("model.vision_tower.", "model.multi_modal"))}
    config = json.loads((folder / "config.json").read_text())
    assert config["text_config"]["model_type"] == "llama" and config["projector_config"]["type"] == "prefix"


@pytest.mark.parametrize("loader", [CBViLAForConditionalGeneration, AutoModelForImageTextToText])
def test_reloaded_model_computes_the_same(saved, loader):
    model, folder = saved
    loaded, info = loader.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert type(loaded) is CBViLAForConditionalGeneration
    torch.testing.assert_close(loaded(**prompts()).logits, model(**prompts()).logits)
    assert loaded.generation_config.eos_token_id == EOS
    assert not any(parameter.requires_grad for parameter in loaded.model.language_model.parameters())


def test_language_model_given_by_the_caller(saved, tmp_path):
    model, folder = saved
    other = language_model(seed=1)
    expected = reading_model(other).model.language_model(inputs_embeds=torch.ones(1, 2, 32)).last_hidden_state
    loaded = CBViLAForConditionalGeneration.from_pretrained(folder, language_model=other)
    torch.testing.assert_close(
        loaded.model.language_model(inputs_embeds=torch.ones(1, 2, 32)).last_hidden_state, expected
    )
    moved = save_language_model(tmp_path / "moved")
    for loader in (CBViLAForConditionalGeneration, AutoModelForImageTextToText):
        loaded = loader.from_pretrained(folder, language_model=moved)
        assert loaded.config.language_model == moved
        torch.testing.assert_close(loaded(**prompts()).logits, model(**prompts()).logits)


def test_base_model_loads_with_its_language_model(saved):
    model, folder = saved
    base = AutoModel.from_pretrained(folder)
    assert type(base) is CBViLAConditionalGenerationModel
    torch.testing.assert_close(base(**prompts()).last_hidden_state @ model.lm_head.weight.T, model(**prompts()).logits)


def test_configuration_round_trip(tmp_path):
    fields = {"projector_config": {"length": 4, "dropout": 0.5}, "freeze_vision_tower": True}
    CBViLAConditionalGenerationConfig(text_config=language_config(), **fields).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is CBViLAConditionalGenerationConfig and config.num_image_tokens == 4
    assert config.projector_config.dropout == 0.5 and config.freeze_vision_tower and config.image_token_id == IMAGE
    changed = AutoConfig.from_pretrained(tmp_path, projector_config={"dropout": 0.0})
    assert (changed.projector_config.length, changed.projector_config.dropout) == (4, 0.0)


def absolute_positions():
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": EOS}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, initializer_range=0.3, **sizes))


def no_attention():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    return MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, initializer_range=0.3, **sizes))


def narrow_embeddings():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64}
    return OPTForCausalLM(OPTConfig(vocab_size=VOCABULARY, word_embed_proj_dim=16, **sizes))


@pytest.mark.parametrize(
    "make",
    [
        absolute_positions,
        pytest.param(
            no_attention,
            marks=pytest.mark.skipif(CACHE_NAME != "cache", reason="Mamba's cache had a name of its own before"),
        ),
    ],
)
def test_other_language_models(make):
    torch.manual_seed(0)
    model = reading_model(make().eval())
    together, alone = model(**prompts()).logits, model(**second_prompt()).logits
    torch.testing.assert_close(together[1:, 3:], alone, atol=1e-4, rtol=1e-4)
    assert torch.equal(written(model, prompts()), written(model, prompts(), use_cache=False))


def test_projector_from_outside_the_package():
    class EveryToken(CBViLAProjector):
        options_class = CBViLAProjectorOptions

        def __init__(self, options, width, language_width):
            super().__init__(options, width, language_width)
            self.linear = torch.nn.Linear(width, language_width)

        @classmethod
        def num_tokens(cls, options):
            return 17

        def forward(self, tokens):
            return self.linear(tokens)

    register_projector("every_token", EveryToken)
    try:
        model = reading_model(projector={"type": "every_token"})
        assert model.get_image_features(tiny_images(2)).pooler_output.shape == (2, 17, 32)
        with pytest.raises(ValueError, match="no first stage"):
            model.model.multi_modal_projector.start_from("folder", model.model.vision_tower)
    finally:
        del PROJECTORS["every_token"]


# Errors


def test_missing_language_model(saved):
    _, folder = saved
    with pytest.raises(ValueError, match=r"'nowhere' cannot be loaded .*pass language_model="):
        CBViLAForConditionalGeneration.from_pretrained(folder, language_model="nowhere")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "language_model": None}))
    with pytest.raises(ValueError, match="names no language model"):
        CBViLAForConditionalGeneration.from_pretrained(folder)
    alone = CBViLAForConditionalGeneration(CBViLAConditionalGenerationConfig.from_pretrained(folder))
    with pytest.raises(ValueError, match="attach_language_model"):
        alone(**prompts())


@pytest.mark.parametrize("field", ["hidden_size", "vocab_size"])
def test_other_language_model(saved, field):
    _, folder = saved
    other = language_model(**{field: 64})
    with pytest.raises(ValueError, match=rf"{field}=64, and .*{field}=(32|60)"):
        CBViLAForConditionalGeneration.from_pretrained(folder, language_model=other)


def test_language_model_with_embeddings_of_another_width():
    with pytest.raises(ValueError, match="OPTForCausalLM has token embeddings 16 wide and hidden_size=32"):
        reading_model(narrow_embeddings())


def test_language_model_that_changes_its_scores():
    class Capping(type(language_model())):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits.tanh()
            return output

    with pytest.raises(ValueError, match="caps or scales"):
        reading_model(Capping(language_config()))


@pytest.mark.parametrize("images", [0, 2, 4])
def test_other_numbers_of_images_than_tokens(model, images):
    batch = {**prompts(), "pixel_values": tiny_images(images) if images else None}
    with pytest.raises(ValueError, match=rf"6 image tokens .*{images} image.*expected {2 * images}"):
        model(**batch)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"input_ids": None}, "input_ids or inputs_embeds"),
        ({"input_ids": None, "inputs_embeds": torch.ones(2, 7, 32)}, "pixel_values need input_ids"),
        ({"labels": torch.ones(2, 6).long()}, r"shape \(2, 6\); expected \(2, 7\)"),
    ],
)
def test_inputs_that_do_not_go_together(model, change, message):
    with pytest.raises(ValueError, match=message):
        model(**{**prompts(), **change})


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"projector_config": {"type": "magic"}}, "'magic' is not one of 'mlp', 'prefix'"),
        ({"projector_config": {"lenght": 2}}, "did you mean 'length'"),
        ({"projector_config": {"length": 0}}, "length=0 must be at least 1"),
        ({"projector_config": {"pooling": "words"}}, "needs a quantizer_config"),
        ({"projector_config": 3}, "expected a dictionary"),
        ({"text_config": 3}, "text_config is 3"),
        ({"image_token_id": -1}, "image_token_id=-1"),
        ({"freeze_vision_towr": True}, "did you mean 'freeze_vision_tower'"),
    ],
)
def test_configurations_that_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        CBViLAConditionalGenerationConfig(**fields)


def test_embeddings_of_the_language_model_are_not_resized(model):
    with pytest.raises(ValueError, match="Images need no row"):
        model.resize_token_embeddings(70)
