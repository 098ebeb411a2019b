"""An image as one tar: an OCI layout that `docker load` reads too, since it also has the older `manifest.json`.

`ctr images import`, `kind load image-archive` and `podman load` take it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from images.layers import Layer
from images.recipe import USER, Recipe

__all__ = ["write_archive"]

_OCI = "application/vnd.oci.image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_EPOCH = "1970-01-01T00:00:00Z"


def write_archive(recipe: Recipe, tag: str, layers: Sequence[Layer], path: Path) -> str:
    """Write the image to `path` unless it is there already; returns the digest of its manifest."""
    config = _blob(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": _EPOCH,
            "config": {
                "User": f"{USER}:{USER}",
                "Env": [f"{name}={value}" for name, value in sorted(recipe.environment.items())],
                "Entrypoint": list(recipe.entrypoint),
                "Cmd": list(recipe.command),
                "WorkingDir": recipe.workdir,
                "Labels": recipe.labels(tag),
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            "history": [{"created": _EPOCH, "created_by": f"make image ({layer.tar.parent.name})"} for layer in layers],
        }
    )
    manifest = _blob(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _descriptor(f"{_OCI}.config.v1+json", config),
            "layers": [
                {
                    "mediaType": f"{_OCI}.layer.v1.tar",
                    "digest": layer.digest,
                    "size": layer.tar.stat().st_size,
                }
                for layer in layers
            ],
        }
    )
    reference = recipe.reference(tag)
    entry = _descriptor(f"{_OCI}.manifest.v1+json", manifest)
    entry["annotations"] = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag}
    index = _blob({"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": [entry]})
    if _index_in(path) != index:
        docker = [
            {
                "Config": _name(_digest(config)),
                "RepoTags": [reference],
                "Layers": [_name(layer.digest) for layer in layers],
            }
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_suffix(f".{os.getpid()}")
        with tarfile.open(made, "w") as archive:
            _add(archive, "index.json", index)
            _add(archive, "oci-layout", _blob({"imageLayoutVersion": "1.0.0"}))
            _add(archive, "manifest.json", _blob(docker))
            _add(archive, _name(_digest(config)), config)
            _add(archive, _name(_digest(manifest)), manifest)
            for layer in layers:
                with layer.tar.open("rb") as source:
                    archive.addfile(_header(_name(layer.digest), layer.tar.stat().st_size), source)
        made.rename(path)
    return _digest(manifest)


def _index_in(path: Path) -> bytes | None:
    """The index of the archive that is there; it is the archive's first entry."""
    try:
        with tarfile.open(path) as archive:
            first = archive.next()
            file = archive.extractfile(first) if first is not None and first.name == "index.json" else None
            return file.read() if file is not None else None
    except (FileNotFoundError, tarfile.ReadError):
        return None


def _blob(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _header(name: str, size_bytes: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size = size_bytes
    return header


def _add(archive: tarfile.TarFile, name: str, blob: bytes) -> None:
    archive.addfile(_header(name, len(blob)), io.BytesIO(blob))
