"""A static page is uploaded in one commit, as a Space of static files; what was published before is replaced."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from code_blocks import code_blocks
from huggingface_hub import HfApi, SpaceCard
from space_models import save_model, save_pictures

from transformers_cbvila import publish_static_page
from transformers_cbvila.cli import publish as command
from transformers_cbvila.static_page import publishing, staging
from transformers_cbvila.static_page.onnxruntime_web import FILES

DOCS = (Path(__file__).parents[2] / "docs" / "publishing.md").read_text().partition("## A page without a server")[2]


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The arguments of a page of a tiny model, whose graphs are not exported: there are files with their names."""

    def export(source, target, graphs, int8):
        target.mkdir()
        for name in (*(f"{name}.onnx" for name in graphs), "tokenizer.json"):
            (target / name).write_text("{}")
        described = {name: {"file": f"{name}.onnx"} for name in graphs}
        (target / "export.json").write_text(json.dumps({"graphs": described}))
        return target

    monkeypatch.setattr(staging, "export_onnx", export)
    monkeypatch.setattr(publishing, "require", lambda module: None)
    for name in FILES:
        (tmp_path / name).write_text(name)
    images = save_pictures(tmp_path / "pictures")
    return {"model": save_model(tmp_path / "birds"), "images": images, "onnxruntime_web": tmp_path}


def test_publish_static_page_is_one_commit_and_replaces_its_own_files_only(page, hub, api, capsys):
    published = publish_static_page("org/birds", **page, api=api, commit_message="Birds")
    repository = hub.repositories["spaces/org/birds"]
    assert published.commit == repository.head and published.url == f"{hub.endpoint}/spaces/org/birds"
    assert repository.sdk == "static" and len(repository.commits) == 2
    assert "Left out, as they cannot be read: broken.png" in capsys.readouterr().err
    assert {"index.html", "js/page.js", "model/text_encoder.onnx", "gallery/1.jpg"} <= set(repository.files)
    card = SpaceCard(repository.files["README.md"].decode())
    assert (card.data.sdk, card.data.license, card.data.title) == ("static", "apache-2.0", "birds")
    assert len(card.data.short_description) <= 60

    repository.commit({"notes.md": b"mine", "model/old.onnx": b"", "js/old.js": b""}, [])
    (page["images"] / "red.png").unlink()
    publish_static_page("org/birds", **page, api=api)
    assert len(repository.commits) == 4 and repository.files["notes.md"] == b"mine"
    assert not {"model/old.onnx", "js/old.js", "gallery/1.jpg"} & set(repository.files)


def test_publish_static_page_needs_a_token_and_a_name(page, hub, api, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ValueError, match="there is no token for the Hub"):
        publish_static_page("org/birds", **page, api=HfApi(endpoint=hub.endpoint, token=None))
    with pytest.raises(ValueError, match="does not name the repository's owner"):
        publish_static_page("birds", **page, api=api)
    assert hub.repositories == {}


def test_the_documentation_runs(page, hub, api, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    shutil.move(page["model"], "runs/birds")
    monkeypatch.setattr(publishing, "HfApi", lambda: api)
    monkeypatch.setattr(publishing, "find_onnxruntime_web", lambda folder: tmp_path)
    (code,) = code_blocks(DOCS)
    exec(code, {})
    assert Path("page", "index.html").is_file() and "index.html" in hub.repositories["spaces/my-org/birds"].files
    lines = re.findall(r"^cbvila publish (.*)", "".join(code_blocks(DOCS, "bash")), flags=re.MULTILINE)
    for line in lines:
        (options,) = command.parse(shlex.split(line, comments=True))
        assert options.static and options.space.startswith("my-")
    assert len(lines) == 2
