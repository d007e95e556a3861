"""An upload is one commit or none, over HTTP to a Hub on this machine."""

import pytest
from huggingface_hub import HfApi

from transformers_cbvila.hub.uploading import check_access, upload


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "staged"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "model.safetensors").write_bytes(bytes(200_000))
    return folder


def test_upload_is_one_commit(hub, api, folder):
    commit = upload(api, folder, "org/new")
    repository = hub.repositories["org/new"]
    assert not repository.private and len(repository.commits) == 2
    assert commit == repository.head and set(repository.files) == {".gitattributes", "README.md", "model.safetensors"}


def test_upload_replaces_old_weights_and_code_only(hub, api, folder):
    for name in ("modeling_cbvila_old.py", "picture.png", "notes.py"):
        (folder / name).write_text("old")
    upload(api, folder, "org/x")
    for name in ("modeling_cbvila_old.py", "picture.png", "notes.py"):
        (folder / name).unlink()
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")
    upload(api, folder, "org/x")
    names = set(hub.repositories["org/x"].files)
    assert {"picture.png", "notes.py", "model.safetensors.index.json"} <= names
    assert not names & {"modeling_cbvila_old.py", "model.safetensors"}


def test_upload_of_equal_files_changes_nothing(hub, api, folder):
    upload(api, folder, "org/x")
    files = dict(hub.repositories["org/x"].files)
    upload(api, folder, "org/x")
    assert hub.repositories["org/x"].files == files


def test_upload_private_repository(hub, api, folder):
    upload(api, folder, "org/hidden", private=True)
    assert hub.repositories["org/hidden"].private
    upload(api, folder, "org/hidden", private=True)
    upload(api, folder, "org/seen")
    head = hub.repositories["org/seen"].head
    with pytest.raises(ValueError, match="org/seen is public: leave out --private"):
        upload(api, folder, "org/seen", private=True)
    assert hub.repositories["org/seen"].head == head


def test_upload_cut_leaves_the_repository_unchanged(hub, api, folder):
    upload(api, folder, "org/x")
    head, files = hub.repositories["org/x"].head, dict(hub.repositories["org/x"].files)
    (folder / "model.safetensors").write_bytes(b"x" * 200_000)
    hub.cut_upload = 100_000
    with pytest.raises(ConnectionError, match=f"org/x is as it was, at commit {head}. The same command starts over"):
        upload(api, folder, "org/x")
    assert hub.repositories["org/x"].head == head and hub.repositories["org/x"].files == files
    hub.cut_upload = None
    upload(api, folder, "org/x")
    assert hub.repositories["org/x"].files["model.safetensors"] == b"x" * 200_000


def test_upload_cut_names_the_new_repository(hub, api, folder):
    hub.cut_upload = 100_000
    with pytest.raises(ConnectionError, match="The repository org/x was made and is empty. The same command starts"):
        upload(api, folder, "org/x")
    assert set(hub.repositories["org/x"].files) == {".gitattributes"}


@pytest.mark.parametrize("status", [403, 500])
def test_upload_refused_commit_leaves_the_repository_unchanged(status, hub, api, folder):
    upload(api, folder, "org/x")
    head = hub.repositories["org/x"].head
    (folder / "README.md").write_text("new")
    hub.fail_commit = status
    with pytest.raises(ConnectionError, match=f"the upload failed: .*{status}.*org/x is as it was, at commit {head}"):
        upload(api, folder, "org/x")
    assert hub.repositories["org/x"].head == head


def test_upload_interrupted_names_the_state(hub, api, folder, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "create_commit", interrupt)
    with pytest.raises(KeyboardInterrupt, match="Interrupted. The repository org/x was made and is empty."):
        upload(api, folder, "org/x")


def test_upload_does_not_overwrite_a_concurrent_commit(hub, api, folder, monkeypatch):
    upload(api, folder, "org/x")
    repository = hub.repositories["org/x"]
    create = api.create_commit

    def overtaken(*args, **kwargs):
        repository.commit({"theirs.txt": b"!"}, [])
        return create(*args, **kwargs)

    (folder / "README.md").write_text("new")
    monkeypatch.setattr(api, "create_commit", overtaken)
    with pytest.raises(ConnectionError, match="org/x has a new commit, .*: look whether it is this one"):
        upload(api, folder, "org/x")
    assert "theirs.txt" in repository.files and repository.files["README.md"] != b"new"


def test_check_access_refuses_a_wrong_token(hub, api):
    check_access(api)
    with pytest.raises(ValueError, match=f"{hub.endpoint} refuses the token"):
        check_access(HfApi(endpoint=hub.endpoint, token="wrong"))


def test_check_access_needs_a_token(hub, api, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ValueError, match="there is no token for the Hub: run 'hf auth login' or set HF_TOKEN"):
        check_access(HfApi(endpoint=hub.endpoint))
    assert hub.requests == []


def test_check_access_and_upload_without_network(hub, api, folder, monkeypatch):
    hub.server.server_close()
    hub.server.shutdown()
    with pytest.raises(ConnectionError, match=f"cannot reach {hub.endpoint}: .*; nothing was changed there"):
        check_access(api)
    with pytest.raises(ConnectionError, match=f"cannot reach {hub.endpoint}"):
        upload(api, folder, "org/x")
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set, so that nothing can be uploaded: unset it"):
        check_access(api)
