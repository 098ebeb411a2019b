"""Faults of the operator at single objects: each is counted, and logged once, and costs no other object anything.

Every loop that serves many objects (the watch, the catalog, the engine's terms, the projection, the pools, the gateway)
catches what goes wrong with one of them and records it here. What `record` returns goes into the object's `Stalled`
condition, and so into an Event. A fault of the manifest is none of these: it has words of its own.
"""

from __future__ import annotations

import enum
import logging
from collections import OrderedDict

__all__ = ["INTERNAL_ERROR", "Layer", "ObjectFaults"]

_log = logging.getLogger(__name__)
INTERNAL_ERROR = "InternalError"
"""The reason in conditions and Events."""
_MOST_TOLD = 10_000
_ERROR_CHARS = 500


class Layer(enum.StrEnum):
    """Which part of the operator failed at the object."""

    WATCH = "watch"
    CATALOG = "catalog"
    ENGINE = "engine"
    PROJECTION = "projection"
    POOLS = "pools"
    GATEWAY = "gateway"


class ObjectFaults:
    """Those of this process. Not for use from several threads at once."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        """Faults by layer and kind of object."""
        self._told: OrderedDict[tuple[str, ...], None] = OrderedDict()

    def record(self, layer: Layer, kind: str, namespace: str, name: str, error: BaseException) -> str:
        """Count it, log it unless the same was logged before, and return the condition's message."""
        self.counts[layer.value, kind] = self.counts.get((layer.value, kind), 0) + 1
        said = repr(error)[:_ERROR_CHARS]
        told = (layer.value, kind, namespace, name, said)
        if told not in self._told:
            self._told[told] = None
            if len(self._told) > _MOST_TOLD:
                self._told.popitem(last=False)
            _log.error("the %s failed at %s %s/%s; all others go on", layer, kind, namespace, name, exc_info=error)
        return (
            f"the operator failed at this object ({layer}: {said}), which is a fault of its own; everything else goes "
            "on. The operator's log has the traceback: please report it. To try again, change the object's spec"
        )
