"""Manifests in files, with the line that each thing is on: what `lint`, `next --file` and `backfill --file` read.

Folders are searched for `.yaml`, `.yml` and `.json`, `-` is the standard input, and a `List` is what it lists. Objects
of other API groups are passed over, and in folders also what is no object at all. How text becomes values is
`api.documents`' part. Invariant: nothing that is wrong ends the reading; it becomes a `Finding`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from pydantic_core import PydanticCustomError

from tickwheel_operator.api import FieldFault, InvalidManifest, Resource, objects, parse
from tickwheel_operator.api.documents import MOST_FILE_BYTES, SUFFIXES, Document
from tickwheel_operator.api.nodes import Unreadable
from tickwheel_operator.api.text import Instant

__all__ = ["STANDARD_INPUT", "Finding", "Manifest", "Reading", "read", "standard_input"]

STANDARD_INPUT = Path("-")
_NAME_OF_INPUT = "<stdin>"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, or odd, in a file."""

    file: str
    line: int | None = None
    """The first is 1; None: the whole file."""
    column: int | None = None
    """The first is 1; None: the whole line."""
    object: str = ""
    """`ScheduledTask/hello`; empty for the whole file."""
    path: str = ""
    """The field, as the manifest spells it; empty for the whole document."""
    message: str
    """What is wrong, and what is allowed."""
    warning: bool = False
    """It is valid, and perhaps not what its author meant."""

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        parts = (where, "warning" if self.warning else "", self.object, self.path, " ".join(self.message.split()))
        return ": ".join(part for part in parts if part)


class Manifest:
    """An object of a file that is ours to read."""

    def __init__(self, file: str, document: Document) -> None:
        self.file = file
        self.body: dict[str, Any] = document.body
        self._document = document

    @property
    def kind(self) -> str:
        return str(self.body.get("kind"))

    @property
    def title(self) -> str:
        """`ScheduledTask/hello`."""
        named = self.body.get("metadata")
        metadata = named if isinstance(named, dict) else {}
        name = metadata.get("name") or (f"{metadata['generateName']}*" if metadata.get("generateName") else "(no name)")
        return f"{self.kind}/{name}"

    def with_defaults(self, **metadata: str) -> dict[str, Any]:
        """The document, with what an API server would fill in where its metadata leaves it out."""
        given = self.body.get("metadata")
        if not isinstance(given, dict):
            return self.body
        missing = {name: value for name, value in metadata.items() if not given.get(name)}
        # `kubectl create --dry-run` writes `creationTimestamp: null`, and to an API server null is nothing.
        said = {name: value for name, value in given.items() if value is not None}
        return {**self.body, "metadata": {**said, **missing}}

    def resource(self, **metadata: str) -> Resource:
        """What the document, with these defaults, describes. Raises `InvalidManifest`."""
        resource = parse(self.with_defaults(**metadata))
        if created := resource.metadata.creation_timestamp:
            try:
                Instant.read(created)
            except PydanticCustomError as error:
                raise InvalidManifest([FieldFault("metadata.creationTimestamp", error.message())]) from error
        return resource

    def line(self, path: str = "") -> int:
        """The line of a field, or of the nearest one around it that is there."""
        return self._document.line(path)

    def remarks(self) -> Iterator[Finding]:
        """What is read in another way than it seems to be written."""
        for place, message in self._document.remarks:
            yield Finding(
                file=self.file, line=place.line, column=place.column, object=self.title, message=message, warning=True
            )

    def fault(self, fault: FieldFault, *, warning: bool = False) -> Finding:
        """What is wrong with one of its fields."""
        return Finding(
            file=self.file,
            line=self.line(fault.path),
            object=self.title,
            path=fault.path,
            message=fault.message,
            warning=warning,
        )

    def failed(self, error: Exception) -> Finding:
        """What is wrong with the command itself: it costs no other object its check."""
        what = f"tickwheel failed at this object, which is a fault of its own; please report it: {error!r}"
        return self.fault(FieldFault("metadata.name", what))

    def warning(self, path: str, message: str) -> Finding:
        return self.fault(FieldFault(path, message), warning=True)


class Reading(msgspec.Struct, frozen=True):
    """What the files have."""

    manifests: list[Manifest]
    findings: list[Finding]
    """Files, and documents in them, that could not be read."""
    files: int


def read(paths: Iterable[Path]) -> Reading:
    """Read files, folders and the standard input, in the order given; a file that is named twice, once."""
    paths = list(paths)
    named = {path for path in paths if not path.is_dir()}
    seen = list(dict.fromkeys(file for path in paths for file in _files(path)))
    manifests: list[Manifest] = []
    findings: list[Finding] = []
    for path in seen:
        name = _NAME_OF_INPUT if path == STANDARD_INPUT else str(path)
        try:
            for document in objects(_content(path), among_others=path not in named):
                manifests.append(Manifest(name, document))
        except Unreadable as error:
            line, column = error.place
            findings.append(Finding(file=name, line=line, column=column, message=error.problem))
        except OSError as error:
            findings.append(Finding(file=name, message=f"cannot be read: {error}"))
    return Reading(manifests, findings, len(seen))


def standard_input() -> bytes:
    """All of it. Raises OSError, also where it was closed."""
    if sys.stdin is None:
        raise OSError("the standard input is closed")
    return sys.stdin.buffer.read()


def _content(path: Path) -> bytes:
    """The bytes of a file, as many as `objects` takes and one more. Raises OSError."""
    if path == STANDARD_INPUT:
        return standard_input()
    with path.open("rb") as file:
        return file.read(MOST_FILE_BYTES + 1)


def _files(path: Path) -> Iterator[Path]:
    if path == STANDARD_INPUT or not path.is_dir():
        yield path
        return
    for found in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in found.relative_to(path).parts)
        if found.suffix in SUFFIXES and not hidden and found.is_file():
            yield found
