"""Every object that the watch has seen, as it was seen last: by kind and uid, and by name.

The catalog and the requests fill it, on followers too; the projection reads it. Everything runs on the operator's event
loop. Invariant: a name leads to the object that was seen last of those that have it and are not gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, TypeAlias, TypeVar

from tickwheel_operator.kinds.descriptor import Kind
from tickwheel_operator.kinds.seen import Seen

__all__ = ["Name", "Objects"]

Name: TypeAlias = tuple[str, str]
"""Namespace and name."""
S = TypeVar("S", bound=Seen)


class _Store:
    """The objects of one kind."""

    def __init__(self) -> None:
        self.by_uid: dict[str, Any] = {}
        self.uids: dict[Name, str] = {}
        self.displaced: dict[Name, str] = {}
        """Uids of those whose name another object has by now, or that were told of late."""


class Objects:
    """Not for use from other threads, but for `get` and `named`."""

    def __init__(self) -> None:
        self._of: dict[str, _Store] = {}

    def get(self, kind: Kind[Any, S], uid: str) -> S | None:
        found: S | None = self._store(kind.name).by_uid.get(uid)
        return found

    def named(self, kind: Kind[Any, S], namespace: str, name: str) -> S | None:
        return self.get(kind, self._store(kind.name).uids.get((namespace, name), ""))

    def all(self, kind: Kind[Any, S]) -> Collection[S]:
        return self._store(kind.name).by_uid.values()

    def names(self, kind: Kind[Any, S]) -> Collection[Name]:
        return self._store(kind.name).uids.keys()

    def uids(self, kind: Kind[Any, S]) -> set[str]:
        return set(self._store(kind.name).by_uid)

    def every(self) -> Iterator[Seen]:
        """Those of all kinds."""
        for store in self._of.values():
            yield from store.by_uid.values()

    def put(self, seen: Seen) -> None:
        """It is so now."""
        store, name = self._store(seen.kind), (seen.namespace, seen.name)
        holder = store.uids.get(name, seen.uid)
        if holder != seen.uid:
            store.displaced[name] = holder
        store.by_uid[seen.uid] = seen
        store.uids[name] = seen.uid

    def remove(self, seen: Seen) -> None:
        """It is gone."""
        store, name = self._store(seen.kind), (seen.namespace, seen.name)
        del store.by_uid[seen.uid]
        other = store.displaced.pop(name, "")
        if store.uids.get(name) != seen.uid:
            return
        if other in store.by_uid:
            store.uids[name] = other
        else:
            del store.uids[name]

    def _store(self, kind: str) -> _Store:
        return self._of.setdefault(kind, _Store())
