"""What the status of each object should say now: pure functions from the catalog and the engine's views.

Conditions follow kstatus, so that GitOps tools, Helm and `kubectl wait` understand them: Ready, Reconciling and Stalled
of tasks and pools; Running and Succeeded of runs. Invariant: equal inputs give equal documents; `None` means that the
field is to be absent; a condition's lastTransitionTime is added when it is written.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.spec import FixedDelay
from tickwheel_operator.engine.triggers import looked_until
from tickwheel_operator.engine.triggers.filters import Search
from tickwheel_operator.engine.triggers.instants import timestamp
from tickwheel_operator.engine.views import PoolView, RunView, TaskView
from tickwheel_operator.projection.registered import Schemas, registered_handlers
from tickwheel_operator.projection.subjects import Calendar, Pool, Run, Task, UnbuiltObject, Workforce

__all__ = [
    "ENDED",
    "HANDLER_NOT_REGISTERED",
    "calendar_status",
    "has_ended",
    "missing_handler",
    "pool_status",
    "request_status",
    "run_status",
    "task_status",
    "unbuilt_status",
]

ENDED = "Ended"
HANDLER_NOT_REGISTERED = "HandlerNotRegistered"
_NAMES_SHOWN = 20
_MESSAGE_CHARS = 32_000
_TRACEBACK_CHARS = 64_000

Status = dict[str, Any]
_Words = tuple[str, str, str]
"""A condition's status, reason and message."""
_ACCEPTED: _Words = ("True", "Accepted", "workers may connect")
_USABLE: _Words = ("True", "Accepted", "triggers may name it")
_SETTLED: _Words = ("False", "Settled", "")


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


def has_ended(task: Task, view: TaskView, now_ms: int) -> bool:
    """Whether its trigger has no instant any more. That the engine sleeps on none is not enough: while the intake is
    held, a run with a fixed delay is open, or a search behind calendars gave up, there is none either."""
    spec = task.seen.spec
    if spec is None or view.next_ms is not None:
        return False
    if spec.trigger is not None:
        return looked_until(spec.trigger, now_ms) is None
    if spec.filter is None:
        return False
    earliest_ms = now_ms
    if isinstance(spec.after, FixedDelay) and not view.active:
        earliest_ms += spec.after.delay_ms
    return spec.filter.search(earliest_ms) is Search.NEVER


def task_status(task: Task, view: TaskView | None, pool: PoolView | None, *, ended: bool = False) -> Status:
    """Of a ScheduledTask. Without a view, or with one that is not armed, the runs' fields are left as they are. `ended`
    is what `has_ended` says, or said last."""
    seen, spec, fault = task.seen, task.seen.spec, task.fault
    generation = seen.generation
    if fault is not None:
        ready = ("False", fault.reason, fault.message)
        stalled = ("True", fault.reason, fault.message)
    else:
        missing = missing_handler(spec.handler, spec.pool, pool) if spec is not None else ""
        stalled = ("True", HANDLER_NOT_REGISTERED, missing) if missing else ("False", "Settled", "")
        if spec is not None and spec.suspend:
            ready = ("True", "Suspended", "spec.suspend is set: nothing fires by itself")
        elif spec is not None and spec.trigger is None and spec.after is None:
            ready = ("True", "Manual", "runs by hand, by API and in workflows only")
        elif ended:
            ready = ("True", ENDED, "its trigger has no instant any more: nothing fires by itself")
        else:
            ready = ("True", "Armed", "fires as its trigger says")
    status: Status = {
        "observedGeneration": generation,
        "trigger": None if spec is None else _trigger(task),
        "conditions": [
            _condition("Ready", ready, generation),
            _condition("Reconciling", ("False", "Settled", ""), generation),
            _condition("Stalled", stalled, generation),
        ],
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


def calendar_status(calendar: Calendar) -> Status:
    """Of a Calendar."""
    generation, fault = calendar.seen.generation, calendar.seen.fault
    ready, stalled = _USABLE, _SETTLED
    if fault is not None:
        ready, stalled = ("False", fault.reason, fault.message), ("True", fault.reason, fault.message)
    return {
        "observedGeneration": generation,
        "conditions": [
            _condition("Ready", ready, generation),
            _condition("Reconciling", _SETTLED, generation),
            _condition("Stalled", stalled, generation),
        ],
    }


def pool_status(
    pool: Pool, view: PoolView | None, workforce: Workforce | None = None, schemas: Schemas | None = None
) -> Status:
    """Of a WorkerPool; `workforce` is None where its workers run elsewhere. One of which nothing was heard has none."""
    generation, fault = pool.seen.generation, pool.seen.fault
    workers = 0 if view is None else view.workers
    draining = 0 if view is None else view.draining
    slots, used = (0, 0) if view is None else (view.slots, view.used)
    taking = workers - draining
    deployment = workforce.deployment if workforce is not None else None
    ready, reconciling, stalled = _ACCEPTED, _SETTLED, _SETTLED
    if fault is not None:
        ready, stalled = ("False", fault.reason, fault.message), ("True", fault.reason, fault.message)
    elif workforce is not None:
        ready, reconciling, stalled = _pods_conditions(workforce, taking)
    usage = workforce.usage if workforce is not None else None
    return {
        "observedGeneration": generation,
        "conditions": [
            _condition("Ready", ready, generation),
            _condition("Reconciling", reconciling, generation),
            _condition("Stalled", stalled, generation),
        ],
        "desiredReplicas": None if deployment is None else deployment.desired,
        "replicas": workers if deployment is None else deployment.replicas,
        "readyReplicas": taking if deployment is None else min(deployment.ready, taking),
        "draining": draining,
        "slots": {"total": slots, "used": used, "free": 0 if view is None else view.free},
        "backlog": 0 if view is None else view.backlog,
        "load": {"cpu": _step(view.cpu), "memory": _step(view.memory)} if view is not None and workers else None,
        "usage": None if usage is None else {"cpu": usage.cpu, "memory": usage.memory, "pods": usage.pods},
        "scaling": (workforce.scaling[:1_024] or None) if workforce is not None else None,
        "handlers": [] if view is None else registered_handlers(view.handlers, schemas or {}),
        "selector": workforce.selector if workforce is not None else None,
    }


def _pods_conditions(workforce: Workforce, taking: int) -> tuple[_Words, _Words, _Words]:
    """Ready, Reconciling and Stalled of a pool with a template, `taking` of whose workers take work."""
    deployment = workforce.deployment
    if deployment is None:
        unknown = "the pool's Deployment has not been looked at yet"
        return ("Unknown", "Pending", unknown), ("True", "Pending", unknown), _SETTLED
    up, desired, problem = min(deployment.ready, taking), deployment.desired, deployment.problem
    count = f"{min(up, desired)} of {desired} {'worker is' if desired == 1 else 'workers are'} ready"
    if up >= workforce.least:
        ready = ("True", "Ready", count if desired else "no workers are asked for")
    else:
        ready = ("False", problem.reason if problem is not None and problem.reason else "WorkersNotReady", count)
    if problem is not None and problem.stalled:
        return ("False", problem.reason, problem.message), _SETTLED, ("True", problem.reason, problem.message)
    if problem is not None:
        return ready, ("True", problem.reason, f"{count}: {problem.message}"), _SETTLED
    if not deployment.settled:
        if deployment.updated < min(deployment.replicas, desired):
            words = f"{deployment.updated} of {desired} workers have the present template"
            return ready, ("True", "RollingUpdate", words), _SETTLED
        more = deployment.replicas - desired
        return ready, ("True", "Scaling", f"{count}; {more} more go" if more > 0 else count), _SETTLED
    if taking < deployment.ready:
        words = f"{taking} of {deployment.ready} workers are connected to the gateway, though their pods are ready"
        return ready, ("True", "WorkersNotConnected", words), _SETTLED
    return ready, _SETTLED, _SETTLED


def run_status(view: RunView, generation: int) -> Status:
    """Of a TaskRun that shows the run."""
    state = view.state
    reason, why = _open_words(view)
    succeeded = {
        RunState.SUCCEEDED: ("True", "Succeeded", ""),
        RunState.FAILED: ("False", (view.error_type and _word(view.error_type)) or "Failed", view.message[:1_000]),
        RunState.CANCELLED: ("False", "Cancelled", view.message[:1_000]),
    }.get(state, ("Unknown", reason, why))
    running = ("True" if state is RunState.RUNNING else "False", reason, why)
    failed = state in (RunState.FAILED, RunState.CANCELLED)
    tried = failed or not state.is_final
    total, good, bad = view.dispatches or (1, int(state is RunState.SUCCEEDED), int(failed))
    return {
        "observedGeneration": generation,
        "conditions": [_condition("Running", running, generation), _condition("Succeeded", succeeded, generation)],
        "runId": view.run_id,
        "state": state.value,
        "scheduledTime": timestamp(view.scheduled_ms),
        "startTime": timestamp(view.started_ms) if view.started_ms else None,
        "completionTime": timestamp(view.ended_ms) if view.ended_ms else None,
        # A backfill makes up for the past: late is what it is for.
        "lateness": f"{max(0, view.started_ms - view.scheduled_ms)}ms"
        if view.started_ms and view.dispatches is None
        else None,
        "attempts": view.attempts,
        "worker": view.worker or None,
        "progress": {"percent": round(view.fraction * 100), "message": view.note[:1_024]}
        if view.fraction or view.note
        else None,
        "dispatches": {"total": total, "succeeded": good, "failed": bad},
        "result": msgspec.json.decode(view.result) if view.result else None,
        "error": {
            "type": view.error_type or None,
            "message": view.message[:_MESSAGE_CHARS] or None,
            "traceback": view.traceback[-_TRACEBACK_CHARS:] or None,
        }
        if tried and (view.error_type or view.message)
        else None,
    }


def _open_words(view: RunView) -> tuple[str, str]:
    """Reason and message of the Running condition: of an open run, what it waits for."""
    if view.cancelling and not view.state.is_final:
        return "Cancelling", "it was told to stop, and has not stopped yet"
    if view.state is RunState.PENDING and view.waits_for:
        return "WaitsForOverlap", view.waits_for
    if view.state is not RunState.PENDING:
        return view.state.value, ""
    failed = ""
    if view.attempts:
        why = ": ".join(filter(None, (view.error_type, view.message[:1_000])))
        failed = f"attempt {view.attempts} failed{': ' if why else ''}{why}"
    if view.ready_ms:
        starts = f"may start from {timestamp(view.ready_ms)}"
        return ("WaitsForRetry", f"{failed}; the next {starts}") if failed else ("Delayed", f"it {starts}")
    return view.state.value, failed


def request_status(run: Run) -> Status | None:
    """Of a TaskRun without a view: refused, faulty, or ended so long ago that only its state is known."""
    generation, fault = run.seen.generation, run.fault
    if fault is not None:
        return {
            "observedGeneration": generation,
            "conditions": [
                _condition("Running", ("False", fault.reason, ""), generation),
                _condition("Stalled", ("True", fault.reason, fault.message), generation),
                _condition("Succeeded", ("False", fault.reason, fault.message), generation),
            ],
        }
    if run.state is None or not run.state.is_final:
        return None
    status = "True" if run.state is RunState.SUCCEEDED else "False"
    words = (status, run.state.value, "the run ended before; its details are no longer kept")
    return {
        "observedGeneration": generation,
        "conditions": [
            _condition("Running", ("False", run.state.value, ""), generation),
            _condition("Succeeded", words, generation),
        ],
        "runId": run.run_id,
        "state": run.state.value,
    }


def unbuilt_status(seen: UnbuiltObject) -> Status:
    """Of an object that this version does nothing with: a run never succeeds, anything else is never ready."""
    generation, fault = seen.generation, seen.fault
    words = ("False", fault.reason, fault.message)
    if seen.kind.endswith("Run"):
        others = [
            _condition("Running", ("False", fault.reason, ""), generation),
            _condition("Succeeded", words, generation),
        ]
    else:
        others = [
            _condition("Ready", words, generation),
            _condition("Reconciling", ("False", "Settled", ""), generation),
        ]
    stalled = _condition("Stalled", ("True", fault.reason, fault.message), generation)
    return {"observedGeneration": generation, "conditions": [*others, stalled]}


def _trigger(task: Task) -> str:
    spec = task.seen.spec
    source = None if spec is None else spec.trigger or spec.after
    if spec is None or source is None:
        return "manual"
    parts = [source.describe()]
    if spec.filter is not None:
        parts.append(spec.filter.describe())
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


def _condition(kind: str, words: tuple[str, str, str], generation: int) -> dict[str, Any]:
    status, reason, message = words
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message[:16_384],
        "observedGeneration": generation,
    }


def _word(error_type: str) -> str:
    """An error type as a condition's reason: letters, digits and `_,:`."""
    word = "".join(c if c.isascii() and (c.isalnum() or c in "_:,") else "_" for c in error_type)[:256].rstrip(":,")
    return word if word and word[0].isalpha() else "Failed"


def _step(share: float) -> str:
    """In steps of 5%: a load that trembles is not worth a write."""
    return f"{max(0, min(100, round(share * 20) * 5))}%"
