"""TaskRun: a request of a user to run a task, or the operator's picture of a run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from tickwheel_operator import reasons
from tickwheel_operator.api import TaskRun
from tickwheel_operator.api.taskrun import Backfill, OnExpiry
from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.read.views import RunView
from tickwheel_operator.engine.triggers.instants import instant_of, timestamp
from tickwheel_operator.kinds.conditions import Status, condition
from tickwheel_operator.kinds.descriptor import Kind, Later
from tickwheel_operator.kinds.seen import Fault, RawObject, Seen
from tickwheel_operator.kinds.stored import Stored
from tickwheel_operator.kinds.world import World

__all__ = [
    "TASK_RUN",
    "VIEW_LABEL",
    "BackfillRequest",
    "RunEntry",
    "RunRequest",
    "SeenRun",
    "request_status",
    "run_status",
]

VIEW_LABEL = "tickwheel.io/view"
"""On TaskRun objects that the operator made: pictures, not requests."""
_FINAL_STATES = frozenset({"Succeeded", "Failed", "Cancelled"})
_MESSAGE_CHARS = 32_000
_TRACEBACK_CHARS = 64_000
_VIEW_COMES_S = 5.0
"""After the answer, of a run that the engine still shows."""


class BackfillRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The span of a backfill."""

    from_ms: int
    to_ms: int
    """Exclusive."""
    max_parallel: int


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a TaskRun asks for."""

    task: str
    key: str
    scheduled_ms: int | None
    """None: now."""
    parameters: bytes
    cancel: bool
    delay_ms: int = 0
    """It starts so long after it was asked for."""
    front: bool = False
    """When its delay is over it goes ahead of the queue."""
    backfill: BackfillRequest | None = None
    """It stands for the runs of a span of instants; None: for one run."""


class SeenRun(Seen, frozen=True, kw_only=True):
    """A TaskRun that a user made."""

    request: RunRequest | None = None
    """None: it is final or faulty, and nothing is asked."""
    final: bool = False
    run_id: str = ""
    task: str = ""
    """The name of its task."""
    succeeded: bool = False
    ended_ms: int = 0
    """When its run ended, of a final one; 0: nobody said."""
    ttl_s: int | None = None
    """How long it is kept then; None: as its task's history says."""


class RunEntry:
    """A TaskRun that a user made."""

    __slots__ = ("answered_at", "cancelled", "deleted_at", "refusal", "refused_at", "run_id", "seen", "state")

    def __init__(self, seen: SeenRun) -> None:
        self.seen = seen
        self.run_id = seen.run_id
        self.state: RunState | None = None
        """As the engine answered; None: not yet."""
        self.answered_at = 0.0
        """When it did, by the event loop's clock."""
        self.refusal: Fault | None = None
        self.refused_at: float | None = None
        """When the engine refused it first in this term, by the event loop's clock."""
        self.cancelled = False
        """The cancel was carried out."""
        self.deleted_at = 0.0
        """When the object went, by the event loop's clock."""

    @property
    def fault(self) -> Fault | None:
        """Why the request is not met now; None: it is, or it is on its way."""
        return self.seen.fault or self.refusal


class _RunKind(Kind[TaskRun, SeenRun]):
    selector = f"!{VIEW_LABEL}"
    sections = (
        (
            "observedGeneration", "conditions", "runId", "state", "scheduledTime", "startTime", "completionTime",
            "lateness", "attempts", "worker", "progress", "dispatches", "result", "error",
        ),
    )  # fmt: skip

    def look(self, seen: SeenRun, raw: RawObject) -> SeenRun | None:
        """None: it is the operator's own view."""
        if (raw["metadata"].get("labels") or {}).get(VIEW_LABEL) == "true":
            return None
        status, spec = raw.get("status") or {}, raw.get("spec") or {}
        return replace(
            seen,
            final=status.get("state") in _FINAL_STATES,
            run_id=status.get("runId") or "",
            task=str(spec.get("task") or ""),
            succeeded=status.get("state") == RunState.SUCCEEDED.value,
            ended_ms=_ended_ms(status),
            ttl_s=spec.get("ttlSecondsAfterFinished"),
        )

    def is_settled(self, seen: SeenRun) -> bool:
        return seen.final

    def compile(self, seen: SeenRun, manifest: TaskRun) -> SeenRun:
        return replace(seen, request=_request(manifest))

    def status(self, seen: SeenRun, world: World, stored: Stored) -> Status | Later | None:
        entry = world.requests.entry(seen.uid)
        if entry is None:
            return None
        if (view := world.runs.get(entry.run_id)) is not None:
            return run_status(view, seen.generation)
        status = request_status(entry)
        waited_s = world.monotonic_s() - entry.answered_at
        if status is not None and entry.fault is None and waited_s < _VIEW_COMES_S:
            return Later(_VIEW_COMES_S - waited_s)  # its view says more
        return status


TASK_RUN = _RunKind(TaskRun, SeenRun)


def _ended_ms(status: Mapping[str, Any]) -> int:
    """When the run ended; of one whose details nobody keeps, since when its condition says so."""
    since = (c.get("lastTransitionTime") for c in status.get("conditions") or () if c.get("type") == "Succeeded")
    text = status.get("completionTime") or next(since, None)
    try:
        return instant_of(datetime.fromisoformat(str(text))) if text else 0
    except ValueError:
        return 0


def _request(run: TaskRun) -> RunRequest:
    spec = run.spec
    return RunRequest(
        task=str(spec.task),
        key=str(spec.idempotency_key) if spec.idempotency_key is not None else f"taskrun/{run.metadata.uid}",
        scheduled_ms=None if spec.scheduled_time is None else spec.scheduled_time.milliseconds,
        parameters=msgspec.json.encode(spec.parameters) if spec.parameters else b"",
        cancel=spec.cancel,
        delay_ms=0 if spec.delay is None else spec.delay.milliseconds,
        front=spec.on_expiry is OnExpiry.FIRE_NOW,
        backfill=None if spec.backfill is None else _backfill(spec.backfill),
    )


def _backfill(span: Backfill) -> BackfillRequest:
    return BackfillRequest(from_ms=span.from_.milliseconds, to_ms=span.to.milliseconds, max_parallel=span.max_parallel)


def run_status(view: RunView, generation: int) -> Status:
    """Of a TaskRun that shows the run."""
    state = view.state
    reason, why = _open_words(view)
    succeeded = {
        RunState.SUCCEEDED: ("True", "Succeeded", ""),
        RunState.FAILED: (
            "False",
            (view.error_type and _word(view.error_type)) or reasons.FAILED,
            view.message[:1_000],
        ),
        RunState.CANCELLED: ("False", "Cancelled", view.message[:1_000]),
    }.get(state, ("Unknown", reason, why))
    running = ("True" if state is RunState.RUNNING else "False", reason, why)
    failed = state in (RunState.FAILED, RunState.CANCELLED)
    tried = failed or not state.is_final
    total, good, bad = view.dispatches or (1, int(state is RunState.SUCCEEDED), int(failed))
    return {
        "observedGeneration": generation,
        "conditions": [condition("Running", running, generation), condition("Succeeded", succeeded, generation)],
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
        return reasons.CANCELLING, "it was told to stop, and has not stopped yet"
    if view.state is RunState.PENDING and view.waits_for:
        return reasons.WAITS_FOR_OVERLAP, view.waits_for
    if view.state is not RunState.PENDING:
        return view.state.value, ""
    failed = ""
    if view.attempts:
        why = ": ".join(filter(None, (view.error_type, view.message[:1_000])))
        failed = f"attempt {view.attempts} failed{': ' if why else ''}{why}"
    if view.ready_ms:
        starts = f"may start from {timestamp(view.ready_ms)}"
        return (
            (reasons.WAITS_FOR_RETRY, f"{failed}; the next {starts}") if failed else (reasons.DELAYED, f"it {starts}")
        )
    return view.state.value, failed


def request_status(run: RunEntry) -> Status | None:
    """Of a TaskRun without a view: refused, faulty, or ended so long ago that only its state is known."""
    generation, fault, state = run.seen.generation, run.fault, run.state
    if fault is not None:
        return {"observedGeneration": generation, "conditions": TASK_RUN.stalled(fault, generation)}
    if state is None or not state.is_final:
        return None
    status = "True" if state is RunState.SUCCEEDED else "False"
    words = (status, state.value, "the run ended before; its details are no longer kept")
    return {
        "observedGeneration": generation,
        "conditions": [
            condition("Running", ("False", state.value, ""), generation),
            condition("Succeeded", words, generation),
        ],
        "runId": run.run_id,
        "state": state.value,
    }


def _word(error_type: str) -> str:
    """An error type as a condition's reason: letters, digits and `_,:`."""
    word = "".join(c if c.isascii() and (c.isalnum() or c in "_:,") else "_" for c in error_type)[:256].rstrip(":,")
    return word if word and word[0].isalpha() else reasons.FAILED
