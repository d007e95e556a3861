"""Which weights figures were measured on: a digest of a checkpoint's files of weights."""

import hashlib
from pathlib import Path


def weights_digest(folder: str | Path) -> str | None:
    """Returns a digest of the weights in a folder, which evaluations record and publishing compares.

    Returns:
        The SHA-256 of the safetensors files in the order of their names, or None if there are none, as with a Hub id.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
