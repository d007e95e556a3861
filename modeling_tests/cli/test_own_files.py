"""`--import FILE.py`: commands know classes of a user's file, and say what is wrong with one."""

import sys

import pytest
from extending import EXAMPLES

from transformers_cbvila.cli import main
from transformers_cbvila.cli.own_files import import_own_files
from transformers_cbvila.model.quantizers_cbvila import QUANTIZERS

SCRIPT = EXAMPLES / "write_a_quantizer.py"


@pytest.fixture(autouse=True)
def undone(monkeypatch):
    """Forgets what a test imports and registers."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before, registered = set(sys.modules), dict(QUANTIZERS)
    yield
    for name in set(sys.modules) - before:
        if not name.startswith("transformers"):
            del sys.modules[name]
    QUANTIZERS.clear()
    QUANTIZERS.update(registered)


@pytest.mark.parametrize("words", [["--import", str(SCRIPT)], [f"--import={SCRIPT}"]])
def test_a_file_is_imported_and_other_arguments_stay(words):
    assert import_own_files(["a", *words, "--data", "b"]) == ["a", "--data", "b"]
    assert "random_projection" in QUANTIZERS


def test_files_can_import_their_neighbours_and_be_named_twice(tmp_path):
    (tmp_path / "one_of_mine.py").write_text("import two_of_mine\n")
    (tmp_path / "two_of_mine.py").write_text("VALUE = 3\n")
    names = [
        word
        for name in ("one_of_mine", "two_of_mine", "one_of_mine")
        for word in ("--import", f"{tmp_path / name}.py")
    ]
    assert import_own_files(names) == []
    assert sys.modules["two_of_mine"].VALUE == 3


@pytest.mark.parametrize(
    ("content", "argument", "status", "message"),
    [
        (None, "FOLDER/none.py", 1, "there is no such file"),
        ("", None, 1, "--import needs the file with your class, such as --import my_quantizer.py."),
        ("", "FOLDER/it.txt", 1, "expected a Python file with a name like my_quantizer.py"),
        ("", "FOLDER/json.py", 1, "json is the name of another module"),
        ("a b", "FOLDER/broken_one.py", 1, "broken_one.py, line 1: invalid syntax"),
        (
            "1 / 0",
            "FOLDER/dividing.py",
            70,
            "'FOLDER/dividing.py' failed; CBVILA_TRACEBACK=1 shows where (Zero",
        ),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(content, argument, status, message, tmp_path, capsys):
    words = ["--import"]
    if argument is not None:
        words.append(argument.replace("FOLDER", str(tmp_path)))
    if content is not None and argument is not None:
        (tmp_path / argument.rpartition("/")[2]).write_text(content)
    assert main(["inspect", *words]) == status
    assert message.replace("FOLDER", str(tmp_path)) in capsys.readouterr().err


def test_a_checkpoint_of_an_own_quantizer_is_read_with_its_file(tmp_path, capsys):
    options = "--config pretrain-tiny --codebook_restart_threshold 0 --max_length 32 --max_steps 2 --save_strategy no"
    chosen = '{"quantizer_config": {"type": "random_projection"}}'
    own = ["--import", str(SCRIPT)]
    made = ["pretrain", *own, *options.split(), "--train_data", "scenes[rows=64]", "--model_config", chosen]
    assert main([*made, "--output_dir", str(tmp_path / "own")]) == 0
    assert main(["inspect", str(tmp_path / "own"), *own, "--data", "scenes[rows=16]", "--rerank_k", "0"]) == 0
    QUANTIZERS.pop("random_projection")
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "own"), "--data", "scenes[rows=16]"]) == 1
    assert "(or --import FILE.py)" in capsys.readouterr().err
