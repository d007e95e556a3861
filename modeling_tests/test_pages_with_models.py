"""Code of pages that needs models of its own runs with tiny ones; scripts and targets that pages name are there."""

import re
from pathlib import Path

import pytest
from code_blocks import code_blocks
from tiny import noise_image, pretraining_model, tiny_processor
from tiny_language import reading_model, reading_processor, save_language_model

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_SOURCES = ("src", "modeling_tests", "benchmarks", "conversion", "examples", "hub_cards", "studies")


def shown(pattern):
    """What a pattern finds in the code of all pages, with the page: in blocks of a shell and between backticks."""
    for page in PAGES:
        text = page.read_text()
        lines = "\n".join(code_blocks(text, "bash")).replace("\\\n", " ").splitlines()
        lines += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        for line in lines:
            if found := re.match(pattern, line.partition("  #")[0]):
                yield page.name, found


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_code_of_codebooks_runs(capsys):
    model = pretraining_model(objectives={"raq": {}}, vision={"image_size": 64, "patch_size": 16})
    model.save_pretrained("runs/raq")
    tiny_processor(side=64).save_pretrained("runs/raq")
    values = {}
    for block in code_blocks((ROOT / "docs/codebooks.md").read_text()):
        exec(block.replace("scenes[rows=1000]", "scenes[rows=20]"), values)
    assert values["codes"].shape[0] == 32 and values["images"].shape == (1, 3, 64, 64)
    assert capsys.readouterr().out.count("{") == 2, "two tokenizers are compared"


def test_code_of_language_models_runs(tmp_path):
    reading_model(language_model=save_language_model(tmp_path / "language")).save_pretrained("runs/captions")
    reading_processor().save_pretrained("runs/captions")
    noise_image((64, 64)).save("picture.png")
    values = {"dog": noise_image(), "cat": noise_image(seed=1)}
    language = str(tmp_path / "language")
    for block in code_blocks((ROOT / "docs/language-models.md").read_text()):
        exec(block.replace(".cache/smollm2-135m-instruct", language), values)
    assert values["loss"].isfinite()


def test_targets_of_make_are_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {(page, target) for page, found in shown(r"make ([a-z][\w-]*)") for target in found.groups()}
    assert len(named) > 20 and not {(page, target) for page, target in named if target not in targets}


def test_scripts_and_their_options_are_there():
    named = [
        (page, found[1], found[2]) for page, found in shown(r"python ((?:benchmarks|conversion|examples)/\S+\.py)(.*)")
    ]
    assert len(named) > 20
    for page, script, options in named:
        assert (ROOT / script).is_file(), f"{page} names {script}"
        if script.startswith("benchmarks/"):
            code = (ROOT / script).read_text() + (ROOT / "benchmarks/measuring.py").read_text()
            unknown = [option for option in re.findall(r"(--\w+)", options) if f'"{option}"' not in code]
            assert not unknown, f"{page}: {script} has no {unknown}"


def test_modules_that_are_run_are_there():
    named = {(page, found[1]) for page, found in shown(r"python -m (studies[\w.]*)")}
    assert len(named) > 3
    assert not [(page, name) for page, name in named if not (ROOT / f"{name.replace('.', '/')}.py").is_file()]


def test_files_that_pages_name_are_there():
    files = [str(path.relative_to(ROOT)) for top in _SOURCES for path in (ROOT / top).rglob("*.*")]
    lost = []
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for name in re.findall(r"`([\w./-]+\.(?:py|js))`", text):
            is_there = any(f"/{file}".endswith(f"/{name}") for file in files)
            if not is_there and "NAME" not in name:
                lost.append(f"{page.name}: {name}")
    assert not lost
