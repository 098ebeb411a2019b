"""What exists: every ScheduledTask and WorkerPool, as far as the engine and the projection need it.

Level-triggered: the watch says what an object is now, however often; the catalog works out what that means for an
engine (`snapshot` for a new leader, `post` for the one that leads) and what is wrong with it (`fault`). Followers keep
it warm. Everything runs on the operator's event loop. Invariants: a task is applied only while its pool exists; what
was posted is what `snapshot` would say; the size is that of the compiled specs, never of the raw objects.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator

from tickwheel_operator.api import WorkerPool
from tickwheel_operator.controllers.observe import Fault, ObservedPool, ObservedTask
from tickwheel_operator.engine.messages import Command, PoolApplied, PoolRemoved, TaskApplied, TaskRemoved

__all__ = ["KINDS", "POOL_NOT_FOUND", "Catalog", "PoolEntry", "TaskEntry"]

_log = logging.getLogger(__name__)

POOL_NOT_FOUND = "PoolNotFound"
KINDS = ("ScheduledTask", "WorkerPool", "TaskRun")
"""The kinds whose lists must be complete before a replica may lead."""
PoolKey = tuple[str, str]


class TaskEntry:
    """A ScheduledTask that exists."""

    __slots__ = ("fault", "posted", "seen")

    def __init__(self, seen: ObservedTask) -> None:
        self.seen = seen
        self.fault: Fault | None = None
        """Why it is not armed; None: it is."""
        self.posted: tuple[int, bool] | None = None
        """Generation and armed, as the leading engine was last told."""


class PoolEntry:
    """A WorkerPool that exists."""

    __slots__ = ("seen",)

    def __init__(self, seen: ObservedPool) -> None:
        self.seen = seen


class Catalog:
    """All tasks and pools. Not for use from other threads."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskEntry] = {}
        self._pools: dict[PoolKey, PoolEntry] = {}
        self._of_pool: dict[PoolKey, dict[str, None]] = {}
        self._by_name: dict[tuple[str, str], str] = {}
        self._sink: Callable[[Command], None] | None = None
        self._unsynced = set(KINDS)
        self._synced = asyncio.Event()
        self.on_task: Callable[[str], None] = lambda uid: None
        """Called with the uid of a task that changed in any way, its status too, or is gone."""
        self.on_pool: list[Callable[[str, str], None]] = []
        """Each is called with the namespace and name of a pool that changed in any way, its status too, or is gone."""

    # --- reading ---

    @property
    def synced(self) -> bool:
        """The first lists of all kinds are complete."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    def task(self, uid: str) -> TaskEntry | None:
        return self._tasks.get(uid)

    def task_named(self, namespace: str, name: str) -> TaskEntry | None:
        return self._tasks.get(self._by_name.get((namespace, name), ""))

    def tasks(self) -> Collection[TaskEntry]:
        return self._tasks.values()

    def pool(self, namespace: str, name: str) -> PoolEntry | None:
        return self._pools.get((namespace, name))

    def pools(self) -> Collection[PoolEntry]:
        return self._pools.values()

    def pool_keys(self) -> Collection[PoolKey]:
        """Namespace and name of each pool that exists, whatever is wrong with it."""
        return self._pools.keys()

    def pool_resource(self, namespace: str, name: str) -> WorkerPool | None:
        """The pool's manifest; None: there is none, it is invalid, or it is being deleted."""
        entry = self._pools.get((namespace, name))
        return None if entry is None or entry.seen.deleting else entry.seen.resource

    def tasks_of_pool(self, namespace: str, name: str) -> Iterable[str]:
        """Uids of the tasks that name the pool, whether it exists or not."""
        return tuple(self._of_pool.get((namespace, name), ()))

    def uids(self, kind: str) -> set[str]:
        """The objects of a kind that are known (of tasks and pools)."""
        if kind == "ScheduledTask":
            return set(self._tasks)
        return {entry.seen.uid for entry in self._pools.values()}

    # --- the engine's side ---

    def snapshot(self) -> Iterator[Command]:
        """The commands that make a new engine know all objects, now: pools first."""
        for pool in self._pools.values():
            if pool.seen.spec is not None:
                yield PoolApplied(spec=pool.seen.spec)
        for entry in self._tasks.values():
            entry.posted = (entry.seen.generation, entry.fault is None and not entry.seen.deleting)
            yield self._command(entry)

    def attach(self, sink: Callable[[Command], None]) -> None:
        """Post every change from now on. Call it without a pause after `snapshot`."""
        self._sink = sink

    def detach(self) -> None:
        """Nobody leads here any more."""
        self._sink = None

    # --- the watch's side ---

    def mark_synced(self, kind: str) -> None:
        """The first list of the kind is complete."""
        self._unsynced.discard(kind)
        if not self._unsynced:
            self._synced.set()

    def task_seen(self, seen: ObservedTask) -> None:
        entry = self._tasks.get(seen.uid)
        if entry is None:
            entry = self._tasks[seen.uid] = TaskEntry(seen)
        else:
            self._unindex(entry)
            entry.seen = seen
        self._by_name[seen.namespace, seen.name] = seen.uid
        if seen.spec is not None:
            self._of_pool.setdefault((seen.namespace, seen.spec.pool), {})[seen.uid] = None
        self._judge(entry)

    def task_gone(self, uid: str) -> None:
        entry = self._tasks.pop(uid, None)
        if entry is None:
            return
        self._unindex(entry)
        name = (entry.seen.namespace, entry.seen.name)
        if self._by_name.get(name) == uid:
            del self._by_name[name]
        self._post(uid, TaskRemoved(uid=uid))
        self.on_task(uid)

    def pool_seen(self, seen: ObservedPool) -> None:
        key = (seen.namespace, seen.name)
        before = self._pools.get(key)
        self._pools[key] = PoolEntry(seen)
        had = before.seen.spec if before is not None else None
        if seen.spec is not None and seen.spec != had:
            self._post(f"pool {seen.namespace}/{seen.name}", PoolApplied(spec=seen.spec))
        if (seen.spec is None) != (had is None):
            self._judge_pool(key)
        self._pool_changed(key)

    def pool_gone(self, namespace: str, name: str, uid: str) -> None:
        key = (namespace, name)
        entry = self._pools.get(key)
        if entry is None or entry.seen.uid != uid:
            return  # another object has the name by now
        del self._pools[key]
        self._post(f"pool {namespace}/{name}", PoolRemoved(namespace=namespace, name=name))
        self._judge_pool(key)
        self._pool_changed(key)

    def forget(self, kind: str, uid: str) -> None:
        """The object is gone, though no watch event said so."""
        if kind == "ScheduledTask":
            self.task_gone(uid)
            return
        for entry in list(self._pools.values()):
            if entry.seen.uid == uid:
                self.pool_gone(entry.seen.namespace, entry.seen.name, uid)

    # --- inside ---

    def _unindex(self, entry: TaskEntry) -> None:
        if entry.seen.spec is None:
            return
        key = (entry.seen.namespace, entry.seen.spec.pool)
        uids = self._of_pool.get(key)
        if uids is not None:
            uids.pop(entry.seen.uid, None)
            if not uids:
                del self._of_pool[key]

    def _pool_changed(self, key: PoolKey) -> None:
        for listener in self.on_pool:
            listener(*key)

    def _judge_pool(self, key: PoolKey) -> None:
        for uid in self.tasks_of_pool(*key):
            self._judge(self._tasks[uid])

    def _judge(self, entry: TaskEntry) -> None:
        """Work out whether the task is armed, and tell the engine what changed."""
        seen = entry.seen
        entry.fault = seen.fault or self._missing_pool(seen)
        wanted = (seen.generation, entry.fault is None and not seen.deleting)
        if self._sink is not None and entry.posted != wanted:
            entry.posted = wanted
            self._post(seen.uid, self._command(entry))
        self.on_task(seen.uid)

    def _missing_pool(self, seen: ObservedTask) -> Fault | None:
        if seen.spec is None:
            return None
        pool = self._pools.get((seen.namespace, seen.spec.pool))
        if pool is None:
            # It names no pools that exist: the message would be stale with each that comes or goes.
            return Fault(
                POOL_NOT_FOUND,
                f"spec.pool: there is no WorkerPool {seen.spec.pool} in namespace {seen.namespace}; "
                f"create it, or name one of `kubectl get workerpools -n {seen.namespace}`",
            )
        if pool.seen.spec is None:
            return Fault(POOL_NOT_FOUND, f"spec.pool: the WorkerPool {seen.spec.pool} is itself stalled; mend it first")
        return None

    def _command(self, entry: TaskEntry) -> Command:
        spec = entry.seen.spec
        if spec is None or entry.fault is not None or entry.seen.deleting:
            return TaskRemoved(uid=entry.seen.uid, forget=False)
        return TaskApplied(spec=spec)

    def _post(self, key: str, command: Command) -> None:
        if self._sink is None:
            return
        try:
            self._sink(command)
        except Exception:
            # The leader ends its term for it, and the next one asks for the whole catalog.
            _log.exception("the engine broke down at the change of %s", key)
