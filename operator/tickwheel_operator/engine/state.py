"""The durable state of a partition: the fold of its facts, and nothing else.

`State.apply` is the only way that runs, dispatches and attempts change, for the leader that decides a fact and for the
one that replays it: both hold the same state after the same facts. What is not durable (who is connected, which
timers are armed, how far a handler is) lives elsewhere in the engine, or in the fields marked as volatile here.

    dispatch:  ready --Leased--> leased --Succeeded--> gone
                 ^  ^---Returned----|
                 |---Failed(retry)--|--Failed(no retry)--> gone (the run fails: a dead letter)
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from tickwheel_operator.engine.identity import keyed_run_id, scheduled_run_id
from tickwheel_operator.engine.messages import RunState, WorkerKey
from tickwheel_operator.ledger import facts as f

if TYPE_CHECKING:
    from tickwheel_operator.engine.queues import Lane
    from tickwheel_operator.engine.wheel import Timer

__all__ = ["Dispatch", "Ended", "Run", "State", "TaskState", "WorkerName"]

_HISTORY_SUCCEEDED = 10
_HISTORY_FAILED = 20
"""Ended runs kept per task and outcome: the bounds of `spec.history`."""
_OUTLINE_CHARS = 200
"""Of an error message: what is kept when the details are dropped."""
_UNSHOWN = 1_000
"""Ended runs of a task that are kept for its next view, where an object asked for them."""


class WorkerName(msgspec.Struct, frozen=True):
    """A worker process that the ledger knows by a number."""

    key: WorkerKey
    instance: str


class Ended(msgspec.Struct, frozen=True, gc=False, eq=False):
    """What is kept of a run that ended. Told apart by identity."""

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

    @property
    def detail_bytes(self) -> int:
        """What dropping its details would save; text counts by characters."""
        return len(self.result) + len(self.traceback) + max(0, len(self.message) - _OUTLINE_CHARS)

    def outline(self) -> Ended:
        """Without its details."""
        return msgspec.structs.replace(self, result=b"", message=self.message[:_OUTLINE_CHARS], traceback="")


class Run:
    """A run that has not ended."""

    __slots__ = (
        "_id", "attempts", "created_ms", "dispatch", "key", "number", "object_name", "parameters", "scheduled_ms",
        "started_ms", "task", "worker",
    )  # fmt: skip

    def __init__(self, number: int, task: TaskState, scheduled_ms: int, created_ms: int) -> None:
        self.number = number
        self.task = task
        self.scheduled_ms = scheduled_ms
        self.created_ms = created_ms
        self.key = ""
        self.object_name = ""
        self.parameters = b""
        self.started_ms = 0
        self.attempts = 0
        self.worker = 0
        self.dispatch = Dispatch(number, self, created_ms)
        self._id = ""

    @property
    def id(self) -> str:
        # Asked for when the run is made, at each lease and at its end; the digest of a key is worth keeping.
        if not self._id:
            self._id = (
                keyed_run_id(self.task.uid, self.key)
                if self.key
                else scheduled_run_id(self.task.uid, self.scheduled_ms)
            )
        return self._id

    @property
    def state(self) -> RunState:
        return RunState.RUNNING if self.dispatch.token else RunState.PENDING


class Dispatch:
    """One unit of work of a run, for one worker."""

    __slots__ = (
        "attempts",
        "fraction",
        "lane",
        "lease_until_ms",
        "leased_ms",
        "note",
        "number",
        "ready_ms",
        "run",
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
        # Volatile: not folded from facts, since renewals and progress are not durable (DESIGN, section 3).
        self.lease_until_ms = 0
        self.fraction = 0.0
        self.note = ""
        self.lane: Lane | None = None
        """The lane in which it waits."""
        self.waits_ms = 0
        """Since when it waits in a lane under this leader."""
        self.timer: Timer | None = None
        """Its one timer: the end of a backoff, or of the dispatch timeout while it waits in a lane."""


class TaskState:
    """What the ledger knows of a task."""

    __slots__ = (
        "cancelled", "failed", "history_failed", "history_succeeded", "last_scheduled_ms", "name", "namespace",
        "number", "runs", "schedule", "skipped", "succeeded", "uid", "unshown", "watermark_ms",
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
        self.runs: dict[int, Run] = {}
        self.succeeded = 0
        self.failed = 0
        self.cancelled = 0
        self.skipped = 0
        self.history_succeeded: deque[Ended] = deque(maxlen=_HISTORY_SUCCEEDED)
        self.history_failed: deque[Ended] = deque(maxlen=_HISTORY_FAILED)
        self.unshown: deque[Ended] | None = None
        """Ended runs that an object asked for and no view has shown: more may end at once than the history keeps, and
        somebody waits for each. Volatile."""


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
        self._detailed: dict[Ended, deque[Ended]] = {}
        """Those that have details, in the order in which they ended, and the history that each is in."""
        self.ended = dict.fromkeys((RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED), 0)
        """Runs that ended while this object was folded, for the metrics. Volatile."""
        self.touched: OrderedDict[TaskState, None] = OrderedDict()
        """Tasks whose picture changed, in order of change: the projection takes from here. Volatile."""
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
        }

    def apply(self, fact: f.Fact) -> None:
        """Fold one fact. A fact that does not fit the state raises KeyError: the ledger is corrupt."""
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
        task = self.tasks[fact.task]
        run = Run(fact.run, task, fact.scheduled_ms, self.clock_ms)
        run.key = fact.key
        run.object_name = fact.object_name
        run.parameters = fact.parameters
        self.runs[fact.run] = run
        task.runs[fact.run] = run
        self.next_run = fact.run + 1
        self.touched[task] = None
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
            dispatch.token = token
            dispatch.worker = worker
            dispatch.leased_ms = now
            dispatch.attempts += 1
            run.attempts += 1
            run.worker = worker
            if not run.started_ms:
                run.started_ms = now
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
        if fact.retry_ms:
            dispatch.ready_ms = fact.retry_ms
            self.touched[dispatch.run.task] = None
        else:
            self._end(
                dispatch.run,
                RunState.FAILED,
                error_type=fact.error_type or fact.reason.name.title(),
                message=fact.message,
                traceback=fact.traceback,
            )

    def _returned(self, fact: f.Returned) -> None:
        for token in fact.tokens:
            dispatch = self.attempts.pop(token)
            dispatch.token = 0
            dispatch.attempts -= 1
            dispatch.run.attempts -= 1
            dispatch.ready_ms = self.clock_ms
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
        )
        self.ended[state] += 1
        if state is RunState.SUCCEEDED:
            task.succeeded += 1
            self._remember(task.history_succeeded, ended)
        else:
            if state is RunState.FAILED:
                task.failed += 1
            else:
                task.cancelled += 1
            self._remember(task.history_failed, ended)
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

    # --- what is kept of ended runs ---

    def _remember(self, history: deque[Ended], ended: Ended) -> None:
        """Put it at the end of a task's history, from which the oldest may fall out."""
        if len(history) == history.maxlen:
            self._drop(history[0])
        history.append(ended)
        self.count_details(history, ended)

    def count_details(self, history: deque[Ended], ended: Ended) -> None:
        """It joined the history, the latest of all that ended. Too many details are dropped, the oldest first."""
        if size := ended.detail_bytes:
            self._detailed[ended] = history
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
            history = self._detailed[ended]
            self._drop(ended)
            history[history.index(ended)] = ended.outline()
