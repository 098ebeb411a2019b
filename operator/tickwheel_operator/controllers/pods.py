"""Worker pods: a worker whose pod is gone or failed, or whose container has ended, is lost before it falls silent.

A pod says by its label which pool its worker is of, and the worker has the pod's name. Readiness says nothing: it is of
the whole pod, so a sidecar that ends or a probe that fails would give away work that is being done; a node that is gone
shows as silence, long before its pods are unready. Invariant: only an end that kubelet saw counts. Who really owns the
pod goes on to `identity.pod_owners`, which the gateway asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from tickwheel_operator.election.containers import ended_before_ms
from tickwheel_operator.engine.messages import WorkerGone, WorkerKey
from tickwheel_operator.identity.pod_owners import Controller, PodOwners, controller_of
from tickwheel_operator.pools.template import POOL_LABEL

__all__ = ["POOL_LABEL", "ObservedPod", "PodWatch"]


WORKER = "worker"
"""The worker's container, if one is called so."""
_MOST_GONE = 10_000
"""As many pods end within the longest lease, in a large cluster, that is rolled."""


class ObservedPod(msgspec.Struct, frozen=True):
    uid: str
    worker: WorkerKey
    running: bool
    """The worker's container runs now."""
    ends: frozenset[str]
    """The worker's containers that have ended, as far as kubelet tells: the present and the last one."""
    before_ms: int
    """Processes that began before this instant of the node's clock have ended: when the present container started, or
    the last one finished. 0: kubelet does not say, so all that were in this pod."""
    over: bool
    """Deleted, failed or completed."""
    controller: Controller | None


class PodWatch:
    """Turns what pods become into `WorkerGone`."""

    def __init__(self, post: Callable[[WorkerGone], None], owners: PodOwners | None = None) -> None:
        """`post` gives the command to the leading engine, or drops it where none leads."""
        self._post = post
        self._owners = owners
        self._known: dict[str, ObservedPod] = {}
        """By uid: those that exist, as last seen."""
        self._gone: dict[WorkerKey, WorkerGone] = {}
        """Workers that were lost and did not come back, the latest last."""

    def lead(self) -> None:
        """This replica leads now. Who was lost shortly before may still have work in the ledger: the last leader may
        have fallen together with it, and each new one gives open attempts a whole lease."""
        for gone in self._gone.values():
            self._post(gone)

    def read(self, raw: Mapping[str, Any], *, deleted: bool) -> ObservedPod:
        """What the raw object says. Called in the watch's thread."""
        metadata, status = raw["metadata"], raw.get("status") or {}
        containers = status.get("containerStatuses") or [{}]
        worker = next((c for c in containers if c.get("name") == WORKER), _first(containers, raw))
        states = (worker.get("state") or {}, worker.get("lastState") or {})
        pool = (metadata.get("labels") or {}).get(POOL_LABEL, "")
        running, over = "running" in states[0], deleted or status.get("phase") in ("Failed", "Succeeded")
        return ObservedPod(
            uid=metadata["uid"],
            worker=WorkerKey(metadata["namespace"], pool, metadata["name"]),
            running=running,
            ends=frozenset(state["terminated"].get("containerID", "") for state in states if "terminated" in state),
            before_ms=0 if over and running else ended_before_ms(*states),
            over=over,
            controller=controller_of(metadata),
        )

    def uids(self) -> set[str]:
        """Pods that exist, as far as the watch has told."""
        return set(self._known)

    def vanished(self, uid: str) -> None:
        """The API server does not have the pod any more, and the watch has not told of its end."""
        pod = self._known.get(uid)
        if pod is not None:
            self.seen(msgspec.structs.replace(pod, over=True, before_ms=0))

    def seen(self, pod: ObservedPod) -> None:
        """Take in what was read. Called on the operator's loop."""
        if self._owners is not None:
            if pod.over:
                self._owners.forget(pod.uid)
            else:
                self._owners.note(pod.uid, pod.controller)
        before = self._known.pop(pod.uid, None)
        known = before.ends if before is not None else pod.ends if pod.running else frozenset()
        ended = not pod.ends <= known
        if not pod.over:
            self._known[pod.uid] = pod
        if pod.over or ended:
            # Told late, or after a relist, it must not be taken for the end of the process that works by now.
            gone = WorkerGone(key=pod.worker, pod_uid=pod.uid, before_ms=pod.before_ms)
            self._gone.pop(pod.worker, None)
            self._gone[pod.worker] = gone
            if len(self._gone) > _MOST_GONE:
                del self._gone[next(iter(self._gone))]
            self._post(gone)
        if pod.running and not pod.over:
            self._gone.pop(pod.worker, None)


def _first(containers: Sequence[Mapping[str, Any]], raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The status of the template's first container, which is the worker where none is called so."""
    named = (raw.get("spec") or {}).get("containers") or [{}]
    return next((c for c in containers if c.get("name") == named[0].get("name")), containers[0])
