"""The schemas that workers have registered, by pool and hash, while this process leads.

Workers name theirs by a hash with every pull, and send them once when asked. Volatile: a new leader asks again.
Invariants: memory is bounded, whatever workers send; a worker is asked only for what would be kept, so never in a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

__all__ = ["MOST_BYTES", "MOST_SETS", "HandlerSchema", "KnownSchemas"]

MOST_SETS = 8
"""The most sets of schemas of one pool: a rollout has two."""
MOST_BYTES = 64 * 1024 * 1024
"""The most that the schemas of all pools may have, in bytes of JSON."""

PoolKey = tuple[str, str]


class HandlerSchema(msgspec.Struct, frozen=True):
    """JSON Schemas of one handler, as its worker sent them."""

    parameters: bytes
    result: bytes


_ANYTHING = HandlerSchema(b"{}", b"{}")


class _Set(msgspec.Struct):
    handlers: dict[str, HandlerSchema]
    size_bytes: int


class KnownSchemas:
    """Schemas by pool and hash."""

    def __init__(self, live: Callable[[str, str], Collection[str]]) -> None:
        """`live` gives the hashes of a pool's live workers; an empty one stands for a worker that has no schemas."""
        self._live = live
        self._pools: dict[PoolKey, dict[str, _Set]] = {}
        self._bytes = 0
        self.on_change: Callable[[str, str], None] = lambda namespace, pool: None
        """Called with the pool when its workers' schemas came."""

    def wants(self, namespace: str, pool: str, name: str) -> bool:
        """Whether the schemas of this hash are not known, and would be kept."""
        if name in self._pools.get((namespace, pool), ()):
            return False
        if len(self._pools.get((namespace, pool), ())) >= MOST_SETS:
            self._forget_unused([(namespace, pool)])
        if self._bytes >= MOST_BYTES:
            self._forget_unused(list(self._pools))
        return len(self._pools.get((namespace, pool), ())) < MOST_SETS and self._bytes < MOST_BYTES

    def take(self, namespace: str, pool: str, name: str, handlers: Mapping[str, HandlerSchema]) -> None:
        """A worker sent these."""
        if not self.wants(namespace, pool, name):
            return
        size_bytes = sum(len(schema.parameters) + len(schema.result) for schema in handlers.values())
        self._pools.setdefault((namespace, pool), {})[name] = _Set(dict(handlers), size_bytes)
        self._bytes += size_bytes
        self.on_change(namespace, pool)

    def of_pool(self, namespace: str, pool: str) -> dict[str, list[HandlerSchema]]:
        """By handler, the different schemas that live workers have, those that came last first; of a worker whose
        schemas are not known, at the end, one that takes anything."""
        found: dict[str, list[HandlerSchema]] = {}
        for known in self._live_sets(namespace, pool):
            for handler, schema in known.handlers.items():
                schemas = found.setdefault(handler, [])
                if schema not in schemas:
                    schemas.append(schema)
        if self._has_unknown(namespace, pool):
            for schemas in found.values():
                schemas.append(_ANYTHING)
        return found

    def sources(self, namespace: str, pool: str, handler: str) -> list[bytes]:
        """The different schemas of the handler's parameters; none where a live worker may take anything."""
        if self._has_unknown(namespace, pool):
            return []
        live = self._live(namespace, pool)
        sets = self._pools.get((namespace, pool), {})
        return list({sets[name].handlers[handler].parameters: None for name in live if handler in sets[name].handlers})

    def _has_unknown(self, namespace: str, pool: str) -> bool:
        sets = self._pools.get((namespace, pool), {})
        return any(name not in sets for name in self._live(namespace, pool))

    def _live_sets(self, namespace: str, pool: str) -> Iterable[_Set]:
        live = self._live(namespace, pool)
        return (known for name, known in reversed(self._pools.get((namespace, pool), {}).items()) if name in live)

    def _forget_unused(self, keys: Iterable[PoolKey]) -> None:
        for key in keys:
            live = self._live(*key)
            sets = self._pools[key]
            for name in [name for name in sets if name not in live]:
                self._bytes -= sets.pop(name).size_bytes
            if not sets:
                del self._pools[key]
