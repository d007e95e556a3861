"""The files of ONNX Runtime Web that a page needs, from the npm registry: one version, checked and kept."""

from __future__ import annotations

import hashlib
import tarfile
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from huggingface_hub import constants

from ..model.messages_cbvila import shown
from ..output_folders import free_folder, written_at_once

VERSION = "1.30.0"
# ONNX Runtime Web for the CPU alone, in one module, and its WebAssembly.
FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
_TARBALL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
_INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
_DIST = "dist"  # the folder of the package that has the files
_LONGEST = 60  # seconds without a byte


def find_onnxruntime_web(folder: str | Path | None = None) -> Path:
    """Returns a folder with the files of ONNX Runtime Web, which are fetched once (33 MB) if no folder has them.

    Args:
        folder: A folder that has them, or an unpacked package `onnxruntime-web`. By default one in the cache of the
            Hub (`HF_HOME`).

    Raises:
        FileNotFoundError: If `folder` lacks a file.
        ConnectionError: If they have to be fetched and cannot be.
        ValueError: If what came is not the pinned version.
    """
    if folder is not None:
        return _given(Path(folder))
    cached = Path(constants.HF_HOME, "transformers_cbvila", f"onnxruntime-web-{VERSION}")
    return cached if _has_files(cached) else fetch_onnxruntime_web(cached)


def fetch_onnxruntime_web(folder: str | Path) -> Path:
    """Fetches the files of ONNX Runtime Web into a folder that is empty or does not exist yet, and returns it.

    Raises:
        ConnectionError: If the npm registry cannot be reached; the message has another way.
        ValueError: If there is something at `folder`, or what came is not the pinned version.
    """
    target = free_folder(folder)
    package = _download()
    found = "sha512-" + b64encode(hashlib.sha512(package).digest()).decode("ascii")
    if found != _INTEGRITY:
        raise ValueError(f"{_TARBALL} has the integrity {found}, and {_INTEGRITY} was expected; {_OTHER_WAY}")
    with written_at_once(target) as unfinished, tarfile.open(fileobj=BytesIO(package)) as tar:
        for name in FILES:
            # By name, so that nothing is written elsewhere, whatever else the archive has.
            content = tar.extractfile(f"package/{_DIST}/{name}")
            assert content is not None, f"{name} is no file in the pinned version"
            (unfinished / name).write_bytes(content.read())
    return target


_OTHER_WAY = (
    f"get the package elsewhere (npm pack onnxruntime-web@{VERSION}), unpack it, and name its folder with "
    "--onnxruntime_web (onnxruntime_web=...)"
)


def _download() -> bytes:
    if constants.HF_HUB_OFFLINE:
        raise ConnectionError(
            f"the page needs ONNX Runtime Web {VERSION}, which is not in the cache, and HF_HUB_OFFLINE is set: unset "
            f"it to fetch 33 MB from {_TARBALL} once, or {_OTHER_WAY}"
        )
    try:
        with urlopen(_TARBALL, timeout=_LONGEST) as answer:
            return answer.read()
    except (URLError, OSError) as error:
        raise ConnectionError(
            f"{_TARBALL}, which the page needs, cannot be fetched ({error}): try again with a network, or {_OTHER_WAY}"
        ) from None


def _given(folder: Path) -> Path:
    for place in (folder, folder / _DIST, folder / "package" / _DIST):
        if _has_files(place):
            return place
    raise FileNotFoundError(
        f"onnxruntime_web={shown(str(folder), 255)} has no {' and no '.join(FILES)}: name the folder of an unpacked "
        f"package onnxruntime-web, such as version {VERSION}, or leave it out to have it fetched"
    )


def _has_files(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)
