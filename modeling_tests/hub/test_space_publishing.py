"""A Space is staged with all that it needs, tried without the installed package, and uploaded in one commit."""

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, SpaceCard
from packaging.requirements import Requirement
from packaging.version import Version
from publishable import LONG, inherited_environment, save_checkpoint
from space_models import save_model, save_pictures, save_run

from transformers_cbvila import CBViLAForImageTextRetrieval, bundled_checkpoint, publish_space
from transformers_cbvila.app import models as app_models
from transformers_cbvila.cli import main
from transformers_cbvila.space import publishing, requirements, staging
from transformers_cbvila.space.publishing import stage_space
from transformers_cbvila.space.trying import try_app

gradio = pytest.importorskip("gradio", reason="gradio is not installed (the extra app has it)")

# What the Hub takes.
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture
def untried(monkeypatch):
    """No app is started; other tests do that."""
    tried = []
    monkeypatch.setattr(publishing, "try_app", tried.append)
    return tried


@pytest.fixture
def model(tmp_path):
    return save_model(tmp_path / "birds")


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def settings(app):
    """The names that an app.py gives to its models and pictures; nothing is served."""
    values = {"__name__": "app"}
    exec(app, values)
    return values["MODELS"], values["IMAGES"]


def test_a_space_starts_from_its_own_files_alone(model, tmp_path):
    images = save_pictures(tmp_path / "pictures")
    staged = stage_space("org/birds", tmp_path / "staged" / "birds", [model], images=images)
    assert list(staged.parent.iterdir()) == [staged]
    assert not [name for name in names(staged) if "__pycache__" in name or name.startswith(".")]

    (staged / "app.py").write_text("raise RuntimeError('no app')\n")
    with pytest.raises(ValueError, match="does not start from there in a fresh process: RuntimeError: no app"):
        try_app(staged)
    shutil.rmtree(staged / "transformers_cbvila")
    with pytest.raises(ValueError, match=f"fresh process: {staged} has no transformers_cbvila"):
        try_app(staged)


def test_a_page_of_something_else_is_refused(tmp_path):
    (tmp_path / "transformers_cbvila").mkdir()
    (tmp_path / "transformers_cbvila" / "__init__.py").touch()
    (tmp_path / "app.py").write_text(
        "from http.server import HTTPServer, SimpleHTTPRequestHandler\n"
        "server = HTTPServer(('127.0.0.1', 0), SimpleHTTPRequestHandler)\n"
        "print(f'at http://127.0.0.1:{server.server_port}/', flush=True)\n"
        "server.serve_forever()\n"
    )
    with pytest.raises(ValueError, match="gives a page without its title, CB-ViLA"):
        try_app(tmp_path)


def test_a_space_holds_models_pictures_and_this_package(model, untried, tmp_path):
    run, images = save_run(tmp_path / "vqa"), save_pictures(tmp_path / "pictures")
    staged = stage_space("org/birds", tmp_path / "staged", [model, run], images=images)
    assert [path.name for path in untried] == ["staged"] and untried != [staged], "tried before it is there"
    assert settings((staged / "app.py").read_text()) == (["models/birds", "models/vqa"], "pictures")

    held = names(staged)
    assert {name for name in held if name.startswith("pictures/")} == {
        "pictures/red.png",
        "pictures/deep/red again.png",
    }
    for folder, source in (("models/birds", model), ("models/vqa", run / "model")):
        written = {name.removeprefix(f"{folder}/") for name in held if name.startswith(f"{folder}/")}
        assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= written
        assert written <= names(source) - {"optimizer.pt", "facts.yaml"}
    package = Path(publishing.__file__).parents[1]
    ours = {f"transformers_cbvila/{path.relative_to(package).as_posix()}" for path in package.rglob("*.py")}
    assert ours <= held and "transformers_cbvila/app/app.css" in held
    assert not [name for name in held if "checkpoints/" in name], "none of them is named"


@pytest.mark.parametrize(
    "listed", ["licenses/LICENSE", "elsewhere/LICENSE", None], ids=["installed", "built", "neither"]
)
def test_a_space_has_the_licence_of_this_package(listed, untried, tmp_path, monkeypatch):
    ours = (Path(__file__).parents[2] / "LICENSE").read_text()
    (tmp_path / "licenses").mkdir()
    (tmp_path / "licenses" / "LICENSE").write_text(f"{ours}installed")

    def files(name):
        if listed is None:
            raise staging.PackageNotFoundError(name)
        return [SimpleNamespace(name="LICENSE", locate=lambda: tmp_path / listed)]

    monkeypatch.setattr(staging, "files", files)
    staged = stage_space("org/easy", tmp_path / "staged", ["cbvila-tiny-easyvqa"])
    expected = f"{ours}installed" if listed == "licenses/LICENSE" else ours
    assert "Apache License" in ours and (staged / "LICENSE").read_text() == expected


def test_a_space_has_the_bundled_checkpoints_that_it_names(untried, tmp_path):
    staged = stage_space("org/easy", tmp_path / "staged", ["cbvila-tiny-easyvqa"])
    assert settings((staged / "app.py").read_text()) == (["cbvila-tiny-easyvqa"], None)
    checkpoints = staged / "transformers_cbvila" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["cbvila-tiny-easyvqa"]
    assert names(checkpoints / "cbvila-tiny-easyvqa") == names(Path(bundled_checkpoint("cbvila-tiny-easyvqa")))
    assert not (staged / "models").exists() and not (staged / "pictures").exists()


def test_metadata_of_a_space(model, untried, tmp_path, monkeypatch):
    monkeypatch.setattr(
        app_models, "checkpoint_source", lambda name: str(run / "model") if name == "org/vqa" else str(name)
    )
    run = save_run(tmp_path / "vqa")
    card = SpaceCard.load(stage_space("org/birds", tmp_path / "staged", [model, "org/vqa"]) / "README.md")
    major, minor, _ = platform.python_version_tuple()
    expected = {
        "title": "birds",
        "sdk": "gradio",
        "sdk_version": gradio.__version__,
        "python_version": f"{major}.{minor}",
        "app_file": "app.py",
        "license": "apache-2.0",
        "models": ["org/vqa"],
        "pinned": False,
    }
    given = card.data.to_dict()
    assert {key: given.get(key) for key in expected} == expected
    assert len(given["short_description"]) <= 60 and len(given["emoji"]) == 1 and "cbvila" in given["tags"]
    assert {given["colorFrom"], given["colorTo"]} <= COLOURS
    assert "| `models/birds` | searches | apache-2.0 |" in card.text
    assert "`models/birds`: It knows nothing." in card.text
    assert "[org/vqa](https://huggingface.co/org/vqa) | answers questions" in card.text
    assert "scenes that are generated" in card.text and not re.search(r"\{\{|\{%|None|\n\n\n", card.text)


def test_the_page_of_a_space_says_the_licence_of_each_model(untried, tmp_path):
    model = save_model(tmp_path / "birds", said={"license": "cc-by-nc-4.0", "limits": "It knows nothing."})
    images = save_pictures(tmp_path / "pictures")
    card = SpaceCard.load(stage_space("org/birds", tmp_path / "staged", [model], images=images) / "README.md")
    assert card.data.license == "other" and "| `models/birds` | searches | cc-by-nc-4.0 |" in card.text
    assert "searches in the 2 pictures of the folder" in card.text and card.data.to_dict().get("models") is None


def test_requirements_are_the_versions_of_this_environment(monkeypatch):
    lines = [line for line in requirements.requirements().splitlines() if not line.startswith("#")]
    assert lines[0] == "--extra-index-url https://download.pytorch.org/whl/cpu"
    needed = {each.name: each.specifier for each in map(Requirement, lines[1:])}
    assert {"torch", "transformers", "accelerate", "safetensors", "numpy", "pillow", "huggingface-hub"} == set(needed)
    for name, specifier in needed.items():
        installed = Version(requirements.version(name))
        assert installed.public in specifier and (name == "huggingface-hub") is (
            f"=={installed.public}" != str(specifier)
        )

    monkeypatch.setattr(requirements, "version", lambda name: "99.0.dev0")
    assert "transformers<6,>=5.18" in requirements.requirements().splitlines(), "in no index"

    def unknown(name):
        raise requirements.PackageNotFoundError(name)

    monkeypatch.setattr(requirements, "requires", unknown)
    with pytest.raises(ImportError, match="transformers-cbvila runs without being installed"):
        requirements.requirements()


def test_publish_space_is_one_commit(model, hub, api, untried):
    published = publish_space("org/birds", [model], api=api, commit_message="Birds")
    repository = hub.repositories["spaces/org/birds"]
    assert published.commit == repository.head and published.url == f"{hub.endpoint}/spaces/org/birds"
    assert repository.sdk == "gradio" and not repository.private and len(repository.commits) == 2
    assert {"app.py", "README.md", "requirements.txt", "models/birds/model.safetensors"} <= set(repository.files)
    assert len(untried) == 1 and "org/birds" not in hub.repositories


def test_publish_space_again_replaces_its_own_files_only(model, hub, api, untried, tmp_path):
    publish_space("org/birds", [model], images=save_pictures(tmp_path / "pictures"), api=api)
    repository = hub.repositories["spaces/org/birds"]
    repository.commit({"notes.md": b"mine", "transformers_cbvila/old.py": b""}, [])
    other = shutil.move(model, tmp_path / "fish")
    publish_space("org/birds", [other], api=api)
    assert len(repository.commits) == 4 and repository.files["notes.md"] == b"mine"
    gone = [name for name in repository.files if name.startswith(("pictures/", "models/birds/"))]
    assert gone == [] and "models/fish/config.json" in repository.files
    assert "transformers_cbvila/old.py" not in repository.files


def test_publish_space_private(model, hub, api, untried):
    publish_space("org/hidden", [model], private=True, api=api)
    assert hub.repositories["spaces/org/hidden"].private
    publish_space("org/seen", [model], api=api)
    with pytest.raises(ValueError, match="org/seen is public: leave out --private"):
        publish_space("org/seen", [model], private=True, api=api)


def test_publish_space_uploads_nothing_that_does_not_start(model, hub, api, monkeypatch):
    def fail(folder):
        raise ValueError("the app does not start")

    monkeypatch.setattr(publishing, "try_app", fail)
    with pytest.raises(ValueError, match="the app does not start"):
        publish_space("org/birds", [model], api=api)
    assert hub.repositories == {}


def test_publish_space_cut_leaves_the_space_as_it_was(model, hub, api, untried):
    publish_space("org/birds", [model], api=api)
    repository = hub.repositories["spaces/org/birds"]
    head, hub.cut_upload = repository.head, 100_000
    with pytest.raises(ConnectionError, match=f"org/birds is as it was, at commit {head}. The same command starts"):
        publish_space("org/birds", [model], api=api)
    assert repository.head == head


def test_publish_space_needs_models_that_everybody_can_load(hub, api, untried, tmp_path, monkeypatch):
    folder = str(save_checkpoint(CBViLAForImageTextRetrieval, tmp_path / "cached"))
    monkeypatch.setattr(app_models, "checkpoint_source", lambda name: folder)
    api.create_repo("org/model", private=True)
    with pytest.raises(ValueError, match="org/model is private or gated, .*: name a folder with the model"):
        publish_space("org/birds", ["org/model"], api=api)
    hub.repositories["org/model"].private = False
    publish_space("org/birds", ["org/model"], api=api)
    files = hub.repositories["spaces/org/birds"].files
    assert settings(files["app.py"]) == (["org/model"], None)
    assert not [name for name in files if name.startswith("models/")]


@pytest.mark.parametrize(
    "repo_id, complaint", [("birds", "does not name the repository's owner"), ("o/b i", "no name")]
)
def test_publish_space_refuses_bad_names(repo_id, complaint, model, hub, api, untried):
    with pytest.raises(ValueError, match=complaint):
        publish_space(repo_id, [model], api=api)
    assert hub.requests == [] and untried == []


def test_publish_space_needs_a_token(model, hub, api, untried, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for token, complaint in ((None, "there is no token for the Hub"), ("wrong", "refuses the token")):
        with pytest.raises(ValueError, match=complaint):
            publish_space("org/birds", [model], api=HfApi(endpoint=hub.endpoint, token=token))
    assert hub.repositories == {} and untried == []


def test_stage_space_writes_all_or_nothing(model, tmp_path, monkeypatch):
    target = tmp_path / "staged" / "birds"
    monkeypatch.setattr(publishing, "try_app", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stage_space("org/birds", target, [model])
    assert list(target.parent.iterdir()) == []
    target.mkdir()
    (target / "mine.txt").touch()
    with pytest.raises(ValueError, match="birds is there already; name another folder"):
        stage_space("org/birds", target, [model])
    assert names(target) == {"mine.txt"}


def test_space_command(model, untried, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_pictures(tmp_path / "pictures")
    arguments = ["--space", "org/birds", "birds", "--images", "pictures", "--output_dir", "staged"]
    assert main(["publish", *arguments]) == 0
    said = capsys.readouterr()
    assert (
        said.out == f"Staged: {tmp_path / 'staged'}\n" and "Left out, as they cannot be read: broken.png" in said.err
    )
    for arguments, sentence in (
        (["--space", "org/birds", "nowhere"], "is no folder and no bundled checkpoint"),
        (["--space=birds"], "expected owner/name"),
        (["--space", "org/birds", "birds", "--images", "birds"], "has no image"),
        (["--space", "org/birds", "birds", "--output_dir", "staged"], "is there already"),
    ):
        assert main(["publish", *arguments]) == 1
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("cbvila publish: ") and sentence in said.err
        assert said.err.count("\n") == 1


def test_space_command_takes_only_what_a_space_has(capsys):
    for arguments, sentence in (
        (["--space", "org/birds", "--facts", "facts.yaml"], "there is no option '--facts'"),
        (["--space"], "expected one argument"),
        (["--space", "org/birds", "--help"], "cbvila publish --space my-org/birds"),
        (["runs/mine", "org/birds", "--images", "pictures"], "there is no option '--images'"),
        (["--help"], "--space OWNER/NAME"),
    ):
        with pytest.raises(SystemExit):
            main(["publish", *arguments])
        said = capsys.readouterr()
        assert sentence in said.out + said.err


@pytest.mark.slow
def test_space_command_in_a_process(hub, tmp_path):
    """All of it, with what comes with the package."""
    command = [sys.executable, "-m", "transformers_cbvila", "publish", "--space", "org/cbvila", "--private"]
    environment = {**inherited_environment(), **hub.environment(tmp_path / "publisher")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONG)
    repository = hub.repositories["spaces/org/cbvila"]
    assert done.stdout.startswith(f"Published: {hub.endpoint}/spaces/org/cbvila at commit {repository.head};"), (
        done.stderr
    )
    assert repository.private and "transformers_cbvila/checkpoints/cbvila-scenes/model.safetensors" in repository.files
