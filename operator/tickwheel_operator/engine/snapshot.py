"""Checkpoints of the state: what a new leader reads instead of the whole log.

A checkpoint is a list of chunks, each a msgpack array `[section, rows]`, so that none is large. Loading the chunks
and folding the facts after them gives the same state as folding all facts; a property test holds it to that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from tickwheel_operator.engine.messages import RunState, WorkerKey
from tickwheel_operator.engine.state import Ended, Run, Span, State, TaskState, WorkerName
from tickwheel_operator.ledger.facts import Origin, SkipReason

__all__ = ["dump", "load"]

_VERSION = 2
"""1 had neither origins of runs, backfills, cancels under way nor reasons of skips; it is still read."""
_ROWS_PER_CHUNK = 1_000
_WORKER_MEMORY = 1_000
"""Worker processes without an open attempt that a checkpoint still names, the latest ones."""

_SPAN = ("from_ms", "to_ms", "max_parallel", "total", "until_ms", "open", "succeeded", "failed")

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


def dump(state: State) -> list[bytes]:
    """The chunks. Forgets, in `state` too, workers that no open attempt and no recent one names."""
    _prune_workers(state)
    sections: list[tuple[str, Iterable[Any]]] = [
        ("head", [(_VERSION, state.clock_ms, state.next_task, state.next_run, state.next_token, state.next_worker)]),
        ("workers", ((n, *_worker_row(w)) for n, w in state.workers.items())),
        ("tasks", map(_task_row, state.tasks.values())),
        ("runs", map(_run_row, state.runs.values())),
        ("keys", ((k, "" if isinstance(v, Run) else v.value, v.number if isinstance(v, Run) else 0)
                  for k, v in state.keys.items())),
    ]  # fmt: skip
    return [_encoder.encode((section, rows)) for section, all_rows in sections for rows in _batches(all_rows)]


def load(state: State, chunks: Sequence[bytes]) -> None:
    """Fill an empty state. Raises ValueError where the chunks are of an unknown version."""
    for chunk in chunks:
        section, rows = _decoder.decode(chunk)
        match section:
            case "head":
                version, *head = rows[0]
                if not 1 <= version <= _VERSION:
                    raise ValueError(f"checkpoint version {version}; this release reads 1 to {_VERSION}")
                state.clock_ms, state.next_task, state.next_run, state.next_token, state.next_worker = head
            case "workers":
                for number, namespace, pool, name, instance in rows:
                    worker = WorkerName(WorkerKey(namespace, pool, name), instance)
                    state.workers[number] = worker
                    state.worker_numbers[worker] = number
            case "tasks":
                for row in rows:
                    _load_task(state, row)
            case "runs":
                for row in rows:
                    _load_run(state, row)
            case "keys":
                for key, final, run in rows:
                    state.keys[key] = RunState(final) if final else state.runs[run]
            case _:
                raise ValueError(f"checkpoint section {section!r} is unknown to this release")
    histories = [h for task in state.tasks.values() for h in (task.history_succeeded, task.history_failed)]
    # In the order in which they ended, as far as the clocks of the leaders tell.
    for ended, history in sorted(((e, h) for h in histories for e in h), key=lambda pair: pair[0].ended_ms):
        state.count_details(history, ended)


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
    used = {run.worker for run in state.runs.values()}
    spare = [number for number in state.workers if number not in used]
    for number in spare[:-_WORKER_MEMORY]:
        del state.worker_numbers[state.workers.pop(number)]


def _worker_row(worker: WorkerName) -> tuple[str, str, str, str]:
    return worker.key.namespace, worker.key.pool, worker.key.name, worker.instance


def _task_row(task: TaskState) -> tuple[Any, ...]:
    return (
        task.number, task.uid, task.namespace, task.name, task.schedule, task.watermark_ms, task.last_scheduled_ms,
        task.succeeded, task.failed, task.cancelled, task.skipped,
        list(task.history_succeeded), list(task.history_failed),
        task.last_ended_ms, [(reason, *seen) for reason, seen in (task.skips or {}).items()],
        task.backfilled,
    )  # fmt: skip


def _load_task(state: State, row: list[Any]) -> None:
    number, uid, namespace, name, schedule, watermark, last, *counts, succeeded, failed = row[:13]
    task = TaskState(number, uid, namespace, name)
    task.schedule, task.watermark_ms, task.last_scheduled_ms = schedule, watermark, last
    task.succeeded, task.failed, task.cancelled, task.skipped = counts
    task.history_succeeded.extend(map(_ended, succeeded))
    task.history_failed.extend(map(_ended, failed))
    if len(row) > 13:
        task.last_ended_ms, skips, backfilled = row[13:]
        task.backfilled = [(low, high) for low, high in backfilled]
        task.skips = {SkipReason(reason): (count, until_ms) for reason, count, until_ms in skips} or None
    state.tasks[number] = task
    state.by_uid[uid] = task
    state.touched[task] = None


def _ended(row: list[Any]) -> Ended:
    values = dict(zip(Ended.__struct_fields__, row, strict=False))  # what a checkpoint lacks has its default
    values["state"] = RunState(values["state"])
    return Ended(**values)


def _run_row(run: Run) -> tuple[Any, ...]:
    d, span = run.dispatch, run.span
    return (
        run.number, run.task.number, run.scheduled_ms, run.created_ms, run.key, run.object_name, run.parameters,
        run.started_ms, run.attempts, run.worker, d.ready_ms, d.attempts, d.token, d.worker, d.leased_ms,
        run.origin, run.front, run.backfill, run.cancelling,
        span and [getattr(span, field) for field in _SPAN],
    )  # fmt: skip


def _load_run(state: State, row: list[Any]) -> None:
    number, task_number, scheduled, created, *rest = row[:15]
    task = state.tasks[task_number]
    run = Run(number, task, scheduled, created)
    d = run.dispatch
    (
        run.key, run.object_name, run.parameters, run.started_ms, run.attempts, run.worker, d.ready_ms, d.attempts,
        d.token, d.worker, d.leased_ms,
    ) = rest  # fmt: skip
    if len(row) > 15:
        origin, run.front, run.backfill, run.cancelling, span = row[15:]
        run.origin = Origin(origin)
        if span is not None:
            run.span = Span(0, 0, 0, 0)
            for field, value in zip(_SPAN, span, strict=True):
                setattr(run.span, field, value)
    elif run.key:
        run.origin = Origin.REQUEST
    state.runs[number] = run
    task.runs[number] = run
    if d.token:
        state.attempts[d.token] = d
