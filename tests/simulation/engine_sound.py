"""Whether the volatile half of an engine fits the durable one.

What waits stands in one place, what has ended in none, and what is counted is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tickwheel_operator.engine.core import Engine
from tickwheel_operator.engine.dispatch.queues import HandlerQueue, PoolQueue
from tickwheel_operator.engine.model.places import Place
from tickwheel_operator.engine.model.runs import Dispatch

__all__ = ["unsound"]


def unsound(engine: Engine) -> str:
    """What does not fit, after a command; empty: nothing."""
    for check in (_places, _pools, _pulls, _groups, _tasks):
        for wrong in check(engine):
            return wrong
    return ""


def _places(engine: Engine) -> Iterator[str]:
    """An open run waits in one place: in a queue, on a timer, or for others; or a worker has it, which has a name."""
    for dispatch in _dispatches(engine):
        run = dispatch.run
        if dispatch.token and dispatch.worker not in engine.state.workers:
            yield f"run {run.number} is held by worker {dispatch.worker}, of which nobody knows"
        if dispatch.place is Place.RESERVED:
            yield f"run {run.number} is still reserved at a worker"
        if not engine.scheduler.synced or not engine.scheduler.knows(run.task):
            continue
        place = dispatch.place
        if dispatch.token and (place is not Place.LEASED or run.held):
            yield f"run {run.number} is held by a worker, and waits as well: {place.name}"
        if not dispatch.token and place <= Place.LEASED:
            yield f"run {run.number} waits nowhere: {place.name}, held={run.held} delayed={run.delayed}"
        if run.held and place is not Place.BLOCKED:
            yield f"run {run.number} must wait for others, and is {place.name}"
        if place in (Place.DELAYED, Place.EXPECTED) and dispatch.timer is None:
            yield f"run {run.number} waits for an instant that no timer wakes it at"


def _dispatches(engine: Engine) -> Iterator[Dispatch]:
    return (dispatch for run in engine.state.runs.values() for dispatch in run.dispatches)


def _pools(engine: Engine) -> Iterator[str]:
    waits, aside = Counter[int](), Counter[int]()
    for dispatch in _dispatches(engine):
        match dispatch.place, dispatch.where:
            case Place.QUEUED, HandlerQueue() as queue:
                waits[id(queue.pool)] += 1
            case Place.EXPECTED, HandlerQueue() as queue:
                aside[id(queue.pool)] += 1
            case Place.DELAYED | Place.BLOCKED, PoolQueue() as pool:
                aside[id(pool)] += 1
            case place, where if place > Place.LEASED or where is not None:
                yield f"run {dispatch.number} is {place.name} at {where!r}"
            case _:
                pass
    for (_, name), pool in engine.router.pools.items():
        counted, there = (pool.waits, pool.aside), (waits[id(pool)], aside[id(pool)])
        if counted != there:
            yield f"pool {name} counts {counted} that wait and that are aside, and has {there}"
        for handler, queue in pool.queues.items():
            having = sum(worker.handlers.count(handler) for worker in pool.workers.values())
            if queue.workers != having:
                yield f"queue {handler} counts {queue.workers} workers, not {having}"
            for worker in queue.waiting:
                if worker.request is None or worker.credit <= 0:
                    yield f"{worker.key.name} stands in queue {handler}, and waits for nothing"
            entries = (*queue.due, *queue.retroactive)
            live = {d.number for d in entries if d.where is queue and d.place is Place.QUEUED}
            if queue.stale != len(entries) - len(live):
                yield f"queue {handler} counts {queue.stale} stale entries of {len(entries)}, and {len(live)} are not"
            for dispatch in (*entries, *queue.ahead):
                if dispatch.where is queue and dispatch.number not in engine.state.runs:
                    yield f"run {dispatch.number} has ended, and waits in queue {handler}"


def _pulls(engine: Engine) -> Iterator[str]:
    for request, worker in engine.leasing._pulls.items():
        if worker.request != request:
            yield f"the pull {request!r} is remembered, and {worker.key.name} waits with {worker.request!r}"


def _groups(engine: Engine) -> Iterator[str]:
    for group in engine.overlaps._groups.values():
        for runs, held in ((group.admitted, False), (group.held, True)):
            for number, run in runs.items():
                if number not in engine.state.runs or run.held is not held or run.group is not group:
                    yield f"run {number} is in the group {group.key}, held={held}, and does not belong there"


def _tasks(engine: Engine) -> Iterator[str]:
    for task in engine.state.tasks.values():
        for number, run in task.runs.items():
            if engine.state.runs.get(number) is not run:
                yield f"run {number} is open for its task only"
