"""What kopf would keep for handlers that remember: nothing, since the watch only has handlers of events.

For each event kopf copies the whole object, to tell later what changed, and clears its own progress out of the copy:
a fifth of what the watch costs when an operator with a hundred thousand tasks starts (benchmarks/timers, `objects`).
Invariant: nothing is ever written into an object.
"""

from __future__ import annotations

from typing import Any

import kopf

__all__ = ["NoDiffBase", "NoProgress"]


class NoDiffBase(kopf.DiffBaseStorage):
    """Every object looks as it did before."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        return None


class NoProgress(kopf.ProgressStorage):
    """No handler is ever half done."""

    def fetch(self, *, key: Any, body: kopf.Body) -> None:
        return None

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        return None

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        return None

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        return None

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence
