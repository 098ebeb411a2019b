"""The durable state of a partition: the fold of its facts, and nothing else.

`State.apply` is the only way that runs, dispatches and attempts change, for the leader that decides a fact and for the
one that replays it: both hold the same state after the same facts. What is not durable (who is connected, which
timers are armed, how far a handler is) lives elsewhere in the engine, or in the fields marked as volatile here.

    dispatch:  ready --Leased--> leased --Succeeded--> gone
                 ^  ^---Returned----|
                 |---Failed(retry)--|--Failed(no retry)--> gone (the run fails: a dead letter)
"""

from __future__ import annotations

import bisect
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from tickwheel_operator.engine.identity import (
    backfill_run_id,
    completion_run_id,
    keyed_run_id,
    run_name,
    scheduled_run_id,
)
from tickwheel_operator.engine.messages import RunState, WorkerKey
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

if TYPE_CHECKING:
    from tickwheel_operator.engine.overlap import Group
    from tickwheel_operator.engine.queues import Lane, PoolQueue
    from tickwheel_operator.engine.snapshot import Snapshot
    from tickwheel_operator.engine.wheel import Timer

__all__ = ["Dispatch", "Ended", "Run", "Span", "State", "TaskState", "WorkerName"]

_HISTORY_SUCCEEDED = 10
_HISTORY_FAILED = 20
"""Ended runs kept per task and outcome: the bounds of `spec.history`."""
_OUTLINE_CHARS = 200
"""Of an error message: what is kept when the details are dropped."""
_BACKFILLED_SPANS = 1_000
_UNSHOWN = 1_000
"""Ended runs of a task that are kept for its next view, where an object asked for them."""


class WorkerName(msgspec.Struct, frozen=True):
    """A worker process that the ledger knows by a number."""

    key: WorkerKey
    instance: str


class Ended(msgspec.Struct, frozen=True, gc=False, eq=False, array_like=True):
    """What is kept of a run that ended. Told apart by identity; a row of a checkpoint as it is."""

    run_id: str
    scheduled_ms: int
    created_ms: int
    started_ms: int
    """0: it never started."""
    ended_ms: int
    state: RunState
    attempts: int
    worker: str
    object_name: str = ""
    result: bytes = b""
    error_type: str = ""
    message: str = ""
    traceback: str = ""
    total: int = 0
    """Of a backfill: its instants; else 0."""
    succeeded: int = 0
    failed: int = 0

    @property
    def detail_bytes(self) -> int:
        """What dropping its details would save; text counts by characters."""
        return len(self.result) + len(self.traceback) + max(0, len(self.message) - _OUTLINE_CHARS)

    def outline(self) -> Ended:
        """Without its details."""
        return msgspec.structs.replace(self, result=b"", message=self.message[:_OUTLINE_CHARS], traceback="")


class Span:
    """What a backfill is about, and how far it is."""

    __slots__ = ("failed", "from_ms", "max_parallel", "open", "succeeded", "to_ms", "total", "until_ms")

    def __init__(self, from_ms: int, to_ms: int, max_parallel: int, total: int) -> None:
        self.from_ms = from_ms
        self.to_ms = to_ms
        """Exclusive."""
        self.max_parallel = max_parallel
        self.total = total
        self.until_ms = from_ms - 1
        """Instants up to this one have their runs."""
        self.open = 0
        self.succeeded = 0
        self.failed = 0
        """And cancelled."""


class Run:
    """A run that has not ended."""

    __slots__ = (
        "_id", "aside", "attempts", "backfill", "cancelling", "created_ms", "delayed", "dispatch", "failure",
        "front", "group", "held", "key", "number", "object_name", "origin", "parameters", "scheduled_ms", "span",
        "started_ms", "task", "worker",
    )  # fmt: skip

    def __init__(self, number: int, task: TaskState, scheduled_ms: int, created_ms: int) -> None:
        self.number = number
        self.task = task
        self.scheduled_ms = scheduled_ms
        self.created_ms = created_ms
        self.origin = Origin.SCHEDULE
        self.front = False
        """It goes ahead of what waits."""
        self.backfill = 0
        """The number of the run whose span it belongs to; 0: none."""
        self.span: Span | None = None
        self.cancelling: str | None = None
        """Why it must stop; None: it need not."""
        self.group: Group | None = None
        """The runs that it is counted with (`engine.overlap`). Volatile."""
        self.held = False
        """It waits until others of its group have ended. Volatile."""
        self.aside: PoolQueue | None = None
        """The pool in which it counts while it waits for its instant, or for other runs. Volatile."""
        self.delayed = False
        """It counts, and may be stopped, only from the end of its delay on. Volatile."""
        self.key = ""
        self.object_name = ""
        self.parameters = b""
        self.started_ms = 0
        self.attempts = 0
        self.worker = 0
        self.failure: tuple[str, str] | None = None
        """Type and message of why the last attempt failed. Volatile: no checkpoint has it."""
        self.dispatch = Dispatch(number, self, created_ms)
        self._id = ""

    @property
    def id(self) -> str:
        # Asked for when the run is made, at each lease and at its end; the digest of a key is worth keeping.
        if not self._id:
            uid = self.task.uid
            if self.origin is Origin.SCHEDULE:
                self._id = scheduled_run_id(uid, self.scheduled_ms)
            elif self.origin is Origin.BACKFILL:
                self._id = backfill_run_id(uid, self.scheduled_ms, self.key)
            elif self.origin is Origin.COMPLETION:
                self._id = completion_run_id(uid, self.key)
            else:
                self._id = keyed_run_id(uid, self.key)
        return self._id

    @property
    def name(self) -> str:
        """Of the TaskRun object that asked for it, or shows it."""
        return self.object_name or run_name(self.task.name, self.id)

    @property
    def state(self) -> RunState:
        return RunState.RUNNING if self.dispatch.token or self.span is not None else RunState.PENDING


class Dispatch:
    """One unit of work of a run, for one worker."""

    __slots__ = (
        "ahead",
        "attempts",
        "due_boot_ms",
        "fraction",
        "lane",
        "lease_until_ms",
        "leased_boot_ms",
        "leased_ms",
        "note",
        "number",
        "ready_ms",
        "reserved",
        "run",
        "starts_boot_ms",
        "timer",
        "token",
        "waits_ms",
        "worker",
    )  # fmt: skip

    def __init__(self, number: int, run: Run, ready_ms: int) -> None:
        self.number = number
        self.run = run
        self.ready_ms = ready_ms
        """May be leased from this instant on."""
        self.attempts = 0
        self.token = 0
        """The open attempt's fencing token; 0: none is open."""
        self.worker = 0
        self.leased_ms = 0
        # Volatile: not folded from facts, since renewals and progress are not durable (DESIGN, section 3). What is
        # named `boot` is on the clock that never jumps, as is all that measures a duration.
        self.lease_until_ms = 0
        """Of the boot clock."""
        self.leased_boot_ms = 0
        self.starts_boot_ms = 0
        """When the open attempt begins, if it was leased ahead of that."""
        self.due_boot_ms = 0
        """When a wait for an instant is over; 0: it waits for none."""
        self.reserved = False
        """It is dealt to a worker in the command that is carried out."""
        self.ahead: Lane | None = None
        """The lane in which it may be leased before its instant."""
        self.fraction = 0.0
        self.note = ""
        self.lane: Lane | None = None
        """The lane in which it waits."""
        self.waits_ms = 0
        """Since when it waits in a lane under this leader, by the boot clock."""
        self.timer: Timer | None = None
        """Its one timer: the end of a backoff or delay, or of the dispatch timeout while it waits in a lane."""


class TaskState:
    """What the ledger knows of a task."""

    __slots__ = (
        "backfilled", "cancelled", "failed", "history_failed", "history_succeeded", "last_ended_ms",
        "last_scheduled_ms", "name", "namespace", "number", "runs", "schedule", "skipped", "skips", "succeeded", "uid",
        "unshown", "watched", "watermark_ms",
    )  # fmt: skip

    def __init__(self, number: int, uid: str, namespace: str, name: str) -> None:
        self.number = number
        self.uid = uid
        self.namespace = namespace
        self.name = name
        self.schedule = ""
        """Fingerprint of the schedule that the watermark belongs to."""
        self.watermark_ms = 0
        """Instants up to this one are settled: fired or skipped."""
        self.last_scheduled_ms = 0
        self.last_ended_ms = 0
        """When a run of its schedule ended last."""
        self.runs: dict[int, Run] = {}
        self.succeeded = 0
        self.failed = 0
        self.cancelled = 0
        self.skipped = 0
        self.skips: dict[f.SkipReason, tuple[int, int]] | None = None
        """By reason: how many instants, and up to which. None: none, as for most of a million tasks."""
        self.backfilled: list[tuple[int, int]] = []
        """Spans, the second end exclusive, whose instants have a backfilled run that is open or succeeded: in order,
        none touching, of the trigger as it is. Bounded: the oldest are forgotten, and may be made up for again."""
        self.watched = False
        """Somebody in the engine wants to hear of the ends of its runs. Volatile."""
        self.history_succeeded: deque[Ended] = deque(maxlen=_HISTORY_SUCCEEDED)
        self.history_failed: deque[Ended] = deque(maxlen=_HISTORY_FAILED)
        self.unshown: deque[Ended] | None = None
        """Ended runs that an object asked for and no view has shown: more may end at once than the history keeps, and
        somebody waits for each. Volatile."""

    def history_of(self, ended: Ended) -> deque[Ended]:
        """Where it is kept, or was."""
        return self.history_succeeded if ended.state is RunState.SUCCEEDED else self.history_failed

    def cover(self, from_ms: int, to_ms: int) -> None:
        """The instants of this span have their backfilled runs."""
        spans = []
        for low, high in self.backfilled:
            if high < from_ms or low > to_ms:
                spans.append((low, high))
            else:
                from_ms, to_ms = min(low, from_ms), max(high, to_ms)
        self.backfilled = sorted([*spans, (from_ms, to_ms)])[-_BACKFILLED_SPANS:]

    def uncover(self, instant_ms: int) -> None:
        """The backfilled run of this instant did not succeed: another backfill may make up for it."""
        spans = self.backfilled
        index = bisect.bisect_right(spans, instant_ms, key=lambda span: span[0]) - 1
        if index >= 0 and instant_ms < spans[index][1]:
            low, high = spans[index]
            rest = [span for span in ((low, instant_ms), (instant_ms + 1, high)) if span[0] < span[1]]
            self.backfilled = [*spans[:index], *rest, *spans[index + 1 :]][-_BACKFILLED_SPANS:]

    def covered_until(self, instant_ms: int) -> int:
        """The end of the span that has the instant, exclusive; the instant itself where none has it."""
        return next((high for low, high in self.backfilled if low <= instant_ms < high), instant_ms)


class State:
    """All tasks, open runs and open attempts of one partition."""

    def __init__(self, *, max_keys: int = 200_000, max_detail_bytes: int = 16 * 1024 * 1024) -> None:
        self.clock_ms = 0
        self.next_task = 1
        self.next_run = 1
        self.next_token = 1
        self.next_worker = 1
        self.tasks: dict[int, TaskState] = {}
        self.by_uid: dict[str, TaskState] = {}
        self.runs: dict[int, Run] = {}
        self.attempts: dict[int, Dispatch] = {}
        self.workers: dict[int, WorkerName] = {}
        self.worker_numbers: dict[WorkerName, int] = {}
        # Ordered dicts, since a plain one looks through all that was deleted from its front to find its first.
        self.keys: OrderedDict[str, Run | RunState] = OrderedDict()
        self.max_keys = max_keys
        self.max_detail_bytes = max_detail_bytes
        self.detail_bytes = 0
        """Of all ended runs that are kept."""
        self._detailed: dict[Ended, TaskState] = {}
        """Those that have details, in the order in which they ended, and whose history each is in."""
        self.ended = dict.fromkeys((RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED), 0)
        """Runs that ended while this object was folded, for the metrics. Volatile."""
        self.touched: OrderedDict[TaskState, None] = OrderedDict()
        """Tasks whose picture changed, in order of change: the projection takes from here. Volatile."""
        self.news: list[tuple[Run, RunState]] = []
        """Runs that ended since the engine looked last: of watched tasks, groups and backfills, and that waited aside.
        Volatile."""
        self.watcher: Snapshot | None = None
        """Asked to write down what is about to change. Volatile."""
        self._handlers: dict[type, Callable[[Any], None]] = {
            f.Clock: self._clock,
            f.TaskNamed: self._task_named,
            f.TaskForgotten: self._task_forgotten,
            f.Armed: self._armed,
            f.Fired: self._fired,
            f.Submitted: self._submitted,
            f.Skipped: self._skipped,
            f.WorkerNamed: self._worker_named,
            f.Leased: self._leased,
            f.Succeeded: self._succeeded,
            f.SucceededWith: self._succeeded_with,
            f.Failed: self._failed,
            f.Returned: self._returned,
            f.Cancelled: self._cancelled,
            f.Undelivered: self._undelivered,
            f.Requested: self._requested,
            f.BackfillStarted: self._backfill_started,
            f.Backfilled: self._backfilled,
            f.BackfillEnded: self._backfill_ended,
            f.CancelAsked: self._cancel_asked,
        }

    def apply(self, fact: f.Fact) -> None:
        """Fold one fact. A fact that does not fit the state raises KeyError: the ledger is corrupt."""
        if self.watcher is not None:
            self.watcher.before(fact)
        self._handlers[type(fact)](fact)

    # --- one method a fact ---

    def _clock(self, fact: f.Clock) -> None:
        self.clock_ms = fact.at_ms

    def _task_named(self, fact: f.TaskNamed) -> None:
        task = TaskState(fact.task, fact.uid, fact.namespace, fact.name)
        task.schedule = fact.schedule
        task.watermark_ms = fact.watermark_ms
        self.tasks[fact.task] = task
        self.by_uid[fact.uid] = task
        self.next_task = max(self.next_task, fact.task + 1)

    def _task_forgotten(self, fact: f.TaskForgotten) -> None:
        task = self.tasks.pop(fact.task)
        for ended in (*task.history_succeeded, *task.history_failed):
            self._drop(ended)
        del self.by_uid[task.uid]
        self.touched.pop(task, None)

    def _armed(self, fact: f.Armed) -> None:
        task = self.tasks[fact.task]
        if task.schedule != fact.schedule:
            task.backfilled = []  # another trigger has other instants in these spans
        task.schedule = fact.schedule
        task.watermark_ms = fact.watermark_ms
        self.touched[task] = None

    def _fired(self, fact: f.Fired) -> None:
        number = fact.first_run
        now, scheduled = self.clock_ms, fact.scheduled_ms
        tasks, runs, touched = self.tasks, self.runs, self.touched
        for task_number in fact.tasks:
            task = tasks[task_number]
            run = Run(number, task, scheduled, now)
            if scheduled > now:  # made ahead of its instant, so that it can be leased before
                run.dispatch.ready_ms = scheduled
            runs[number] = run
            task.runs[number] = run
            if scheduled > task.watermark_ms:
                task.watermark_ms = scheduled
            if scheduled > task.last_scheduled_ms:
                task.last_scheduled_ms = scheduled
            touched[task] = None
            number += 1
        self.next_run = number

    def _submitted(self, fact: f.Submitted) -> None:
        self._asked_for(Run(fact.run, self.tasks[fact.task], fact.scheduled_ms, self.clock_ms), fact)

    def _requested(self, fact: f.Requested) -> None:
        run = Run(fact.run, self.tasks[fact.task], fact.scheduled_ms, self.clock_ms)
        run.dispatch.ready_ms = fact.ready_ms
        run.front = fact.front
        if fact.origin is Origin.COMPLETION:
            run.task.last_scheduled_ms = max(run.task.last_scheduled_ms, fact.scheduled_ms)
        self._asked_for(run, fact, fact.origin)

    def _backfill_started(self, fact: f.BackfillStarted) -> None:
        run = Run(fact.run, self.tasks[fact.task], fact.from_ms, self.clock_ms)
        run.span = Span(fact.from_ms, fact.to_ms, fact.max_parallel, fact.total)
        run.started_ms = self.clock_ms
        run.dispatch.ready_ms = -1
        self._asked_for(run, fact, Origin.SPAN)

    def _backfilled(self, fact: f.Backfilled) -> None:
        whole = self.runs[fact.backfill]
        task, span = whole.task, whole.span
        if span is None:
            raise KeyError(fact.backfill)
        task.cover(span.until_ms + 1, fact.until_ms + 1)
        span.until_ms = fact.until_ms
        span.succeeded += fact.known
        span.open += len(fact.instants)
        for number, instant in enumerate(fact.instants, start=fact.first_run):
            run = Run(number, task, instant, self.clock_ms)
            run.origin = Origin.BACKFILL
            run.backfill = fact.backfill
            run.key = whole.key
            run.parameters = whole.parameters
            self._add(run)
        self.touched[task] = None

    def _backfill_ended(self, fact: f.BackfillEnded) -> None:
        run = self.runs[fact.backfill]
        span = run.span
        if span is None:
            raise KeyError(fact.backfill)
        if span.failed:
            total = span.succeeded + span.failed
            message = f"{span.failed} of {total} instants have no run that succeeded"
            self._end(run, RunState.FAILED, error_type="BackfillFailed", message=message)
        else:
            self._end(run, RunState.SUCCEEDED)

    def _cancel_asked(self, fact: f.CancelAsked) -> None:
        run = self.runs[fact.run]
        run.cancelling = fact.message
        self.touched[run.task] = None

    def _asked_for(
        self, run: Run, fact: f.Submitted | f.Requested | f.BackfillStarted, origin: Origin = Origin.REQUEST
    ) -> None:
        run.origin = origin
        run.key = fact.key
        run.object_name = fact.object_name
        run.parameters = fact.parameters
        self._add(run)
        self.touched[run.task] = None

    def _add(self, run: Run) -> None:
        """The run exists, and is found by its id from now on."""
        self.runs[run.number] = run
        run.task.runs[run.number] = run
        self.next_run = run.number + 1
        if run.origin not in (Origin.REQUEST, Origin.SPAN):
            return
        keys = self.keys
        keys[run.id] = run
        if len(keys) > self.max_keys:
            oldest, known = keys.popitem(last=False)
            if isinstance(known, Run):
                # An open run's key is kept: asked for again, it must be found. It goes to the end of the line.
                keys[oldest] = known

    def _skipped(self, fact: f.Skipped) -> None:
        task = self.tasks[fact.task]
        task.skipped += fact.count
        if task.skips is None:
            task.skips = {}
        task.skips[fact.reason] = (task.skips.get(fact.reason, (0, 0))[0] + fact.count, fact.until_ms)
        if fact.until_ms > task.watermark_ms:
            task.watermark_ms = fact.until_ms
        self.touched[task] = None

    def _worker_named(self, fact: f.WorkerNamed) -> None:
        worker = WorkerName(WorkerKey(fact.namespace, fact.pool, fact.name), fact.instance)
        self.workers[fact.worker] = worker
        self.worker_numbers[worker] = fact.worker
        self.next_worker = max(self.next_worker, fact.worker + 1)

    def _leased(self, fact: f.Leased) -> None:
        token, worker, now = fact.first_token, fact.worker, self.clock_ms
        runs, attempts, touched = self.runs, self.attempts, self.touched
        for number in fact.dispatches:
            run = runs[number]
            dispatch = run.dispatch
            if dispatch.token:
                raise KeyError(number)  # two workers would have it
            dispatch.token = token
            dispatch.worker = worker
            dispatch.leased_ms = now
            dispatch.attempts += 1
            run.attempts += 1
            run.worker = worker
            if not run.started_ms:
                run.started_ms = now if now > dispatch.ready_ms else dispatch.ready_ms
            attempts[token] = dispatch
            touched[run.task] = None
            token += 1
        self.next_token = token

    def _succeeded(self, fact: f.Succeeded) -> None:
        for token in fact.tokens:
            self._end(self.attempts.pop(token).run, RunState.SUCCEEDED)

    def _succeeded_with(self, fact: f.SucceededWith) -> None:
        self._end(self.attempts.pop(fact.token).run, RunState.SUCCEEDED, result=fact.result)

    def _failed(self, fact: f.Failed) -> None:
        dispatch = self.attempts.pop(fact.token)
        dispatch.token = 0
        error_type = fact.error_type or fact.reason.name.title()
        if fact.retry_ms:
            dispatch.ready_ms = fact.retry_ms
            dispatch.run.failure = (error_type, fact.message[:_OUTLINE_CHARS])
            self.touched[dispatch.run.task] = None
        else:
            self._end(
                dispatch.run,
                RunState.FAILED,
                error_type=error_type,
                message=fact.message,
                traceback=fact.traceback,
            )

    def _returned(self, fact: f.Returned) -> None:
        for token in fact.tokens:
            dispatch = self.attempts.pop(token)
            dispatch.token = 0
            dispatch.attempts -= 1
            dispatch.run.attempts -= 1
            dispatch.ready_ms = max(self.clock_ms, dispatch.ready_ms)  # an early lease keeps its instant
            self.touched[dispatch.run.task] = None

    def _undelivered(self, fact: f.Undelivered) -> None:
        run = self.runs[fact.dispatch]
        run.dispatch.attempts += 1
        if fact.retry_ms:
            run.dispatch.ready_ms = fact.retry_ms
        else:
            self._end(
                run,
                RunState.FAILED,
                error_type="Undelivered",
                message="no worker took it within spec.delivery.dispatchTimeout",
            )

    def _cancelled(self, fact: f.Cancelled) -> None:
        run = self.runs[fact.run]
        if run.dispatch.token:
            del self.attempts[run.dispatch.token]
            run.dispatch.token = 0
        self._end(run, RunState.CANCELLED, message=fact.message)

    def _end(
        self,
        run: Run,
        state: RunState,
        *,
        result: bytes = b"",
        error_type: str = "",
        message: str = "",
        traceback: str = "",
    ) -> None:
        task = run.task
        del self.runs[run.number]
        del task.runs[run.number]
        run.dispatch.token = 0
        run.dispatch.ready_ms = -1
        run_id = run.id
        worker = self.workers.get(run.worker)
        span = run.span
        if task.watched or run.backfill or run.group is not None or run.aside is not None:
            self.news.append((run, state))
        if run.origin is Origin.SCHEDULE:
            task.last_ended_ms = self.clock_ms
        elif run.backfill:
            self._child_ended(run, state)
            if state is not RunState.SUCCEEDED:
                task.uncover(run.scheduled_ms)
        ended = Ended(
            run_id,
            run.scheduled_ms,
            run.created_ms,
            run.started_ms,
            self.clock_ms,
            state,
            run.attempts,
            worker.key.name if worker else "",
            run.object_name,
            result,
            error_type,
            message,
            traceback,
            *((span.total, span.succeeded, span.failed) if span is not None else (0, 0, 0)),
        )
        if span is None:  # what stands for a backfill did nothing itself
            self.ended[state] += 1
            if state is RunState.SUCCEEDED:
                task.succeeded += 1
            elif state is RunState.FAILED:
                task.failed += 1
            else:
                task.cancelled += 1
        if state is not RunState.SUCCEEDED or not run.backfill:  # thousands must not push out what people look for
            self._remember(task, ended)
        if run.key and run_id in self.keys:
            self.keys[run_id] = state
        self.touched[task] = None
        if run.object_name:
            self.touched.move_to_end(task, last=False)  # somebody waits for this one (`kubectl wait`)
            if task.unshown is None:
                task.unshown = deque(maxlen=_UNSHOWN)
            task.unshown.append(ended)
        # Run and dispatch name each other: without this cut each pair would wait for the garbage collector.
        del run.dispatch

    def _child_ended(self, run: Run, state: RunState) -> None:
        whole = self.runs.get(run.backfill)
        span = whole.span if whole is not None else None
        if span is not None:
            span.open -= 1
            if state is RunState.SUCCEEDED:
                span.succeeded += 1
            else:
                span.failed += 1

    # --- what is kept of ended runs ---

    def _remember(self, task: TaskState, ended: Ended) -> None:
        """Put it at the end of the task's history, from which the oldest may fall out."""
        history = task.history_of(ended)
        if len(history) == history.maxlen:
            self._drop(history[0])
        history.append(ended)
        self.count_details(task, ended)

    def count_details(self, task: TaskState, ended: Ended) -> None:
        """It joined the task's history, the latest of all that ended. Too many details are dropped, oldest first."""
        if size := ended.detail_bytes:
            self._detailed[ended] = task
            self.detail_bytes += size
            if self.detail_bytes > self.max_detail_bytes:
                self._drop_oldest_details()

    def _drop(self, ended: Ended) -> None:
        if self._detailed.pop(ended, None) is not None:
            self.detail_bytes -= ended.detail_bytes

    def _drop_oldest_details(self) -> None:
        # More than is needed, since to find the first of a dict costs as much as was deleted before it.
        enough = self.detail_bytes - self.max_detail_bytes * 15 // 16
        oldest: list[Ended] = []
        for ended in self._detailed:
            if enough <= 0:
                break
            enough -= ended.detail_bytes
            oldest.append(ended)
        for ended in oldest:
            task = self._detailed[ended]
            if self.watcher is not None:
                self.watcher.before_task(task)
            self._drop(ended)
            history = task.history_of(ended)
            history[history.index(ended)] = ended.outline()
