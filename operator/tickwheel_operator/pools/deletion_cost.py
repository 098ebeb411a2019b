"""Chooses the pods that go when a pool shrinks: idle ones first, by the annotation that the ReplicaSet goes by.

The reconciler awaits `prepare` before it asks a Deployment for fewer pods. The pods that are to go get a negative
`controller.kubernetes.io/pod-deletion-cost`, and one that was chosen before and stayed loses it: so a scale-down costs
about as many writes as pods that go, however large the pool. Invariant: a courtesy. Whatever fails here is told and
left; a busy pod that goes nevertheless drains.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from tickwheel_operator.kube.errors import ApiError
from tickwheel_operator.pools.cluster import PoolCluster
from tickwheel_operator.pools.template import selector

__all__ = ["ANNOTATION", "DeletionCost", "PodSlots", "choose"]

_log = logging.getLogger(__name__)

ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
_MOST_SLOTS = 10_000
_PODS = 10_000
_AT_ONCE = 8
"""Patches in flight."""
_PATCHES = 500
"""The most patches of one scale-down; beyond them the ReplicaSet chooses."""


class PodSlots(msgspec.Struct, frozen=True):
    """A pod of the pool, as the API server has it and as the engine knows its worker."""

    name: str
    cost: str | None
    """The annotation that it has."""
    used: int
    """Slots in use."""
    draining: bool
    connected: bool


def choose(pods: Iterable[PodSlots], remove: int) -> dict[str, str | None]:
    """The annotations to write so that `remove` pods go: by name the value, or None to take it away.

    Those that drain go first, then those whose worker has not called yet, then the idle, then those with the fewest
    slots in use.
    """
    ranked = sorted(pods, key=lambda pod: (not pod.draining, pod.connected, pod.used, pod.name))
    patches: dict[str, str | None] = {}
    for place, pod in enumerate(ranked):
        if place < remove:
            # -10002 drains, -10001 is idle, up to -1 for one with 10,000 slots in use: lower goes first.
            cost = -_MOST_SLOTS - 2 if pod.draining else min(-1, pod.used - _MOST_SLOTS - 1)
            if pod.cost != str(cost):
                patches[pod.name] = str(cost)
        elif pod.cost is not None and pod.cost.startswith("-"):
            patches[pod.name] = None
    return patches


class DeletionCost:
    """Writes the annotations of a pool's pods."""

    def __init__(self, cluster: PoolCluster, slots: Callable[[str, str], Mapping[str, tuple[int, bool]]]) -> None:
        """`slots` gives the slots in use, and whether it drains, of each live worker of a pool by its name, which is
        its pod's."""
        self._cluster = cluster
        self._slots = slots

    async def prepare(self, namespace: str, name: str, pods_to_remove: int) -> None:
        """So many pods of the pool are about to go: let them be those that have the least to do."""
        listed = await self._cluster.pods(namespace, selector(name), most=_PODS)
        known = self._slots(namespace, name)
        pods = [_pod(raw, known) for raw in listed if _counts(raw)]
        if pods_to_remove >= len(pods):
            return  # all go
        patches = choose(pods, pods_to_remove)
        gate = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for pod, cost in list(patches.items())[:_PATCHES]:
                group.create_task(self._annotate(gate, namespace, pod, cost), name=f"deletion-cost-{pod}")

    async def _annotate(self, gate: asyncio.Semaphore, namespace: str, pod: str, cost: str | None) -> None:
        async with gate:
            try:
                await self._cluster.annotate_pod(namespace, pod, {ANNOTATION: cost})
            except ApiError as error:
                _log.warning("pod %s/%s: its deletion cost could not be set: %s", namespace, pod, error)


def _counts(raw: Mapping[str, Any]) -> bool:
    """Whether the ReplicaSet counts it: neither on its way out nor over."""
    phase = (raw.get("status") or {}).get("phase")
    return "deletionTimestamp" not in raw["metadata"] and phase not in ("Failed", "Succeeded")


def _pod(raw: Mapping[str, Any], known: Mapping[str, tuple[int, bool]]) -> PodSlots:
    metadata = raw["metadata"]
    used, draining = known.get(metadata["name"], (0, False))
    cost = (metadata.get("annotations") or {}).get(ANNOTATION)
    return PodSlots(metadata["name"], cost, used, draining, metadata["name"] in known)
