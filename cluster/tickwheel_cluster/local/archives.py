"""Images of one program each, as `docker save` writes them, so that no registry is needed."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

__all__ = ["one_file_image"]


def one_file_image(program: Path, name: str, archive: Path) -> Path:
    """An image that is this static program and nothing else, with `name` as its reference. Kept while the program is
    the same."""
    if archive.exists() and archive.stat().st_mtime >= program.stat().st_mtime:
        return archive
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        for folder in ("tmp", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            files.addfile(entry)
        _add(files, "program", program.read_bytes(), 0o755)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/program"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    document = json.dumps(config).encode()
    manifest = [
        {
            "Config": f"{hashlib.sha256(document).hexdigest()}.json",
            "RepoTags": [name],
            "Layers": [f"{digest}/layer.tar"],
        }
    ]
    unfinished = archive.with_suffix(".part")
    with tarfile.open(unfinished, mode="w") as image:
        _add(image, str(manifest[0]["Config"]), document, 0o644)
        _add(image, f"{digest}/layer.tar", layer.getvalue(), 0o644)
        _add(image, "manifest.json", json.dumps(manifest).encode(), 0o644)
    unfinished.rename(archive)
    return archive


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
