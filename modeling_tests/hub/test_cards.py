"""Model cards of every kind are complete, and their code runs."""

import re

import pytest
import yaml
from code_blocks import code_blocks
from huggingface_hub import ModelCard
from publishable import save_checkpoint
from tiny import half_image
from tiny_heads import PUBLISHED_HEADS

from transformers_cbvila import CBViLAForMaskedImageModeling, CBViLAForPreTraining, CBViLAForVisualReasoning
from transformers_cbvila.hub.cards import read_card, render_card
from transformers_cbvila.hub.checking import find_checkpoint
from transformers_cbvila.hub.facts import Facts, collect_facts
from transformers_cbvila.hub.kinds import kinds
from transformers_cbvila.hub.results import Result

WITH_CODEBOOK = (CBViLAForPreTraining, CBViLAForMaskedImageModeling)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    return {head: save_checkpoint(head, folder / head.__name__) for head in PUBLISHED_HEADS}


@pytest.fixture
def card_of(folders, facts):
    def render(head, repo_id="org/name"):
        checkpoint = find_checkpoint(folders[head])
        return render_card(checkpoint, repo_id, collect_facts(checkpoint, facts))

    return render


def test_kinds_cover_every_head():
    # That of a language model is tested in test_published_language_models.py.
    assert set(kinds()) == {head.__name__ for head in PUBLISHED_HEADS} | {"CBViLAForConditionalGeneration"}


@pytest.mark.parametrize("head", PUBLISHED_HEADS)
def test_card_has_every_section_and_no_placeholder(head, card_of):
    card = card_of(head)
    sections = re.findall(r"^## (.*)$", card, flags=re.MULTILINE)
    codebook = ["Its codebook"] if head in WITH_CODEBOOK else []
    assert sections == [
        "Use it",
        "What it is made of",
        "What it was trained on",
        "Results",
        *codebook,
        "What it cannot do",
        "Citation",
        "Licence",
    ]
    for said in (f"`{head.__name__}`", "8 drawings", "Random weights.", "25.00 % (chance)", "It knows nothing."):
        assert said in card
    assert ("All words are random." in card) is (head in WITH_CODEBOOK)
    assert not re.search(r"\{\{|\{%|None|\n\n\n\n", card)


@pytest.mark.parametrize("head", PUBLISHED_HEADS)
def test_card_metadata_is_read_by_the_hub(head, card_of):
    card = card_of(head)
    data = ModelCard(card).data.to_dict()
    assert (data["license"], data["language"], data["library_name"]) == ("apache-2.0", ["en"], "transformers")
    assert "cbvila" in data["tags"] and data.get("pipeline_tag") == kinds()[head.__name__].pipeline_tag
    (entry,) = yaml.safe_load(card.split("---")[1])["model-index"]
    assert entry["name"] == "name"
    assert entry["results"][0]["dataset"] == {"name": "colours", "type": "colours", "split": "test"}
    assert entry["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.5, "name": "accuracy"}]


@pytest.mark.parametrize("head", PUBLISHED_HEADS)
def test_card_code_runs(head, card_of, folders, tmp_path, monkeypatch):
    """With the package there, `trust_remote_code` changes nothing; tests of publishing take the package away."""
    monkeypatch.chdir(tmp_path)
    half_image("red", "left").save("picture.png")
    with_package, without = code_blocks(card_of(head, str(folders[head])))
    exec(with_package, {})
    if head.__name__ in ("CBViLAModel", "CBViLAForPreTraining", "CBViLAForMaskedImageModeling"):
        exec(without, {})
    assert "transformers_cbvila" in with_package and "transformers_cbvila" not in without
    assert without.count("trust_remote_code=True") == without.count(".from_pretrained(") + without.count("pipeline(")


def test_card_without_results_says_so(folders):
    checkpoint = find_checkpoint(folders[CBViLAForVisualReasoning])
    facts = Facts(license="mit", data=[{"name": "a", "what": "b", "license": "c"}], recipe="r", results=[], limits="l")
    card = render_card(checkpoint, "org/name", facts)
    assert "Nothing was measured." in card and "model-index" not in card
    assert "| images | 32×32 pixels, patches of 8×8 |" in card and "takes 2 images" in card


def test_card_metadata_has_languages_and_base_model(folders):
    checkpoint = find_checkpoint(folders[CBViLAForVisualReasoning])
    facts = Facts(license="mit", language=["de", "fr"], base_model="org/base", results=[Result("d", "accuracy", 1.0)])
    data = ModelCard(render_card(checkpoint, "org/name", facts)).data.to_dict()
    assert data["language"] == ["de", "fr"] and data["base_model"] == "org/base"


def test_read_card_checks_a_given_card(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("---\nlicense: mit\n---\n# mine\n")
    assert read_card(path) == "---\nlicense: mit\n---\n# mine\n"
    for text, sentence in (("# mine", "names no licence"), ("---\nlicense: [\n---\n", "cannot be read")):
        path.write_text(text)
        with pytest.raises(ValueError, match=sentence):
            read_card(path)
    with pytest.raises(ValueError, match="nowhere.md: there is no such file"):
        read_card(tmp_path / "nowhere.md")
