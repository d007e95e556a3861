"""Commands say which words of a text are unknown to the model."""

import pytest
from PIL import Image

from transformers_cbvila.cli import main


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")


def test_ask_names_unknown_words(picture, capsys):
    main(["ask", picture, "how many objects are there?"])
    said = capsys.readouterr()
    assert "cbvila-scenes-vqa does not know 'objects': unknown words are all the same to it." in said.err
    assert "objects" not in said.out
    main(["ask", picture, "how many circles are there?"])
    assert "does not know" not in capsys.readouterr().err


def test_search_draw_and_explain_name_unknown_words(picture, tmp_path, capsys):
    folder, index = str(tmp_path), str(tmp_path / "index")
    main(["search", folder, "a blue jar", "--not", "a jeep", "--index_dir", index])
    assert "cbvila-scenes does not know 'jar', 'jeep'" in capsys.readouterr().err
    main(["draw", "cbvila-scenes", "a blue jar", "--samples", "1", "--output", str(tmp_path / "drawn.png")])
    assert capsys.readouterr().err.splitlines() == [
        "cbvila-scenes does not know 'jar': unknown words are all the same to it."
    ]
    page = str(tmp_path / "page.html")
    main(["explain", "cbvila-scenes", "--image", picture, "--text", "a blue jar", "--output", page])
    assert "cbvila-scenes does not know 'jar'" in capsys.readouterr().err
