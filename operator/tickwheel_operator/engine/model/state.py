"""The durable state of a partition: the fold of its facts, and nothing else.

`State.apply` is the only way that runs, dispatches and attempts change, for the leader that decides a fact and for the
one that replays it: both hold the same state after the same facts. What is not durable (who is connected, which
timers are armed, how far a handler is) lives elsewhere in the engine, or in the fields marked as volatile.
"""

from __future__ import annotations

import functools
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tickwheel_operator.engine.messages import RunState, WorkerKey
from tickwheel_operator.engine.model.details import Details
from tickwheel_operator.engine.model.execution import backfill
from tickwheel_operator.engine.model.execution.single import SINGLE
from tickwheel_operator.engine.model.places import LEASED
from tickwheel_operator.engine.model.request_keys import EndedKey, ended_key
from tickwheel_operator.engine.model.runs import OUTLINE_CHARS, Dispatch, End, Ended, Run, TaskState, WorkerName
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

if TYPE_CHECKING:
    from tickwheel_operator.engine.model.snapshot import Snapshot

__all__ = ["State"]

_UNSHOWN = 1_000
"""Ended runs of a task that are kept for its next view, where an object asked for them."""

_NO_COUNTS = (0, 0, 0)
_SCHEDULE, _SUCCESS = Origin.SCHEDULE, RunState.SUCCEEDED
"""For the hot path, as in `engine.model.places`."""
_SUCCEEDED = End(_SUCCESS)
_UNDELIVERED = End(
    RunState.FAILED, error_type="Undelivered", message="no worker took it within spec.delivery.dispatchTimeout"
)


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
        """Open attempts, by token."""
        self._attempts_of: dict[int, dict[int, Dispatch]] = {}
        """The same, by worker: one that joins or leaves must not cost a look at all the others."""
        self.workers: dict[int, WorkerName] = {}
        self.worker_numbers: dict[tuple[WorkerKey, str], int] = {}
        self._processes: dict[WorkerKey, dict[int, None]] = {}
        """The numbers of the processes that had a worker's place, in order."""
        # Ordered dicts, since a plain one looks through all that was deleted from its front to find its first.
        self.keys: OrderedDict[str, Run | EndedKey] = OrderedDict()
        self.max_keys = max_keys
        self.details = Details(max_detail_bytes)
        self.ended = dict.fromkeys((RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED), 0)
        """Runs that ended while this object was folded, for the metrics. Volatile."""
        self.outcomes: dict[tuple[TaskState, RunState], int] = {}
        """The same by task, since the engine looked last. Volatile."""
        self.touched: OrderedDict[TaskState, None] = OrderedDict()
        """Tasks whose picture changed, in order of change: the projection takes from here. Volatile."""
        self.news: list[tuple[Run, tuple[Dispatch, ...], RunState]] = []
        """Runs that ended since the engine looked last, with their dispatches: of watched tasks, groups and other runs,
        and that waited.
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
            f.CancelAsked: self._cancel_asked,
            f.Recovered: self._recovered,
            **{kind: functools.partial(fold, self) for kind, fold in backfill.FOLDS.items()},
        }

    def apply(self, fact: f.Fact) -> None:
        """Fold one fact. A fact that does not fit the state raises KeyError: the ledger is corrupt."""
        if self.watcher is not None:
            self.watcher.before(fact)
        self._handlers[type(fact)](fact)

    def dispatch_of(self, number: int) -> Dispatch:
        """The open dispatch with this number, which is that of its run. Raises KeyError where there is none."""
        dispatches = self.runs[number].dispatches
        if not dispatches:
            raise KeyError(number)
        return dispatches[0]

    # --- attempts and workers, by worker ---

    def attempts_of(self, worker: int) -> list[Dispatch]:
        """The open attempts of the worker process with this number, in the order of their tokens."""
        return list(self._attempts_of.get(worker, {}).values())

    def held(self, worker: int) -> int:
        """How many attempts the process holds."""
        return len(self._attempts_of.get(worker, ()))

    def processes(self, key: WorkerKey) -> list[int]:
        """The numbers of all processes that the ledger knows in this worker's place."""
        return list(self._processes.get(key, {}))

    def open_attempt(self, dispatch: Dispatch) -> None:
        """The dispatch's worker holds it, with its token."""
        self.attempts[dispatch.token] = dispatch
        self._attempts_of.setdefault(dispatch.worker, {})[dispatch.token] = dispatch

    def _close_attempt(self, token: int) -> Dispatch:
        """The attempt has ended. Raises KeyError where none is open."""
        dispatch = self.attempts.pop(token)
        held = self._attempts_of[dispatch.worker]
        del held[token]
        if not held:
            del self._attempts_of[dispatch.worker]
        return dispatch

    def name_worker(self, number: int, worker: WorkerName) -> None:
        before = self.number_of(worker.key, worker.instance)
        if before and not self._attempts_of.get(before):
            # A leader forgot the process with a checkpoint that this state does not stand on, and named it again.
            self.forget_worker(before)
        self.workers[number] = worker
        self.worker_numbers[worker.key, worker.instance] = number
        self._processes.setdefault(worker.key, {})[number] = None

    def number_of(self, key: WorkerKey, instance: str) -> int:
        """The ledger's number of this process; 0: it has none."""
        return self.worker_numbers.get((key, instance), 0)

    def forget_worker(self, number: int) -> None:
        worker = self.workers.pop(number)
        if self.number_of(worker.key, worker.instance) == number:
            del self.worker_numbers[worker.key, worker.instance]
        processes = self._processes[worker.key]
        del processes[number]
        if not processes:
            del self._processes[worker.key]

    # --- one method a fact ---

    def _clock(self, fact: f.Clock) -> None:
        self.clock_ms = fact.at_ms

    def _task_named(self, fact: f.TaskNamed) -> None:
        _is_next(fact.task, self.next_task)
        task = TaskState(fact.task, fact.uid, fact.namespace, fact.name)
        task.schedule = fact.schedule
        task.watermark_ms = fact.watermark_ms
        self.tasks[fact.task] = task
        self.by_uid[fact.uid] = task
        self.next_task = max(self.next_task, fact.task + 1)

    def _task_forgotten(self, fact: f.TaskForgotten) -> None:
        task = self.tasks.pop(fact.task)
        for ended in (*task.history_succeeded, *task.history_failed):
            self.details.forget(ended)
        del self.by_uid[task.uid]
        self.touched.pop(task, None)

    def _armed(self, fact: f.Armed) -> None:
        task = self.tasks[fact.task]
        if task.schedule != fact.schedule:
            task.backfilled = ()  # another trigger has other instants in these spans
        task.schedule = fact.schedule
        task.watermark_ms = fact.watermark_ms
        self.touched[task] = None

    def _fired(self, fact: f.Fired) -> None:
        number = fact.first_run
        _is_next(number, self.next_run)
        now, scheduled = self.clock_ms, fact.scheduled_ms
        ready = max(scheduled, now)  # one that is made ahead of its instant can be leased before, but not begun
        tasks, runs, touched = self.tasks, self.runs, self.touched
        for task_number in fact.tasks:
            task = tasks[task_number]
            run = Run(number, task, scheduled, now, SINGLE, ready)
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
        self.asked_for(
            Run(fact.run, self.tasks[fact.task], fact.scheduled_ms, self.clock_ms, SINGLE, self.clock_ms), fact
        )

    def _requested(self, fact: f.Requested) -> None:
        run = Run(fact.run, self.tasks[fact.task], fact.scheduled_ms, self.clock_ms, SINGLE, fact.ready_ms)
        run.front = fact.front
        if fact.origin is Origin.COMPLETION:
            run.task.last_scheduled_ms = max(run.task.last_scheduled_ms, fact.scheduled_ms)
        self.asked_for(run, fact, fact.origin)

    def _cancel_asked(self, fact: f.CancelAsked) -> None:
        run = self.runs[fact.run]
        run.cancelling = fact.message
        self.touched[run.task] = None

    def asked_for(
        self, run: Run, fact: f.Submitted | f.Requested | f.BackfillStarted, origin: Origin = Origin.REQUEST
    ) -> None:
        """The run exists, as it was asked for."""
        run.origin = origin
        run.key = fact.key
        run.object_name = fact.object_name
        run.parameters = fact.parameters
        self.add(run)
        self.touched[run.task] = None

    def add(self, run: Run) -> None:
        """The run exists, and is found by its id from now on."""
        _is_next(run.number, self.next_run)
        self.runs[run.number] = run
        run.task.add(run)
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

    def _recovered(self, fact: f.Recovered) -> None:
        task = self.tasks[fact.task]
        self.next_token = max(self.next_token, fact.least_token)
        task.watermark_ms = max(task.watermark_ms, fact.settled_ms)
        task.last_scheduled_ms = max(task.last_scheduled_ms, fact.last_scheduled_ms)
        task.last_ended_ms = max(task.last_ended_ms, fact.last_ended_ms)
        task.succeeded = max(task.succeeded, fact.succeeded)
        task.failed = max(task.failed, fact.failed)
        task.cancelled = max(task.cancelled, fact.cancelled)
        skips = dict(task.skips or {})
        for reason, count, until_ms in fact.skips:
            known, seen_ms = skips.get(reason, (0, 0))
            skips[reason] = (max(known, count), max(seen_ms, until_ms))
        task.skips = skips or None
        task.skipped = sum(count for count, _ in skips.values())
        self.touched[task] = None

    def _worker_named(self, fact: f.WorkerNamed) -> None:
        _is_next(fact.worker, self.next_worker)
        key = WorkerKey(fact.namespace, fact.pool, fact.name)
        worker = WorkerName(key, fact.instance, fact.started_ms, fact.pod_uid)
        self.name_worker(fact.worker, worker)
        self.next_worker = max(self.next_worker, fact.worker + 1)

    def _leased(self, fact: f.Leased) -> None:
        token, worker, now = fact.first_token, fact.worker, self.clock_ms
        _is_next(token, self.next_token)
        if worker not in self.workers:
            raise KeyError(worker)
        runs, touched, open_attempt = self.runs, self.touched, self.open_attempt
        for number in fact.dispatches:
            run = runs[number]
            if not run.dispatches or run.dispatches[0].token:
                raise KeyError(number)  # it is not for workers, or two of them would have it
            dispatch = run.dispatches[0]
            dispatch.token = token
            dispatch.worker = worker
            dispatch.leased_ms = now
            dispatch.attempts += 1
            run.attempts += 1
            run.worker = worker
            if not run.started_ms:
                run.started_ms = now if now > dispatch.ready_ms else dispatch.ready_ms
            open_attempt(dispatch)
            touched[run.task] = None
            token += 1
        self.next_token = token

    def _succeeded(self, fact: f.Succeeded) -> None:
        for token in fact.tokens:
            run = self._close_attempt(token).run
            if (end := run.execution.ended(_SUCCEEDED)) is not None:
                self.end(run, end)

    def _succeeded_with(self, fact: f.SucceededWith) -> None:
        self._part_ended(self._close_attempt(fact.token).run, End(RunState.SUCCEEDED, fact.result))

    def _failed(self, fact: f.Failed) -> None:
        dispatch = self._close_attempt(fact.token)
        dispatch.token = 0
        error_type = fact.error_type or fact.reason.name.title()
        if fact.retry_ms:
            dispatch.ready_ms = fact.retry_ms
            dispatch.run.failure = (error_type, fact.message[:OUTLINE_CHARS])
            self.touched[dispatch.run.task] = None
        else:
            self._part_ended(dispatch.run, End(RunState.FAILED, b"", error_type, fact.message, fact.traceback))

    def _returned(self, fact: f.Returned) -> None:
        for token in fact.tokens:
            dispatch = self._close_attempt(token)
            dispatch.token = 0
            dispatch.attempts -= 1
            dispatch.run.attempts -= 1
            dispatch.ready_ms = max(self.clock_ms, dispatch.ready_ms)  # an early lease keeps its instant
            self.touched[dispatch.run.task] = None

    def _undelivered(self, fact: f.Undelivered) -> None:
        dispatch = self.dispatch_of(fact.dispatch)
        dispatch.attempts += 1
        if fact.retry_ms:
            dispatch.ready_ms = fact.retry_ms
        else:
            self._part_ended(dispatch.run, _UNDELIVERED)

    def _cancelled(self, fact: f.Cancelled) -> None:
        run = self.runs[fact.run]
        for dispatch in run.dispatches:
            if dispatch.token:
                self._close_attempt(dispatch.token)
        self.end(run, End(RunState.CANCELLED, message=fact.message))

    def _part_ended(self, run: Run, end: End) -> None:
        """A dispatch of the run, or a run that it made, has ended: what that means for it, its execution says."""
        whole = run.execution.ended(end)
        if whole is not None:
            self.end(run, whole)

    def end(self, run: Run, end: End) -> None:
        """The run has ended."""
        task, state = run.task, end.state
        del self.runs[run.number]
        task.remove(run)
        dispatches, heard = run.dispatches, task.watched or run.parent or run.group is not None
        for dispatch in dispatches:
            dispatch.token = 0
            dispatch.ready_ms = -1
            heard = heard or dispatch.place > LEASED or dispatch.timer is not None
        run_id = run.id
        worker = self.workers.get(run.worker)
        if heard:
            self.news.append((run, dispatches, state))
        if run.origin is _SCHEDULE:
            task.last_ended_ms = self.clock_ms
        else:
            run.execution.closed(run, end)
        if run.parent and (whole := self.runs.get(run.parent)) is not None:
            self._part_ended(whole, end)
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
            end.result,
            end.error_type,
            end.message,
            end.traceback,
            *(run.execution.counts or _NO_COUNTS),
        )
        if dispatches:  # what stands for other runs did nothing itself
            self.ended[state] += 1
            outcome = (task, state)
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
            if state is _SUCCESS:
                task.succeeded += 1
            elif state is RunState.FAILED:
                task.failed += 1
            else:
                task.cancelled += 1
        if state is not _SUCCESS or not run.parent:  # thousands must not push out what people look for
            self._remember(task, ended)
        if run.key and run_id in self.keys:
            self.keys[run_id] = ended_key(run, state)
        self.touched[task] = None
        if run.object_name:
            self.touched.move_to_end(task, last=False)  # somebody waits for this one (`kubectl wait`)
            if task.unshown is None:
                task.unshown = deque(maxlen=_UNSHOWN)
            task.unshown.append(ended)
        # Run and dispatch name each other: without this cut each pair would wait for the garbage collector.
        run.dispatches = ()

    # --- what is kept of ended runs ---

    def _remember(self, task: TaskState, ended: Ended) -> None:
        """Put it at the end of the task's history, from which the oldest may fall out."""
        history = task.history_of(ended)
        if len(history) == history.maxlen:
            self.details.forget(history[0])
        history.append(ended)
        self.count_details(task, ended)

    def count_details(self, task: TaskState, ended: Ended) -> None:
        """It joined the task's history, the latest of all that ended. Too many details are dropped, oldest first."""
        for oldest, owner in self.details.add(ended, task):
            if self.watcher is not None:
                self.watcher.before_task(owner)
            self.details.forget(oldest)
            history = owner.history_of(oldest)
            history[history.index(oldest)] = oldest.outline()


def _is_next(number: int, least: int) -> None:
    """Raises KeyError for a number that was given away before: two things would be one."""
    if number < least:
        raise KeyError(number)
