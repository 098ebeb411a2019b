"""The objects in a file of YAML or JSON, read as kubectl reads them, with the place that each thing stands at.

Every command reads its manifests here (`lint`, `next`, `backfill`, `dev`), so that a value is what it would be in a
cluster. Where kubectl drops something in silence (a key that stands twice, what comes after `...`), it is an error
here. Invariants: whatever the bytes are, nothing but `Unreadable` is raised, and it has a line and a column; time and
memory are linear in the size of the text, since aliases are counted before anybody walks over them.
"""

from __future__ import annotations

import ast
import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from tickwheel_operator.api.kinds import KINDS
from tickwheel_operator.api.nesting import MOST_LEVELS, is_nested_within
from tickwheel_operator.api.nodes import Node, Place, Unreadable, composed
from tickwheel_operator.api.resource import GROUP
from tickwheel_operator.api.scalars import BadScalar, as_json_number

__all__ = ["MOST_FILE_BYTES", "SUFFIXES", "Document", "documents", "objects"]

SUFFIXES = (".yaml", ".yml", ".json")
"""Files that have manifests, as for `kubectl apply -f FOLDER`."""
MOST_FILE_BYTES = 16 * 1024 * 1024

_OURS = frozenset(kind.kind_name() for kind in KINDS)
_SEPARATOR = re.compile(rb"^---(.*)(?:\n|\Z)", re.MULTILINE)
_STEP = re.compile(r"""\.?([^.\[\]]+)|\[(\d+|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\]""")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BOMS: Final = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_LONGEST_INTEGER = 20


class Document:
    """One object of a file."""

    def __init__(self, body: dict[str, Any], chunk: _Chunk, node: Node | None) -> None:
        self.body = body
        """Plain JSON."""
        self._chunk = chunk
        self._node = node

    @property
    def remarks(self) -> list[tuple[Place, str]]:
        """What is read in another way than it seems to be written."""
        return [] if self._node is None else self._node.remarks

    def line(self, path: str = "") -> int:
        """The line of a field, such as `spec.retry.limit`, or of the nearest one around it that is there."""
        if self._node is None:
            self._node = self._chunk.node()
        node = self._node
        if node is None:
            return self._chunk.first_line
        line = node.place.line
        for step in _steps(path):
            found = node.child(step)
            if found is None:
                break
            place, node = found
            line = place.line
        return line


def objects(data: bytes, *, among_others: bool = False) -> Iterator[Document]:
    """The objects of tickwheel.io in a file, also those in a `List`. Others may stand beside them.

    Parameters and errors are those of `documents`.
    """
    for document in documents(data, among_others=among_others):
        items = document.body.get("items")
        if str(document.body.get("kind")).endswith("List") and isinstance(items, list):
            for position, item in enumerate(items):
                if isinstance(item, dict) and _is_ours(item):
                    yield _Item(document, item, position)
        elif _is_ours(document.body):
            yield document


def documents(data: bytes | str, *, among_others: bool = False) -> Iterator[Document]:
    """The documents of a file of YAML or JSON.

    Parameters
    ----------
    among_others
        Pass over documents that cannot be an object, such as lists of whatever: the file was found, not named.

    Raises
    ------
    Unreadable
        It is neither YAML nor JSON, a document is no object, or a bound is exceeded.
    """
    number = 0
    for chunk in _chunks(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")):
        for value, node in chunk.values():
            if value is None:
                continue
            number += 1
            if isinstance(value, dict):
                yield Document(value, chunk, node)
            elif not among_others or _lists_ours(value):
                place = node.place if node else Place(chunk.first_line, 1)
                raise Unreadable(place, f"document {number} is not an object with apiVersion, kind, metadata and spec")


def _steps(path: str) -> Iterator[str]:
    """The names and positions of a path; it ends where the path is not spelled as those of faults are."""
    for plain, bracketed in _STEP.findall(path):
        if plain or bracketed.isdigit():
            yield plain or bracketed
            continue
        try:
            yield str(ast.literal_eval(bracketed))
        except (ValueError, SyntaxError):
            return


class _Item(Document):
    """A member of a `List`."""

    def __init__(self, whole: Document, body: dict[str, Any], position: int) -> None:
        super().__init__(body, whole._chunk, whole._node)
        self._whole = whole
        self._prefix = f"items[{position}]"

    @property
    def remarks(self) -> list[tuple[Place, str]]:
        first = self._prefix == "items[0]"
        return self._whole.remarks if first else []

    def line(self, path: str = "") -> int:
        return self._whole.line(f"{self._prefix}.{path}" if path else self._prefix)


class _Chunk:
    """What stands between two lines of `---`; kubectl divides files so before it reads YAML."""

    def __init__(self, data: bytes, first_line: int) -> None:
        self._data = data
        self.first_line = first_line

    def values(self) -> Iterator[tuple[Any, Node | None]]:
        """Its value, or the values of concatenated JSON; nodes only where they were needed to read it."""
        if self._data.lstrip().startswith(b"{"):
            found = _json_values(self._data)
            if found is not None:
                yield from ((value, None) for value in found)
                return
        if (node := composed(self._data, self.first_line)) is not None:
            yield node.value, node

    def node(self) -> Node | None:
        """The places in it; None: its JSON is no YAML, or is several values."""
        try:
            return composed(self._data, self.first_line)
        except Unreadable:
            return None


def _chunks(data: bytes) -> Iterator[_Chunk]:
    if len(data) > MOST_FILE_BYTES:
        raise Unreadable(Place(1, 1), f"the file has more than {MOST_FILE_BYTES} bytes; divide it")
    data = _utf8(data).replace(b"\r\n", b"\n")
    start, line = 0, 1
    for separator in _SEPARATOR.finditer(data):
        if separator.start() > start:
            yield _Chunk(data[start : separator.start()], line)
        line += data.count(b"\n", start, separator.start())
        rest = separator[1].strip()
        if rest and not rest.startswith(b"#"):
            raise Unreadable(
                Place(line, 4), "after --- only a comment may follow on the line; begin the document on the next line"
            )
        line += 1
        start = separator.end()
    if start < len(data):
        yield _Chunk(data[start:], line)


def _utf8(data: bytes) -> bytes:
    """Without the mark at the start, by which kubectl also knows UTF-16."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            data = data[len(mark) :]
            if encoding != "utf-8":
                data = data.decode(encoding, errors="replace").encode("utf-8")
            break
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", errors="replace")) + 1
        raise Unreadable(
            Place(before.count(b"\n") + 1, column),
            f"this is not UTF-8 (byte {data[error.start]:#04x}); save the file as UTF-8",
        ) from None
    return data


# --- JSON ------------------------------------------------------------------------------------------------------------


def _json_values(data: bytes) -> list[Any] | None:
    """The values of a text of JSON; None: it is something else, or has a fault that YAML can name the place of."""
    text = data.decode("utf-8")
    escaped = _ESCAPED_SURROGATE.search(text) is not None
    found: list[Any] = []
    at = _next_word(text, 0)
    try:
        while at < len(text):
            value, at = _DECODER.raw_decode(text, at)
            if not is_nested_within(value, MOST_LEVELS):
                return None
            found.append(_without_surrogates(value) if escaped else value)
            at = _next_word(text, at)
    except (ValueError, RecursionError):
        return None
    return found


def _next_word(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _without_surrogates(value: Any) -> Any:
    """Half a surrogate pair is replaced, as Go does."""
    match value:
        case str():
            return _SURROGATE.sub("\ufffd", value)
        case list():
            return [_without_surrogates(child) for child in value]
        case dict():
            return {_SURROGATE.sub("\ufffd", key): _without_surrogates(child) for key, child in value.items()}
    return value


def _number(text: str) -> Any:
    value: int | float = float(text) if len(text) > _LONGEST_INTEGER or not text.lstrip("-").isdigit() else int(text)
    try:
        return as_json_number(value)
    except BadScalar as error:
        raise ValueError(text) from error


def _constant(text: str) -> Any:
    raise ValueError(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_number, parse_float=_number, parse_constant=_constant)


# --- whose it is -----------------------------------------------------------------------------------------------------


def _is_ours(document: dict[str, Any]) -> bool:
    """Others' objects may stand beside ours. One of our kinds without a group is ours, and at fault."""
    group, _, _ = str(document.get("apiVersion", "")).rpartition("/")
    return group == GROUP or ("apiVersion" not in document and str(document.get("kind")) in _OURS)


def _lists_ours(document: object) -> bool:
    """Whether somebody wrote objects of ours as a bare list."""
    entries = document if isinstance(document, list) else ()
    return any(isinstance(entry, dict) and str(entry.get("apiVersion")).startswith(f"{GROUP}/") for entry in entries)
