"""ONNX Runtime Web is fetched once, checked, and unpacked by name; nothing here is downloaded."""

import hashlib
import io
import re
import tarfile
from base64 import b64encode
from urllib.error import URLError

import pytest

from transformers_cbvila.static_page import onnxruntime_web
from transformers_cbvila.static_page.onnxruntime_web import FILES, fetch_onnxruntime_web, find_onnxruntime_web


def package(names=(*FILES, "ort.all.min.mjs", "../../../evil.txt")):
    """A tarball of npm."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name in names:
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            tar.addfile(entry, io.BytesIO(name.encode()))
    return content.getvalue()


def integrity(content):
    return "sha512-" + b64encode(hashlib.sha512(content).digest()).decode()


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """A registry with the package; the list has the addresses that were asked for."""
    asked, content = [], package()

    def urlopen(address, timeout):
        asked.append(address)
        return io.BytesIO(content)

    monkeypatch.setattr(onnxruntime_web, "urlopen", urlopen)
    monkeypatch.setattr(onnxruntime_web, "_INTEGRITY", integrity(content))
    monkeypatch.setattr(onnxruntime_web.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(onnxruntime_web.constants, "HF_HOME", str(tmp_path / "home"))
    return asked


def test_what_is_needed_is_fetched_once(registry, tmp_path):
    found = find_onnxruntime_web()
    assert found == find_onnxruntime_web() and found.is_relative_to(tmp_path / "home")
    assert registry == ["https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(FILES), "and nothing else"
    assert (found / FILES[0]).read_text() == FILES[0]


def test_another_package_than_the_pinned_one_is_refused(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime_web, "_INTEGRITY", integrity(b"of another"))
    with pytest.raises(ValueError, match="has the integrity sha512-.*was expected; get the package elsewhere"):
        find_onnxruntime_web()
    assert not list(tmp_path.rglob("*.mjs"))


def test_without_a_network_the_error_has_both_ways_out(registry, tmp_path, monkeypatch):
    def fail(address, timeout):
        raise URLError("Name or service not known")

    monkeypatch.setattr(onnxruntime_web, "urlopen", fail)
    ways = r"try again with a network, or get the package elsewhere \(npm pack onnxruntime-web@1.30.0\), unpack it"
    with pytest.raises(ConnectionError, match=f"Name or service not known.*{ways}"):
        find_onnxruntime_web()
    monkeypatch.setattr(onnxruntime_web.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set: unset it to fetch 33 MB .* or get the package"):
        find_onnxruntime_web()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["", "dist", "package/dist"])
def test_a_folder_that_has_the_files_is_used(place, registry, tmp_path):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (tmp_path / place / name).touch()
    assert find_onnxruntime_web(tmp_path) == tmp_path / place
    assert registry == []


def test_a_folder_without_them_is_an_error(registry, tmp_path):
    (tmp_path / FILES[0]).touch()
    message = f"onnxruntime_web={str(tmp_path)!r} has no {' and no '.join(FILES)}: name the folder of an unpacked"
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        find_onnxruntime_web(tmp_path)
    with pytest.raises(ValueError, match="is there already"):
        fetch_onnxruntime_web(tmp_path)
    assert registry == []
