"""transformers' own common test suites, mounted from the source distribution of the installed version.

The wheel has no tests, and the source distribution only the common suites. Fetch it once (`make install` does):

    python modeling_tests/conformance/upstream.py

It goes to `.cache/conformance/`, which git ignores. Nothing of it is committed.
"""

import subprocess
import sys
import tarfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

CACHE = Path(__file__).parents[2] / ".cache" / "conformance"
PACKAGE = "transformers_common_tests"

# What the suites import and the source distribution leaves out. Ours, and as empty as can be: a mixin without a test
# adds none to the count. Exports and generation have tests of our own (modeling_tests/model/).
STAND_INS = {
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/exporters/__init__.py": "",
    f"{PACKAGE}/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    f"{PACKAGE}/generation/__init__.py": "",
    f"{PACKAGE}/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    f"{PACKAGE}/utils/__init__.py": "",
    # every field of the base class that is not its default
    f"{PACKAGE}/utils/test_configuration_utils.py": """config_common_kwargs = {
    "return_dict": False,
    "output_hidden_states": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["AnyModel"],
    "id2label": {0: "no", 1: "yes"},
    "label2id": {"no": 0, "yes": 1},
    "problem_type": "regression",
}
""",
    # The processing suites ask for hub files when imported, and read them in tests of videos, sound and chats.
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url):\n    return url\n",
}


def root() -> Path:
    """Where the suites of the installed transformers are, or would be."""
    return CACHE / f"transformers-{version('transformers')}"


def is_there() -> bool:
    return (root() / PACKAGE / "test_modeling_common.py").is_file()


def require() -> None:
    """Skips the test module that calls it, saying what to do, when the suites are not there."""
    if not is_there():
        pytest.skip(f"{root()} is not there; `make install` fetches it", allow_module_level=True)


def fetch() -> None:
    """Downloads the source distribution of the installed transformers and lays out its tests."""
    CACHE.mkdir(parents=True, exist_ok=True)
    name = f"transformers=={version('transformers')}"
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps"]
    pip += ["--no-build-isolation", "--no-binary", ":all:", "--dest", str(CACHE), name]
    subprocess.run(pip, check=True)
    with tarfile.open(CACHE / f"{root().name}.tar.gz") as archive:
        for member in archive.getmembers():
            inner = Path(member.name)
            if member.isfile() and inner.parts[1:2] == ("tests",) and inner.suffix == ".py":
                _write(root() / PACKAGE / Path(*inner.parts[2:]), archive.extractfile(member).read())
    for path, text in STAND_INS.items():
        _write(root() / path, text.encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def load(name: str) -> ModuleType:
    """One of the suites, e.g. `load("test_modeling_common")`."""
    if str(root()) not in sys.path:
        sys.path.append(str(root()))
    return import_module(f"{PACKAGE}.{name}")


if __name__ == "__main__":
    if not is_there():
        print(f"Fetching transformers' common tests into {root()}")
        fetch()
