"""Publishing over HTTP to a Hub on this machine, and loading with and without the package."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bundled_models import COMPLETE
from code_blocks import code_blocks
from huggingface_hub import HfApi
from publishable import LONG, in_another_process, inherited_environment, save_checkpoint
from tiny import half_image
from tiny_heads import HEADS, PUBLISHED_HEADS
from version_0_1 import save_as_0_1

from transformers_cbvila import (
    CBViLAForQuestionAnswering,
    CBViLAForVisualEntailment,
    bundled_checkpoint,
)
from transformers_cbvila.cli import main
from transformers_cbvila.hub import publishing
from transformers_cbvila.hub.checking import find_checkpoint
from transformers_cbvila.hub.kinds import kinds
from transformers_cbvila.hub.publishing import publish, stage_repository
from transformers_cbvila.hub.staging import stage
from transformers_cbvila.hub.verifying import run_original, verify

WITH_PACKAGE = """
import json, torch, transformers_cbvila
from transformers import AutoModel, AutoProcessor, pipeline
from transformers_cbvila import CBViLAForQuestionAnswering, CBViLAProcessor
from PIL import Image
base, processor = AutoModel.from_pretrained("org/tiny"), AutoProcessor.from_pretrained("org/tiny")
assert type(base) is transformers_cbvila.CBViLAModel and type(processor) is CBViLAProcessor
model = CBViLAForQuestionAnswering.from_pretrained("org/tiny")
ask = pipeline("visual-question-answering", model="org/tiny")
assert type(ask) is transformers_cbvila.CBViLAVisualQuestionAnsweringPipeline
assert type(pipeline(model="org/tiny")) is type(ask)
print(json.dumps([model.num_parameters(), ask(Image.new("RGB", (9, 9)), "red", answers=["yes", "no"])]))
"""


def test_publish_and_load_by_name_with_and_without_the_package(hub, api, facts, tmp_path):
    """`publish` itself loads it without the package, with the pipeline: from the folder and from the Hub."""
    folder = save_checkpoint(CBViLAForQuestionAnswering, tmp_path / "model")
    published = publish(folder, "org/tiny", facts=facts, api=api, commit_message="First")
    repository = hub.repositories["org/tiny"]
    assert published.commit == repository.head and published.url == f"{hub.endpoint}/org/tiny"
    asked = "\n".join(hub.requests)
    assert f"GET /org/tiny/resolve/{published.commit}/model.safetensors" in asked
    assert f"GET /org/tiny/resolve/{published.commit}/pipeline_cbvila.py" in asked

    parameters, answers = json.loads(in_another_process(WITH_PACKAGE, hub, tmp_path).splitlines()[-1])
    model = CBViLAForQuestionAnswering.from_pretrained(folder)
    assert parameters == model.num_parameters() and {answer["answer"] for answer in answers} == {"yes", "no"}


@pytest.fixture
def folder(tmp_path):
    return save_checkpoint(CBViLAForVisualEntailment, tmp_path / "model")


@pytest.fixture
def unverified(monkeypatch):
    """What is loaded in other processes is not loaded; other tests do that."""
    monkeypatch.setattr(publishing, "verify", lambda *args, **kwargs: None)


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_publish_rejects_bad_arguments_and_changes_nothing(hub, api, facts, folder, tmp_path, unverified):
    before = files(folder)
    wrong = HfApi(endpoint=hub.endpoint, token="wrong")
    for arguments, options, sentence in (
        ((folder, "tiny"), {"facts": facts}, "'tiny' does not name the repository's owner; expected owner/name"),
        ((folder, "org/tiny"), {}, "the model card lacks license"),
        ((folder, "org/tiny"), {"facts": facts, "card": facts}, "leave out --facts or --card"),
        ((folder, "org/tiny"), {"facts": facts, "api": wrong}, "refuses the token"),
        ((tmp_path / "nowhere", "org/tiny"), {"facts": facts}, "is no folder"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            publish(*arguments, **{"api": api, **options})
    assert files(folder) == before and hub.repositories == {}
    assert not [request for request in hub.requests if request.startswith("POST")]


def test_publish_uploads_nothing_that_fails_verify(hub, api, facts, folder, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("gives another logits")

    monkeypatch.setattr(publishing, "verify", fail)
    with pytest.raises(ValueError, match="gives another logits"):
        publish(folder, "org/tiny", facts=facts, api=api)
    assert hub.repositories == {}


def test_publish_names_the_commit_that_fails_on_the_hub(hub, api, facts, folder, monkeypatch):
    def fail(source, *args, **kwargs):
        if source == "org/tiny":
            raise ValueError("org/tiny does not load")

    monkeypatch.setattr(publishing, "verify", fail)
    with pytest.raises(ValueError, match="org/tiny does not load. It is on the Hub nevertheless, as commit "):
        publish(folder, "org/tiny", facts=facts, api=api)


def test_stage_repository_writes_all_or_nothing(facts, folder, tmp_path, monkeypatch):
    target = tmp_path / "staged" / "tiny"
    monkeypatch.setattr(publishing, "verify", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stage_repository(folder, "org/tiny", target, facts=facts)
    assert list(target.parent.iterdir()) == []
    monkeypatch.setattr(publishing, "verify", lambda *args: None)
    assert stage_repository(folder, "org/tiny", target, facts=facts) == target
    assert list(target.parent.iterdir()) == [target] and "# tiny" in (target / "README.md").read_text()
    with pytest.raises(ValueError, match="tiny is there already"):
        stage_repository(folder, "org/tiny", target, facts=facts)


def test_publish_takes_relative_names(facts, folder, tmp_path, monkeypatch):
    """Everything given relative, and loaded for good in another process, which has a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    arguments = ["publish", folder.name, "org/tiny", "--facts", facts.name, "--output_dir", "staged/tiny"]
    assert main(arguments) == 0
    assert (tmp_path / "staged/tiny/model.safetensors").is_file()
    assert list((tmp_path / "staged").iterdir()) == [tmp_path / "staged/tiny"]
    card = tmp_path / "card.md"
    card.write_text("---\nlicense: mit\n---\n# mine\n")
    stage_repository(Path(folder.name), "org/tiny", Path("mine"), card=Path("card.md"))
    assert (tmp_path / "mine/README.md").read_text() == card.read_text()


def test_verify_takes_a_relative_folder(folder, tmp_path, monkeypatch):
    checkpoint = find_checkpoint(folder)
    (tmp_path / "staged").mkdir()
    stage(checkpoint, "# card\n", tmp_path / "staged")
    monkeypatch.chdir(tmp_path)
    verify(Path("staged"), run_original(checkpoint))


@pytest.mark.parametrize("name", COMPLETE)
def test_stage_repository_of_bundled_checkpoint_by_folder_equals_by_name(name, tmp_path, unverified):
    copied = shutil.copytree(bundled_checkpoint(name), tmp_path / "copied")
    cards = []
    for i, source in enumerate((name, bundled_checkpoint(name), copied)):
        staged = stage_repository(source, f"org/{name}", tmp_path / f"staged-{i}")
        cards.append((staged / "README.md").read_text())
        assert not (staged / "facts.yaml").exists()
    assert cards[0] == cards[1] == cards[2] and "license: apache-2.0" in cards[0]


def test_stage_repository_uses_facts_of_the_folder(facts, folder, tmp_path, unverified):
    shutil.copy(facts, folder / "facts.yaml")
    card = (stage_repository(folder, "org/tiny", tmp_path / "staged") / "README.md").read_text()
    assert "It knows nothing." in card
    facts.write_text(facts.read_text().replace("It knows nothing.", "It knows little."))
    card = (stage_repository(folder, "org/tiny", tmp_path / "other", facts=facts) / "README.md").read_text()
    assert "It knows little." in card and "It knows nothing." not in card


def test_stage_repository_accepts_an_empty_relative_folder(facts, folder, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(publishing, "verify", lambda staged, original: seen.append(str(staged)))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "staged").mkdir()
    assert stage_repository(folder, "org/tiny", "staged", facts=facts) == tmp_path / "staged"
    assert (tmp_path / "staged" / "config.json").is_file()
    assert seen and all(path.startswith(str(tmp_path)) for path in seen), (
        "the process that loads it is in another folder"
    )


def test_stage_repository_keeps_a_given_card(folder, tmp_path, unverified):
    card = tmp_path / "card.md"
    card.write_text("---\nlicense: mit\n---\n# mine\n")
    staged = stage_repository(folder, "org/tiny", tmp_path / "staged", card=card)
    assert (staged / "README.md").read_text() == card.read_text()


def test_publish_command_reports_errors_in_one_line(folder, facts, tmp_path, capsys, unverified):
    for arguments, sentence in (
        ([str(tmp_path / "nowhere"), "org/tiny"], "is no folder"),
        ([str(folder), "org/tiny"], "the model card lacks"),
        ([str(folder), "org/t i"], "is no name of a repository"),
    ):
        assert main(["publish", *arguments]) == 1
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("cbvila publish: ") and sentence in said.err
        assert said.err.count("\n") == 1
    staged = tmp_path / "staged"
    assert main(["publish", str(folder), "org/tiny", "--facts", str(facts), "--output_dir", str(staged)]) == 0
    assert f"Staged: {staged}" in capsys.readouterr().out


def test_publish_command_interrupted_reports_nothing_uploaded(folder, facts, capsys, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(publishing, "check_access", interrupt)
    assert main(["publish", str(folder), "org/tiny", "--facts", str(facts)]) == 130
    assert capsys.readouterr().err.strip() == "Interrupted. Nothing was uploaded."


# The full matrix


CLEAN = """
import transformers
from transformers import AutoImageProcessor, AutoModel, AutoProcessor, AutoTokenizer
for name, (head, auto_class, code) in {repositories}.items():
    for loader in {{"AutoModel", auto_class}}:
        model = getattr(transformers, loader).from_pretrained(name, trust_remote_code=True)
        expected = head if loader == auto_class else "CBViLAQFormerModel" if "QFormer" in head else "CBViLAModel"
        assert type(model).__name__ == expected, (name, loader, type(model))
        assert type(model).__module__.startswith("transformers_modules."), type(model)
    kinds = [type(kind.from_pretrained(name, trust_remote_code=True)).__name__
             for kind in (AutoProcessor, AutoImageProcessor, AutoTokenizer)]
    assert kinds[0] == "CBViLAProcessor" and kinds[1].startswith("CBViLAImageProcessor"), kinds
    assert kinds[2].startswith("Bert"), kinds
    exec(code, {{}})
    print("loaded", name)
"""
WITH_HEADS = """
import transformers_cbvila
from transformers import AutoModel, AutoProcessor
for name, (head, auto_class, code) in {repositories}.items():
    model, info = getattr(transformers_cbvila, head).from_pretrained(name, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    base = transformers_cbvila.CBViLAQFormerModel if "QFormer" in head else transformers_cbvila.CBViLAModel
    assert type(AutoModel.from_pretrained(name)) is base
    assert type(AutoProcessor.from_pretrained(name)) is transformers_cbvila.CBViLAProcessor
    exec(code, {{}})
    print("loaded", name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("version", ["now", "0.1"])
def test_publish_every_head_loads_in_clean_environments(version, hub, api, facts, tmp_path):
    """`publish` compares outputs; here every Auto class loads, and the cards' code runs as it stands."""
    half_image("red", "left").save(tmp_path / "picture.png")
    clean, ours = {}, {}
    heads = PUBLISHED_HEADS if version == "now" else HEADS
    for head in heads:
        name = f"org/{head.__name__.lower()}"
        folder = save_checkpoint(head, tmp_path / head.__name__)
        if version == "0.1":
            save_as_0_1(head.from_pretrained(folder), folder)
        publish(folder, name, facts=facts, api=api)
        card = hub.repositories[name].files["README.md"].decode()
        blocks = code_blocks(card)
        for repositories, code in zip((ours, clean), blocks, strict=True):
            repositories[name] = (head.__name__, kinds()[head.__name__].auto_class, code)
    printed = in_another_process(CLEAN.format(repositories=clean), hub, tmp_path, without_package=True)
    assert printed.count("loaded org/") == len(heads)
    printed = in_another_process(WITH_HEADS.format(repositories=ours), hub, tmp_path)
    assert printed.count("loaded org/") == len(heads)


@pytest.mark.slow
def test_publish_command_in_a_process(hub, facts, folder, tmp_path):
    command = [sys.executable, "-m", "transformers_cbvila", "publish", str(folder), "org/tiny", "--facts", str(facts)]
    environment = {**inherited_environment(), **hub.environment(tmp_path / "publisher")}
    done = subprocess.run([*command, "--private"], env=environment, capture_output=True, text=True, timeout=LONG)
    commit = hub.repositories["org/tiny"].head
    assert done.stdout == f"Published: {hub.endpoint}/org/tiny at commit {commit}\n", done.stderr
    assert hub.repositories["org/tiny"].private


FAILING = """
from transformers import AutoModel
for name, token in (("org/nowhere", None), ("org/tiny", "wrong"), ("org/tiny", None)):
    try:
        print(type(AutoModel.from_pretrained(name, token=token, trust_remote_code=True)).__name__)
    except Exception as error:
        print(isinstance(error, OSError) and name in str(error), "nowhere" in str(error))
"""
AGAIN = """
from transformers import AutoModel
print(type(AutoModel.from_pretrained("org/tiny", trust_remote_code=True)).__name__)
"""


@pytest.mark.slow
def test_published_model_errors_of_missing_repository_token_and_download(hub, api, facts, folder, tmp_path):
    publish(folder, "org/tiny", facts=facts, api=api, private=True)  # which reads it with its token
    hub.cut_download = 60_000  # less than the weights have
    assert (folder / "model.safetensors").stat().st_size > hub.cut_download
    absent, refused, cut = in_another_process(FAILING, hub, tmp_path, without_package=True).splitlines()
    assert absent == "True True" and refused == "True False" and cut != "CBViLAForVisualEntailment"
    hub.cut_download = None
    said = in_another_process(AGAIN, hub, tmp_path, without_package=True)
    assert said.split()[-1] == "CBViLAForVisualEntailment"
    offline = {**inherited_environment(), "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", AGAIN], env=offline, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cbvila-tiny", "cbvila-tiny-easyvqa"])
def test_publish_bundled_checkpoint_with_its_card(name, hub, api):
    published = publish(name, f"org/{name}", api=api)
    card = hub.repositories[published.repo_id].files["README.md"].decode()
    assert f"# {name}\n" in card and "| data | metric | value |" in card
