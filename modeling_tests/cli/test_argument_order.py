"""Arguments in the other order are told, and those in the right one are not."""

import pytest
from tiny import tiny_rows

from transformers_cbvila.cli import main

SWAPPED = "are they in the other order? `cbvila"
AN_ADDRESS = "https://localhost/p.png"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["ask", "what?", "PICTURES/p.png"], f"{SWAPPED} ask PICTURE QUESTION` is right."),
        (["ask", "what?", AN_ADDRESS], f"'what?' does not exist, and '{AN_ADDRESS}' does"),
        (["search", "a circle", "PICTURES"], f"{SWAPPED} search FOLDER TEXT` is right."),
        (["draw", "a circle", "cbvila-tiny", "--output", "x.png"], f"{SWAPPED} draw MODEL TEXT` is right."),
        (["draw", "a circle", "a square", "PICTURES", "--output", "x.png"], SWAPPED),
        (["publish", "me/circles", "cbvila-tiny"], f"{SWAPPED} publish FOLDER_OR_RUN OWNER/NAME` is right."),
    ],
)
def test_arguments_in_the_other_order_are_told(argv, message, tmp_path, capsys):
    tiny_rows(1)[0]["image"].save(tmp_path / "p.png")
    assert main([word.replace("PICTURES", str(tmp_path)) for word in argv]) == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["ask", "no.png", "what?"], "there is no image file at 'no.png'"),
        (["search", "nowhere", "a circle"], "'nowhere' is no folder"),
        (["search", "nowhere", "--image", "no.png"], "'nowhere' is no folder"),
        (["draw", "a circle", "a square", "--output", "x.png"], "'a circle' is no folder and no bundled checkpoint"),
        (["publish", "nowhere", "me/circles"], "'nowhere' is no folder"),
    ],
)
def test_what_is_in_neither_place_is_named(argv, message, capsys):
    assert main(argv) == 1
    said = capsys.readouterr().err
    assert "order" not in said and message in said
