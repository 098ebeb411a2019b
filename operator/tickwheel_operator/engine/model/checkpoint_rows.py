"""The rows of a checkpoint: typed, so that what is no state is noticed before anybody leads with it.

`engine.model.snapshot` writes and reads them. Fields with a default were added later: rows of earlier builds lack them.
Invariant: a field is only ever added at the end.
"""

from __future__ import annotations

import msgspec

from tickwheel_operator.engine.model.execution.backfill import BackfillRow
from tickwheel_operator.engine.model.execution.covered import Spans
from tickwheel_operator.engine.model.runs import Ended
from tickwheel_operator.ledger.facts import Origin, SkipReason

__all__ = ["HeadRow", "KeyRow", "RunRow", "TaskRow", "WorkerRow"]


class _Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    pass


class HeadRow(_Row, frozen=True):
    version: int
    clock_ms: int
    next_task: int
    next_run: int
    next_token: int
    next_worker: int


class WorkerRow(_Row, frozen=True):
    number: int
    namespace: str
    pool: str
    name: str
    instance: str
    started_ms: int = 0
    pod_uid: str = ""


class TaskRow(_Row, frozen=True):
    number: int
    uid: str
    namespace: str
    name: str
    schedule: str
    watermark_ms: int
    last_scheduled_ms: int
    succeeded: int
    failed: int
    cancelled: int
    skipped: int
    history_succeeded: list[Ended]
    history_failed: list[Ended]
    last_ended_ms: int = 0
    skips: list[tuple[SkipReason, int, int]] = []
    backfilled: Spans = ()


class RunRow(_Row, frozen=True):
    number: int
    task: int
    scheduled_ms: int
    created_ms: int
    key: str
    object_name: str
    parameters: bytes
    started_ms: int
    attempts: int
    worker: int
    ready_ms: int
    dispatch_attempts: int
    token: int
    dispatch_worker: int
    leased_ms: int
    origin: Origin | None = None
    front: bool = False
    parent: int = 0
    cancelling: str | None = None
    backfill: BackfillRow | None = None


class KeyRow(_Row, frozen=True):
    key: str
    final: str
    """The state that its run ended in; empty: it is open."""
    run: int
    content: bytes = b""
