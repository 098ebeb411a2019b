"""Manifests in files, with the line that each thing stands on: what `lint` and `next --file` read.

Folders are searched for `.yaml`, `.yml` and `.json`, `-` is the standard input, and a `List` is what it lists. Objects
of other API groups are passed over, and in folders also what is no object at all. Invariant: nothing that is wrong
ends the reading; it becomes a `Finding`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import yaml
from pydantic_core import PydanticCustomError

from tickwheel_operator.api import GROUP, KINDS, FieldFault, InvalidManifest, Resource, documents, parse
from tickwheel_operator.api.text import Instant

__all__ = ["STANDARD_INPUT", "Finding", "Manifest", "Reading", "read", "standard_input"]

STANDARD_INPUT = Path("-")
_NAME_OF_INPUT = "<stdin>"
_SUFFIXES = (".yaml", ".yml", ".json")
_OURS = frozenset(kind.kind_name() for kind in KINDS)
_STEP = re.compile(r"""\.?([^.\[\]]+)|\[(\d+|'[^']*'|"[^"]*")\]""")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, or odd, in a file."""

    file: str
    line: int | None = None
    """The first is 1; None: the whole file."""
    object: str = ""
    """`ScheduledTask/hello`; empty for the whole file."""
    path: str = ""
    """The field, as the manifest spells it; empty for the whole document."""
    message: str
    """What is wrong, and what is allowed."""
    warning: bool = False
    """It is valid, and perhaps not what its author meant."""

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        parts = (where, "warning" if self.warning else "", self.object, self.path, " ".join(self.message.split()))
        return ": ".join(part for part in parts if part)


class Manifest:
    """A document of a file that is ours to read."""

    def __init__(self, text: _Text, body: dict[str, Any], place: tuple[int, int | None]) -> None:
        self.body = body
        self._text = text
        self._place = place

    @property
    def file(self) -> str:
        return self._text.file

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

    def line(self, path: str = "") -> int | None:
        """The line of a field, or of the nearest one around it that is there."""
        return self._text.line(self._place, path)

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
            text = standard_input() if path == STANDARD_INPUT else path.read_bytes()
            file = _Text(name, text.decode("utf-8"), among_others=path not in named)
        except (OSError, UnicodeDecodeError) as error:
            findings.append(Finding(file=name, message=f"cannot be read: {error}"))
            continue
        for found in file.read():
            if isinstance(found, Manifest):
                manifests.append(found)
            else:
                findings.append(found)
    return Reading(manifests, findings, len(seen))


def standard_input() -> bytes:
    """All of it. Raises OSError, also where it was closed."""
    if sys.stdin is None:
        raise OSError("the standard input is closed")
    return sys.stdin.buffer.read()


def _files(path: Path) -> Iterator[Path]:
    if path == STANDARD_INPUT or not path.is_dir():
        yield path
        return
    for found in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in found.relative_to(path).parts)
        if found.suffix in _SUFFIXES and not hidden and found.is_file():
            yield found


class _Text:
    """One file."""

    def __init__(self, file: str, text: str, *, among_others: bool) -> None:
        self.file = file
        self._text = text
        self._among_others = among_others

    def read(self) -> Iterator[Manifest | Finding]:
        try:
            for place, body in _flattened(documents(self._text, among_others=self._among_others)):
                if _is_ours(body):
                    yield Manifest(self, body, place)
        except InvalidManifest as invalid:
            cause = invalid.__cause__
            if isinstance(cause, yaml.MarkedYAMLError) and cause.problem_mark is not None:
                around = f" ({cause.context})" if cause.context else ""
                message = f"this is not YAML: {cause.problem}{around}"
                yield Finding(file=self.file, line=cause.problem_mark.line + 1, message=message)
                return
            for fault in invalid.faults:
                yield Finding(file=self.file, path=fault.path, message=fault.message)

    @cached_property
    def _nodes(self) -> list[yaml.Node]:
        """The objects once more, with their marks; asked for only when something is wrong."""
        try:
            found = yaml.compose_all(self._text, Loader=yaml.SafeLoader)
            return [node for node in found if isinstance(node, yaml.MappingNode)]
        except yaml.YAMLError:
            return []  # a later document is broken, which is a finding of its own

    def line(self, place: tuple[int, int | None], path: str) -> int | None:
        document, item = place
        if document >= len(self._nodes):
            return None
        steps: list[str | int] = [] if item is None else ["items", item]
        for plain, bracketed in _STEP.findall(path):
            steps.append(plain or ast.literal_eval(bracketed))
        node = self._nodes[document]
        line: int = node.start_mark.line
        for step in steps:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return line + 1


def _child(node: yaml.Node, step: str | int) -> tuple[int, yaml.Node] | None:
    """The line and value of a member."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if getattr(key, "value", None) == step:
                return key.start_mark.line, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        value = node.value[step]
        return value.start_mark.line, value
    return None


def _flattened(found: Iterator[dict[str, Any]]) -> Iterator[tuple[tuple[int, int | None], dict[str, Any]]]:
    """Documents, and those in a `List`, as `kubectl get -o yaml` writes them, each with its place."""
    for number, document in enumerate(found):
        items = document.get("items")
        if document.get("kind") == "List" and isinstance(items, list):
            yield from (((number, place), item) for place, item in enumerate(items) if isinstance(item, dict))
        else:
            yield (number, None), document


def _is_ours(document: dict[str, Any]) -> bool:
    """Others' objects may stand beside ours. One of our kinds without a group is ours, and at fault."""
    group, _, _ = str(document.get("apiVersion", "")).rpartition("/")
    return group == GROUP or ("apiVersion" not in document and str(document.get("kind")) in _OURS)
