"""What the durable state is made of: tasks, runs, dispatches, and what is kept of runs that ended.

`engine.model.state` folds facts into these, and is the only one that changes what is durable of them; the rest of the
engine reads them, and keeps its own marks in the fields that are called volatile.

    dispatch:  ready --Leased--> leased --Succeeded--> gone
                 ^  ^---Returned----|
                 |---Failed(retry)--|--Failed(no retry)--> gone (the run fails: a dead letter)
"""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from tickwheel_operator.engine.messages import RunState, WorkerKey
from tickwheel_operator.engine.model.identity import (
    backfill_run_id,
    completion_run_id,
    keyed_run_id,
    run_name,
    scheduled_run_id,
)
from tickwheel_operator.engine.model.places import NOWHERE, Place, WaitingRoom
from tickwheel_operator.engine.triggers.instants import NO_INSTANT_MS
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

if TYPE_CHECKING:
    from tickwheel_operator.engine.model.execution.covered import Spans
    from tickwheel_operator.engine.model.execution.execution import Execution
    from tickwheel_operator.engine.wheel import Timer

__all__ = ["OUTLINE_CHARS", "Dispatch", "End", "Ended", "Group", "GroupKey", "Run", "TaskState", "WorkerName"]

_HISTORY_SUCCEEDED = 10
_HISTORY_FAILED = 20
"""Ended runs kept per task and outcome: the bounds of `spec.history`."""
OUTLINE_CHARS = 200
"""Of an error message: what is kept when the details are dropped."""
_SCHEDULE = Origin.SCHEDULE
"""For the hot path, as in `engine.model.places`."""

GroupKey = str | tuple[str, str, bytes]
"""What runs are counted by: a task's uid; or a namespace, a pointer and the value there."""


class WorkerName(msgspec.Struct, frozen=True):
    """A worker process that the ledger knows by a number."""

    key: WorkerKey
    instance: str
    started_ms: int = 0
    """When it began, by its own clock; 0: unknown."""
    pod_uid: str = ""
    """The pod that it is in; empty: unknown."""


class End(msgspec.Struct, frozen=True, gc=False):
    """How a dispatch, or a run, ended."""

    state: RunState
    result: bytes = b""
    error_type: str = ""
    message: str = ""
    traceback: str = ""


class Ended(msgspec.Struct, frozen=True, gc=False, eq=False, array_like=True):
    """What is kept of a run that ended. Told apart by identity; a row of a checkpoint as it is."""

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
    total: int = 0
    """Of a backfill: its instants; else 0."""
    succeeded: int = 0
    failed: int = 0

    @property
    def detail_bytes(self) -> int:
        """What dropping its details would save; text counts by characters."""
        return len(self.result) + len(self.traceback) + max(0, len(self.message) - OUTLINE_CHARS)

    def outline(self) -> Ended:
        """Without its details."""
        return msgspec.structs.replace(self, result=b"", message=self.message[:OUTLINE_CHARS], traceback="")


class Run:
    """A run that has not ended."""

    __slots__ = (
        "_id", "attempts", "cancelling", "created_ms", "delayed", "dispatches", "execution", "failure", "front",
        "group", "held", "key", "number", "object_name", "origin", "parameters", "parent", "scheduled_ms", "started_ms",
        "task", "worker",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        task: TaskState,
        scheduled_ms: int,
        created_ms: int,
        execution: Execution,
        ready_ms: int,
    ) -> None:
        """It may start at `ready_ms`."""
        self.number = number
        self.task = task
        self.scheduled_ms = scheduled_ms
        self.created_ms = created_ms
        self.origin: Origin = _SCHEDULE
        self.front = False
        """It goes ahead of what waits."""
        self.parent = 0
        """The number of the run that made it; 0: none did."""
        self.cancelling: str | None = None
        """Why it must stop; None: it need not."""
        self.group: Group | None = None
        """The runs that it is counted with (`engine.schedule.overlap`). Volatile."""
        self.held = False
        """It waits until others of its group have ended. Volatile."""
        self.delayed = False
        """It counts, and may be stopped, only from the end of its delay on. Volatile."""
        self.key = ""
        self.object_name = ""
        self.parameters = b""
        self.started_ms = 0
        self.attempts = 0
        self.worker = 0
        self.failure: tuple[str, str] | None = None
        """Type and message of why the last attempt failed. Volatile: no checkpoint has it."""
        self.execution = execution
        self.dispatches = execution.divide(self, ready_ms)
        """Those that have not ended. None: it stands for the runs that it makes."""
        self._id = ""
        """Volatile: computed when it is first asked for."""

    @property
    def id(self) -> str:
        # Asked for when the run is made, at each lease and at its end; the digest of a key is worth keeping.
        if not self._id:
            uid = self.task.uid
            if self.origin is _SCHEDULE:
                self._id = scheduled_run_id(uid, self.scheduled_ms)
            elif self.origin is Origin.BACKFILL:
                self._id = backfill_run_id(uid, self.scheduled_ms, self.key)
            elif self.origin is Origin.COMPLETION:
                self._id = completion_run_id(uid, self.key)
            else:
                self._id = keyed_run_id(uid, self.key)
        return self._id

    @property
    def name(self) -> str:
        """Of the TaskRun object that asked for it, or shows it."""
        return self.object_name or run_name(self.task.name, self.id)

    @property
    def state(self) -> RunState:
        return RunState.RUNNING if self.is_leased or not self.dispatches else RunState.PENDING

    @property
    def is_leased(self) -> bool:
        """Whether a worker holds a dispatch of it."""
        return any(dispatch.token for dispatch in self.dispatches)

    @property
    def ready_ms(self) -> int:
        """When the first of its dispatches may be leased; -1: it has none."""
        return min((dispatch.ready_ms for dispatch in self.dispatches), default=-1)


class Dispatch:
    """One unit of work of a run, for one worker."""

    __slots__ = (
        "attempts",
        "due_boot_ms",
        "fraction",
        "lease_until_ms",
        "leased_boot_ms",
        "leased_ms",
        "note",
        "number",
        "place",
        "ready_ms",
        "run",
        "starts_boot_ms",
        "timer",
        "token",
        "waits_ms",
        "where",
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
        # Volatile: not folded from facts, since renewals and progress are not durable (DESIGN, section 3). What is
        # named `boot` is on the clock that never jumps, as is all that measures a duration.
        self.lease_until_ms = 0
        """Of the boot clock."""
        self.leased_boot_ms = 0
        self.starts_boot_ms = 0
        """When the open attempt begins, if it was leased ahead of that."""
        self.due_boot_ms: int | None = None
        """When its wait for `ready_ms` is over, or was: worked out once, since the wall clock may jump meanwhile. None:
        not yet."""
        self.place: Place = NOWHERE
        self.where: WaitingRoom | None = None
        """The queue in which it is queued or expected, the pool in which it is delayed or blocked, the worker at which
        it is reserved."""
        self.fraction = 0.0
        self.note = ""
        self.waits_ms = 0
        """Since when it waits in a queue under this leader, by the boot clock."""
        self.timer: Timer | None = None
        """Its one timer: the end of a backoff or delay, or of the dispatch timeout while it waits in a queue."""


class Group:
    """Runs that are counted together, in the order in which they were made (`engine.schedule.overlap`)."""

    __slots__ = ("admitted", "held", "key")

    def __init__(self, key: GroupKey) -> None:
        self.key = key
        self.admitted: OrderedDict[int, Run] = OrderedDict()
        self.held: OrderedDict[int, Run] = OrderedDict()

    def __len__(self) -> int:
        return len(self.admitted) + len(self.held)


class TaskState:
    """What the ledger knows of a task."""

    __slots__ = (
        "backfilled", "cancelled", "failed", "history_failed", "history_succeeded", "last_ended_ms",
        "last_scheduled_ms", "name", "namespace", "number", "requested", "runs", "schedule", "skipped", "skips",
        "succeeded", "uid", "unshown", "watched", "watermark_ms",
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
        self.last_scheduled_ms = NO_INSTANT_MS
        self.last_ended_ms = 0
        """When a run of its schedule ended last."""
        self.runs: dict[int, Run] = {}
        self.requested: dict[int, Run] | None = None
        """Those of them that an object asked for: each is shown, however many others wait. None: none."""
        self.succeeded = 0
        self.failed = 0
        self.cancelled = 0
        self.skipped = 0
        self.skips: dict[f.SkipReason, tuple[int, int]] | None = None
        """By reason: how many instants, and up to which. None: none, as for most of a million tasks."""
        self.backfilled: Spans = ()
        """The instants, of the trigger as it is, that have a backfilled run that is open or succeeded
        (`engine.model.execution.covered`)."""
        self.watched = False
        """Somebody in the engine wants to hear of the ends of its runs. Volatile."""
        self.history_succeeded: deque[Ended] = deque(maxlen=_HISTORY_SUCCEEDED)
        self.history_failed: deque[Ended] = deque(maxlen=_HISTORY_FAILED)
        self.unshown: deque[Ended] | None = None
        """Ended runs that an object asked for and no view has shown: more may end at once than the history keeps, and
        somebody waits for each. Volatile."""

    def add(self, run: Run) -> None:
        """The run is open."""
        self.runs[run.number] = run
        if run.object_name:
            if self.requested is None:
                self.requested = {}
            self.requested[run.number] = run

    def remove(self, run: Run) -> None:
        """The run has ended."""
        del self.runs[run.number]
        if self.requested is not None and run.object_name:
            del self.requested[run.number]
            if not self.requested:
                self.requested = None

    def shown(self, others: int) -> list[Run]:
        """Open runs that people see: the first `others`, and whatever an object asked for."""
        first = list(islice(self.runs.values(), others))
        return first + [run for number, run in (self.requested or {}).items() if number > first[-1].number]

    def history_of(self, ended: Ended) -> deque[Ended]:
        """Where it is kept, or was."""
        return self.history_succeeded if ended.state is RunState.SUCCEEDED else self.history_failed
