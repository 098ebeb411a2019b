"""Which view is written first, and whose: what a person waits for goes first, and namespaces take turns.

Invariant: no kind of view and no namespace waits for another one to be done.
"""

from __future__ import annotations

from typing import TypeAlias

from tickwheel_operator.projection.stored import Stored
from tickwheel_operator.projection.subjects import Catalog, Requests, Unbuilt

__all__ = ["CONDITIONS", "GENERATIONS", "HISTORY", "REQUESTS", "STATUSES", "WEIGHTS", "Key", "Places"]

Key: TypeAlias = tuple[str, str, str]
"""`("task" | "history" | "run" | "expired" | "unbuilt", uid, "")` or `("pool" | "calendar", namespace, name)`."""

REQUESTS, GENERATIONS, CONDITIONS, STATUSES, HISTORY = range(5)
"""TaskRuns that users made; objects that were just applied, for whose observedGeneration health checks wait; conditions
that change; figures; runs as objects."""
WEIGHTS = (4, 4, 2, 1, 1)
"""Turns of each lane while all have something to write."""


class Places:
    """Where a view waits."""

    def __init__(self, catalog: Catalog, requests: Requests, unbuilt: Unbuilt | None) -> None:
        self._catalog = catalog
        self._requests = requests
        self._unbuilt = unbuilt

    def namespace(self, key: Key) -> str:
        """Of the object; empty for one that is gone."""
        kind, identity, _ = key
        match kind:
            case "pool" | "calendar":
                return identity
            case "run" | "expired":
                run = self._requests.entry(identity)
                return run.seen.namespace if run is not None else ""
            case "unbuilt":
                seen = self._unbuilt.object(identity) if self._unbuilt is not None else None
                return seen.namespace if seen is not None else ""
            case _:
                task = self._catalog.task(identity)
                return task.seen.namespace if task is not None else ""

    @staticmethod
    def lane(generation: int, stored: Stored, *, conditions: bool = False) -> int:
        """Of an object of this generation whose status differs; `conditions`: in a condition too."""
        if stored.generation != generation:
            return GENERATIONS
        return CONDITIONS if conditions else STATUSES
