"""Whose pod is it: from a pod up its controllers (ReplicaSet, Deployment) to the WorkerPool that it belongs to.

The gateway asks, for the pod that a token is bound to. Labels say nothing here: whoever may label a pod would choose
its pool. Every step compares uids, so that an object that took another's name is not taken for it. The pod's own
controller is known from the watch (`note`), else it is asked for, as the others are: their metadata only, once, since
an object's controller hardly ever changes. Invariant: all is bounded, nothing is believed for longer than `_TRUST_S`,
or `_OUTAGE_S` while the API server cannot be asked, which makes nobody an owner who was none before (`OwnerUnknown`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from tickwheel_operator.api import GROUP
from tickwheel_operator.clock import Clock
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.errors import ApiError, ApiRefused
from tickwheel_operator.kube.resources import DEPLOYMENTS, PODS, REPLICA_SETS
from tickwheel_operator.turns import Crowded, Turns

__all__ = ["Controller", "OwnerUnknown", "PodOwners", "PoolOwner", "controller_of"]

_TRUST_S = 60
"""As long as a token is (identity.token_review)."""
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_OUTAGE_S = 600
"""As long as a token is while it cannot be reviewed (identity.token_review)."""
_OUTAGE_PAUSE_MS = 5_000
_PATIENCE_S = 2.0
"""How long a pod that is known waits for the next look-up: its work must be renewed within seconds."""
_CONCURRENT = 16
_OF_ONE = 8
"""How many of these for pods of one namespace."""
_WAITING = 2_000
_STEPS = 4
"""Pod, ReplicaSet, Deployment, and one to spare: a chain of owners that goes in a circle must end."""
_RESOURCES = {("", "Pod"): PODS, ("apps", "ReplicaSet"): REPLICA_SETS, ("apps", "Deployment"): DEPLOYMENTS}
"""What may stand between a pool and its pods, and so what is asked about."""


class OwnerUnknown(Exception):
    """The API server could not be asked. The message says what, for people."""


class Controller(msgspec.Struct, frozen=True):
    """A controlling owner reference."""

    group: str
    kind: str
    name: str
    uid: str


class PoolOwner(msgspec.Struct, frozen=True):
    """The WorkerPool at the end of the chain, in the namespace of the pod. It need not exist any more."""

    name: str
    uid: str


def controller_of(metadata: Mapping[str, Any]) -> Controller | None:
    """The object's controller; None: it has none."""
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller"):
            group, slash, _ = reference["apiVersion"].partition("/")
            return Controller(group if slash else "", reference["kind"], reference["name"], reference["uid"])
    return None


class _Known(msgspec.Struct, frozen=True):
    controller: Controller | None
    until_ms: int


class PodOwners:
    """Answers from memory where it can. On the operator's loop only."""

    def __init__(self, client: KubeClient, clock: Clock, *, size: int = 20_000) -> None:
        """`size` bounds how many objects, and how many pods' owners, are remembered."""
        self._client = client
        self._clock = clock
        self._size = size
        self._watched: dict[str, Controller | None] = {}
        """By the uid of pods that exist. Bounded too: pods that vanish while the watch is broken are not told of."""
        self._asked: dict[str, _Known] = {}
        """By uid of anything that was asked about."""
        self._owners: dict[str, tuple[PoolOwner | None, int]] = {}
        """By uid of pods: the result of the walk, and when it was found."""
        self._outage_until_ms = 0
        self._turns = Turns(_CONCURRENT, most_of_one=_OF_ONE, waiting=_WAITING)

    # --- the watch's side ---

    def note(self, pod_uid: str, controller: Controller | None) -> None:
        """The watch saw the pod, and this is its controller."""
        if self._watched.get(pod_uid, controller) != controller:
            self._owners.pop(pod_uid, None)
        _put(self._watched, pod_uid, controller, self._size)

    def forget(self, pod_uid: str) -> None:
        """The watch says that the pod is gone."""
        self._watched.pop(pod_uid, None)
        self._owners.pop(pod_uid, None)

    # --- the gateway's side ---

    async def owner(self, namespace: str, pod: str, pod_uid: str) -> PoolOwner | None:
        """The pool that the pod belongs to; None: it belongs to none, or there is no such pod. What is known costs no
        I/O. Raises `OwnerUnknown`."""
        known = self._owners.get(pod_uid)
        age_ms = self._clock.boot_ms() - known[1] if known is not None else 0
        if known is not None and age_ms < _TRUST_S * 1000:
            return known[0]
        if known is None or age_ms >= _OUTAGE_S * 1000:
            found = await self._walk(namespace, pod, pod_uid)
        elif self._clock.boot_ms() < self._outage_until_ms:
            return known[0]
        else:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    found = await self._walk(namespace, pod, pod_uid)
            except (OwnerUnknown, TimeoutError):
                self._outage_until_ms = self._clock.boot_ms() + _OUTAGE_PAUSE_MS
                return known[0]
        _put(self._owners, pod_uid, (found, self._clock.boot_ms()), self._size)
        return found

    async def _walk(self, namespace: str, pod: str, pod_uid: str) -> PoolOwner | None:
        step: Controller | None = Controller("", "Pod", pod, pod_uid)
        for _ in range(_STEPS):
            if step is None or (step.group, step.kind) not in _RESOURCES:
                return None
            step = await self._controller(namespace, step)
            if step is not None and (step.group, step.kind) == (GROUP, "WorkerPool"):
                return PoolOwner(step.name, step.uid)
        return None

    async def _controller(self, namespace: str, thing: Controller) -> Controller | None:
        if thing.uid in self._watched:
            return self._watched[thing.uid]
        try:
            async with self._turns.of(namespace):
                known = self._asked.get(thing.uid)
                if known is not None and self._clock.boot_ms() < known.until_ms:
                    return known.controller
                controller = await self._ask(namespace, thing)
                _put(self._asked, thing.uid, _Known(controller, self._clock.boot_ms() + _TRUST_S * 1000), self._size)
                return controller
        except Crowded:
            raise OwnerUnknown("too many pods' owners are looked up at once") from None

    async def _ask(self, namespace: str, thing: Controller) -> Controller | None:
        path = _RESOURCES[thing.group, thing.kind].path(namespace, thing.name)
        what = f"look up the owner of {thing.kind} {namespace}/{thing.name}"
        try:
            metadata = (await self._client.call("GET", path, what=what, accept=_METADATA))["metadata"]
            # Another object has the name by now: then this one is gone, and has no owner.
            return controller_of(metadata) if metadata["uid"] == thing.uid else None
        except ApiRefused as error:
            if error.status == 404:
                return None
            raise OwnerUnknown(f"cannot {error}") from error
        except ApiError as error:
            raise OwnerUnknown(str(error)) from error
        except (KeyError, TypeError, AttributeError) as error:
            raise OwnerUnknown(f"cannot {what}: the API server's answer cannot be read: {error!r}") from error


def _put(memory: dict[str, Any], key: str, value: object, size: int) -> None:
    memory.pop(key, None)
    if len(memory) >= size:
        del memory[next(iter(memory))]
    memory[key] = value
