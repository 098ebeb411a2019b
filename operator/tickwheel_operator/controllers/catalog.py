"""What exists: every ScheduledTask, WorkerPool and Calendar, as far as the engine and the projection need it.

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

from tickwheel_operator.api import InvalidManifest, WorkerPool, sentence
from tickwheel_operator.controllers.compile import NeverFires, bind_calendars
from tickwheel_operator.controllers.completions import Completions
from tickwheel_operator.controllers.entries import Bound, CalendarEntry, Dates, PoolEntry, TaskEntry
from tickwheel_operator.controllers.isolation import Isolation
from tickwheel_operator.controllers.observe import NEVER_FIRES, Fault, ObservedCalendar, ObservedPool, ObservedTask
from tickwheel_operator.engine.messages import Command, PoolApplied, PoolRemoved, TaskApplied, TaskRemoved
from tickwheel_operator.engine.spec import Completion, TaskSpec
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.objectfaults import INTERNAL_ERROR, Layer, ObjectFaults

__all__ = ["KINDS", "TOGETHER", "CalendarEntry", "Catalog", "PoolEntry", "TaskEntry"]

_log = logging.getLogger(__name__)

POOL_NOT_FOUND = "PoolNotFound"
CALENDAR_NOT_FOUND = "CalendarNotFound"
TASK_NOT_FOUND = "TaskNotFound"
COMPLETION_CYCLE = "CompletionCycle"
KINDS = ("ScheduledTask", "WorkerPool", "TaskRun", "Calendar")
"""The kinds whose lists must be complete before a replica may lead."""
Name = tuple[str, str]
"""Namespace and name."""
_CYCLE_SHOWN = 10
_AT_ONCE_S = 0.02
"""How long the tasks of a pool or a calendar that changed are judged before others get their turn."""
TOGETHER = 200
"""The most commands that are posted at once: 1 ms of the engine's time, if nothing is overdue."""


class Catalog:
    """All tasks, pools and calendars. Not for use from other threads."""

    def __init__(self, faults: ObjectFaults | None = None) -> None:
        self._faults = faults or ObjectFaults()
        self._isolation = Isolation()
        self._tasks: dict[str, TaskEntry] = {}
        self._pools: dict[Name, PoolEntry] = {}
        self._calendars: dict[Name, CalendarEntry] = {}
        self._of_pool: dict[Name, dict[str, None]] = {}
        self._of_calendar: dict[Name, dict[str, None]] = {}
        self._by_name: dict[Name, str] = {}
        self._completions = Completions()
        self._unjudged: OrderedDict[str, None] = OrderedDict()
        """Uids of tasks whose pool or calendar has changed, in the order in which they are judged."""
        self._sink: Callable[[Sequence[Command]], None] | None = None
        self._outbox: list[Command] = []
        self._gathers = False
        """What is posted now goes together with what comes after it."""
        self._unsynced = set(KINDS)
        self._synced = asyncio.Event()
        self.unserved: Callable[[str], Fault | None] = lambda namespace: None
        """Why nothing of a namespace is served here, such as since another release does; None: it is."""
        self.on_task: Callable[[str], None] = lambda uid: None
        """Called with the uid of a task that changed in any way, its status too, or is gone."""
        self.on_pool: list[Callable[[str, str], None]] = []
        """Each is called with the namespace and name of a pool that changed in any way, its status too, or is gone."""
        self.on_calendar: Callable[[str, str], None] = lambda namespace, name: None
        """Called with the namespace and name of a calendar that changed in any way, its status too, or is gone."""

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

    def pool_keys(self) -> Collection[Name]:
        """Namespace and name of each pool that exists and is served here, whatever is wrong with it."""
        served = {namespace: self.unserved(namespace) is None for namespace in {name[0] for name in self._pools}}
        return [name for name in self._pools if served[name[0]]]

    def pool_resource(self, namespace: str, name: str) -> WorkerPool | None:
        """The pool's manifest; None: there is none, it is invalid, it is being deleted, or it is not served here."""
        entry = self._pools.get((namespace, name))
        if entry is None or entry.seen.deleting or self.unserved(namespace) is not None:
            return None
        return entry.seen.resource

    def tasks_of_pool(self, namespace: str, name: str) -> Iterable[str]:
        """Uids of the tasks that name the pool, whether it exists or not."""
        return tuple(self._of_pool.get((namespace, name), ()))

    def calendar(self, namespace: str, name: str) -> CalendarEntry | None:
        return self._calendars.get((namespace, name))

    def calendars(self) -> Collection[CalendarEntry]:
        return self._calendars.values()

    def namespaces(self) -> set[str]:
        """Those that have a task or a pool."""
        return {entry.seen.namespace for entry in self._tasks.values()} | {name[0] for name in self._pools}

    def uids(self, kind: str) -> set[str]:
        """The objects of a kind that are known (of tasks, pools and calendars)."""
        match kind:
            case "ScheduledTask":
                return set(self._tasks)
            case "Calendar":
                return {entry.seen.uid for entry in self._calendars.values()}
            case _:
                return {entry.seen.uid for entry in self._pools.values()}

    # --- the engine's side ---

    def snapshot(self) -> Iterator[Command]:
        """The commands that make a new engine know all objects, now: pools first."""
        for pool in self._pools.values():
            if pool.seen.spec is not None:
                yield PoolApplied(spec=pool.seen.spec)
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
        self._isolation.strike(uid, generation, Fault(INTERNAL_ERROR, message))
        if entry is not None:
            self._judge(entry)

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
        name = (seen.namespace, seen.name)
        is_new = name not in self._by_name
        self._by_name[name] = seen.uid
        spec = seen.spec
        if spec is not None:
            self._of_pool.setdefault((spec.namespace, spec.pool), {})[seen.uid] = None
            for use in spec.calendars:
                self._of_calendar.setdefault((spec.namespace, use.name), {})[seen.uid] = None
        concerned = self._link(name, spec)
        self._judge(entry)
        self._judge_named(concerned, but=name)
        if is_new:
            self._judge_named(self._completions.followers(name), but=name)

    def task_gone(self, uid: str) -> None:
        entry = self._tasks.pop(uid, None)
        if entry is None:
            return
        self._unindex(entry)
        self._post(uid, TaskRemoved(uid=uid))
        self.on_task(uid)
        name = (entry.seen.namespace, entry.seen.name)
        if self._by_name.get(name) == uid:
            del self._by_name[name]
            self._judge_named({*self._link(name, None), *self._completions.followers(name)}, but=name)

    def pool_seen(self, seen: ObservedPool) -> None:
        key = (seen.namespace, seen.name)
        before = self._pools.get(key)
        self._pools[key] = PoolEntry(seen)
        self.unserved(seen.namespace)  # a pool alone wants its namespace to be served
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

    def calendar_seen(self, seen: ObservedCalendar) -> None:
        key = (seen.namespace, seen.name)
        before = self._calendars.get(key)
        self._calendars[key] = CalendarEntry(seen)
        if before is None or seen.dates != before.seen.dates:
            self._judge_calendar(key)
        self.on_calendar(*key)

    def calendar_gone(self, namespace: str, name: str, uid: str) -> None:
        key = (namespace, name)
        entry = self._calendars.get(key)
        if entry is None or entry.seen.uid != uid:
            return  # another object has the name by now
        del self._calendars[key]
        self._judge_calendar(key)
        self.on_calendar(*key)

    def namespaces_changed(self, namespaces: Collection[str]) -> None:
        """What `unserved` says of these namespaces has changed."""
        changed = set(namespaces)
        self._judge_soon([uid for uid, entry in self._tasks.items() if entry.seen.namespace in changed])
        for key in [name for name in self._pools if name[0] in changed]:
            self._pool_changed(key)
        for key in [name for name in self._calendars if name[0] in changed]:
            self.on_calendar(*key)

    def forget(self, kind: str, uid: str) -> None:
        """The object is gone, though no watch event said so."""
        match kind:
            case "ScheduledTask":
                self.task_gone(uid)
            case "Calendar":
                for calendar in list(self._calendars.values()):
                    if calendar.seen.uid == uid:
                        self.calendar_gone(calendar.seen.namespace, calendar.seen.name, uid)
            case _:
                for pool in list(self._pools.values()):
                    if pool.seen.uid == uid:
                        self.pool_gone(pool.seen.namespace, pool.seen.name, uid)

    # --- inside ---

    def _unindex(self, entry: TaskEntry) -> None:
        spec = entry.seen.spec
        if spec is None:
            return
        _discard(self._of_pool, (spec.namespace, spec.pool), spec.uid)
        for use in spec.calendars:
            _discard(self._of_calendar, (spec.namespace, use.name), spec.uid)

    def _link(self, name: Name, spec: TaskSpec | None) -> Collection[Name]:
        """The task follows whom its spec names. Returns the tasks for which that may change whether they are armed."""
        followed = spec.after.task if spec is not None and isinstance(spec.after, Completion) else None
        return self._completions.link(name, None if followed is None else (name[0], followed))

    def _pool_changed(self, key: Name) -> None:
        for listener in self.on_pool:
            listener(*key)

    def _judge_pool(self, key: Name) -> None:
        self._judge_soon(self._of_pool.get(key, ()))

    def _judge_calendar(self, key: Name) -> None:
        self._judge_soon(self._of_calendar.get(key, ()))

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
            uid = self._by_name.get(name)
            if uid is not None and name != but:
                self._judge(self._tasks[uid])

    def _judge(self, entry: TaskEntry) -> None:
        """Work out whether the task is armed, and tell the engine what changed."""
        seen = entry.seen
        try:
            entry.fault = self._fault(entry)
        except Exception as error:
            message = self._faults.record(Layer.CATALOG, "ScheduledTask", seen.namespace, seen.name, error)
            entry.fault = Fault(INTERNAL_ERROR, message)
        wanted = _wanted(entry)
        if self._sink is not None and entry.posted != wanted:
            entry.posted = wanted
            self._post(seen.uid, _command(entry))
        self.on_task(seen.uid)

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
        pool = self._pools.get((spec.namespace, spec.pool))
        if pool is None:
            # It names no pools that exist: the message would be stale with each that comes or goes.
            return Fault(
                POOL_NOT_FOUND,
                f"spec.pool: there is no WorkerPool {spec.pool} in namespace {spec.namespace}; "
                f"create it, or name one of `kubectl get workerpools.tickwheel.io -n {spec.namespace}`",
            )
        if pool.seen.spec is None:
            return Fault(POOL_NOT_FOUND, f"spec.pool: the WorkerPool {spec.pool} is itself stalled; mend it first")
        return None

    def _lost(self, spec: TaskSpec) -> Fault | None:
        """What is wrong with the task whose runs it follows."""
        if not isinstance(spec.after, Completion):
            return None
        field, namespace, followed = "spec.trigger.completion.task", spec.namespace, spec.after.task
        if (namespace, followed) not in self._by_name:
            return Fault(
                TASK_NOT_FOUND,
                f"{field}: there is no ScheduledTask {followed} in namespace {namespace}; "
                f"create it, or name one of `kubectl get scheduledtasks.tickwheel.io -n {namespace}`",
            )
        cycle = [name for _, name in islice(self._completions.cycle((namespace, spec.name)), _CYCLE_SHOWN + 1)]
        if not cycle:
            return None
        if len(cycle) > _CYCLE_SHOWN:
            cycle[-1] = "..."
        chain = " -> ".join([*cycle, spec.name])
        return Fault(COMPLETION_CYCLE, f"{field}: {chain} is a circle, in which a run would follow itself; break it")

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
        calendar = self._calendars.get((namespace, name))
        return None if calendar is None else calendar.seen.dates

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
        return Bound(spec, given, None, Fault(NEVER_FIRES, sentence(error.faults)))
    except InvalidManifest as error:
        return Bound(spec, given, None, Fault(CALENDAR_NOT_FOUND, sentence(error.faults)))


def _wanted(entry: TaskEntry) -> tuple[int, bool, Dates]:
    """What the engine must have been told, in short."""
    armed = entry.spec is not None
    return (entry.seen.generation, armed, entry.bound.dates if armed and entry.bound is not None else ())


def _command(entry: TaskEntry) -> Command:
    spec = entry.spec
    if spec is None:
        return TaskRemoved(uid=entry.seen.uid, forget=False)
    return TaskApplied(spec=spec, record=entry.seen.record)


def _discard(index: dict[Name, dict[str, None]], key: Name, uid: str) -> None:
    uids = index.get(key)
    if uids is not None:
        uids.pop(uid, None)
        if not uids:
            del index[key]
