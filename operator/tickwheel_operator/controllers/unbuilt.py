"""Objects of kinds that the API has and this version does nothing with: each is told so in its conditions.

The watch calls it on the operator's loop; the projection reads it. Which kinds these are stands in `api.supported`.
Invariant: nothing waits for these objects, and nothing but their status depends on them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from tickwheel_operator.api import NOT_SUPPORTED, sentence, unsupported_kind
from tickwheel_operator.controllers.observe import Fault, StatusReader

__all__ = ["ObservedUnbuilt", "Unbuilt", "observe_unbuilt"]


class ObservedUnbuilt(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    uid: str
    namespace: str
    name: str
    generation: int
    fault: Fault
    stored: object


def observe_unbuilt(kind: str, raw: Mapping[str, Any], read_status: StatusReader) -> ObservedUnbuilt:
    """Called in the watch's thread. The spec is not looked at: whatever it says, nothing comes of it."""
    metadata = raw["metadata"]
    return ObservedUnbuilt(
        kind=kind,
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=metadata["generation"],
        fault=Fault(NOT_SUPPORTED, sentence([unsupported_kind(kind)])),
        stored=read_status(kind, raw.get("status") or {}),
    )


class Unbuilt:
    """All such objects. Not for use from other threads."""

    def __init__(self) -> None:
        self._objects: dict[str, ObservedUnbuilt] = {}
        self.on_change: Callable[[str], None] = lambda uid: None
        """Called with the uid of an object that changed, its status too, or is gone."""

    def object(self, uid: str) -> ObservedUnbuilt | None:
        return self._objects.get(uid)

    def objects(self) -> Collection[ObservedUnbuilt]:
        return self._objects.values()

    def of_kind(self, kind: str) -> set[str]:
        """Uids of the kind's objects that exist, as far as the watch has told."""
        return {uid for uid, observed in self._objects.items() if observed.kind == kind}

    def seen(self, observed: ObservedUnbuilt) -> None:
        self._objects[observed.uid] = observed
        self.on_change(observed.uid)

    def gone(self, uid: str) -> None:
        if self._objects.pop(uid, None) is not None:
            self.on_change(uid)
