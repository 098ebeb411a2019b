"""The Deployments that pools own, as last seen: how far each is, and what keeps it from getting there.

The watch and the reconciler tell it what is; the reconciler asks it what it last saw, and the status of a WorkerPool is
made from `get`. Everything runs on the operator's event loop, but for `read`, which the watch calls in its own thread.
Invariant: small values are kept, never the raw object; an older state never replaces a newer one.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from tickwheel_operator.pools.template import FIELD_MANAGER, POOL_LABEL, deployment_name

__all__ = ["DEADLINE_EXCEEDED", "Deployments", "ObservedDeployment", "PoolDeployment", "PoolProblem"]

DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
PoolKey = tuple[str, str]
"""Namespace and name of a WorkerPool."""


class PoolProblem(msgspec.Struct, frozen=True):
    """What keeps a pool's pods from being as the template has them."""

    reason: str
    """One word, as a condition's reason."""
    message: str
    stalled: bool
    """Somebody must mend it. False: the operator or the cluster may still get there (`Reconciling`)."""


class PoolDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """Where a pool with a template is, for its status."""

    desired: int
    """Workers that there should be."""
    replicas: int
    """Pods there are, old and new ones."""
    ready: int
    updated: int
    """Pods of the present template."""
    unavailable: int
    problem: PoolProblem | None

    @property
    def settled(self) -> bool:
        """All pods there should be, ready, of the present template; no others; and nothing is wrong."""
        return self.problem is None and self.replicas == self.ready == self.updated == self.desired


class ObservedDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """What one Deployment object says."""

    uid: str
    namespace: str
    name: str
    pool: str
    """The pool of its label; empty: the label is gone."""
    owner: str
    """The uid of the controller that owns it; empty: none."""
    ours: str
    """Digest of the fields that the operator owns by server-side apply: it changes when somebody takes or removes one.
    Empty: none."""
    generation: int
    settled_generation: int
    """The generation that the counts below speak of."""
    deleting: bool
    desired: int
    replicas: int
    ready: int
    updated: int
    unavailable: int
    unavailable_since: float
    """When fewer pods were available than there should be, seconds since 1970; 0: enough are, or it does not say."""
    failure: PoolProblem | None
    """What its own conditions say."""


class Deployments:
    """All Deployments with the label of a pool, and what the reconciler knows of them."""

    def __init__(self) -> None:
        self._live: dict[PoolKey, ObservedDeployment] = {}
        self._expected: dict[PoolKey, tuple[int, PoolProblem | None]] = {}
        self.on_change: list[Callable[[str, str], None]] = []
        """Each is called with the namespace and name of a pool whose `get` may answer otherwise now."""
        self.on_problem: list[Callable[[str, str, PoolProblem | None, PoolProblem | None], None]] = []
        """Each is called with namespace, name, and the problem before and now, when a pool has another one."""

    # --- reading ---

    def get(self, namespace: str, name: str) -> PoolDeployment | None:
        """Of the pool; None: it has no template, or nobody has looked at it yet (only the leader does)."""
        expected = self._expected.get((namespace, name))
        if expected is None:
            return None
        desired, problem = expected
        live = self._live.get((namespace, name))
        if live is None:
            return PoolDeployment(desired=desired, replicas=0, ready=0, updated=0, unavailable=desired, problem=problem)
        stale = live.settled_generation < live.generation
        return PoolDeployment(
            desired=desired,
            replicas=live.replicas,
            ready=live.ready,
            # The controller has not looked at the present template yet: none of the pods is of it, as far as we know.
            updated=0 if stale else live.updated,
            unavailable=live.unavailable,
            problem=problem,
        )

    def live(self, namespace: str, name: str) -> ObservedDeployment | None:
        """The pool's Deployment as last seen."""
        return self._live.get((namespace, name))

    def pools(self) -> Iterator[PoolKey]:
        """Pools of which a Deployment is known."""
        return iter(tuple(self._live))

    # --- the reconciler's side ---

    def expect(self, namespace: str, name: str, desired: int, problem: PoolProblem | None) -> None:
        """The pool is to have a Deployment of so many workers, and this is in the way."""
        before = self._expected.get((namespace, name))
        if before == (desired, problem):
            return
        self._expected[namespace, name] = (desired, problem)
        former = before[1] if before is not None else None
        if former != problem:
            for listener in self.on_problem:
                listener(namespace, name, former, problem)
        self._changed((namespace, name))

    def forget(self, namespace: str, name: str) -> None:
        """The pool has no template any more, or is gone."""
        if self._expected.pop((namespace, name), None) is not None:
            self._changed((namespace, name))

    # --- the watch's side ---

    @staticmethod
    def read(raw: Mapping[str, Any]) -> ObservedDeployment:
        """What the raw object says."""
        metadata, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
        owners = metadata.get("ownerReferences") or ()
        desired = spec.get("replicas", 1)
        return ObservedDeployment(
            uid=metadata["uid"],
            namespace=metadata["namespace"],
            name=metadata["name"],
            pool=(metadata.get("labels") or {}).get(POOL_LABEL, ""),
            owner=next((owner["uid"] for owner in owners if owner.get("controller")), ""),
            ours=_own_fields(metadata.get("managedFields") or ()),
            generation=metadata.get("generation", 0),
            settled_generation=status.get("observedGeneration", 0),
            deleting="deletionTimestamp" in metadata,
            desired=desired,
            replicas=status.get("replicas", 0),
            ready=status.get("readyReplicas", 0),
            updated=status.get("updatedReplicas", 0),
            unavailable=status.get("unavailableReplicas", max(0, desired - status.get("availableReplicas", 0))),
            unavailable_since=_unavailable_since(status.get("conditions") or ()),
            failure=_failure(status.get("conditions") or ()),
        )

    def seen(self, deployment: ObservedDeployment) -> None:
        """It is like this now. One that is not named as the pool's own is no business of ours."""
        if deployment.name != deployment_name(deployment.pool):
            return
        key = (deployment.namespace, deployment.pool)
        before = self._live.get(key)
        if before is not None and before.uid == deployment.uid and before.generation > deployment.generation:
            return
        if before != deployment:
            self._live[key] = deployment
            self._changed(key)

    def gone(self, namespace: str, name: str, uid: str) -> None:
        """The Deployment of that name was deleted, or has lost the label."""
        for key, live in self._live.items():
            if key[0] == namespace and live.name == name and live.uid == uid:
                del self._live[key]
                self._changed(key)
                return

    def uids(self) -> set[str]:
        """Deployments that exist, as far as the watch has told."""
        return {live.uid for live in self._live.values()}

    def vanished(self, uid: str) -> None:
        """The API server does not have the Deployment any more, and the watch has not told of its end."""
        for live in tuple(self._live.values()):
            if live.uid == uid:
                self.gone(live.namespace, live.name, uid)

    def _changed(self, key: PoolKey) -> None:
        for listener in self.on_change:
            listener(*key)


def _own_fields(managed: Any) -> str:
    for entry in managed:
        if entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource"):
            fields = msgspec.json.encode(entry.get("fieldsV1") or {}, order="deterministic")
            return hashlib.sha256(fields).hexdigest()
    return ""


def _unavailable_since(conditions: Any) -> float:
    for condition in conditions:
        if condition["type"] == "Available" and condition["status"] == "False":
            with contextlib.suppress(KeyError, ValueError):
                return datetime.fromisoformat(condition["lastTransitionTime"]).timestamp()
    return 0.0


def _failure(conditions: Any) -> PoolProblem | None:
    """A pod that cannot even be made (quota, Pod Security) before one that does not become ready."""
    by_type = {condition["type"]: condition for condition in conditions}
    refused = by_type.get("ReplicaFailure")
    if refused is not None and refused.get("status") == "True":
        return PoolProblem(refused.get("reason") or "FailedCreate", refused.get("message") or "", True)
    progress = by_type.get("Progressing")
    if progress is not None and progress.get("status") == "False":
        return PoolProblem(progress.get("reason") or DEADLINE_EXCEEDED, progress.get("message") or "", True)
    return None
