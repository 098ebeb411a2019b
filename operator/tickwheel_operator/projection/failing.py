"""Objects that the operator itself fails at: what their status says instead, and that they cost no other anything.

The projector gives each look and each write to `Failing`. Invariant: the status of such an object depends on nothing
that could fail again, neither on its view nor on what is stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from tickwheel_operator import reasons
from tickwheel_operator.engine.read.views import ViewFault
from tickwheel_operator.kinds import KINDS
from tickwheel_operator.kinds.objects import Objects
from tickwheel_operator.kinds.scheduledtask import SCHEDULED_TASK
from tickwheel_operator.kinds.seen import Fault, Seen
from tickwheel_operator.kinds.stored import Stored
from tickwheel_operator.kube.errors import ApiError
from tickwheel_operator.objectfaults import Layer, ObjectFaults
from tickwheel_operator.projection.events import EventRecorder
from tickwheel_operator.projection.lanes import EXPIRED, VIEWS, Key, subject

__all__ = ["Failing"]

_AGAIN_S = 60.0
"""A status that could not be made is tried again after this."""
_MENDED_S = 1.0
_TASK = SCHEDULED_TASK.name
_Write = Callable[[Key], Awaitable[float | None]]
_Patch = Callable[[Seen, dict[str, object]], Awaitable[bool | None]]


class Failing:
    """Isolates one object from the next, for the projector."""

    def __init__(
        self,
        faults: ObjectFaults,
        objects: Objects,
        events: EventRecorder | None,
        changed: Callable[[str, str, str], None],
    ) -> None:
        """`changed` hears of each object whose standing faults are others."""
        self._faults = faults
        self._objects = objects
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
        seen = subject(key, self._objects)
        layer = Layer.HISTORY if key[0] in (VIEWS, EXPIRED) else Layer.PROJECTION
        try:
            again_s = await write(key)
        except ApiError:
            raise
        except Exception as error:
            if seen is None:
                raise
            self._faults.stand(layer, seen.kind, seen.namespace, seen.name, error)
            await patch(seen, {"observedGeneration": seen.generation})
            return _AGAIN_S
        if seen is not None and self._faults.mended(layer, seen.kind, seen.namespace, seen.name):
            return again_s or _MENDED_S  # what was just written still says that it fails
        return again_s

    def at(self, seen: Seen) -> bool:
        """Whether the operator fails at the object now."""
        return bool(self._faults.standing(seen.kind, seen.namespace, seen.name))

    def over(self, seen: Seen, status: dict[str, Any]) -> dict[str, Any]:
        """The status, with conditions that say what the operator fails at, if it does."""
        message = self._faults.standing(seen.kind, seen.namespace, seen.name)
        if not message:
            return status
        fault = Fault(reasons.INTERNAL_ERROR, message)
        return {**status, "conditions": KINDS[seen.kind].stalled(fault, status["observedGeneration"])}

    def written(self, seen: Seen, status: Mapping[str, Any], before: Stored) -> None:
        """A status was written: an Event says so, too, if it is news. The faults of a task itself others tell."""
        if self._events is None or before.stalled == reasons.INTERNAL_ERROR:
            return
        if seen.kind == _TASK and not self.at(seen):
            return
        for condition in status["conditions"]:
            if condition["type"] == "Stalled" and condition["reason"] == reasons.INTERNAL_ERROR:
                message = condition["message"]
                self._events.object_failed(seen, reasons.INTERNAL_ERROR, message)

    def _named(self, uid: str) -> tuple[str, str]:
        task = self._objects.get(SCHEDULED_TASK, uid)
        return ("", uid) if task is None else (task.namespace, task.name)
