"""What the folder's objects have beside their manifests: uid, creation, generation, and the last valid version.

An API server keeps these; here it is `.tickwheel/objects.json`. Invariant: what is written is whole (written beside,
synced, then renamed), so a killed session leaves the version before or the one after.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import msgspec

from tickwheel_operator.dev.errors import DevError

__all__ = ["Known", "Memory"]


class Known(msgspec.Struct):
    """One object."""

    uid: str
    file: str
    """Name of the file that it was last read from."""
    created_ms: int
    generation: int
    document: dict[str, Any]
    """The last valid version: it counts while the file has a fault, as an API server goes on with what it has."""


class Memory:
    """The objects that exist, by kind, namespace and name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = b""
        self.problem = ""
        """Why the newest version is not durable; empty when it is."""
        self.objects: dict[str, Known] = {}
        if path.exists():
            try:
                self.objects = msgspec.json.decode(path.read_bytes(), type=dict[str, Known])
            except (msgspec.DecodeError, OSError) as error:
                raise DevError(
                    f"{path} cannot be read: {error}; delete the folder {path.parent} to begin anew (its ledger too)"
                ) from error

    def accept(self, key: str, file: str, document: dict[str, Any], now_ms: int) -> Known:
        """The object as it is with this version of its document; kept only by `store`."""
        known = self.objects.get(key)
        if known is None:
            return Known(str(uuid.uuid4()), file, now_ms, 1, document)
        changed = _encoded(known.document.get("spec")) != _encoded(document.get("spec"))
        return Known(known.uid, file, known.created_ms, known.generation + changed, document)

    def save(self) -> None:
        """Make `objects` durable, if they changed; call it again while there is a `problem`."""
        data = msgspec.json.encode(self.objects)
        if data == self._written:
            return
        replacement = self._path.with_suffix(".new")
        try:
            with replacement.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            replacement.replace(self._path)
        except OSError as error:
            what = error.strerror or error
            self.problem = f"{self._path} cannot be written: {what}; the next start would not know the latest edits"
            return
        self._written = data
        self.problem = ""


def _encoded(value: object) -> bytes:
    return msgspec.json.encode(value, order="sorted")
