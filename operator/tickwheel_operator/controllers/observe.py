"""What one object of the watch says, boiled down: raw JSON in, a small frozen value out.

Called in the watch's thread, so that parsing never delays the engine; the value is all that goes on to the catalog.
Invariants: the raw object is not kept; a spec is parsed once per generation; a fault names its field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from tickwheel_operator.api import (
    NOT_SUPPORTED,
    InvalidManifest,
    ScheduledTask,
    TaskRun,
    WorkerPool,
    parse,
    sentence,
    unsupported,
)
from tickwheel_operator.api.calendar import Calendar
from tickwheel_operator.api.taskrun import Backfill, OnExpiry
from tickwheel_operator.controllers.compile import NeverFires, compile_calendar, compile_pool, compile_task
from tickwheel_operator.controllers.records import status_record
from tickwheel_operator.engine.messages import RunState, StatusRecord
from tickwheel_operator.engine.spec import PoolSpec, TaskSpec
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.engine.triggers.instants import instant_of

__all__ = [
    "INVALID_SPEC",
    "NEVER_FIRES",
    "VIEW_LABEL",
    "BackfillRequest",
    "Fault",
    "ObservedCalendar",
    "ObservedPool",
    "ObservedRun",
    "ObservedTask",
    "RunRequest",
    "StatusReader",
    "observe_calendar",
    "observe_pool",
    "observe_run",
    "observe_task",
]

VIEW_LABEL = "tickwheel.io/view"
"""On TaskRun objects that the operator made: pictures, not requests."""
INVALID_SPEC = "InvalidSpec"
NEVER_FIRES = "NeverFires"
"""The spec is valid, and leaves no instant: its source, its window or its calendars."""
_FINAL_STATES = frozenset({"Succeeded", "Failed", "Cancelled"})

RawObject: TypeAlias = Mapping[str, Any]
StatusReader: TypeAlias = Callable[[str, Mapping[str, Any]], object]
"""Kind and `status` as stored, to what the projection wants to remember of it. Opaque here."""


class Fault(msgspec.Struct, frozen=True):
    """Why an object cannot be acted upon: the reason and message of its `Stalled` condition."""

    reason: str
    message: str


class ObservedTask(msgspec.Struct, frozen=True, kw_only=True):
    uid: str
    namespace: str
    name: str
    generation: int
    spec: TaskSpec | None
    fault: Fault | None
    deleting: bool
    stored: object
    record: StatusRecord | None = None
    """What its status says of earlier runs; None: nothing."""


class ObservedPool(msgspec.Struct, frozen=True, kw_only=True):
    uid: str
    namespace: str
    name: str
    generation: int
    spec: PoolSpec | None
    accounts: frozenset[str]
    """ServiceAccounts whose tokens may speak for the pool."""
    fault: Fault | None
    stored: object
    resource: WorkerPool | None = None
    """The manifest, for what the engine has no use for: the pods and their number. None: it is faulty."""
    deleting: bool = False


class ObservedCalendar(msgspec.Struct, frozen=True, kw_only=True):
    uid: str
    namespace: str
    name: str
    generation: int
    dates: CalendarDates | None
    """None: it is faulty."""
    fault: Fault | None
    stored: object


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


class ObservedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A TaskRun that a user made."""

    uid: str
    namespace: str
    name: str
    generation: int
    request: RunRequest | None
    """None: it is final or faulty, and nothing is asked."""
    fault: Fault | None
    final: bool
    run_id: str
    stored: object
    task: str = ""
    """The name of its task."""
    succeeded: bool = False
    ended_ms: int = 0
    """When its run ended, of a final one; 0: nobody said."""
    ttl_s: int | None = None
    """How long it is kept then; None: as its task's history says."""


def observe_task(raw: RawObject, known: ObservedTask | None, read_status: StatusReader) -> ObservedTask:
    """`known` is what was observed last of the object with this uid: its spec is good for the same generation."""
    metadata = raw["metadata"]
    spec: TaskSpec | None
    fault: Fault | None
    if known is not None and known.generation == metadata["generation"]:
        spec, fault = known.spec, known.fault
    else:
        spec, fault = _compiled_task(raw)
    return ObservedTask(
        uid=metadata["uid"],
        namespace=spec.namespace if spec is not None else metadata["namespace"],
        name=spec.name if spec is not None else metadata["name"],
        generation=metadata["generation"],
        spec=spec,
        fault=fault,
        deleting="deletionTimestamp" in metadata,
        stored=read_status("ScheduledTask", raw.get("status") or {}),
        record=status_record(metadata["name"], raw.get("status") or {}),
    )


def _compiled_task(raw: RawObject) -> tuple[TaskSpec | None, Fault | None]:
    try:
        resource = parse(raw)
        if gaps := unsupported(resource):
            return None, Fault(NOT_SUPPORTED, sentence(gaps))
        if not isinstance(resource, ScheduledTask):
            raise TypeError(f"a watch of ScheduledTasks gave a {resource.kind}")
        return compile_task(resource), None
    except InvalidManifest as error:
        return None, _refused(error)


def _refused(error: InvalidManifest) -> Fault:
    return Fault(NEVER_FIRES if isinstance(error, NeverFires) else INVALID_SPEC, sentence(error.faults))


def observe_pool(raw: RawObject, read_status: StatusReader) -> ObservedPool:
    metadata = raw["metadata"]
    spec, accounts, fault, pool = None, frozenset[str](), None, None
    try:
        resource = parse(raw)
        if gaps := unsupported(resource):
            fault = Fault(NOT_SUPPORTED, sentence(gaps))
        elif isinstance(resource, WorkerPool):
            pool, spec = resource, compile_pool(resource)
            accounts = frozenset(map(str, resource.spec.access.service_accounts))
    except InvalidManifest as error:
        fault = _refused(error)
    return ObservedPool(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=metadata["generation"],
        spec=spec,
        accounts=accounts,
        fault=fault,
        stored=read_status("WorkerPool", raw.get("status") or {}),
        resource=pool,
        deleting="deletionTimestamp" in metadata,
    )


def observe_calendar(raw: RawObject, known: ObservedCalendar | None, read_status: StatusReader) -> ObservedCalendar:
    """`known` is what was observed last under this name: its dates are good for the same object and generation, and
    tasks that honour them need not be looked at when only its status changed."""
    metadata = raw["metadata"]
    dates: CalendarDates | None
    fault: Fault | None
    if known is not None and (known.uid, known.generation) == (metadata["uid"], metadata["generation"]):
        dates, fault = known.dates, known.fault
    else:
        dates, fault = _compiled_calendar(raw)
    return ObservedCalendar(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=metadata["generation"],
        dates=dates,
        fault=fault,
        stored=read_status("Calendar", raw.get("status") or {}),
    )


def _compiled_calendar(raw: RawObject) -> tuple[CalendarDates | None, Fault | None]:
    try:
        resource = parse(raw)
        if gaps := unsupported(resource):
            return None, Fault(NOT_SUPPORTED, sentence(gaps))
        if not isinstance(resource, Calendar):
            raise TypeError(f"a watch of Calendars gave a {resource.kind}")
        return compile_calendar(resource), None
    except InvalidManifest as error:
        return None, _refused(error)


def observe_run(raw: RawObject, read_status: StatusReader) -> ObservedRun | None:
    """None for what is no request: the operator's own views."""
    metadata, status, spec = raw["metadata"], raw.get("status") or {}, raw.get("spec") or {}
    if (metadata.get("labels") or {}).get(VIEW_LABEL) == "true":
        return None
    final = status.get("state") in _FINAL_STATES
    request, fault = None, None
    if not final:
        try:
            resource = parse(raw)
            if gaps := unsupported(resource):
                fault = Fault(NOT_SUPPORTED, sentence(gaps))
            elif isinstance(resource, TaskRun):
                request = _request(resource)
        except InvalidManifest as error:
            fault = _refused(error)
    return ObservedRun(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=metadata["generation"],
        request=request,
        fault=fault,
        final=final,
        run_id=status.get("runId") or "",
        stored=read_status("TaskRun", status),
        task=str(spec.get("task") or ""),
        succeeded=status.get("state") == RunState.SUCCEEDED.value,
        ended_ms=_ended_ms(status),
        ttl_s=spec.get("ttlSecondsAfterFinished"),
    )


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
