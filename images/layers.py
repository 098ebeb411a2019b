"""Layers: a folder packed as a tar that is the same, byte for byte, whenever its contents are.

Names are sorted, times are zero and everything belongs to root, so that who packed it, when and where leave no trace.
Layers are not compressed: they are for a machine's own containerd, and the digest of the tar is then the layer's too.

The cache keeps a layer in a folder named by a hash of all that makes it. The folder is renamed into place when it is
whole: a folder that exists is complete, whatever was killed when.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Layer", "cache", "cached", "digest_of", "pack"]

_UNUSED_S = 14 * 24 * 3600
"""A cached layer that no build wanted for so long is deleted."""


@dataclass(frozen=True)
class Layer:
    """A packed layer, and the folder that it was packed from."""

    tar: Path
    digest: str
    """`sha256:...` of the tar."""
    folder: Path


def cache() -> Path:
    """Where layers are kept between builds."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "tickwheel" / "images"


def digest_of(parts: Iterable[bytes | str]) -> str:
    """A hash of the parts, in their order, each told from its neighbour."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return total.hexdigest()


def cached(kind: str, key: str, fill: Callable[[Path], None]) -> Layer:
    """The layer of this key; `fill` writes its contents into a folder if it is not there yet.

    Two processes that want the same layer make it once: the second waits for the first.
    """
    place = cache() / f"{kind}-{key[:16]}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _forget_unused(place.parent, kind)
        if not place.exists():
            prefix = f"making-{kind}-"
            for left in place.parent.glob(f"{prefix}*"):  # by a build that was killed, for we hold the lock
                shutil.rmtree(left)
            work = Path(tempfile.mkdtemp(dir=place.parent, prefix=prefix))
            (work / "root").mkdir()
            fill(work / "root")
            (work / "digest").write_text(pack(work / "root", work / "layer.tar"))
            work.chmod(0o755)
            work.rename(place)
        os.utime(place)
    return Layer(place / "layer.tar", (place / "digest").read_text(), place / "root")


def pack(folder: Path, tar: Path) -> str:
    """Write the folder's contents as a layer and return its digest."""
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts):
            entry = archive.gettarinfo(path, path.relative_to(folder).as_posix())
            if entry.islnk():  # one of a pair of hard links, whichever came second: write it as the file that it is
                entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", path.stat().st_size
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = 0
            if entry.isfile():
                with path.open("rb") as source:
                    archive.addfile(entry, source)
            else:
                archive.addfile(entry)
    with tar.open("rb") as packed:
        return f"sha256:{hashlib.file_digest(packed, 'sha256').hexdigest()}"


def _forget_unused(folder: Path, kind: str) -> None:
    for old in folder.glob(f"{kind}-*"):
        if time.time() - old.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(old)
