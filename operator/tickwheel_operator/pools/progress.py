"""How long a pool's pods have not been as they should be, and why: from `Reconciling` to `Stalled`.

The reconciler asks after each look at a pool. Pods that take long are asked for the reason; when they make no progress
for the pool's `progressDeadline`, somebody must see to it. The deadline counts from the last progress, from an edit of
the pool, or, for a new leader, from when the Deployment became unavailable: so a change of the leader does not hide it,
and a worker that is ready for some seconds between two crashes does not either.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from tickwheel_operator.api import WorkerPool
from tickwheel_operator.kube.errors import ApiRefused
from tickwheel_operator.pools.cluster import PoolCluster
from tickwheel_operator.pools.deployments import DEADLINE_EXCEEDED, ObservedDeployment, PoolProblem
from tickwheel_operator.pools.pod_problems import Refusal, creating, event_problem, pod_problem, unregistered
from tickwheel_operator.pools.template import selector

__all__ = ["Connected", "Progress"]

_log = logging.getLogger(__name__)

_SETTLED_S = 60.0
"""A pool that is as it should be is looked at again after so long: its workers may lose the gateway."""
PoolKey = tuple[str, str]
Connected = Callable[[str, str], Collection[str] | None]
"""The names of a pool's workers that take work; None: nobody knows yet."""


class _Unready(msgspec.Struct):
    """A pool that is not as it should be."""

    generation: int
    """Of the pool's spec: after an edit the deadline begins again."""
    since: float
    """The last progress."""
    best: int
    """Ready and updated pods, at most, since then."""
    again: float
    """When the pods are asked why, the next time."""
    pause_s: float
    told: tuple[str, str] | None = None
    """What they said."""
    asked: bool = False
    problem: PoolProblem | None = None


class Progress:
    """Of all pools, while this replica leads."""

    def __init__(
        self,
        cluster: PoolCluster,
        *,
        first_s: float,
        most_s: float,
        connected: Connected = lambda namespace, name: None,
        refused: Refusal = lambda addresses: None,
        asking: Callable[[PoolKey], object] = lambda key: None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """Pods are asked why after `first_s`, then after twice as long each time, up to `most_s`; `asking` is called
        each time."""
        self._cluster = cluster
        self._first_s = first_s
        self._most_s = most_s
        self._connected = connected
        self._refused = refused
        self._asking = asking
        self._wall_s = wall_s
        self._unready: dict[PoolKey, _Unready] = {}

    def forget(self, key: PoolKey) -> None:
        """The pool has no pods of ours."""
        self._unready.pop(key, None)

    def clear(self) -> None:
        """The term is over."""
        self._unready.clear()

    async def look(
        self, key: PoolKey, pool: WorkerPool, desired: int, live: ObservedDeployment | None
    ) -> tuple[PoolProblem | None, float | None]:
        """What is in the way, and the seconds after which to look again (None: when something changes).

        Raises `ApiUnanswered`."""
        if live is None:
            self.forget(key)
            return None, None
        connected = self._connected(*key)
        short = live.ready < desired or live.updated < desired
        apart = not short and connected is not None and len(connected) < min(live.ready, desired)
        if not short and not apart and live.unavailable == 0:
            self.forget(key)
            return None, _SETTLED_S if desired else None
        unready, now = self._note(key, pool, live), _now()
        deadline = unready.since + pool.spec.progress_deadline.milliseconds / 1000
        if not short and not apart:
            # Ready, but not for long enough to count: what stalled it may still be there.
            return unready.problem if now >= deadline else None, max(0.1, unready.again - now)
        if now >= unready.again or (now >= deadline and not unready.asked):
            unready.pause_s = min(unready.pause_s * 2, self._most_s)
            unready.again = now + unready.pause_s
            unready.asked = True
            self._asking(key)
            unready.told = await self._ask(key, connected)
        failure = live.failure if short else None
        unready.problem = _problem(unready.told, failure, now >= deadline, pool, desired, live)
        return unready.problem, max(0.1, min(unready.again, deadline if deadline > now else unready.again) - now)

    def _note(self, key: PoolKey, pool: WorkerPool, live: ObservedDeployment) -> _Unready:
        """Since when it is so, and whether there was progress."""
        now, reached, generation = _now(), live.ready + live.updated, pool.metadata.generation
        unready = self._unready.get(key)
        if unready is None:
            age_s = max(0.0, self._wall_s() - live.unavailable_since) if live.unavailable_since else 0.0
            unready = _Unready(generation, now - age_s, reached, now + self._first_s, self._first_s)
            self._unready[key] = unready
        elif unready.generation != generation:
            told = unready.told
            unready = _Unready(generation, now, reached, now + self._first_s, self._first_s, told)
            self._unready[key] = unready
        elif reached > unready.best:
            unready.best, unready.since = reached, now
        return unready

    async def _ask(self, key: PoolKey, connected: Collection[str] | None) -> tuple[str, str] | None:
        pods = await self._pods(key)
        found = pod_problem(pods, self._refused)
        if found is None and (pod := creating(pods)) is not None:
            found = event_problem(pod, await self._warnings(key, str(pod["metadata"].get("uid"))))
        return found or unregistered(pods, connected or ())

    async def _pods(self, key: PoolKey) -> list[Mapping[str, Any]]:
        try:
            return await self._cluster.pods(key[0], selector(key[1]))
        except ApiRefused as error:
            _log.warning("the pods of WorkerPool %s/%s cannot be read: %s", *key, error)
            return []

    async def _warnings(self, key: PoolKey, uid: str) -> list[Mapping[str, Any]]:
        try:
            return await self._cluster.warnings(key[0], uid)
        except ApiRefused as error:
            _log.warning("the Events of the pods of WorkerPool %s/%s cannot be read: %s", *key, error)
            return []


def _problem(
    told: tuple[str, str] | None,
    failure: PoolProblem | None,
    overdue: bool,
    pool: WorkerPool,
    desired: int,
    live: ObservedDeployment,
) -> PoolProblem | None:
    if failure is not None and failure.reason != DEADLINE_EXCEEDED:
        return failure
    if overdue or failure is not None:
        count = f"{min(live.ready, desired)} of {desired} workers are ready"
        reason, words = told or (
            DEADLINE_EXCEEDED,
            f"its pods say nothing of why; see kubectl describe pods -n {pool.metadata.namespace} "
            f"-l {selector(pool.metadata.name)}",
        )
        since = f"no progress for {pool.spec.progress_deadline} (spec.progressDeadline)"
        return PoolProblem(reason, f"{count}, {since}: {words}", True)
    return PoolProblem(*told, stalled=False) if told is not None else None


def _now() -> float:
    return asyncio.get_running_loop().time()
