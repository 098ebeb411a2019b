"""Checkpoints of the state: what a new leader reads instead of the whole log.

A checkpoint is a list of chunks, each a msgpack array `[section, rows]`, so that none is large. Loading the chunks
and folding the facts after them gives the same state as folding all facts; a property test holds it to that.

A million tasks take seconds to write down, and the leader cannot stop for so long. So a `Snapshot` is taken bit by bit
while the leader decides on: what a fact is about to change is written down first, as it was (copy on write).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, assert_never

import msgspec

from tickwheel_operator.engine.messages import RunState, WorkerKey
from tickwheel_operator.engine.model.checkpoint_rows import HeadRow, KeyRow, RunRow, TaskRow, WorkerRow
from tickwheel_operator.engine.model.execution import restored, row_of
from tickwheel_operator.engine.model.request_keys import EndedKey
from tickwheel_operator.engine.model.runs import Run, TaskState, WorkerName
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

__all__ = ["Snapshot", "dump", "load"]

_VERSION = 2
"""1 had neither origins of runs, backfills, cancels under way nor reasons of skips; it is still read."""
_ROWS_PER_CHUNK = 30
"""A task with a full history takes some 30 us."""
_WORKER_MEMORY = 1_000
"""Worker processes without an open attempt that a checkpoint still names, the latest ones."""

_NO_DISPATCH = (-1, 0, 0, 0, 0)

Numbered = TypeVar("Numbered", bound=TaskState | Run)
Row = TypeVar("Row", TaskRow, RunRow)

_encoder = msgspec.msgpack.Encoder()
_chunk_decoder = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])
_heads = msgspec.msgpack.Decoder(list[HeadRow])
_worker_rows = msgspec.msgpack.Decoder(list[WorkerRow])
_task_rows = msgspec.msgpack.Decoder(list[TaskRow])
_run_rows = msgspec.msgpack.Decoder(list[RunRow])
_key_rows = msgspec.msgpack.Decoder(list[KeyRow])


class Snapshot:
    """The chunks of a state as it is when this is made, however it changes while they are taken one by one.

    Iterate it once. A new one of the same state puts an end to the one before. Forgets, in the state too, workers that
    no open attempt and no recent one names.
    """

    def __init__(self, state: State) -> None:
        _prune_workers(state)
        self._state = state
        head = HeadRow(_VERSION, state.clock_ms, state.next_task, state.next_run, state.next_token, state.next_worker)
        self._head = [head]
        self._workers = [_worker_row(number, worker) for number, worker in state.workers.items()]
        self._tasks = _Rows(state.tasks, _task_row)
        self._runs = _Rows(state.runs, _run_row)
        self._keys = list(state.keys)
        self._known = list(state.keys.values())
        state.watcher = self

    def __iter__(self) -> Iterator[bytes]:
        sections: list[tuple[str, Iterable[Any]]] = [
            ("head", self._head),
            ("workers", self._workers),
            ("tasks", self._tasks),
            ("runs", self._runs),
            ("keys", map(_key_row, self._keys, self._known)),
        ]
        for section, all_rows in sections:
            for rows in _batches(all_rows):
                if self._state.watcher is not self:
                    raise RuntimeError("another snapshot of the state was begun before this one was taken")
                yield _encoder.encode((section, rows))
        self.end()

    def end(self) -> None:
        """No more is taken of it."""
        if self._state.watcher is self:
            self._state.watcher = None

    def before(self, fact: f.Fact) -> None:
        """Write down what it changes of what was there when this began."""
        state = self._state
        match fact:
            case f.Fired(tasks=tasks):
                for number in tasks:
                    self._tasks.keep(state.tasks[number])
            case f.Armed() | f.Skipped() | f.Requested() | f.Recovered():
                self._tasks.keep(state.tasks[fact.task])
            case f.Leased(dispatches=dispatches):
                for number in dispatches:
                    self._runs.keep(state.dispatch_of(number).run)
            case f.Succeeded(tokens=tokens) | f.Returned(tokens=tokens):
                for token in tokens:
                    self._run(state.attempts[token].run)
            case f.SucceededWith() | f.Failed():
                self._run(state.attempts[fact.token].run)
            case f.Cancelled() | f.CancelAsked():
                self._run(state.runs[fact.run])
            case f.Undelivered():
                self._run(state.dispatch_of(fact.dispatch).run)
            case f.Backfilled() | f.BackfillEnded():
                self._run(state.runs[fact.backfill])
            case f.Clock() | f.TaskNamed() | f.TaskForgotten() | f.Submitted() | f.BackfillStarted() | f.WorkerNamed():
                pass  # Of tasks, runs and workers that were there it changes nothing.
            case _:
                assert_never(fact)

    def before_task(self, task: TaskState) -> None:
        """Write it down: it changes by what became of another one."""
        self._tasks.keep(task)

    def _run(self, run: Run) -> None:
        """It, its task, and the run that made it, which counts it."""
        self._runs.keep(run)
        self._tasks.keep(run.task)
        if run.parent and (whole := self._state.runs.get(run.parent)) is not None:
            self._runs.keep(whole)


class _Rows(Generic[Numbered, Row]):
    """The rows of numbered things, in the order of their numbers, which is that in which the state holds them."""

    def __init__(self, things: dict[int, Numbered], row: Callable[[Numbered], Row]) -> None:
        self._things = list(things.values())
        self._row: Callable[[Numbered], Row] = row
        self._last = self._things[-1].number if self._things else 0
        self._passed = 0
        """The things up to this number were taken."""
        self._kept: dict[int, Row] = {}
        """Rows of things that changed before it was their turn."""

    def keep(self, thing: Numbered) -> None:
        number = thing.number
        if self._passed < number <= self._last and number not in self._kept:
            self._kept[number] = self._row(thing)

    def __iter__(self) -> Iterator[Row]:
        for thing in self._things:
            kept = self._kept.pop(thing.number, None)
            self._passed = thing.number
            yield kept or self._row(thing)


def dump(state: State) -> list[bytes]:
    """All chunks at once."""
    return list(Snapshot(state))


def load(state: State, chunks: Sequence[bytes]) -> None:
    """Fill an empty state. Raises ValueError, `msgspec.DecodeError` or KeyError where the chunks are of an unknown
    version, or hold no state."""
    for chunk in chunks:
        section, rows = _chunk_decoder.decode(chunk)
        match section:
            case "head":
                (head,) = _heads.decode(rows)
                if not 1 <= head.version <= _VERSION:
                    raise ValueError(f"checkpoint version {head.version}; this release reads 1 to {_VERSION}")
                state.clock_ms, state.next_task, state.next_run = head.clock_ms, head.next_task, head.next_run
                state.next_token, state.next_worker = head.next_token, head.next_worker
            case "workers":
                for worker in _worker_rows.decode(rows):
                    key = WorkerKey(worker.namespace, worker.pool, worker.name)
                    name = WorkerName(key, worker.instance, worker.started_ms, worker.pod_uid)
                    state.name_worker(worker.number, name)
            case "tasks":
                for task_row in _task_rows.decode(rows):
                    _load_task(state, task_row)
            case "runs":
                for run_row in _run_rows.decode(rows):
                    _load_run(state, run_row)
            case "keys":
                for known in _key_rows.decode(rows):
                    final = known.final
                    state.keys[known.key] = EndedKey(RunState(final), known.content) if final else state.runs[known.run]
            case _:
                raise ValueError(f"checkpoint section {section!r} is unknown to this release")
    held = (dispatch for run in state.runs.values() for dispatch in run.dispatches if dispatch.token)
    for dispatch in sorted(held, key=lambda dispatch: dispatch.token):  # as the leader that wrote this had them
        state.open_attempt(dispatch)
    ended = ((e, t) for t in state.tasks.values() for h in (t.history_succeeded, t.history_failed) for e in h)
    # In the order in which they ended, as far as the clocks of the leaders tell.
    for one, task in sorted(ended, key=lambda pair: pair[0].ended_ms):
        state.count_details(task, one)


def _batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _ROWS_PER_CHUNK:
            yield batch
            batch = []
    if batch:
        yield batch


def _prune_workers(state: State) -> None:
    if len(state.workers) <= _WORKER_MEMORY:
        return
    used = {run.worker for run in state.runs.values()}
    spare = [number for number in state.workers if number not in used]
    for number in spare[:-_WORKER_MEMORY]:
        state.forget_worker(number)


def _key_row(key: str, known: Run | EndedKey) -> KeyRow:
    if isinstance(known, Run):
        return KeyRow(key, "", known.number)
    return KeyRow(key, known.state.value, 0, known.content)


def _worker_row(number: int, worker: WorkerName) -> WorkerRow:
    key = worker.key
    return WorkerRow(number, key.namespace, key.pool, key.name, worker.instance, worker.started_ms, worker.pod_uid)


def _task_row(task: TaskState) -> TaskRow:
    return TaskRow(
        task.number, task.uid, task.namespace, task.name, task.schedule, task.watermark_ms, task.last_scheduled_ms,
        task.succeeded, task.failed, task.cancelled, task.skipped,
        list(task.history_succeeded), list(task.history_failed),
        task.last_ended_ms, [(reason, *seen) for reason, seen in (task.skips or {}).items()],
        task.backfilled,
    )  # fmt: skip


def _load_task(state: State, row: TaskRow) -> None:
    task = TaskState(row.number, row.uid, row.namespace, row.name)
    task.schedule, task.watermark_ms, task.last_scheduled_ms = row.schedule, row.watermark_ms, row.last_scheduled_ms
    task.succeeded, task.failed, task.cancelled, task.skipped = row.succeeded, row.failed, row.cancelled, row.skipped
    task.history_succeeded.extend(row.history_succeeded)
    task.history_failed.extend(row.history_failed)
    task.last_ended_ms, task.backfilled = row.last_ended_ms, row.backfilled
    task.skips = {reason: (count, until_ms) for reason, count, until_ms in row.skips} or None
    state.tasks[row.number] = task
    state.by_uid[row.uid] = task
    state.touched[task] = None


def _run_row(run: Run) -> RunRow:
    dispatch = _NO_DISPATCH
    for d in run.dispatches:
        dispatch = (d.ready_ms, d.attempts, d.token, d.worker, d.leased_ms)
    return RunRow(
        run.number, run.task.number, run.scheduled_ms, run.created_ms, run.key, run.object_name, run.parameters,
        run.started_ms, run.attempts, run.worker, *dispatch,
        run.origin, run.front, run.parent, run.cancelling,
        row_of(run.execution),
    )  # fmt: skip


def _load_run(state: State, row: RunRow) -> None:
    task = state.tasks[row.task]
    origin = Origin.REQUEST if row.origin is None and row.key else row.origin or Origin.SCHEDULE
    run = Run(row.number, task, row.scheduled_ms, row.created_ms, restored(origin, row.backfill), row.ready_ms)
    run.key, run.object_name, run.parameters = row.key, row.object_name, row.parameters
    run.started_ms, run.attempts, run.worker = row.started_ms, row.attempts, row.worker
    for d in run.dispatches:
        d.attempts, d.token, d.worker = row.dispatch_attempts, row.token, row.dispatch_worker
        d.leased_ms = row.leased_ms
    run.origin = origin
    run.front, run.parent, run.cancelling = row.front, row.parent, row.cancelling
    if row.token and row.dispatch_worker not in state.workers:
        raise KeyError(row.dispatch_worker)
    state.runs[row.number] = run
    task.add(run)
