"""One codebook report for tokenizers of any origin, with random weights."""

from importlib.util import find_spec
from math import log2

import pytest
import torch
from PIL import Image
from tiny import CODES, COLOURS, PATCHES, pretraining_model, tiny_processor, tiny_rows
from tiny_quantizers import fitted_model
from transformers import (
    BeitConfig,
    BeitForMaskedImageModeling,
    ChameleonVQVAEConfig,
    Emu3VQVAE,
    Emu3VQVAEConfig,
    JanusVQVAE,
    JanusVQVAEConfig,
)
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE

from transformers_cbvila.inspection import codebook_report as report
from transformers_cbvila.inspection.codebook_rates import measure_rate
from transformers_cbvila.inspection.codebook_report import (
    codebook_report,
    meaningful_words,
    measure_codes,
    tokenize_rows,
)
from transformers_cbvila.inspection.image_tokenizers import (
    CBViLATokenizer,
    IndexTokenizer,
    transformers_tokenizer,
    vector_quantize_tokenizer,
)
from transformers_cbvila.inspection.measure import inspect_pretraining
from transformers_cbvila.inspection.rate_distortion import check_fewer_codes, rate_distortion
from transformers_cbvila.inspection.row_words import RowWords

QUIET = {"progress": False}
MEANING = ("code_purity", "code_word_mutual_information", "code_probe_accuracy", "code_retrieval_r1")


def colour_rows(count=24):
    """Pictures of one colour with their colour as caption and as label."""
    names = [name for name in COLOURS for _ in range(count // len(COLOURS))]
    return [
        {"image": Image.new("RGB", (32, 32), COLOURS[name]), "captions": [f"a {name} picture"], "keywords": [name]}
        for name in names
    ]


class ColourTokenizer:
    """The least that a tokenizer has to be: codes are colours."""

    num_codes = len(COLOURS) + 2

    def __call__(self, images):
        known = list(COLOURS.values())
        return torch.tensor([[[known.index(image.getpixel((0, 0)))] * 3] * 2 for image in images])


def test_codes_that_are_colours_mean_colours():
    found = codebook_report(ColourTokenizer(), colour_rows(), batch_size=7, **QUIET)
    assert found["codebook_usage"] == 4 / 6 and found["codebook_perplexity"] == pytest.approx(4)
    assert found["codebook_window_tokens"] == 24 * 6 and found["bits_per_token"] == log2(6)
    assert found["code_purity"] == 1 > found["code_purity_floor"]
    assert found["code_probe_accuracy"] == 1 and found["code_probe_accuracy_floor"] == 1 / 4
    assert found["code_word_mutual_information_low"] > found["code_word_mutual_information_floor"]
    assert found["code_retrieval_r1"] == pytest.approx(8 / 24)  # images of one colour are equally good
    assert found["code_retrieval_r1_floor"] == 1 / 12
    for name in MEANING:
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]


def test_report_without_words_or_with_few_images():
    rows = [{**row, "captions": ["a picture"], "keywords": []} for row in colour_rows()]
    assert not [name for name in codebook_report(ColourTokenizer(), rows, **QUIET) if name.startswith("code_")]
    few = codebook_report(ColourTokenizer(), colour_rows()[::3], **QUIET)
    assert "code_purity" in few and "code_probe_accuracy" not in few and "code_retrieval_r1" not in few


def test_meaningful_words_keep_classes_and_leave_out_what_most_images_have():
    words = RowWords()
    for label in ("x", "x", "x", "y", "y", "z"):
        words.add({"captions": ["The Cat's in red", "dog"], "keywords": [label]})
    assert words.first[0] == {"the", "cat's", "in", "red"} and words.has_one_label_each
    assert meaningful_words(words) == ["x", "y"]
    words.add({"captions": [], "keywords": ["x", "z"]})
    assert not words.has_one_label_each and meaningful_words(words) == ["y", "z"], "x is of 4 of 7"


def test_measure_codes_draws_from_many_images(monkeypatch):
    indices, words = tokenize_rows(ColourTokenizer(), colour_rows(40), **QUIET)
    monkeypatch.setattr(report, "_MOST_IMAGES", 20)
    found = measure_codes(indices, 6, words)
    assert found["code_purity"] == 1 and found["code_retrieval_r1_floor"] == 1 / 10


def test_rare_labels_are_no_classes():
    """Numbers that are different in each row name no class."""
    rows = colour_rows()
    for number in range(6):
        rows[number] = {**rows[number], "keywords": [str(number)]}
    found = codebook_report(ColourTokenizer(), rows, **QUIET)
    assert found["code_probe_accuracy"] == 1 and found["code_probe_accuracy_floor"] == 1 / 3


def test_report_of_ours_agrees_with_inspect():
    model, processor, rows = pretraining_model(), tiny_processor(), tiny_rows(16)
    found = codebook_report(CBViLATokenizer(model, processor), rows, batch_size=5, **QUIET)
    inspected = inspect_pretraining(model, processor, rows, rerank_k=0, **QUIET)
    common = [name for name in found if name.startswith("codebook_")]
    assert len(common) == 4 and {name: found[name] for name in common} == pytest.approx(
        {name: inspected[name] for name in common}
    )
    assert found["bits_per_token"] == log2(CODES) and set(MEANING) <= found.keys()


@pytest.mark.parametrize(
    ("options", "bits"),
    [
        ({"type": "residual", "depth": 2, "size": 16, "dim": 8}, 8),
        ({"type": "adaptive", "tables": [[16, 8], [32, 4]], "router_heads": 4}, (4, 5)),
    ],
)
def test_report_of_several_tables(options, bits):
    model, processor = fitted_model(options), tiny_processor()
    tokenizer, rows = CBViLATokenizer(model, processor), tiny_rows(8)
    indices, _ = tokenize_rows(tokenizer, rows, **QUIET)
    found, rate = codebook_report(tokenizer, rows, **QUIET), measure_rate(model, processor, rows, **QUIET)
    assert found["codebook_window_tokens"] == rate["codebook_window_tokens"] == 8 * PATCHES
    assert found["codebook_perplexity"] == pytest.approx(rate["codebook_perplexity"])
    assert found["bits_per_token"] == pytest.approx(rate["bits_per_token"])
    if isinstance(bits, tuple):
        shares = (indices >= 16).double().mean()
        assert found["bits_per_token"] == pytest.approx(4 + float(shares))
    else:
        assert found["bits_per_token"] == bits and indices.shape == (8, 2 * PATCHES) and int(indices.max()) >= 16


def test_rate_distortion_falls_with_the_number_of_codes():
    model, processor, rows = fitted_model({"type": "nearest", "size": 16, "dim": 8}), tiny_processor(), tiny_rows(6)
    found = rate_distortion(model, processor, rows, [16, 2], **QUIET)
    assert found.keys() == {
        f"{name}_{k}_codes{end}" for name in ("psnr", "ssim") for k in (16, 2) for end in ("", "_low", "_high")
    }
    assert found["psnr_16_codes"] == pytest.approx(measure_rate(model, processor, rows, **QUIET)["psnr"], abs=1e-3)
    with pytest.raises(ValueError, match=r"from 1 to the model's 16, not \[4, 17\]"):
        rate_distortion(model, processor, rows, [4, 17], **QUIET)
    with pytest.raises(ValueError, match="'residual' cannot change its number of codes"):
        check_fewer_codes(fitted_model({"type": "residual", "depth": 2, "size": 16, "dim": 8}), [4])
    with pytest.raises(ValueError, match="without the objective 'pixel'"):
        check_fewer_codes(pretraining_model(objectives={"pixel": {"weight": 0.0}}), [4])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.zeros(1, 4), "integers .* returned torch.float32"),
        ([1, 2], "this one returned list"),
        (torch.zeros(3, 4, dtype=torch.long), "this one returned 3 of 1"),
        (torch.full((1, 4), 6), "has 6 codes, and returned 6 to 6"),
    ],
)
def test_report_refuses_what_are_no_indices(returned, message):
    tokenizer = ColourTokenizer()
    tokenizer.__class__ = type("Odd", (ColourTokenizer,), {"__call__": lambda self, images: returned})
    with pytest.raises(ValueError, match=message):
        codebook_report(tokenizer, colour_rows()[:1], **QUIET)


def test_report_names_bad_rows_and_refuses_none():
    rows = [*colour_rows()[:3], {"image": None, "captions": ["a"]}]
    with pytest.raises(ValueError, match="Row 3"):
        codebook_report(ColourTokenizer(), rows, **QUIET)
    with pytest.raises(ValueError, match="rows is empty"):
        codebook_report(ColourTokenizer(), [], **QUIET)
    weights = {name: {"weight": 0.0} for name in ("mim", "pixel", "commitment", "codebook")}
    with pytest.raises(ValueError, match="no codebook"):
        CBViLATokenizer(pretraining_model(objectives=weights), tiny_processor())


def pixel_features(images):
    """Four tokens of 12 numbers for each picture."""
    return torch.stack([_pixels(image.resize((4, 4))) for image in images])


def _pixels(image):
    return torch.tensor(list(image.tobytes()), dtype=torch.float).view(4, 12) / 255


class QuantizerLikeTheirs(torch.nn.Module):
    """Returns a tuple as `VectorQuantize` of vector-quantize-pytorch does: quantized tokens, indices, loss."""

    codebook_size = 5

    def forward(self, tokens):
        return tokens, tokens.sum(-1).long() % 5, torch.zeros(())


def test_report_of_a_module_that_returns_indices():
    tokenizer = vector_quantize_tokenizer(QuantizerLikeTheirs(), pixel_features)
    found = codebook_report(tokenizer, tiny_rows(16), **QUIET)
    assert (
        found["codebook_window_tokens"] == 64 and found["bits_per_token"] == log2(5) and set(MEANING) <= found.keys()
    )
    with pytest.raises(ValueError, match="Linear has no codebook_size"):
        vector_quantize_tokenizer(torch.nn.Linear(2, 2), pixel_features)


@pytest.mark.skipif(find_spec("vector_quantize_pytorch") is None, reason="needs vector-quantize-pytorch")
@pytest.mark.parametrize("name", ["VectorQuantize", "ResidualVQ", "FSQ"])
def test_report_of_vector_quantize_pytorch(name):
    import vector_quantize_pytorch

    options = {
        "VectorQuantize": {"dim": 12, "codebook_size": 8},
        "ResidualVQ": {"dim": 12, "codebook_size": 8, "num_quantizers": 2},
        "FSQ": {"dim": 12, "levels": [3, 3]},
    }[name]
    quantizer = getattr(vector_quantize_pytorch, name)(**options)
    found = codebook_report(vector_quantize_tokenizer(quantizer, pixel_features), tiny_rows(16), **QUIET)
    assert found["codebook_window_tokens"] == 64
    assert found["bits_per_token"] == {"VectorQuantize": 3, "ResidualVQ": 6, "FSQ": log2(9)}[name]
    assert quantizer.training  # as before


def small(config_class, **fields):
    return config_class(
        base_channels=32, channel_multiplier=[1, 1], num_res_blocks=1, latent_channels=8, embed_dim=4, **fields
    )


@pytest.mark.parametrize("name", ["chameleon", "emu3", "janus", "beit"])
def test_report_of_image_tokenizers_of_transformers(name):
    torch.manual_seed(0)
    if name == "chameleon":
        model = ChameleonVQVAE(small(ChameleonVQVAEConfig, num_embeddings=20, resolution=32, attn_resolutions=[]))
    elif name == "emu3":
        fields = {"codebook_size": 20, "hidden_size": 32, "attn_resolutions": [], "temporal_downsample_factor": 2}
        model = Emu3VQVAE(small(Emu3VQVAEConfig, **fields))
    elif name == "janus":
        model = JanusVQVAE(small(JanusVQVAEConfig, num_embeddings=20, num_patches=16))
    else:
        fields = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = BeitConfig(vocab_size=20, image_size=32, patch_size=8, use_mask_token=True, **fields)
        model = BeitForMaskedImageModeling(config)
    tokenizer = transformers_tokenizer(model.train(), tiny_processor().image_processor)
    assert isinstance(tokenizer, IndexTokenizer) and tokenizer.num_codes == 20
    rows = tiny_rows(16)
    found = codebook_report(tokenizer, rows, batch_size=8, **QUIET)
    tokens = PATCHES if name == "beit" else 16 * 16
    assert found["codebook_window_tokens"] == 16 * tokens and found["bits_per_token"] == log2(20)
    assert set(MEANING) <= found.keys() and model.training
    again, _ = tokenize_rows(tokenizer, rows, batch_size=3, **QUIET)
    assert torch.equal(again, tokenize_rows(tokenizer, rows, batch_size=16, **QUIET)[0])


def test_transformers_tokenizer_refuses_other_models():
    with pytest.raises(ValueError, match="neither an image tokenizer nor scores"):
        transformers_tokenizer(type("M", (torch.nn.Linear,), {"config": None})(2, 2), None)
