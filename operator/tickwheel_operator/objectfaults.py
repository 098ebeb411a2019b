"""Faults of the operator at single objects: each is counted, and logged once, and costs no other object anything.

Every loop that serves many objects (the watch, the catalog, the engine's terms, the projection, the pools, the gateway)
catches what goes wrong with one of them and records it here. The message goes into the object's `Stalled` condition,
and so into an Event: by whoever records it, or by the projection for as long as it stands (`stand`). A fault of the
manifest is none of these: it has words of its own.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["Layer", "ObjectFaults"]

_log = logging.getLogger(__name__)
_MOST_TOLD = 10_000
_MOST_STANDING = 10_000
_ERROR_CHARS = 500


class Layer(enum.StrEnum):
    """Which part of the operator failed at the object."""

    WATCH = "watch"
    CATALOG = "catalog"
    REQUESTS = "requests"
    ENGINE = "engine"
    VIEWS = "views"
    """The engine's picture of a task, and what is made of it."""
    COMPARISON = "comparison"
    """What is stored, with what should be."""
    PROJECTION = "projection"
    HISTORY = "history"
    """The TaskRun objects that show a task's runs."""
    POOLS = "pools"
    AUTOSCALING = "autoscaling"
    GATEWAY = "gateway"
    METRICS = "metrics"


class ObjectFaults:
    """Those of this process. `record` may be called from any thread, the rest from the operator's loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._standing: OrderedDict[tuple[str, str, str], dict[Layer, str]] = OrderedDict()
        self.on_change: Callable[[str, str, str], None] = lambda kind, namespace, name: None
        """Called with the object whose standing faults are others."""
        self.counts: dict[tuple[str, str], int] = {}
        """Faults by layer and kind of object."""
        self._told: OrderedDict[tuple[str, ...], None] = OrderedDict()

    def record(self, layer: Layer, kind: str, namespace: str, name: str, error: BaseException) -> str:
        """Count it, log it unless the same was logged before, and return the condition's message."""
        said = repr(error)[:_ERROR_CHARS]
        told = (layer.value, kind, namespace, name, said)
        with self._lock:
            self.counts[layer.value, kind] = self.counts.get((layer.value, kind), 0) + 1
            is_new = told not in self._told
            self._told[told] = None
            if len(self._told) > _MOST_TOLD:
                self._told.popitem(last=False)
        if is_new:
            _log.error("%s: failed at %s %s/%s; all others go on", layer, kind, namespace, name, exc_info=error)
        return (
            f"the operator failed at this object ({layer}: {said}), which is a fault of its own; everything else goes "
            "on. The operator's log has the traceback: please report it. To try again, change the object's spec"
        )

    def stand(self, layer: Layer, kind: str, namespace: str, name: str, error: BaseException) -> None:
        """Record it, and have the object's status show it until `mended`."""
        message = self.record(layer, kind, namespace, name, error)
        key = (kind, namespace, name)
        of_object = self._standing.setdefault(key, {})
        if of_object.get(layer) == message:
            return
        of_object[layer] = message
        if len(self._standing) > _MOST_STANDING:
            self._standing.popitem(last=False)
        self.on_change(*key)

    def mended(self, layer: Layer, kind: str, namespace: str, name: str) -> bool:
        """What the layer failed at works now. Returns whether it failed before."""
        key = (kind, namespace, name)
        of_object = self._standing.get(key)
        if of_object is None or of_object.pop(layer, None) is None:
            return False
        if not of_object:
            del self._standing[key]
        self.on_change(*key)
        return True

    def standing(self, kind: str, namespace: str, name: str) -> str:
        """What the object's status has to say; empty: nothing."""
        of_object = self._standing.get((kind, namespace, name))
        return "; ".join(of_object.values()) if of_object else ""
