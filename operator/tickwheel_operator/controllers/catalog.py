"""What exists: every object but TaskRuns, as far as the engine and the projection need it.

Level-triggered: the watch says what an object is now, however often; the catalog works out what that means for an
engine (`snapshot` for a new leader, `post` for the one that leads) and what is wrong with it (`fault`). Followers keep
it warm. Everything runs on the operator's event loop. Invariants: a task is applied only while all that it names
exists, its calendars' dates bound into it; what was posted is what `snapshot` would say; the size is that of the
compiled specs, never of the raw objects.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice

from tickwheel_operator import reasons
from tickwheel_operator.api import InvalidManifest, WorkerPool, sentence
from tickwheel_operator.controllers.completions import Completions
from tickwheel_operator.controllers.isolation import Isolation
from tickwheel_operator.engine.messages import Command, PoolApplied, PoolRemoved, TaskApplied, TaskRemoved
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.kinds import AWAITED, KINDS, AnyKind
from tickwheel_operator.kinds.calendar import CALENDAR
from tickwheel_operator.kinds.compile_task import NeverFires, bind_calendars
from tickwheel_operator.kinds.objects import Name, Objects
from tickwheel_operator.kinds.scheduledtask import SCHEDULED_TASK, Bound, Dates, SeenTask, TaskEntry
from tickwheel_operator.kinds.seen import Fault, Seen
from tickwheel_operator.kinds.workerpool import WORKER_POOL, SeenPool
from tickwheel_operator.objectfaults import Layer, ObjectFaults

__all__ = ["TOGETHER", "Catalog"]

_log = logging.getLogger(__name__)

_CYCLE_SHOWN = 10
_AT_ONCE_S = 0.02
"""How long the tasks of a pool or a calendar that changed are judged before others get their turn."""
TOGETHER = 200
"""The most commands that are posted at once: 1 ms of the engine's time, if nothing is overdue."""


class Catalog:
    """All objects but TaskRuns. Not for use from other threads."""

    def __init__(self, faults: ObjectFaults | None = None, objects: Objects | None = None) -> None:
        self.objects = objects or Objects()
        self._faults = faults or ObjectFaults()
        self._isolation = Isolation()
        self._tasks: dict[str, TaskEntry] = {}
        self._naming: dict[tuple[str, str, str], dict[str, None]] = {}
        """Uids of the tasks that name an object, whether it exists or not, by its kind, namespace and name."""
        self._completions = Completions()
        self._unjudged: OrderedDict[str, None] = OrderedDict()
        """Uids of tasks whose pool or calendar has changed, in the order in which they are judged."""
        self._sink: Callable[[Sequence[Command]], None] | None = None
        self._outbox: list[Command] = []
        self._gathers = False
        """What is posted now goes together with what comes after it."""
        self._unsynced = {kind.name for kind in AWAITED}
        self._synced = asyncio.Event()
        self.unserved: Callable[[str], Fault | None] = lambda namespace: None
        """Why nothing of a namespace is served here, such as since another release does; None: it is."""
        self.on_change: list[Callable[[Seen], None]] = []
        """Each is called with an object that changed in any way, its status and its verdict too, or is gone."""

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
        seen = self.objects.named(SCHEDULED_TASK, namespace, name)
        return None if seen is None else self._tasks.get(seen.uid)

    def tasks(self) -> Collection[TaskEntry]:
        return self._tasks.values()

    def pool_keys(self) -> Collection[Name]:
        """Namespace and name of each pool that exists and is served here, whatever is wrong with it."""
        names = self.objects.names(WORKER_POOL)
        served = {namespace: self.unserved(namespace) is None for namespace in {name[0] for name in names}}
        return [name for name in names if served[name[0]]]

    def pool_resource(self, namespace: str, name: str) -> WorkerPool | None:
        """The pool's manifest; None: there is none, it is invalid, it is being deleted, or it is not served here."""
        seen = self.objects.named(WORKER_POOL, namespace, name)
        if seen is None or seen.deleting or self.unserved(namespace) is not None:
            return None
        return seen.resource

    def naming(self, kind: AnyKind, namespace: str, name: str) -> Iterable[str]:
        """Uids of the tasks that name the object, whether it exists or not."""
        return tuple(self._naming.get((kind.name, namespace, name), ()))

    def namespaces(self) -> set[str]:
        """Those that have a task or a pool."""
        pools = self.objects.names(WORKER_POOL)
        return {entry.seen.namespace for entry in self._tasks.values()} | {name[0] for name in pools}

    # --- the engine's side ---

    def snapshot(self) -> Iterator[Command]:
        """The commands that make a new engine know all objects, now: pools first."""
        for name in self.objects.names(WORKER_POOL):
            pool = self.objects.named(WORKER_POOL, *name)
            if pool is not None and pool.spec is not None:
                yield PoolApplied(spec=pool.spec)
        yield from self._isolation.commands({uid: entry.seen.generation for uid, entry in self._tasks.items()})
        for entry in self._tasks.values():
            entry.posted = _wanted(entry)
            yield _command(entry)

    def attach(self, sink: Callable[[Sequence[Command]], None]) -> None:
        """Post every change from now on. Call it without a pause after `snapshot`."""
        self._sink = sink

    def detach(self) -> None:
        """Nobody leads here any more."""
        self._sink = None

    def isolate(self, uid: str, error: BaseException) -> None:
        """The engine failed at the task, which ended the term: the next one leaves it alone."""
        entry = self._tasks.get(uid)
        namespace, name = ("", uid) if entry is None else (entry.seen.namespace, entry.seen.name)
        message = self._faults.record(Layer.ENGINE, "ScheduledTask", namespace, name, error)
        generation = None if entry is None else entry.seen.generation
        self._isolation.strike(uid, generation, Fault(reasons.INTERNAL_ERROR, message))
        if entry is not None:
            self._judge(entry)

    # --- the watch's side ---

    def mark_synced(self, kind: AnyKind) -> None:
        """The first list of the kind is complete."""
        self._unsynced.discard(kind.name)
        if not self._unsynced:
            self._synced.set()

    def seen(self, seen: Seen) -> None:
        """The object is so now."""
        kind = KINDS[seen.kind]
        before = self.objects.named(kind, seen.namespace, seen.name)
        self.objects.put(seen)
        if isinstance(seen, SeenTask):
            self._task_seen(seen, is_new=before is None)
        else:
            self._changed(kind, before, seen, seen)

    def gone(self, kind: AnyKind, uid: str) -> None:
        """The object is gone, whether a watch event said so or not."""
        seen = self.objects.get(kind, uid)
        if seen is None:
            return
        before = self.objects.named(kind, seen.namespace, seen.name)
        self.objects.remove(seen)
        after = self.objects.named(kind, seen.namespace, seen.name)
        if isinstance(seen, SeenTask):
            self._task_gone(seen, after)
        else:
            self._changed(kind, before, after, seen)

    def namespaces_changed(self, namespaces: Collection[str]) -> None:
        """What `unserved` says of these namespaces has changed."""
        changed = set(namespaces)
        self._judge_soon([uid for uid, entry in self._tasks.items() if entry.seen.namespace in changed])
        for seen in [seen for seen in self.objects.every() if seen.namespace in changed]:
            if seen.kind != SCHEDULED_TASK.name:
                self._tell(seen)

    # --- inside ---

    def _changed(self, kind: AnyKind, before: Seen | None, after: Seen | None, seen: Seen) -> None:
        """Another object has the name than `before`, or it is another now, or nothing has it any more."""
        if kind is WORKER_POOL:
            self._pool_changed(before, after, seen)
        if before is not after and kind.concerns(before, after):
            self._judge_soon(self.naming(kind, seen.namespace, seen.name))
        self._tell(seen)

    def _pool_changed(self, before: Seen | None, after: Seen | None, seen: Seen) -> None:
        key, namespace, name = f"pool {seen.namespace}/{seen.name}", seen.namespace, seen.name
        if not isinstance(after, SeenPool):
            self._post(key, PoolRemoved(namespace=namespace, name=name))
            return
        self.unserved(namespace)  # a pool alone wants its namespace to be served
        had = before.spec if isinstance(before, SeenPool) else None
        if after.spec is not None and after.spec != had:
            self._post(key, PoolApplied(spec=after.spec))

    def _tell(self, seen: Seen) -> None:
        for listener in self.on_change:
            listener(seen)

    def _task_seen(self, seen: SeenTask, *, is_new: bool) -> None:
        entry = self._tasks.get(seen.uid)
        if entry is None:
            entry = self._tasks[seen.uid] = TaskEntry(seen)
        else:
            self._unindex(entry)
            entry.seen = seen
        name, spec = (seen.namespace, seen.name), seen.spec
        for key in _named(spec):
            self._naming.setdefault(key, {})[seen.uid] = None
        concerned = self._link(name, spec)
        self._judge(entry)
        self._judge_named(concerned, but=name)
        if is_new:
            self._judge_named(self._completions.followers(name), but=name)

    def _task_gone(self, seen: SeenTask, after: Seen | None) -> None:
        self._unindex(self._tasks.pop(seen.uid))
        self._post(seen.uid, TaskRemoved(uid=seen.uid))
        self._tell(seen)
        name = (seen.namespace, seen.name)
        concerned = self._link(name, after.spec if isinstance(after, SeenTask) else None)
        self._judge_named({*concerned, *self._completions.followers(name)}, but=name)

    def _unindex(self, entry: TaskEntry) -> None:
        for key in _named(entry.seen.spec):
            uids = self._naming.get(key)
            if uids is not None:
                uids.pop(entry.seen.uid, None)
                if not uids:
                    del self._naming[key]

    def _link(self, name: Name, spec: TaskSpec | None) -> Collection[Name]:
        """The task follows whom its spec names. Returns the tasks for which that may change whether they are armed."""
        followed = None if spec is None else spec.source.follows
        return self._completions.link(name, None if followed is None else (name[0], followed))

    def _judge_soon(self, uids: Iterable[str]) -> None:
        """Judge these tasks in turn: some now, the rest when the loop has looked after others."""
        idle = not self._unjudged
        self._unjudged.update(dict.fromkeys(uids))
        if idle:
            self._judge_some()

    def _judge_some(self) -> None:
        self._gathers = True
        try:
            self._judge_until(time.monotonic() + _AT_ONCE_S)
        finally:
            self._gathers = False
            self._send("many tasks")

    def _judge_until(self, until: float) -> None:
        while self._unjudged:
            uid, _ = self._unjudged.popitem(last=False)
            entry = self._tasks.get(uid)
            if entry is not None:
                self._judge(entry)
            if self._unjudged and time.monotonic() >= until and (loop := _running_loop()) is not None:
                loop.call_soon(self._judge_some)
                return

    def _judge_named(self, names: Collection[Name], *, but: Name) -> None:
        for name in names:
            entry = self.task_named(*name)
            if entry is not None and name != but:
                self._judge(entry)

    def _judge(self, entry: TaskEntry) -> None:
        """Work out whether the task is armed, and tell the engine what changed."""
        seen = entry.seen
        try:
            entry.fault = self._fault(entry)
        except Exception as error:
            message = self._faults.record(Layer.CATALOG, "ScheduledTask", seen.namespace, seen.name, error)
            entry.fault = Fault(reasons.INTERNAL_ERROR, message)
        wanted = _wanted(entry)
        if self._sink is not None and entry.posted != wanted:
            entry.posted = wanted
            self._post(seen.uid, _command(entry))
        self._tell(seen)

    def _fault(self, entry: TaskEntry) -> Fault | None:
        """Why the task is not armed; None: it is, with what it names bound into it."""
        seen = entry.seen
        if seen.fault is not None or seen.spec is None:
            return seen.fault
        return (
            self.unserved(seen.namespace)
            or self._isolation.fault(seen.uid, seen.generation)
            or self._missing_pool(seen.spec)
            or self._lost(seen.spec)
            or self._bind(entry, seen.spec)
        )

    def _missing_pool(self, spec: TaskSpec) -> Fault | None:
        pool = self.objects.named(WORKER_POOL, spec.namespace, spec.pool)
        if pool is None:
            # It names no pools that exist: the message would be stale with each that comes or goes.
            return Fault(
                reasons.POOL_NOT_FOUND,
                f"spec.pool: there is no WorkerPool {spec.pool} in namespace {spec.namespace}; "
                f"create it, or name one of `kubectl get workerpools.tickwheel.io -n {spec.namespace}`",
            )
        if pool.spec is None:
            return Fault(
                reasons.POOL_NOT_FOUND, f"spec.pool: the WorkerPool {spec.pool} is itself stalled; mend it first"
            )
        return None

    def _lost(self, spec: TaskSpec) -> Fault | None:
        """What is wrong with the task whose runs it follows."""
        field, namespace, followed = "spec.trigger.completion.task", spec.namespace, spec.source.follows
        if followed is None:
            return None
        if self.objects.named(SCHEDULED_TASK, namespace, followed) is None:
            return Fault(
                reasons.TASK_NOT_FOUND,
                f"{field}: there is no ScheduledTask {followed} in namespace {namespace}; "
                f"create it, or name one of `kubectl get scheduledtasks.tickwheel.io -n {namespace}`",
            )
        cycle = [name for _, name in islice(self._completions.cycle((namespace, spec.name)), _CYCLE_SHOWN + 1)]
        if not cycle:
            return None
        if len(cycle) > _CYCLE_SHOWN:
            cycle[-1] = "..."
        chain = " -> ".join([*cycle, spec.name])
        return Fault(
            reasons.COMPLETION_CYCLE, f"{field}: {chain} is a circle, in which a run would follow itself; break it"
        )

    def _bind(self, entry: TaskEntry, spec: TaskSpec) -> Fault | None:
        """Put the dates of its calendars into the task."""
        if not spec.calendars:
            entry.bound = None
            return None
        dates = {use.name: self._dates(spec.namespace, use.name) for use in spec.calendars}
        bound = entry.bound
        if bound is None or bound.of is not spec or bound.dates != tuple(dates.values()):
            bound = entry.bound = _bound(spec, dates)
        return bound.fault

    def _dates(self, namespace: str, name: str) -> CalendarDates | None:
        calendar = self.objects.named(CALENDAR, namespace, name)
        return None if calendar is None else calendar.dates

    def _post(self, key: str, command: Command) -> None:
        if self._sink is None:
            return
        self._outbox.append(command)
        if not self._gathers or len(self._outbox) >= TOGETHER:
            self._send(key)

    def _send(self, key: str) -> None:
        commands, self._outbox = self._outbox, []
        if self._sink is None or not commands:
            return
        try:
            self._sink(commands)
        except Exception:
            # The leader ends its term for it, and logs why; the next one asks for the whole catalog.
            _log.info("the engine failed at the change of %s", key)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """None: there is nobody else to look after."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _bound(spec: TaskSpec, dates: dict[str, CalendarDates | None]) -> Bound:
    given = tuple(dates.values())
    try:
        return Bound(spec, given, bind_calendars(spec, dates.get), None)
    except NeverFires as error:
        return Bound(spec, given, None, Fault(reasons.NEVER_FIRES, sentence(error.faults)))
    except InvalidManifest as error:
        return Bound(spec, given, None, Fault(reasons.CALENDAR_NOT_FOUND, sentence(error.faults)))


def _wanted(entry: TaskEntry) -> tuple[int, bool, Dates]:
    """What the engine must have been told, in short."""
    armed = entry.spec is not None
    return (entry.seen.generation, armed, entry.bound.dates if armed and entry.bound is not None else ())


def _command(entry: TaskEntry) -> Command:
    spec = entry.spec
    if spec is None:
        return TaskRemoved(uid=entry.seen.uid, forget=False)
    return TaskApplied(spec=spec, record=entry.seen.record)


def _named(spec: TaskSpec | None) -> Iterator[tuple[str, str, str]]:
    """Kind, namespace and name of all that a task names."""
    if spec is not None:
        for kind in AWAITED:
            for name in kind.named_by(spec):
                yield kind.name, spec.namespace, name
