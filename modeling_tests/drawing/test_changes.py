"""Pictures that are changed: variations, exchanged visual words, and the options of `cbvila draw` for them."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import CODES, PATCHES, half_image, pretraining_model, tiny_processor

from transformers_cbvila.cli import main
from transformers_cbvila.drawing.changes import exchange_words
from transformers_cbvila.drawing.steps import draw_in_steps

PICTURE = half_image("red", "left")


def encoded(processor):
    return processor(images=[PICTURE], return_tensors="pt")["pixel_values"]


def test_a_variation_draws_a_share_of_the_patches(monkeypatch):
    model, processor, seen = pretraining_model(), tiny_processor(), []
    generate = model.generate_images
    monkeypatch.setattr(model, "generate_images", lambda *args, **more: seen.append(more) or generate(*args, **more))
    for sample in (0, 0, 1):
        draw_in_steps(model, processor, "blue", PICTURE, 0.25, seed=3, sample=sample, num_steps=2)
    first, again, other = (more["bool_masked_pos"] for more in seen)
    assert int(first.sum()) == int(other.sum()) == PATCHES // 4
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert draw_in_steps(model, processor, "blue", PICTURE, 0.001, num_steps=2)[0].hidden.sum() == 0, (
        "one patch is drawn"
    )


@torch.no_grad()
def test_exchanged_words_are_painted():
    model, processor = pretraining_model(), tiny_processor()
    words = model.tokenize(encoded(processor))
    (own,) = processor.postprocess(model.detokenize(words))
    assert np.array_equal(np.asarray(exchange_words(model, processor, PICTURE, {})), np.asarray(own))
    words[0, 5], words[0, 6] = 3, 4
    caption = processor(text=["blue"], return_tensors="pt")
    (other,) = processor.postprocess(model.detokenize(words, caption["input_ids"], caption["attention_mask"]))
    found = exchange_words(model, processor, PICTURE, {5: 3, 6: 4}, "blue")
    assert np.array_equal(np.asarray(found), np.asarray(other)) and not np.array_equal(
        np.asarray(found), np.asarray(own)
    )


@pytest.mark.parametrize(
    "words, message",
    [
        ({PATCHES: 0}, f"no patch {PATCHES}: the picture has {PATCHES}"),
        ({0: CODES}, f"no visual word {CODES}: the codebook has {CODES}"),
    ],
)
def test_words_that_cannot_be_exchanged(words, message):
    with pytest.raises(ValueError, match=message):
        exchange_words(pretraining_model(), tiny_processor(), PICTURE, words)


def test_several_words_of_a_patch_are_exchanged_in_python():
    model = pretraining_model(quantizer_config={"type": "residual", "depth": 2, "size": 8})
    with pytest.raises(ValueError, match="has 2 visual words for each patch: exchange them in what `tokenize`"):
        exchange_words(model, tiny_processor(), PICTURE, {0: 1})


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_shares_out_of_range(share):
    with pytest.raises(ValueError, match=f"part={share} must be above 0 and at most 1"):
        draw_in_steps(pretraining_model(), tiny_processor(), "blue", PICTURE, share)


@pytest.fixture
def draw(tmp_path):
    """Draws with the command, and returns the sheet; it has 128 pixels for each picture, and 8 between."""
    PICTURE.resize((64, 64)).save(tmp_path / "given.png")

    def draw(*options):
        argv = ["draw", "cbvila-tiny", "a blue square", "--output", str(tmp_path / "sheet.png")]
        assert main([*argv, "--image", str(tmp_path / "given.png"), *options]) == 0
        return np.asarray(Image.open(tmp_path / "sheet.png"))

    return draw


def pictures(sheet):
    return [sheet[32:160, 8 + 136 * place : 136 * (place + 1)] for place in range(round(sheet.shape[1] / 136))]


def test_draw_command_changes_a_picture(draw):
    given, *drawn = pictures(draw("--redraw", "0-7", "--steps", "2", "--samples", "2", "--schedule", "linear"))
    assert len(drawn) == 2 and given[4, 4].tolist() == [220, 30, 30] and given[4, -4].tolist() == [255, 255, 255]
    assert not np.array_equal(*drawn)
    assert len(pictures(draw("--redraw", "50%", "--steps", "2", "--show_steps"))) == 3
    own, other = (pictures(draw("--words", words))[1] for words in ("0=3", "0=4"))
    assert not np.array_equal(own, other)


@pytest.mark.parametrize(
    "options, status, message",
    [
        (["--redraw", "0-7"], 2, "give --image with --redraw or --words, or none of them"),
        (["--image", "GIVEN"], 2, "give --image with --redraw or --words, or none of them"),
        (["--image", "GIVEN", "--redraw", "left"], 2, "'left' must be patches such as 0-7,12, or a share such as 50%"),
        (["--image", "GIVEN", "--words", "5"], 2, "'5' must be patches with codes, such as 5=17,6=17"),
        (["--image", "GIVEN", "--redraw", "1", "--words", "1=2"], 2, "not allowed with"),
        (["--image", "GIVEN", "--redraw", "16"], 1, "There is no patch 16: the picture has 16"),
        (["--image", "GIVEN", "--redraw", "7-3"], 2, "7-3 of '7-3' ends before it begins; give 3-7"),
        (["--image", "GIVEN", "--redraw", "1,5-2"], 2, "5-2 of '1,5-2' ends before it begins; give 2-5"),
        (["--image", "GIVEN", "--redraw", "150%"], 1, "part=1.5 must be above 0 and at most 1"),
        (["--image", "GIVEN", "--words", "0=4096"], 1, "There is no visual word 4096"),
        (["--image", "nowhere.png", "--redraw", "1"], 1, "no image file at 'nowhere.png'"),
        (["--schedule", "cosin"], 1, "schedule='cosin': choose one of cosine, linear, square, arccos"),
    ],
)
def test_draw_command_says_in_one_line_what_is_wrong(options, status, message, tmp_path, capsys):
    PICTURE.resize((64, 64)).save(tmp_path / "given.png")
    options = [option.replace("GIVEN", str(tmp_path / "given.png")) for option in options]
    argv = ["draw", "cbvila-tiny", "a blue square", "--output", str(tmp_path / "sheet.png"), *options]
    if status == 2:
        with pytest.raises(SystemExit):
            main(argv)
    else:
        assert main(argv) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cbvila draw")]
    assert len(said) == 1 and message in said[0] and not (tmp_path / "sheet.png").exists()
