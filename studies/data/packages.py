"""Public packages by name, version and checksum, and the files inside their archives."""

import hashlib
import io
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class Package:
    """One version of a public package.

    Args:
        archive: File name of its archive in the folder of packages.
        sha256: SHA-256 of the archive, hexadecimal.
        download: Command that downloads the archive into the working directory.
    """

    archive: str
    sha256: str
    download: tuple[str, ...]


def npm_package(name: str, version: str, sha256: str) -> Package:
    """Returns a package of the npm registry."""
    return Package(f"{name}-{version}.tgz", sha256, ("npm", "pack", "--silent", f"{name}@{version}"))


def debian_package(name: str, version: str, sha256: str) -> Package:
    """Returns a package of Debian for all architectures."""
    without_epoch = version.rpartition(":")[2]
    return Package(f"{name}_{without_epoch}_all.deb", sha256, ("apt-get", "download", "--quiet", f"{name}={version}"))


def obtain(package: Package, folder: Path) -> Path:
    """Returns the archive of `package` in `folder`, downloaded if it is not there yet.

    Raises:
        RuntimeError: The archive can't be downloaded here; the message says which file to put where.
        ValueError: The archive is not the pinned one.
    """
    archive = folder / package.archive
    if not archive.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _download(package, archive)
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise ValueError(
            f"{archive} has the SHA-256 {found}, and {package.sha256} was expected: delete the file to download it "
            f"again, or put {package.archive} of exactly this version there"
        )
    return archive


def _download(package: Package, archive: Path) -> None:
    command = shlex.join(package.download)
    way_out = f"get {package.archive} elsewhere (`{command}`), put it into {archive.parent} and run this again"
    print(f"{command}  # into {archive.parent}", flush=True)
    # In a folder of its own, so that a download that is cut short leaves nothing behind.
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        try:
            done = subprocess.run(package.download, cwd=folder, capture_output=True, text=True)
        except FileNotFoundError:
            raise RuntimeError(f"{package.download[0]} is not installed: install it, or {way_out}") from None
        files = list(Path(folder).iterdir())
        if done.returncode or len(files) != 1:
            raise RuntimeError(f"`{command}` did not download one archive ({done.stderr.strip()[-500:]}): {way_out}")
        shutil.move(files[0], archive)


def files_in(archive: Path, folder: str) -> Iterator[tuple[str, bytes]]:
    """Yields name, relative to `folder`, and content of each regular file in `folder` of an archive, links left out.

    Args:
        archive: A `.tgz` of npm or a `.deb`.
        folder: Path inside the archive, such as `package/data`.
    """
    with archive.open("rb") as file:
        content = _debian_data(file) if archive.suffix == ".deb" else file
        with tarfile.open(fileobj=content) as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isfile() and name.startswith(f"{folder}/"):
                    yield name.removeprefix(f"{folder}/"), tar.extractfile(member).read()


def _debian_data(file: BinaryIO) -> BinaryIO:
    """Returns the tar of installed files among the members of a `.deb`, which is an `ar` archive."""
    file.seek(len(b"!<arch>\n"))
    while header := file.read(60):
        name, size = header[:16].decode(), int(header[48:58])
        if name.startswith("data.tar"):
            return io.BytesIO(file.read(size))
        file.seek(size + size % 2, io.SEEK_CUR)  # members begin at even offsets
    raise ValueError(f"{file.name} has no member data.tar: it is not a Debian package")
