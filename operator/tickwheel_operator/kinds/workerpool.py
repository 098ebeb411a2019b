"""WorkerPool: who runs the handlers of tasks, and how many of them there are now."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from tickwheel_operator import reasons
from tickwheel_operator.api import WorkerPool
from tickwheel_operator.engine.read.views import PoolView
from tickwheel_operator.engine.spec import PoolSpec, TaskSpec
from tickwheel_operator.kinds.conditions import SETTLED, Status, Words, conditions, faulty
from tickwheel_operator.kinds.descriptor import Kind, Later
from tickwheel_operator.kinds.registered import Schemas, registered_handlers
from tickwheel_operator.kinds.seen import RawObject, Seen
from tickwheel_operator.kinds.stored import Stored
from tickwheel_operator.kinds.world import Workforce, World

__all__ = ["WORKER_POOL", "SeenPool", "compile_pool", "pool_status"]

_ACCEPTED: Words = ("True", reasons.ACCEPTED, "workers may connect")


class SeenPool(Seen, frozen=True, kw_only=True):
    spec: PoolSpec | None = None
    """None: it is faulty."""
    accounts: frozenset[str] = frozenset()
    """ServiceAccounts whose tokens may speak for the pool."""
    resource: WorkerPool | None = None
    """The manifest, for what the engine has no use for: the pods and their number. None: it is faulty."""
    deleting: bool = False


class _PoolKind(Kind[WorkerPool, SeenPool]):
    interval_s = 5.0
    sections = (
        ("observedGeneration", "conditions"),
        (
            "desiredReplicas", "replicas", "readyReplicas", "draining", "slots", "backlog", "load", "usage", "scaling",
            "handlers", "selector",
        ),
    )  # fmt: skip

    def compile(self, seen: SeenPool, manifest: WorkerPool) -> SeenPool:
        accounts = frozenset(map(str, manifest.spec.access.service_accounts))
        return replace(seen, spec=compile_pool(manifest), accounts=accounts, resource=manifest)

    def look(self, seen: SeenPool, raw: RawObject) -> SeenPool:
        return replace(seen, deleting="deletionTimestamp" in raw["metadata"])

    def named_by(self, task: TaskSpec) -> Iterable[str]:
        return (task.pool,)

    def concerns(self, before: SeenPool | None, after: SeenPool | None) -> bool:
        had, has = before is not None and before.spec is not None, after is not None and after.spec is not None
        return had != has or after is None

    def status(self, seen: SeenPool, world: World, stored: Stored) -> Status | Later:
        view, workforce = world.pools.get((seen.namespace, seen.name)), world.workforce(seen.namespace, seen.name)
        if seen.fault is None and workforce is not None and world.settles_in_s and _is_unknown(workforce, view, stored):
            return Later(0.5)
        return pool_status(seen, view, workforce, world.schemas(seen.namespace, seen.name))


WORKER_POOL = _PoolKind(WorkerPool, SeenPool)


def compile_pool(pool: WorkerPool) -> PoolSpec:
    """The pool as the engine wants it."""
    return PoolSpec(
        namespace=pool.metadata.namespace, name=pool.metadata.name, silence_ms=pool.spec.silence.milliseconds
    )


def pool_status(
    pool: SeenPool, view: PoolView | None, workforce: Workforce | None = None, schemas: Schemas | None = None
) -> Status:
    """Of a WorkerPool; `workforce` is None where its workers run elsewhere. One of which nothing was heard has none."""
    generation, fault = pool.generation, pool.fault
    workers = 0 if view is None else view.workers
    draining = 0 if view is None else view.draining
    slots, used = (0, 0) if view is None else (view.slots, view.used)
    taking = workers - draining
    deployment = workforce.deployment if workforce is not None else None
    ready, reconciling, stalled = _ACCEPTED, SETTLED, SETTLED
    if fault is not None:
        ready, stalled = faulty(fault)
    elif workforce is not None:
        ready, reconciling, stalled = _pods_conditions(workforce, taking)
    usage = workforce.usage if workforce is not None else None
    return {
        "observedGeneration": generation,
        "conditions": conditions(generation, Ready=ready, Reconciling=reconciling, Stalled=stalled),
        "desiredReplicas": None if deployment is None else deployment.desired,
        "replicas": workers if deployment is None else deployment.replicas,
        "readyReplicas": taking if deployment is None else min(deployment.ready, taking),
        "draining": draining,
        "slots": {"total": slots, "used": used, "free": 0 if view is None else view.free},
        "backlog": 0 if view is None else view.backlog,
        "load": {"cpu": _step(view.cpu), "memory": _step(view.memory)} if view is not None and workers else None,
        "usage": None if usage is None else {"cpu": usage.cpu, "memory": usage.memory, "pods": usage.pods},
        "scaling": (workforce.scaling[:1_024] or None) if workforce is not None else None,
        "handlers": [] if view is None else registered_handlers(view.handlers, schemas or {}),
        "selector": workforce.selector if workforce is not None else None,
    }


def _is_unknown(workforce: Workforce, view: PoolView | None, stored: Stored) -> bool:
    """A new leader first hears of Deployments and workers, and until then says nothing else than the last one did."""
    taking = view.workers - view.draining if view is not None else 0
    deployment = workforce.deployment
    if deployment is None:
        return True
    return bool(stored.since) and deployment.problem is None and taking < deployment.ready


def _pods_conditions(workforce: Workforce, taking: int) -> tuple[Words, Words, Words]:
    """Ready, Reconciling and Stalled of a pool with a template, `taking` of whose workers take work."""
    deployment = workforce.deployment
    if deployment is None:
        unknown = "the pool's Deployment has not been looked at yet"
        return ("Unknown", reasons.PENDING, unknown), ("True", reasons.PENDING, unknown), SETTLED
    up, desired, problem = min(deployment.ready, taking), deployment.desired, deployment.problem
    count = f"{min(up, desired)} of {desired} {'worker is' if desired == 1 else 'workers are'} ready"
    if up >= workforce.least:
        ready = ("True", reasons.READY, count if desired else "no workers are asked for")
    else:
        ready = (
            "False",
            problem.reason if problem is not None and problem.reason else reasons.WORKERS_NOT_READY,
            count,
        )
    if problem is not None and problem.stalled:
        return ("False", problem.reason, problem.message), SETTLED, ("True", problem.reason, problem.message)
    if problem is not None:
        return ready, ("True", problem.reason, f"{count}: {problem.message}"), SETTLED
    if not deployment.settled:
        if deployment.updated < min(deployment.replicas, desired):
            words = f"{deployment.updated} of {desired} workers have the present template"
            return ready, ("True", reasons.ROLLING_UPDATE, words), SETTLED
        more = deployment.replicas - desired
        return ready, ("True", reasons.SCALING, f"{count}; {more} more go" if more > 0 else count), SETTLED
    if taking < deployment.ready:
        words = f"{taking} of {deployment.ready} workers are connected to the gateway, though their pods are ready"
        return ready, ("True", reasons.WORKERS_NOT_CONNECTED, words), SETTLED
    return ready, SETTLED, SETTLED


def _step(share: float) -> str:
    """In steps of 5%: a load that trembles is not worth a write."""
    return f"{max(0, min(100, round(share * 20) * 5))}%"
