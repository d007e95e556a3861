"""A Q-Former as projector of a frozen language model: what it computes, where it starts, what is trained and saved."""

import pytest
import torch
from equal_tensors import assert_equal_weights
from tiny import build, tiny_images
from tiny_language import IMAGE, PAD, language_model, reading_model, save_language_model, save_vision_model
from tiny_qformer import QUERIES, VISION_WIDTH, WIDTH, build_qformer, tiny_qformer_config

from transformers_cbvila import CBViLAForConditionalGeneration, CBViLAForQFormerPreTraining, CBViLAModel
from transformers_cbvila.model.projectors_cbvila import projector_options

SIZES = tiny_qformer_config().projector_config()
LANGUAGE_WIDTH = 32


@pytest.fixture
def stage_1(tmp_path):
    """A checkpoint of the first stage on the image encoder of `save_vision_model`."""
    model = build_qformer(CBViLAForQFormerPreTraining, seed=3)
    model.vision_model.load_state_dict(build(CBViLAModel).vision_model.state_dict())
    model.save_pretrained(tmp_path / "stage-1")
    return model, str(tmp_path / "stage-1")


def prompt():
    """A text with the tokens of one image in it."""
    model_ids = [IMAGE] * QUERIES
    return {"input_ids": torch.tensor([[*model_ids, 7, 8, 9]]), "pixel_values": tiny_images(1)}


def two_stages(stage_1, tmp_path, **projector):
    folder, language = save_vision_model(tmp_path / "vision"), save_language_model(tmp_path / "language")
    return CBViLAForConditionalGeneration.from_vision_language_pretrained(
        folder, language, projector_config={**SIZES, **projector}, projector_start=stage_1, freeze_vision_tower=True
    )


@torch.no_grad()
def test_second_stage_starts_from_the_first(stage_1, tmp_path):
    first, folder = stage_1
    model = two_stages(folder, tmp_path)
    assert model.config.num_image_tokens == QUERIES
    projector = model.model.multi_modal_projector
    features = model.get_image_features(tiny_images(2)).pooler_output
    tokens = first.encode_images(tiny_images(2))
    expected = projector.linear(first.qformer(encoder_hidden_states=tokens).last_hidden_state)
    assert features.shape == (2, QUERIES, LANGUAGE_WIDTH)
    torch.testing.assert_close(features, expected)


def test_projector_holds_and_trains_all_but_what_text_alone_passes():
    model = reading_model(language_model(), SIZES, freeze_vision_tower=True).train()
    projector = model.model.multi_modal_projector
    names = {name for name, _ in projector.named_parameters()}
    assert not any(
        part in name for name in names for part in ("word_embeddings", "position_", ".mlp.", "output_layer")
    )
    batch = prompt()
    model(**batch, labels=batch["input_ids"]).loss.backward()
    assert all(
        p.grad is not None and p.grad.abs().max() > 0
        for n, p in projector.named_parameters()
        if "k_proj.bias" not in n
    )
    others = [p for n, p in model.named_parameters() if "multi_modal_projector" not in n]
    assert others and all(p.grad is None for p in others)


@pytest.mark.parametrize("way", [{}, {"num_beams": 3}, {"cache_implementation": "static"}])
def test_generation_with_a_cache_in_a_batch_equals_alone_and_without(way):
    """Two prompts, the first of which is padded on the left."""
    model = reading_model(projector=SIZES)
    short, long = [IMAGE] * QUERIES + [7], [IMAGE] * QUERIES + [7, 8, 9]
    ids = torch.tensor([[PAD] * 2 + short, long])
    images, mask = tiny_images(2), (ids != PAD).long()
    both = {"input_ids": ids, "attention_mask": mask, "pixel_values": images}
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    together = model.generate(**both, **options, **way)
    alone = model.generate(torch.tensor([short]), pixel_values=images[:1], **options, **way)
    assert torch.equal(together[:1, -6:], alone[:, -6:])
    way = {name: value for name, value in way.items() if name != "cache_implementation"}
    assert torch.equal(together, model.generate(**both, **options, **way, use_cache=False))
    logits = model(input_ids=torch.tensor([short]), pixel_values=images[:1]).logits
    torch.testing.assert_close(model(**both).logits[:1, 2:], logits, atol=1e-4, rtol=1e-4)


def test_exporters_find_the_parts():
    exporters = pytest.importorskip("transformers.exporters.utils")
    parts = exporters.decompose_for_generation(reading_model(projector=SIZES), prompt())
    assert {"image_encoder", "multi_modal_projector", "language_model", "lm_head", "decode"} <= set(parts)


def test_initial_weights_of_the_projector_are_those_of_a_qformer():
    projector = CBViLAForConditionalGeneration(reading_model(projector=SIZES).config).model.multi_modal_projector
    assert projector.qformer.embeddings.query_tokens.std().item() == pytest.approx(0.02, rel=0.4)
    assert projector.linear.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_checkpoint_loads_again(stage_1, tmp_path):
    model = two_stages(stage_1[1], tmp_path)
    model.save_pretrained(tmp_path / "saved")
    loaded, info = CBViLAForConditionalGeneration.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["unexpected_keys"]
    assert_equal_weights(loaded.model.multi_modal_projector, model.model.multi_modal_projector)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**prompt()).logits, model(**prompt()).logits)
    written = loaded.generate(**prompt(), max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert written.shape == (1, QUERIES + 3 + 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_query_tokens": 5}, "has other sizes than the projector: projector_config={'type': 'qformer'"),
        ({"num_hidden_layers": 2}, "has other sizes than the projector"),
    ],
)
def test_start_of_other_sizes_is_refused(stage_1, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        two_stages(stage_1[1], tmp_path, **changes)


def test_start_on_another_width_is_refused(stage_1):
    options = projector_options(SIZES)
    projector = type(reading_model(projector=SIZES).model.multi_modal_projector)(options, 48, LANGUAGE_WIDTH)
    with pytest.raises(ValueError, match=f"reads image tokens {VISION_WIDTH} wide, and those .* are 48 wide"):
        projector.start_from(stage_1[1], stage_1[0].vision_model)


def test_start_on_another_image_encoder_is_refused(stage_1):
    model, folder = stage_1
    projector = reading_model(projector=SIZES).model.multi_modal_projector
    projector.start_from(folder, model.vision_model.half())
    with torch.no_grad():
        model.vision_model.layernorm.weight[3] += 0.5
    with pytest.raises(ValueError, match=r"another image encoder \(layernorm.weight differs by up to 0.5\): give the"):
        projector.start_from(folder, model.vision_model)


def test_start_on_an_image_encoder_of_other_layers_is_refused(stage_1):
    model, folder = stage_1
    projector = reading_model(projector=SIZES).model.multi_modal_projector
    model.vision_model.layers = model.vision_model.layers[:-1]
    with pytest.raises(
        ValueError, match=r"another image encoder \(with \d+ weights, and this one has \d+\): give the"
    ):
        projector.start_from(folder, model.vision_model)


def test_start_from_a_qformer_alone(stage_1, tmp_path):
    stage_1[0].qformer.save_pretrained(tmp_path / "alone")
    projector = reading_model(projector=SIZES).model.multi_modal_projector
    projector.start_from(str(tmp_path / "alone"), build(CBViLAModel, seed=9).vision_model)
    for name, value in projector.qformer.state_dict().items():
        assert torch.equal(value, stage_1[0].qformer.state_dict()[name]), name


def test_start_from_another_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cbvila_qformer"):
        two_stages(save_vision_model(tmp_path / "other"), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_query_tokens": 0}, "projector_config: num_query_tokens=0 must be positive"),
        ({"hidden_size": WIDTH + 1}, "projector_config: hidden_size 25 is not a multiple of num_attention_heads 4"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        projector_options({**SIZES, **options}).check("projector_config")
