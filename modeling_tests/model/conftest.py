"""A web server of pictures."""

import pytest
from image_server import running_image_server


@pytest.fixture
def image_server(monkeypatch):
    """A running ImageServer, which is asked without a proxy."""
    monkeypatch.setenv("no_proxy", "*")
    with running_image_server() as server:
        yield server
