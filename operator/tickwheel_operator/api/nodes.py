"""One document of YAML as values with places, made from the events of libyaml, without recursion.

Asked by `documents`. Invariants: a value is plain JSON (text as keys, no dates, finite numbers); what an alias names
is shared and not copied, and is counted as often as it is named, so that nobody who walks over a value meets more than
`MOST_VALUES`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from tickwheel_operator.api.faults import FieldFault, InvalidManifest
from tickwheel_operator.api.nesting import MOST_LEVELS
from tickwheel_operator.api.scalars import BadScalar, resolved

__all__ = ["MOST_VALUES", "Node", "Place", "Unreadable", "composed"]

MOST_VALUES = 500_000
"""Keys and values of one document, with those that aliases repeat."""

_MERGE = "tag:yaml.org,2002:merge"
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Place(NamedTuple):
    """Where something begins; the first line and column are 1."""

    line: int
    column: int


class Unreadable(InvalidManifest):
    """The text is not what kubectl could read, or exceeds a bound."""

    def __init__(self, place: Place, problem: str) -> None:
        self.place = place
        self.problem = problem
        super().__init__([FieldFault("", f"line {place.line}, column {place.column}: {problem}")])


class Node:
    """A value and where it stands."""

    __slots__ = ("children", "keys", "merge", "place", "remarks", "size", "value")

    def __init__(self, place: Place, value: Any, size: int, children: dict[str, Node] | list[Node] | None) -> None:
        self.place = place
        self.value = value
        self.size = size
        """Values in it, itself included."""
        self.children = children
        self.keys: dict[str, Place] = {}
        self.merge = False
        """As a key: what it names is merged into the mapping."""
        self.remarks: list[tuple[Place, str]] = []
        """Of the root: what is read in another way than it seems to be written."""

    def child(self, step: str) -> tuple[Place, Node] | None:
        """The member of this name or position, and where it begins (with its key)."""
        if isinstance(self.children, dict):
            found = self.children.get(step)
            return None if found is None else (self.keys[step], found)
        if isinstance(self.children, list) and step.isdigit() and int(step) < len(self.children):
            return self.children[int(step)].place, self.children[int(step)]
        return None


def composed(data: bytes, first_line: int) -> Node | None:
    """The document in this text; None: there is nothing in it. Raises `Unreadable`."""
    composer = _Composer(first_line)
    try:
        for event in yaml.parse(data, Loader=_Loader):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        around = f" ({error.context})" if error.context else ""
        place = Place(first_line, 1) if mark is None else composer.place(mark)
        raise Unreadable(place, f"this is not YAML: {error.problem}{around}") from None
    except yaml.reader.ReaderError as error:
        raise Unreadable(_at(data, error.position, first_line), f"this is not YAML: {error.reason}") from None
    except yaml.YAMLError as error:
        raise Unreadable(Place(first_line, 1), f"this is not YAML: {error}") from None
    return composer.root


class _Frame:
    """A mapping or list that is not closed yet."""

    __slots__ = ("anchor", "is_mapping", "nodes", "place")

    def __init__(self, place: Place, anchor: str | None, is_mapping: bool) -> None:
        self.place = place
        self.anchor = anchor
        self.is_mapping = is_mapping
        self.nodes: list[Node] = []
        """Members; of a mapping its keys and values in turn."""


class _Composer:
    def __init__(self, first_line: int) -> None:
        self.root: Node | None = None
        self._first_line = first_line
        self._open: list[_Frame] = []
        self._anchors: dict[str, Node | None] = {}
        """None: it is not closed yet."""
        self._ended = False
        self._remarks: list[tuple[Place, str]] = []
        self._values = 0

    def place(self, mark: Any) -> Place:
        return Place(mark.line + self._first_line, mark.column + 1)

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._anchored(event.anchor, self._scalar(event))
            case yaml.AliasEvent():
                self._add(self._aliased(event))
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                place = self.place(event.start_mark)
                if len(self._open) == MOST_LEVELS:
                    raise Unreadable(place, f"it is nested more than {MOST_LEVELS} levels deep")
                if event.anchor:
                    self._anchors[event.anchor] = None
                self._open.append(_Frame(place, event.anchor, isinstance(event, yaml.MappingStartEvent)))
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                frame = self._open.pop()
                self._anchored(frame.anchor, self._mapping(frame) if frame.is_mapping else _sequence(frame))
            case yaml.DocumentEndEvent():
                self._ended = True
                if self.root is not None:
                    self.root.remarks = self._remarks
            case yaml.DocumentStartEvent() if self._ended:
                raise Unreadable(
                    self.place(event.start_mark),
                    "kubectl reads nothing after the end of a document (...); begin the next one with a line of ---",
                )

    def _anchored(self, anchor: str | None, node: Node) -> None:
        if anchor:
            self._anchors[anchor] = node
        self._add(node)

    def _add(self, node: Node) -> None:
        self._count(1, node.place)
        if node.size > MOST_VALUES:
            raise _too_many(node.place)
        if self._open:
            self._open[-1].nodes.append(node)
        else:
            self.root = node

    def _count(self, values: int, place: Place) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            raise _too_many(place)

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        place = self.place(event.start_mark)
        plain = event.style in (None, "")
        frame = self._open[-1] if self._open else None
        is_key = frame is not None and frame.is_mapping and len(frame.nodes) % 2 == 0
        try:
            if event.tag == _MERGE:
                value: Any = event.value
            else:
                value = resolved(event.value, event.tag, plain=plain)
        except BadScalar as error:
            raise Unreadable(place, str(error)) from None
        node = Node(place, value, 1, None)
        if is_key:
            node.merge = event.value == "<<" and (event.tag == _MERGE or (plain and event.tag is None))
            if isinstance(value, bool):
                self._remarks.append((place, f"YAML reads the key {event.value} as {_key(value)!r}; quote it"))
        return node

    def _aliased(self, event: yaml.AliasEvent) -> Node:
        place = self.place(event.start_mark)
        if event.anchor not in self._anchors:
            raise Unreadable(place, f"there is no anchor &{event.anchor} before this alias")
        named = self._anchors[event.anchor]
        if named is None:
            raise Unreadable(place, f"what &{event.anchor} names contains itself")
        node = Node(place, named.value, named.size, named.children)
        node.keys = named.keys
        return node

    def _mapping(self, frame: _Frame) -> Node:
        value: dict[str, Any] = {}
        members: dict[str, Node] = {}
        node = Node(frame.place, value, 1, members)
        written: set[str] = set()
        for key, member in zip(frame.nodes[::2], frame.nodes[1::2], strict=True):
            node.size += 1 + member.size
            if key.merge:
                self._count(member.size, member.place)
                for merged, its_members in _merged(member):
                    # Later ones win, also over what is written before them: so does kubectl.
                    value.update(merged.value)
                    members.update(its_members)
                    node.keys.update(merged.keys)
                continue
            name = _name(key)
            if name in written:
                raise Unreadable(key.place, f"the key {name!r} is there twice in one mapping; remove one")
            written.add(name)
            value[name] = member.value
            members[name] = member
            node.keys[name] = key.place
        return node


def _too_many(place: Place) -> Unreadable:
    return Unreadable(place, f"the document has more than {MOST_VALUES} values, with those that its aliases repeat")


def _sequence(frame: _Frame) -> Node:
    size = 1 + sum(node.size for node in frame.nodes)
    return Node(frame.place, [node.value for node in frame.nodes], size, frame.nodes)


def _merged(node: Node) -> Iterator[tuple[Node, dict[str, Node]]]:
    """The mappings that `<<` names, with their members, the last of them the strongest."""
    for member in reversed(node.children) if isinstance(node.children, list) else [node]:
        if not isinstance(member.children, dict):
            raise Unreadable(node.place, "<< merges a mapping, or a list of mappings")
        yield member, member.children


def _name(node: Node) -> str:
    """The key as JSON has it."""
    if isinstance(node.value, (str, bool, int)):
        return _key(node.value)
    kind = "null" if node.value is None else "a mapping or list" if node.children is not None else "a fraction"
    raise Unreadable(node.place, f"this key is {kind}; a key is text: quote it")


def _key(value: str | bool | int) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _at(data: bytes, offset: int, first_line: int) -> Place:
    before = data[:offset]
    column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", errors="replace")) + 1
    return Place(before.count(b"\n") + first_line, column)
