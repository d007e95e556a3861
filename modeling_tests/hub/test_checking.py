"""find_checkpoint and check_repo_id: what can be published, and the errors for the rest."""

import json
import shutil

import pytest
from publishable import save_checkpoint

from transformers_cbvila import CBViLAForQuestionAnswering, CBViLAModel, bundled_checkpoint
from transformers_cbvila.hub.checking import check_repo_id, find_checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_checkpoint(CBViLAForQuestionAnswering, tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_find_checkpoint_of_a_model_folder(folder):
    checkpoint = find_checkpoint(folder)
    assert checkpoint.kind.model_class is CBViLAForQuestionAnswering
    assert checkpoint.folder == checkpoint.run == folder
    assert set(checkpoint.files) == {
        "chat_template.jinja",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    }


def test_find_checkpoint_of_a_run_with_a_model_folder(folder, tmp_path):
    run = tmp_path / "demo"
    run.mkdir()
    shutil.move(folder, run / "model")
    checkpoint = find_checkpoint(run)
    assert (checkpoint.folder, checkpoint.run) == (run / "model", run)


def test_find_checkpoint_of_a_bundled_name():
    checkpoint = find_checkpoint("cbvila-tiny")
    assert str(checkpoint.folder) == bundled_checkpoint("cbvila-tiny")
    assert checkpoint.num_parameters == sum(p.numel() for p in _model("cbvila-tiny").state_dict().values()) - _tied()


def _model(name):
    from transformers_cbvila import CBViLAForPreTraining

    return CBViLAForPreTraining.from_pretrained(bundled_checkpoint(name))


def _tied():
    return 2000 * 128  # the MLM head's words are the text encoder's, and stored once


def test_find_checkpoint_lists_shards_with_their_index(tmp_path):
    from tiny import build, tiny_processor

    build(CBViLAModel).save_pretrained(tmp_path, max_shard_size="20KB")
    tiny_processor().save_pretrained(tmp_path)
    names = find_checkpoint(tmp_path).weights
    assert names[0] == "model.safetensors.index.json" and len(names) > 2
    (tmp_path / names[-1]).unlink()
    with pytest.raises(ValueError, match=f"has no {names[-1]}, which its model.safetensors.index.json names"):
        find_checkpoint(tmp_path)


def _truncate(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def _pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _change_config(**fields):
    def change(folder):
        config = json.loads((folder / "config.json").read_text()) | fields
        (folder / "config.json").write_text(json.dumps(config))

    return change


def _write(name, text):
    return lambda folder: (folder / name).write_text(text)


def _remove(name):
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (_remove("config.json"), "is no model folder: it has no config.json; save model and processor"),
        (_write("config.json", "{"), "config.json is no JSON"),
        (_write("config.json", "[]"), "config.json holds list"),
        (
            _change_config(model_type="bert"),
            "of a model of type 'bert'; this publishes 'cbvila', 'cbvila_qformer', ",
        ),
        (_change_config(architectures=None), "names the architecture None; expected one of CBViLAModel, "),
        (_remove("tokenizer.json"), "has no tokenizer.json, which is needed to prepare"),
        (_write("processor_config.json", "{}"), "describes no image processor; save model and processor"),
        (_truncate, "model.safetensors is truncated or no safetensors file"),
        (_pickle, r"has pickled files only \(pytorch_model.bin\), and loading those can run any code"),
        (_remove("model.safetensors"), "has no model.safetensors; save model and processor"),
    ],
)
def test_find_checkpoint_rejects_unpublishable_folders(spoil, sentence, folder):
    spoil(folder)
    before = files(folder)
    with pytest.raises(ValueError, match=sentence) as caught:
        find_checkpoint(folder)
    assert "\n" not in str(caught.value) and files(folder) == before


@pytest.mark.parametrize("name", ["/data/encoder", "./encoder", "~/encoder", "runs/text/encoder", "encoder"])
def test_find_checkpoint_rejects_options_that_name_a_folder(name, folder, tmp_path, monkeypatch):
    (tmp_path / "encoder").mkdir()
    monkeypatch.chdir(tmp_path)
    _change_config(objectives={"lgvq": {"text_encoder": name, "text_size": 20}})(folder)
    with pytest.raises(ValueError, match=f"objectives: lgvq: text_encoder='{name}', a folder of this machine"):
        find_checkpoint(folder)


@pytest.mark.parametrize("name", ["bert-base-uncased", "my-org/encoder", None])
def test_find_checkpoint_accepts_options_that_name_a_hub_id(name, folder):
    _change_config(objectives={"lgvq": {"text_encoder": name}, "mim": {}}, quantizer_config={})(folder)
    assert find_checkpoint(folder).config["objectives"]["lgvq"]["text_encoder"] == name


def test_find_checkpoint_rejects_missing_and_unfinished_runs(folder, tmp_path):
    with pytest.raises(ValueError, match=r"is no folder and no bundled checkpoint \(cbvila-scenes, "):
        find_checkpoint(tmp_path / "nowhere")
    shutil.move(folder, tmp_path / "unfinished" / "checkpoint-3")
    with pytest.raises(ValueError, match="is not finished; finish it, or publish its last checkpoint: .*checkpoint-3"):
        find_checkpoint(tmp_path / "unfinished")


@pytest.mark.parametrize("name", ["org/name", "a/b-c.d_e"])
def test_check_repo_id_accepts_names(name):
    check_repo_id(name)


@pytest.mark.parametrize("name", ["", "name", "a/b/c", "org/na me", "org/", "/name", "org/..", "-a/b", "org/x--y"])
def test_check_repo_id_rejects_other_names(name):
    with pytest.raises(ValueError) as caught:
        check_repo_id(name)
    assert repr(name) in str(caught.value) and "\n" not in str(caught.value)
