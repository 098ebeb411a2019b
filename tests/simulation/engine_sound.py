"""Whether the volatile half of an engine fits the durable one: what waits stands in one place, and what has ended in none."""

from __future__ import annotations

from tickwheel_operator.engine.core import Engine

__all__ = ["unsound"]


def unsound(engine: Engine) -> str:
    """What does not fit, after a command; empty: nothing."""
    state, router = engine.state, engine.router
    waits: dict[int, int] = {}
    aside: dict[int, int] = {}
    for run in state.runs.values():
        dispatch = run.dispatch
        if dispatch.lane is not None:
            waits[id(dispatch.lane._pool)] = waits.get(id(dispatch.lane._pool), 0) + 1
        if run.aside is not None:
            aside[id(run.aside)] = aside.get(id(run.aside), 0) + 1
        if dispatch.reserved:
            return f"run {run.number} is still reserved at a worker"
        if not engine.scheduler.synced or run.span is not None or not engine.scheduler.knows(run.task):
            continue
        places = [dispatch.lane is not None, run.aside is not None]
        if dispatch.token and (any(places) or run.held):
            return f"run {run.number} is held by a worker, and waits as well"
        if not dispatch.token and sum(places) != 1:
            return f"run {run.number} waits in {sum(places)} places, held={run.held} delayed={run.delayed}"
        if not dispatch.token and run.aside is not None and dispatch.timer is None and not run.held:
            return f"run {run.number} waits for an instant that no timer wakes it at"
    for (_, name), pool in router.pools.items():
        if pool.waits != waits.get(id(pool), 0) or pool.aside != aside.get(id(pool), 0):
            return f"pool {name} counts {pool.waits} that wait and {pool.aside} aside, not {waits.get(id(pool), 0)} and {aside.get(id(pool), 0)}"
        for handler, lane in pool.lanes.items():
            having = sum(worker.handlers.count(handler) for worker in pool.workers.values())
            if lane.workers != having:
                return f"lane {handler} counts {lane.workers} workers, not {having}"
            for worker in lane.waiting:
                if worker.request is None or worker.credit <= 0:
                    return f"{worker.key.name} stands in lane {handler}, and waits for nothing"
            for queue in (lane.queue, lane.backfills, lane.ahead):
                for dispatch in queue:
                    if dispatch.lane is lane and dispatch.number not in state.runs:
                        return f"run {dispatch.number} has ended, and waits in lane {handler}"
    for request, worker in engine.leasing._pulls.items():
        if worker.request != request:
            return f"the pull {request!r} is remembered, and {worker.key.name} waits with {worker.request!r}"
    for group in engine.overlaps._groups.values():
        for runs, held in ((group.admitted, False), (group.held, True)):
            for number, run in runs.items():
                if number not in state.runs or run.held is not held or run.group is not group:
                    return f"run {number} is in the group {group.key}, held={held}, and does not belong there"
    for task in state.tasks.values():
        for number, run in task.runs.items():
            if state.runs.get(number) is not run:
                return f"run {number} is open for its task only"
    return ""
