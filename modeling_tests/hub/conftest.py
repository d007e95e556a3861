"""A Hub on this machine, and facts for its cards."""

import huggingface_hub
import pytest
import yaml
from loopback import LoopbackHub
from publishable import FACTS


@pytest.fixture
def facts(tmp_path):
    path = tmp_path / "facts.yaml"
    path.write_text(yaml.safe_dump(FACTS))
    return path


@pytest.fixture
def hub():
    with LoopbackHub() as server:
        yield server


@pytest.fixture
def api(hub, monkeypatch, tmp_path):
    """For this process, which may otherwise be told to stay offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    return huggingface_hub.HfApi(endpoint=hub.endpoint, token=hub.token)
