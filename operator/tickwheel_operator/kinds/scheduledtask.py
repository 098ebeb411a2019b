"""ScheduledTask: what fires when, and what is seen of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec.structs import replace

from tickwheel_operator import reasons
from tickwheel_operator.api import InvalidManifest, ScheduledTask
from tickwheel_operator.engine.messages import StatusRecord
from tickwheel_operator.engine.read.views import PoolView, RunView, TaskView
from tickwheel_operator.engine.sources import ByHand
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.engine.triggers.instants import timestamp
from tickwheel_operator.kinds.compile_task import NeverFires, compile_task
from tickwheel_operator.kinds.conditions import SETTLED, Status, conditions, faulty
from tickwheel_operator.kinds.descriptor import Kind
from tickwheel_operator.kinds.records import status_record
from tickwheel_operator.kinds.seen import Fault, RawObject, Seen
from tickwheel_operator.kinds.stored import Stored
from tickwheel_operator.kinds.world import World

__all__ = [
    "SCHEDULED_TASK",
    "Bound",
    "Dates",
    "SeenTask",
    "TaskEntry",
    "has_ended",
    "missing_handler",
    "task_status",
]

_NAMES_SHOWN = 20

Dates = tuple[CalendarDates | None, ...]
"""Of the calendars that a spec names, in its order; None: there is no such calendar, or it is stalled."""


class SeenTask(Seen, frozen=True, kw_only=True):
    spec: TaskSpec | None = None
    """None: it is faulty."""
    deleting: bool = False
    record: StatusRecord | None = None
    """What its status says of earlier runs; None: nothing."""


class Bound(NamedTuple):
    """A task's spec with the dates of its calendars in it."""

    of: TaskSpec
    dates: Dates
    spec: TaskSpec | None
    fault: Fault | None
    """Why there is no spec."""


class TaskEntry:
    """A ScheduledTask that exists."""

    __slots__ = ("bound", "fault", "posted", "seen")

    def __init__(self, seen: SeenTask) -> None:
        self.seen = seen
        self.fault: Fault | None = None
        """Why it is not armed; None: it is."""
        self.bound: Bound | None = None
        """None: it honours no calendars."""
        self.posted: tuple[int, bool, Dates] | None = None
        """Generation, armed, and the dates of its calendars, as the leading engine was last told."""

    @property
    def spec(self) -> TaskSpec | None:
        """As the engine is to have it; None: it is not armed."""
        if self.fault is not None or self.seen.deleting:
            return None
        return self.seen.spec if self.bound is None else self.bound.spec


class _TaskKind(Kind[ScheduledTask, SeenTask]):
    interval_s = 1.0
    kept = ("spec",)
    sections = (
        ("observedGeneration", "trigger", "conditions"),
        ("nextScheduleTime",),
        ("lastScheduleTime", "settledTime", "lastRun", "active", "counters", "skips"),
    )

    def compile(self, seen: SeenTask, manifest: ScheduledTask) -> SeenTask:
        return replace(seen, spec=compile_task(manifest))

    def look(self, seen: SeenTask, raw: RawObject) -> SeenTask:
        metadata = raw["metadata"]
        record = status_record(metadata["name"], raw.get("status") or {})
        return replace(seen, deleting="deletionTimestamp" in metadata, record=record)

    def observe(self, raw: RawObject, known: SeenTask | None = None) -> SeenTask | None:
        seen = super().observe(raw, known)
        if seen is None or seen.spec is None:
            return seen
        # Of 100,000 tasks each name is in memory once.
        return replace(seen, namespace=seen.spec.namespace, name=seen.spec.name)

    def refusal(self, error: InvalidManifest) -> Fault:
        fault = super().refusal(error)
        return replace(fault, reason=reasons.NEVER_FIRES) if isinstance(error, NeverFires) else fault

    def status(self, seen: SeenTask, world: World, stored: Stored) -> Status | None:
        task = world.tasks.task(seen.uid)
        if task is None:
            return None
        view, ended = world.views.get(seen.uid), stored.ready == reasons.ENDED
        if view is not None and view.armed and view.generation == seen.generation:
            ended = has_ended(task, view, world.now_ms())
        status = task_status(task, view, _pool(task, world), ended=ended)
        if view is None and task.fault is None:
            del status["nextScheduleTime"]  # only a view knows it
        return status

    def is_early(self, task: TaskEntry, world: World, stored: Stored) -> bool:
        """A new leader has not heard of the workers yet: a handler that was missing may still be."""
        if task.fault is not None or task.seen.spec is None or stored.stalled != reasons.HANDLER_NOT_REGISTERED:
            return False
        pool = _pool(task, world)
        return world.settles_in_s > 0 and (pool is None or not pool.workers)


SCHEDULED_TASK = _TaskKind(ScheduledTask, SeenTask)


def _pool(task: TaskEntry, world: World) -> PoolView | None:
    spec = task.seen.spec
    return world.pools.get((spec.namespace, spec.pool)) if spec is not None else None


def missing_handler(handler: str, pool_name: str, pool: PoolView | None) -> str:
    """The message of HandlerNotRegistered, or nothing: without live workers nobody knows what they would register."""
    if pool is None or not pool.workers or handler in pool.handlers:
        return ""
    names = ", ".join(pool.handlers[:_NAMES_SHOWN]) or "none"
    more = f" and {len(pool.handlers) - _NAMES_SHOWN} more" if len(pool.handlers) > _NAMES_SHOWN else ""
    count = f"the {pool.workers} live workers" if pool.workers > 1 else "the live worker"
    return (
        f"spec.handler: {handler!r} is not registered by {count} of pool {pool_name}; registered: {names}{more}. "
        f'Mend the name, or register it: @task("{handler}")'
    )


def has_ended(task: TaskEntry, view: TaskView, now_ms: int) -> bool:
    """Whether its trigger has no instant any more. That the engine sleeps on none is not enough: while the intake is
    held, a run with a fixed delay is open, or a search behind calendars gave up, there is none either."""
    spec = task.seen.spec
    if spec is None or view.next_ms is not None:
        return False
    return spec.source.has_ended(now_ms, is_open=bool(view.active))


def task_status(task: TaskEntry, view: TaskView | None, pool: PoolView | None, *, ended: bool = False) -> Status:
    """Of a ScheduledTask. Without a view, or with one that is not armed, the runs' fields are left as they are. `ended`
    is what `has_ended` says, or said last."""
    seen, spec, fault = task.seen, task.seen.spec, task.fault
    generation = seen.generation
    if fault is not None:
        ready, stalled = faulty(fault)
    else:
        missing = missing_handler(spec.handler, spec.pool, pool) if spec is not None else ""
        stalled = ("True", reasons.HANDLER_NOT_REGISTERED, missing) if missing else SETTLED
        if spec is not None and spec.suspend:
            ready = ("True", reasons.SUSPENDED, "spec.suspend is set: nothing fires by itself")
        elif spec is not None and isinstance(spec.source, ByHand):
            ready = ("True", reasons.MANUAL, "runs by hand, by API and in workflows only")
        elif ended:
            ready = ("True", reasons.ENDED, "its trigger has no instant any more: nothing fires by itself")
        else:
            ready = ("True", reasons.ARMED, "fires as its trigger says")
    status: Status = {
        "observedGeneration": generation,
        "trigger": None if spec is None else _trigger(task),
        "conditions": conditions(generation, Ready=ready, Reconciling=SETTLED, Stalled=stalled),
        "nextScheduleTime": None,
    }
    if view is None:
        return status
    if fault is None and view.next_ms is not None:
        status["nextScheduleTime"] = timestamp(view.next_ms)
    newest = max(view.runs, key=lambda run: (run.created_ms, run.scheduled_ms), default=None)
    status |= {
        "lastScheduleTime": None if view.last_ms is None else timestamp(view.last_ms),
        "settledTime": None if view.settled_ms is None else timestamp(view.settled_ms),
        "lastRun": None if newest is None else _last_run(newest),
        "active": view.active,
        "counters": {
            "succeeded": view.succeeded,
            "failed": view.failed,
            "cancelled": view.cancelled,
            "skipped": view.skipped,
        },
        "skips": [
            {"reason": reason, "count": count, "lastTime": timestamp(last_ms)} for reason, count, last_ms in view.skips
        ],
    }
    return status


def _trigger(task: TaskEntry) -> str:
    spec = task.seen.spec
    if spec is None:
        return ByHand().describe()
    parts = [spec.source.describe()]
    parts += [f"except on {use.name}" for use in spec.calendars if use.exclude]
    if included := [use.name for use in spec.calendars if not use.exclude]:
        parts.append(f"only on {' or '.join(included)}")
    return "; ".join(parts)[:300]


def _last_run(run: RunView) -> dict[str, Any]:
    return {
        "name": run.name,
        "state": run.state.value,
        "time": timestamp(run.ended_ms or run.started_ms or run.created_ms),
    }
