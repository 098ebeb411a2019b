"""Pictures of tasks and pools for people: what the projection writes to `status` and to TaskRun objects.

A view is taken together with the facts that it shows, and leaves the host when those are durable: nobody is shown
what might yet be lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from tickwheel_operator.engine.dispatch.routing import Router
from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.model.identity import run_name
from tickwheel_operator.engine.model.places import Place
from tickwheel_operator.engine.model.runs import Ended, Run, TaskState, WorkerName
from tickwheel_operator.engine.model.runs import Group as RunGroup
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.schedule.groups import Entry, Group
from tickwheel_operator.engine.schedule.overlap import Overlaps
from tickwheel_operator.engine.schedule.scheduler import Scheduler
from tickwheel_operator.engine.schedule.starters import Starters
from tickwheel_operator.engine.triggers.instants import is_instant

__all__ = [
    "Due",
    "HandlerState",
    "PoolView",
    "RunView",
    "TaskView",
    "ViewFault",
    "Views",
    "due_runs",
    "pool_views",
    "slots_in_use",
    "task_views",
]

_SEPARATE = 3
"""Instants until the horizon that are given one by one; a trigger that has more of them repeats."""
_MEASURED = 3
"""The latest runs of a task by which its duration is known."""
_SAMPLED = 20
"""Tasks that fire together by whose durations all of theirs are known."""
_TASKS_NAMED = 3
_ACTIVE_SHOWN = 10
"""Open runs of a task that are shown one by one, the oldest first; runs that an object asked for always are."""


class RunView(msgspec.Struct, frozen=True, gc=False):
    """One run."""

    name: str
    """The TaskRun object's: the one that asked for it, or one derived from the run id."""
    run_id: str
    requested: bool
    """A user made the TaskRun object."""
    state: RunState
    scheduled_ms: int
    created_ms: int
    started_ms: int
    """0: not yet."""
    ended_ms: int
    """0: not yet."""
    attempts: int
    worker: str
    fraction: float = 0.0
    note: str = ""
    result: bytes = b""
    error_type: str = ""
    """Why it failed; of an open run, why its last attempt did."""
    message: str = ""
    traceback: str = ""
    cancelling: bool = False
    """It was asked to stop, and has not said that it did."""
    ready_ms: int = 0
    """It may start from this instant on: a delayed or jittered run, or a backoff. 0: it waits for no instant."""
    waits_for: str = ""
    """The runs that it waits for, in words."""
    dispatches: tuple[int, int, int] | None = None
    """Of a backfill: its instants, how many of their runs succeeded, how many did not."""


class HandlerState(msgspec.Struct, frozen=True, gc=False):
    """Whether somebody could run the task."""

    workers: int
    """Live workers of the pool."""
    with_handler: int
    """Those that registered the handler."""


class TaskView(msgspec.Struct, frozen=True):
    """One task, and the runs of it that are shown."""

    uid: str
    namespace: str
    name: str
    generation: int
    armed: bool
    """False: its object is gone or invalid; the projection leaves it to the controllers."""
    next_ms: int | None
    last_ms: int | None
    """The last instant that fired; None: none yet."""
    active: int
    succeeded: int
    failed: int
    cancelled: int
    skipped: int
    handler: HandlerState
    runs: list[RunView]
    """Open ones first, then the history, newest first, as far as `spec.history` keeps it; and each ended one that an
    object asked for, once at least."""
    skips: tuple[tuple[str, int, int], ...] = ()
    """Instants that made no run: the reason, how many, and up to which; by reason."""
    settled_ms: int | None = None
    """Instants up to this one are settled; None: no fact says so yet."""


class PoolView(msgspec.Struct, frozen=True):
    """One pool and its live workers."""

    namespace: str
    name: str
    workers: int
    draining: int
    slots: int
    used: int
    backlog: int
    cpu: float
    """Mean over the workers, 0 to 1."""
    memory: float
    handlers: list[str]
    free: int = 0
    """Slots of workers that do not drain, less those in use."""
    timed: int = 0
    """Workers that know the operator's clock well enough for early leases."""
    clock_offset_us: int | None = None
    """The farthest of their estimates of how far their clocks are off; None: there is none."""
    clock_error_us: int | None = None
    """The vaguest of these."""
    schemas: tuple[str, ...] = ()
    """The hashes of the schemas that live workers registered; an empty one: of workers without any."""


class Due(msgspec.Struct, frozen=True, gc=False):
    """Runs that a trigger will make."""

    at_ms: int
    """The instant; the first one, of a trigger that repeats."""
    tasks: int
    """Tasks that fire then, all at once."""
    lasts_ms: int
    """How long such a run takes, as measured of late; unknown: until the task's own next instant or the horizon."""
    every_ms: int = 0
    """It repeats so often until the horizon; 0: this once."""


class Views(msgspec.Struct, frozen=True):
    """What changed, of one moment."""

    tasks: list[TaskView]
    pools: list[PoolView]
    faults: list[ViewFault] = []
    """Tasks that could not be viewed. They cost no other its view."""


class ViewFault(msgspec.Struct, frozen=True):
    """A task that could not be viewed."""

    uid: str
    error: Exception


def task_views(
    state: State, scheduler: Scheduler, router: Router, limit: int, now_ms: int
) -> tuple[list[TaskView], list[ViewFault]]:
    """Take up to `limit` changed tasks, in the order in which they changed first."""
    starters, overlaps = scheduler.starters, scheduler.overlaps
    views: list[TaskView] = []
    faults: list[ViewFault] = []
    while len(views) + len(faults) < limit and (state.touched or scheduler.touched):
        task: TaskState | None = None
        if state.touched:
            task, _ = state.touched.popitem(last=False)
            uid = task.uid
        else:
            uid = scheduler.touched.popleft()
        entry = scheduler.entries.get(uid)
        if task is None and (entry is None or entry.task is not None):
            continue  # gone, or its facts have touched it
        try:
            views.append(_task_view(state, task, entry, router, starters, overlaps, now_ms))
        except Exception as error:
            faults.append(ViewFault(uid, error))
    return views, faults


def pool_views(state: State, router: Router) -> list[PoolView]:
    """All pools that anything was heard of."""
    views = []
    for (namespace, name), pool in sorted(router.pools.items()):
        workers = list(pool.workers.values())
        used = {worker: state.held(worker.number) for worker in workers}
        count = len(workers) or 1
        views.append(
            PoolView(
                namespace,
                name,
                len(workers),
                sum(w.draining for w in workers),
                sum(w.slots for w in workers),
                sum(used.values()),
                pool.backlog(),
                sum(w.cpu for w in workers) / count,
                sum(w.memory for w in workers) / count,
                sorted(handler for handler, queue in pool.queues.items() if queue.workers),
                sum(max(0, w.slots - used[w]) for w in workers if not w.draining),
                sum(w.early for w in workers),
                max((w.clock_offset_us for w in workers if w.clock_error_us is not None), key=abs, default=None),
                max((w.clock_error_us for w in workers if w.clock_error_us is not None), default=None),
                tuple(sorted(pool.schemas)),
            )
        )
    return views


def slots_in_use(state: State, router: Router, namespace: str, name: str) -> dict[str, tuple[int, bool]]:
    """The pool's live workers by name: slots in use, and whether it drains."""
    pool = router.pools.get((namespace, name))
    if pool is None:
        return {}
    return {name: (state.held(w.number), w.draining) for name, w in pool.workers.items()}


def due_runs(
    entries: Iterable[Entry], now_ms: int, horizons: Mapping[tuple[str, str], int]
) -> dict[tuple[str, str], list[Due]]:
    """What tasks (some of `Scheduler.entries`) will fire until their pool's horizon. Pools without one are left out.

    A task costs 0.05 us, one that fires until then 0.5 us, and each trigger that fires until then 5 us: give it a few
    hundred tasks at a time.
    """
    latest_ms = max(horizons.values(), default=0)
    found: dict[tuple[Group, tuple[str, str]], list[int]] = {}
    for entry in entries:
        group = entry.group
        next_ms = None if group is None else group.next_ms
        if group is None or next_ms is None or next_ms > latest_ms:
            continue
        key = (entry.spec.namespace, entry.spec.pool)
        until_ms = horizons.get(key)
        if until_ms is None or next_ms > until_ms:
            continue
        sums = found.setdefault((group, key), [0, 0, 0])
        sums[0] += 1
        if sums[1] < _SAMPLED and (lasts_ms := _duration_ms(entry.task)) is not None:
            sums[1] += 1
            sums[2] += lasts_ms
    dues: dict[tuple[str, str], list[Due]] = {}
    for (group, key), (tasks, measured, total_ms) in found.items():
        lasts_ms = total_ms // measured if measured else None
        dues.setdefault(key, []).extend(_due(group, max(now_ms, group.next_ms or 0), horizons[key], tasks, lasts_ms))
    return dues


def _due(group: Group, first_ms: int, until_ms: int, tasks: int, lasts_ms: int | None) -> Iterator[Due]:
    instants = [first_ms]
    following = group.trigger.next_after(first_ms)
    while following is not None and following <= until_ms and len(instants) <= _SEPARATE:
        instants.append(following)
        following = group.trigger.next_after(following)
    every_ms = instants[-1] - first_ms
    if len(instants) > _SEPARATE:
        every_ms //= _SEPARATE
        yield Due(first_ms, tasks, every_ms if lasts_ms is None else lasts_ms, every_ms)
        return
    for place, instant in enumerate(instants):
        end_ms = instants[place + 1] if place + 1 < len(instants) else until_ms + 1
        yield Due(instant, tasks, end_ms - instant if lasts_ms is None else lasts_ms)


def _duration_ms(task: TaskState | None) -> int | None:
    """Mean of the latest runs, from the first lease to the end; None: there are none."""
    if task is None:
        return None
    history = task.history_succeeded or task.history_failed
    total_ms = count = 0
    for place in range(1, min(len(history), _MEASURED) + 1):
        ended = history[-place]
        if ended.started_ms:
            total_ms += ended.ended_ms - ended.started_ms
            count += 1
    return total_ms // count if count else None


def _task_view(
    state: State,
    task: TaskState | None,
    entry: Entry | None,
    router: Router,
    starters: Starters,
    overlaps: Overlaps,
    now_ms: int,
) -> TaskView:
    spec = entry.spec if entry is not None else None
    workers = with_handler = 0
    if spec is not None and (pool := router.pools.get((spec.namespace, spec.pool))) is not None:
        workers = len(pool.workers)
        queue = pool.queues.get(spec.handler)
        with_handler = queue.workers if queue is not None else 0
    of = task or spec
    if of is None:
        raise ValueError("a view is of a task that the ledger or the catalog knows")
    next_ms = None if entry is None else starters.of(entry.spec.source).next_ms(entry)
    keep_succeeded = spec.keep_succeeded if spec is not None else 3
    keep_failed = spec.keep_failed if spec is not None else 5
    runs: list[RunView] = []
    if task is not None:
        waits: dict[RunGroup, str] = {}
        runs = [
            _open(run, state.workers.get(run.worker), _waits_for(run, overlaps, waits), now_ms)
            for run in task.shown(_ACTIVE_SHOWN)
        ]
        history = _latest(task.history_succeeded, keep_succeeded) + _latest(task.history_failed, keep_failed)
        if task.unshown is not None:
            kept = {e.run_id for e in history}
            history += [e for e in task.unshown if e.run_id not in kept]
            task.unshown = None
        runs += [_ended(task.name, e) for e in sorted(history, key=lambda e: -e.ended_ms)]
    return TaskView(
        uid=of.uid,
        namespace=of.namespace,
        name=of.name,
        generation=spec.generation if spec is not None else 0,
        armed=entry is not None and not entry.paused,
        next_ms=next_ms,
        last_ms=task.last_scheduled_ms if task is not None and is_instant(task.last_scheduled_ms) else None,
        settled_ms=task.watermark_ms if task is not None and is_instant(task.watermark_ms) else None,
        active=len(task.runs) if task else 0,
        succeeded=task.succeeded if task else 0,
        failed=task.failed if task else 0,
        cancelled=task.cancelled if task else 0,
        skipped=task.skipped if task else 0,
        handler=HandlerState(workers, with_handler),
        runs=runs,
        skips=_skips(task),
    )


def _skips(task: TaskState | None) -> tuple[tuple[str, int, int], ...]:
    """`CATCH_UP_LIMIT` is `CatchUpLimit` to people."""
    if task is None or task.skips is None:
        return ()
    named = ((reason.name.title().replace("_", ""), *seen) for reason, seen in task.skips.items())
    return tuple(sorted(named))


def _latest(history: deque[Ended], keep: int) -> list[Ended]:
    """The last `keep`, and whatever an object asked for."""
    return [e for place, e in enumerate(reversed(history)) if place < keep or e.object_name]


def _open(run: Run, worker: WorkerName | None, waits_for: str, now_ms: int) -> RunView:
    run_id = run.id
    dispatch = next(iter(run.dispatches), None)
    error_type, message = run.failure or ("", "")
    return RunView(
        name=run.name,
        run_id=run_id,
        requested=bool(run.object_name),
        state=run.state,
        scheduled_ms=run.scheduled_ms,
        created_ms=run.created_ms,
        started_ms=run.started_ms,
        ended_ms=0,
        attempts=run.attempts,
        worker=worker.key.name if worker is not None else "",
        fraction=dispatch.fraction if dispatch is not None else 0.0,
        note=dispatch.note if dispatch is not None else "",
        error_type=error_type,
        message=message,
        cancelling=run.cancelling is not None,
        ready_ms=_ready_ms(run, now_ms),
        waits_for=waits_for,
        dispatches=run.execution.counts,
    )


def _ready_ms(run: Run, now_ms: int) -> int:
    if run.held or run.is_leased or any(dispatch.place is Place.QUEUED for dispatch in run.dispatches):
        return 0
    return run.ready_ms if run.ready_ms > now_ms else 0


def _waits_for(run: Run, overlaps: Overlaps, told: dict[RunGroup, str]) -> str:
    """`told`: of groups that were asked for already, since thousands may wait for thousands."""
    group = run.group
    if not run.held or group is None:
        return ""
    text = told.get(group)
    if text is None:
        text = told[group] = _who_is_open(group, overlaps)
    return text


def _who_is_open(group: RunGroup, overlaps: Overlaps) -> str:
    reasons, unknown = [], overlaps.doubted(group)
    open_runs = len(group.admitted)
    if open_runs or not unknown:
        of = "of this task" if isinstance(group.key, str) else "with the same key"
        stopping = sum(other.cancelling is not None for other in group.admitted.values())
        text = f"{open_runs} run{'s' * (open_runs != 1)} {of} {'are' if open_runs != 1 else 'is'} open"
        reasons.append(f"{text}, {stopping} of them being stopped" if stopping else text)
    if unknown:
        tasks = sorted({other.task.name for other in unknown})
        listed = ", ".join(tasks[:_TASKS_NAMED]) + ", ..." * (len(tasks) > _TASKS_NAMED)
        count = f"{len(unknown)} open run{'s' * (len(unknown) != 1)}"
        reasons.append(f"{count} may have the same key, of invalid ScheduledTasks (mend or delete them): {listed}")
    return "; ".join(reasons)


def _ended(task_name: str, ended: Ended) -> RunView:
    return RunView(
        name=ended.object_name or run_name(task_name, ended.run_id),
        run_id=ended.run_id,
        requested=bool(ended.object_name),
        state=ended.state,
        scheduled_ms=ended.scheduled_ms,
        created_ms=ended.created_ms,
        started_ms=ended.started_ms,
        ended_ms=ended.ended_ms,
        attempts=ended.attempts,
        worker=ended.worker,
        result=ended.result,
        error_type=ended.error_type,
        message=ended.message,
        traceback=ended.traceback,
        dispatches=(ended.total, ended.succeeded, ended.failed) if ended.total else None,
    )
