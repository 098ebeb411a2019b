"""Worker pods: a worker whose pod is gone, failed or no longer ready is lost before it falls silent.

A pod says by its label which pool its worker is of, and the worker has the pod's name. Invariant: a pod that was never
ready says nothing: its worker may connect before the kubelet has probed it. Who really owns the pod goes on to
`pools.ownership`, which the gateway asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from tickwheel_operator.engine.messages import WorkerGone, WorkerKey
from tickwheel_operator.pools.ownership import Controller, PodOwners, controller_of
from tickwheel_operator.pools.template import POOL_LABEL

__all__ = ["POOL_LABEL", "ObservedPod", "PodWatch"]


_MOST_GONE = 10_000
"""As many pods end within the longest lease, in a large cluster, that is rolled."""


class ObservedPod(msgspec.Struct, frozen=True):
    uid: str
    worker: WorkerKey
    ready: bool
    over: bool
    """Deleted, failed or completed."""
    controller: Controller | None


class PodWatch:
    """Turns what pods become into `WorkerGone`."""

    def __init__(self, post: Callable[[WorkerGone], None], owners: PodOwners | None = None) -> None:
        """`post` gives the command to the leading engine, or drops it where none leads."""
        self._post = post
        self._owners = owners
        self._ready: dict[str, WorkerKey] = {}
        self._gone: dict[WorkerKey, None] = {}
        """Workers that were lost and did not come back, the latest last."""

    def lead(self) -> None:
        """This replica leads now. Who was lost shortly before may still have work in the ledger: the last leader may
        have fallen together with it, and each new one gives open attempts a whole lease."""
        for worker in self._gone:
            self._post(WorkerGone(key=worker))

    def read(self, raw: Mapping[str, Any], *, deleted: bool) -> ObservedPod:
        """What the raw object says. Called in the watch's thread."""
        metadata, status = raw["metadata"], raw.get("status") or {}
        conditions = {condition["type"]: condition["status"] for condition in status.get("conditions") or ()}
        pool = (metadata.get("labels") or {}).get(POOL_LABEL, "")
        return ObservedPod(
            uid=metadata["uid"],
            worker=WorkerKey(metadata["namespace"], pool, metadata["name"]),
            ready=conditions.get("Ready") == "True",
            over=deleted or status.get("phase") in ("Failed", "Succeeded"),
            controller=controller_of(metadata),
        )

    def seen(self, pod: ObservedPod) -> None:
        """Take in what was read. Called on the operator's loop."""
        if self._owners is not None:
            if pod.over:
                self._owners.forget(pod.uid)
            else:
                self._owners.note(pod.uid, pod.controller)
        if pod.over or (pod.uid in self._ready and not pod.ready):
            self._ready.pop(pod.uid, None)
            self._gone.pop(pod.worker, None)
            self._gone[pod.worker] = None
            if len(self._gone) > _MOST_GONE:
                del self._gone[next(iter(self._gone))]
            self._post(WorkerGone(key=pod.worker))
        elif pod.ready:
            self._ready[pod.uid] = pod.worker
            self._gone.pop(pod.worker, None)
