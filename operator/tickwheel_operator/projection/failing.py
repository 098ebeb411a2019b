"""Objects that the operator itself fails at: what their status says instead, and that they cost no other anything.

The projector gives each look and each write to `Failing`. Invariant: the status of such an object depends on nothing
that could fail again, neither on its view nor on what is stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from tickwheel_operator.engine.views import ViewFault
from tickwheel_operator.kube.errors import ApiError
from tickwheel_operator.objectfaults import INTERNAL_ERROR, Layer, ObjectFaults
from tickwheel_operator.projection.events import EventRecorder
from tickwheel_operator.projection.lanes import Key
from tickwheel_operator.projection.stored import Stored
from tickwheel_operator.projection.subjects import Catalog, Requests, Seen, Unbuilt

__all__ = ["Failing"]

_AGAIN_S = 60.0
"""A status that could not be made is tried again after this."""
_MENDED_S = 1.0
_MESSAGE_CHARS = 16_384
_TASK = "ScheduledTask"
_Write = Callable[[Key], Awaitable[float | None]]
_Patch = Callable[[str, Key, str, str, str, dict[str, object], object], Awaitable[bool | None]]


class Failing:
    """Isolates one object from the next, for the projector."""

    def __init__(
        self,
        faults: ObjectFaults,
        catalog: Catalog,
        requests: Requests,
        unbuilt: Unbuilt | None,
        events: EventRecorder | None,
        changed: Callable[[str, str, str], None],
    ) -> None:
        """`changed` hears of each object whose standing faults are others."""
        self._faults = faults
        self._catalog = catalog
        self._requests = requests
        self._unbuilt = unbuilt
        self._events = events
        faults.on_change = changed

    def not_viewed(self, faults: Iterable[ViewFault]) -> None:
        """The engine could not view these tasks."""
        for fault in faults:
            self._faults.stand(Layer.VIEWS, _TASK, *self._named(fault.uid), fault.error)

    def unread(self, item: Mapping[str, Any], error: Exception) -> None:
        """A TaskRun of the operator's own cannot be read."""
        metadata = item.get("metadata") or {}
        self._faults.record(Layer.PROJECTION, "TaskRun", metadata.get("namespace", ""), metadata.get("name", ""), error)

    def look(self, layer: Layer, uid: str, look: Callable[[], None]) -> None:
        """Look at a task. Each way to look has a layer of its own: that one works mends nothing of the other."""
        try:
            look()
        except Exception as error:
            self._faults.stand(layer, _TASK, *self._named(uid), error)
        else:
            self._faults.mended(layer, _TASK, *self._named(uid))

    async def work(self, key: Key, write: _Write, patch: _Patch) -> float | None:
        """Write an object. Raises `ApiError` as `write` and `patch` do, and nothing else while the object exists."""
        found = self._subject(key)
        layer = Layer.HISTORY if key[0] in ("history", "expired") else Layer.PROJECTION
        try:
            again_s = await write(key)
        except ApiError:
            raise
        except Exception as error:
            if found is None:
                raise
            kind, seen = found
            self._faults.stand(layer, kind, seen.namespace, seen.name, error)
            status: dict[str, object] = {"observedGeneration": seen.generation}
            await patch(kind, key, seen.namespace, seen.name, seen.uid, status, seen.stored)
            return _AGAIN_S
        if found is not None and self._faults.mended(layer, found[0], found[1].namespace, found[1].name):
            return again_s or _MENDED_S  # what was just written still says that it fails
        return again_s

    def at(self, kind: str, namespace: str, name: str) -> bool:
        """Whether the operator fails at the object now."""
        return bool(self._faults.standing(kind, namespace, name))

    def over(self, kind: str, namespace: str, name: str, status: dict[str, Any]) -> dict[str, Any]:
        """The status, with conditions that say what the operator fails at, if it does."""
        message = self._faults.standing(kind, namespace, name)
        if not message:
            return status
        if kind.endswith("Run"):
            words = {"Running": ("False", ""), "Succeeded": ("False", message)}
        else:
            words = {"Ready": ("False", message), "Reconciling": ("False", "")}
        words["Stalled"] = ("True", message)
        conditions = [
            {
                "type": condition,
                "status": value,
                "reason": INTERNAL_ERROR,
                "message": text[:_MESSAGE_CHARS],
                "observedGeneration": status["observedGeneration"],
            }
            for condition, (value, text) in words.items()
        ]
        return {**status, "conditions": conditions}

    def written(
        self, kind: str, namespace: str, name: str, uid: str, status: Mapping[str, Any], before: Stored
    ) -> None:
        """A status was written: an Event says so, too, if it is news. The faults of a task itself others tell."""
        if self._events is None or before.stalled == INTERNAL_ERROR:
            return
        if kind == _TASK and not self.at(kind, namespace, name):
            return
        for condition in status["conditions"]:
            if condition["type"] == "Stalled" and condition["reason"] == INTERNAL_ERROR:
                message = condition["message"]
                self._events.object_failed(kind, namespace, name, uid, INTERNAL_ERROR, message)

    def key(self, kind: str, namespace: str, name: str) -> Key | None:
        """What the projector calls the object; None: its status is written by nobody here."""
        match kind:
            case "WorkerPool":
                return ("pool", namespace, name)
            case "Calendar":
                return ("calendar", namespace, name)
            case "ScheduledTask":
                task = self._catalog.task_named(namespace, name)
                return None if task is None else ("task", task.seen.uid, "")
            case _:
                return None

    def _named(self, uid: str) -> tuple[str, str]:
        task = self._catalog.task(uid)
        return ("", uid) if task is None else (task.seen.namespace, task.seen.name)

    def _subject(self, key: Key) -> tuple[str, Seen] | None:
        """The object that the key is about, and its kind; None: it is gone."""
        match key[0]:
            case "task" | "history":
                return None if (task := self._catalog.task(key[1])) is None else (_TASK, task.seen)
            case "pool":
                return None if (pool := self._catalog.pool(key[1], key[2])) is None else ("WorkerPool", pool.seen)
            case "calendar":
                found = self._catalog.calendar(key[1], key[2])
                return None if found is None else ("Calendar", found.seen)
            case "run" | "expired":
                return None if (run := self._requests.entry(key[1])) is None else ("TaskRun", run.seen)
            case _:
                seen = self._unbuilt.object(key[1]) if self._unbuilt is not None else None
                return None if seen is None else (seen.kind, seen)
