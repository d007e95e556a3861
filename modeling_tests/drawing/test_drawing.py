"""Pictures drawn from captions: independent of batches, step by step, on a sheet, and by the command."""

import numpy as np
import pytest
from PIL import Image
from tiny import SIDE, pretraining_model, tiny_processor

from transformers_cbvila.cli import main
from transformers_cbvila.drawing.from_captions import draw_captions, draw_steps
from transformers_cbvila.drawing.sheet import sheet


def arrays(lines):
    return [[np.asarray(picture) for picture in line] for line in lines]


def test_pictures_do_not_depend_on_the_batch():
    model, processor = pretraining_model().train(), tiny_processor()
    one, other = (
        arrays(draw_captions(model, processor, ["red left", "blue"], 3, 7, batch_size=size, progress=False))
        for size in (2, 16)
    )
    np.testing.assert_allclose(one, other, atol=1)  # of 255; sums of other batches round differently
    assert np.shape(one) == (2, 3, SIDE, SIDE, 3) and not np.array_equal(one[0][0], one[0][1])
    assert model.training, "the mode is restored"


def test_the_last_step_is_the_picture():
    model, processor = pretraining_model(), tiny_processor()
    options = {"seed": 1, "progress": False, "num_steps": 3}
    (of_steps,) = draw_steps(model, processor, ["red"], **options)
    ((picture,),) = draw_captions(model, processor, ["red"], **options)
    assert len(of_steps[0]) == 3 and np.array_equal(np.asarray(of_steps[0][-1]), np.asarray(picture))


@pytest.mark.parametrize("captions, samples", [([], 1), (["red"], 0)])
def test_nothing_to_draw_is_refused(captions, samples):
    with pytest.raises(ValueError, match=f"{len(captions)} captions, samples={samples}, .*at least 1 of each"):
        draw_captions(pretraining_model(), tiny_processor(), captions, samples)


def test_sheet_enlarges_by_whole_numbers():
    red, blue = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    drawn = sheet([[red, blue], [blue]], ["a", "b"])
    assert drawn.size == (2 * 136 + 8, 2 * 160 + 8)
    assert drawn.getpixel((8, 32)) == (255, 0, 0) and drawn.getpixel((8 + 136, 32)) == (0, 0, 255)
    assert drawn.getpixel((8 + 127, 32 + 160 + 127)) == (0, 0, 255) and drawn.getpixel((8 + 128, 40)) == (
        255,
        255,
        255,
    )


def test_draw_command(tmp_path, capsys):
    file = tmp_path / "drawn.png"
    argv = ["draw", "cbvila-tiny", "a red circle", "a blue square", "--output", str(file), "--steps", "2"]
    assert main([*argv, "--samples", "2", "--guidance", "2", "--top_k", "5"]) == 0
    assert f"Pictures: {file}" in capsys.readouterr().out
    first = Image.open(file)
    assert first.format == "PNG" and first.size[0] > first.size[1] / 2
    assert main([*argv, "--show_steps"]) == 0
    assert main([*argv, "--steps", "0"]) == 1
    assert "num_steps=0 must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["drawn.txt", "drawn", "drawn.pngg"])
def test_draw_command_refuses_a_file_that_is_no_image(name, tmp_path, capsys):
    assert main(["draw", "cbvila-tiny", "a red circle", "--output", str(tmp_path / name)]) == 1
    assert f"{name}': name an image file, such as one that ends with .png" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_draw_command_writes_the_format_of_the_name(tmp_path):
    file = tmp_path / "drawn.jpg"
    assert main(["draw", "cbvila-tiny", "a red circle", "--output", str(file), "--steps", "1"]) == 0
    assert Image.open(file).format == "JPEG"


def test_draw_command_keeps_the_candidates_that_match_best(tmp_path, capsys):
    argv = ["draw", "cbvila-scenes", "a blue circle left of a red square", "--steps", "2", "--seed", "3"]
    all_of_them, best, by_another = (tmp_path / f"{name}.png" for name in ("all", "best", "another"))
    assert main([*argv, "--samples", "4", "--output", str(all_of_them)]) == 0
    assert main([*argv, "--candidates", "4", "--samples", "2", "--output", str(best)]) == 0
    options = ["--reranker", "cbvila-scenes", "--output", str(by_another)]
    assert main([*argv, "--candidates", "4", "--samples", "2", *options]) == 0
    kept = np.asarray(Image.open(best))
    assert kept.shape[1] < np.asarray(Image.open(all_of_them)).shape[1]
    assert np.array_equal(kept, np.asarray(Image.open(by_another))), "the model itself matches by default"


@pytest.mark.parametrize(
    "options, message",
    [
        (["--candidates", "3"], "--candidates 3: fewer than --samples 4"),
        (["--reranker", "cbvila-scenes"], "--reranker changes nothing here: it chooses among --candidates"),
        (["--candidates", "8", "--temperature", "0", "--steps", "1"], "--candidates changes nothing here: one step"),
        (["--candidates", "8", "--show_steps"], "--candidates changes nothing here: --show_steps shows one"),
        (["--candidates", "8", "--image", "a.png", "--redraw", "1"], "--candidates changes nothing here: --image"),
    ],
)
def test_draw_command_refuses_candidates_that_change_nothing(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["draw", "cbvila-scenes", "a red square", "--output", str(tmp_path / "a.png"), *options])
    assert message in capsys.readouterr().err
