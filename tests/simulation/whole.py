"""Compares two states field by field, whatever fields they have.

The fields are not listed here: all that a class has is compared, down to the last object, except what its source calls
volatile (in the docstring below the field, or in a comment above all that follow). So a checkpoint cannot forget a
field that a later change adds. An index must lead to the very object that the other places lead to.
"""

from __future__ import annotations

import enum
import functools
import inspect
import re
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

__all__ = ["WORKERS", "differences", "volatile_fields"]

WORKERS = ("State.workers", "State.worker_numbers", "State._processes")
"""Checkpoints let go of those that hold nothing, which is no fact."""

_SIMPLE = frozenset((int, bool, str, bytes, float, type(None)))
_PLAIN = (int, str, bytes, float, type(None), enum.Enum)
_MOST = 20
_ASSIGNED = re.compile(r"self\.(\w+)(?::[^=]+)? = ")


def differences(one: object, other: object, *, but: Iterable[str] = ()) -> list[str]:
    """Where the two differ, a line each, 20 at most. `but` names fields that are not looked at (`State.workers`)."""
    found: list[str] = []
    walk = _Walk(frozenset(but))
    for line in walk.compare(one, other, type(one).__name__):
        found.append(line)
        if len(found) == _MOST:
            break
    return found


@functools.cache
def volatile_fields(kind: type) -> frozenset[str]:
    """The fields of a class that its source calls volatile."""
    found: set[str] = set()
    last, rest = "", False
    for line in inspect.getsource(kind).splitlines():
        if (assigned := _ASSIGNED.match(line.strip())) is not None:
            last = assigned.group(1)
            if rest:
                found.add(last)
        elif line.strip().startswith("# Volatile"):
            rest = True
        elif line.strip().startswith("def "):
            last, rest = "", False
        elif last and "Volatile" in line:
            found.add(last)
    return frozenset(found)


class _Walk:
    def __init__(self, but: frozenset[str]) -> None:
        self._but = but
        self._met: dict[int, object] = {}
        """By the id of an object of the one side: that of the other side in its place."""
        self._alive: list[object] = []
        """So that no id is given twice."""

    def compare(self, one: Any, other: Any, path: str) -> Iterator[str]:
        stack = [(one, other, path)]
        while stack:
            a, b, where = stack.pop()
            kind = type(a)
            if kind in _SIMPLE or isinstance(a, enum.Enum):
                if kind is not type(b) or a != b:
                    yield f"{where}: {a!r} and {b!r}"
                continue
            if callable(a):
                continue
            if type(a) is not type(b) and not (isinstance(a, Mapping) and isinstance(b, Mapping)):
                yield f"{where}: a {type(a).__name__} and a {type(b).__name__}: {a!r} and {b!r}"
                continue
            if not _is_value(a):
                if id(a) in self._met:
                    if self._met[id(a)] is not b:
                        yield f"{where}: it is shared with another place on one side only"
                    continue
                self._met[id(a)] = b
                self._alive += (a, b)
            if isinstance(a, Mapping):
                children, wrong = _pairs(a, b, where)
            elif isinstance(a, list | tuple | deque):
                wrong = [] if len(a) == len(b) else [f"{where}: {len(a)} and {len(b)} entries: {list(a)} {list(b)}"]
                if isinstance(a, deque) and a.maxlen != b.maxlen:
                    wrong.append(f"{where}: room for {a.maxlen} and {b.maxlen}")
                children = [(x, y, f"{where}[{n}]") for n, (x, y) in enumerate(zip(a, b, strict=False))]
            else:
                wrong, names = [], self._fields(a)
                if names != self._fields(b):
                    wrong = [f"{where}: fields {names} and {self._fields(b)}"]
                children = [(getattr(a, n), getattr(b, n), f"{where}.{n}") for n in names if hasattr(b, n)]
            yield from wrong
            stack.extend(reversed(children))

    def _fields(self, thing: object) -> list[str]:
        """All that an object has, by name."""
        kind = type(thing)
        if isinstance(thing, msgspec.Struct):
            return list(thing.__struct_fields__)
        names = _slots(kind) if not hasattr(thing, "__dict__") else (*_slots(kind), *sorted(vars(thing)))
        volatile = volatile_fields(kind)
        return [n for n in names if n not in volatile and f"{kind.__name__}.{n}" not in self._but and hasattr(thing, n)]


@functools.cache
def _slots(kind: type) -> tuple[str, ...]:
    return tuple(sorted({name for base in kind.__mro__ for name in getattr(base, "__slots__", ())}))


def _is_value(thing: object) -> bool:
    """Whether an equal one is as good."""
    if isinstance(thing, msgspec.Struct):
        return thing.__struct_config__.frozen and thing.__struct_config__.eq
    return isinstance(thing, tuple)


def _pairs(a: Mapping[Any, Any], b: Mapping[Any, Any], where: str) -> tuple[list[tuple[Any, Any, str]], list[str]]:
    """The values to compare, and what is wrong with the keys. Order counts, unless keys are objects themselves."""
    if all(isinstance(key, type) for key in a) and a:
        return [], []  # a table of methods
    if isinstance(a, OrderedDict) or all(isinstance(key, _PLAIN) for key in a):
        left, right = list(a), list(b)
        if re.search(r"\._\w+$", where) and not isinstance(a, OrderedDict):
            left, right = sorted(left), sorted(right)  # an index: only what it leads to has an order
        if left == right:
            return [(a[key], b[key], f"{where}[{key!r}]") for key in left], []
        only, missing = [k for k in left if k not in b], [k for k in right if k not in a]
        what = f"only here {only[:5]}, only there {missing[:5]}" if only or missing else f"order {left} and {right}"
        return [(a[key], b[key], f"{where}[{key!r}]") for key in left if key in b], [f"{where}: {what}"]
    encode = msgspec.msgpack.encode
    left, right = sorted(a, key=encode), sorted(b, key=encode)
    wrong = [] if list(map(encode, left)) == list(map(encode, right)) else [f"{where}: keys {left} and {right}"]
    pairs = [(x, y, f"{where} key {n}") for n, (x, y) in enumerate(zip(left, right, strict=False))]
    return pairs + [(a[x], b[y], f"{where} of {x!r}") for x, y in zip(left, right, strict=False)], wrong
