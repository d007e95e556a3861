"""The Python code of docs/language-models.md runs, with a random language model in place of the real one."""

from pathlib import Path

from code_blocks import code_blocks
from tiny import noise_image
from tiny_language import save_language_model

from transformers_cbvila import (
    CBViLAConditionalGenerationProcessor,
    CBViLAForConditionalGeneration,
    bundled_checkpoint,
)

PAGE = Path(__file__).parents[2] / "docs" / "language-models.md"


def test_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    language = save_language_model(".cache/smollm2-135m-instruct")
    model = CBViLAForConditionalGeneration.from_vision_language_pretrained(bundled_checkpoint("cbvila-tiny"), language)
    model.generation_config.max_new_tokens = 4
    model.save_pretrained("runs/captions")
    CBViLAConditionalGenerationProcessor.from_vision_language_pretrained(
        bundled_checkpoint("cbvila-tiny"), language
    ).save_pretrained("runs/captions")
    dog, cat = noise_image(seed=1), noise_image(seed=2)
    dog.save("picture.png")
    blocks = code_blocks(PAGE.read_text())
    names = {"dog": dog, "cat": cat}
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 4 and names["loss"].isfinite()
