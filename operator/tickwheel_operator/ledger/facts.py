"""The facts of a partition: everything that is true about runs and dispatches is the fold of these.

The engine decides facts and folds them (`engine.model.state`); the ledger stores them. A fact is never changed once a
release has written it: a new need is a new tag, and `FORMAT_VERSION` moves when the meaning of an old one would.

Two habits keep a dispatch at a few bytes. Tasks, runs, dispatches, workers and attempts are interned as small
integers, and facts are columns where work comes in batches: `Fired` names all the tasks of one instant, `Leased` all
the dispatches that one worker got at once. Time is a fact of its own (`Clock`): it stands once before the facts that
were decided at that instant.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

__all__ = [
    "FORMAT_VERSION",
    "Armed",
    "BackfillEnded",
    "BackfillStarted",
    "Backfilled",
    "CancelAsked",
    "Cancelled",
    "Clock",
    "Fact",
    "FailureReason",
    "Failed",
    "Fired",
    "Leased",
    "Origin",
    "Recovered",
    "Requested",
    "Returned",
    "SkipReason",
    "Skipped",
    "Submitted",
    "Succeeded",
    "SucceededWith",
    "TaskForgotten",
    "TaskNamed",
    "Undelivered",
    "WorkerNamed",
]

FORMAT_VERSION = 1
"""The version of the fact format. A reader refuses a segment whose version it does not know."""


class SkipReason(enum.IntEnum):
    """Why scheduled instants made no run."""

    MISFIRED = 1
    """Overdue, and the misfire policy drops them."""
    COALESCED = 2
    """Overdue, and one later run stands for them (`FireOnce`)."""
    DEADLINE = 3
    """Older than the task's starting deadline."""
    CATCH_UP_LIMIT = 5
    """More were overdue than `maxCatchUp` allows."""
    BACKLOG = 6
    """The pool's backlog is full."""
    OVERLAP = 7
    """Earlier runs were open, and the concurrency policy is `Forbid`."""
    QUEUE_FULL = 8
    """As many runs waited for earlier ones as `queueLimit` allows."""
    EDITED = 9
    """Overdue when the trigger was changed: the new one counts from the change."""
    SUSPENDED = 10
    """The run that this task follows ended while it was suspended."""
    CALENDAR = 11
    """The run that this task follows ended outside of its window or calendars."""
    STALLED = 12
    """The run that this task follows ended while its object was invalid."""


class Origin(enum.IntEnum):
    """Why there is a run."""

    SCHEDULE = 0
    REQUEST = 1
    """Somebody asked for it."""
    COMPLETION = 2
    """A run of another task ended."""
    BACKFILL = 3
    """It makes up for a past instant; a run of origin `SPAN` asked for it."""
    SPAN = 4
    """A backfill as a whole. No worker gets it: it ends with the last of its runs."""


class FailureReason(enum.IntEnum):
    """Why an attempt, or a delivery, failed."""

    ERROR = 1
    """The handler raised."""
    TIMEOUT = 2
    """The execution timeout passed."""
    LOST = 3
    """The worker was lost, or its lease was not renewed."""
    UNDELIVERED = 4
    """No worker took it within the dispatch timeout."""


class _Fact(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The base of all facts: encoded as an array with its tag first."""


class Clock(_Fact, frozen=True, tag=1):
    """The facts that follow were decided at `at_ms` (wall-clock milliseconds)."""

    at_ms: int


class TaskNamed(_Fact, frozen=True, tag=2):
    """`task` is the partition's number for the object with this uid; it is armed as `Armed` says."""

    task: int
    uid: str
    namespace: str
    name: str
    schedule: str
    watermark_ms: int


class TaskForgotten(_Fact, frozen=True, tag=3):
    """The object is gone: its number, watermark and history go too. Its open runs were cancelled before."""

    task: int


class Armed(_Fact, frozen=True, tag=4):
    """From now on `task` follows the schedule of this identity (`engine.sources`); instants up to `watermark_ms` are
    settled."""

    task: int
    schedule: str
    watermark_ms: int


class Fired(_Fact, frozen=True, tag=5):
    """The instant `scheduled_ms` fired for `tasks`; the runs are `first_run`, `first_run + 1`, ... in their order.

    A run in mode Single has one dispatch, whose number is the run's.
    """

    scheduled_ms: int
    first_run: int
    tasks: list[int]


class Submitted(_Fact, frozen=True, tag=6):
    """A run asked for by hand or API. `key` is its idempotency key, `parameters` JSON merged over the task's."""

    run: int
    task: int
    scheduled_ms: int
    key: str
    object_name: str = ""
    """The TaskRun object that asked for it, or empty."""
    parameters: bytes = b""


class Skipped(_Fact, frozen=True, tag=7):
    """`count` instants of `task` up to and with `until_ms` made no run."""

    task: int
    until_ms: int
    count: int
    reason: SkipReason


class WorkerNamed(_Fact, frozen=True, tag=8):
    """`worker` is the partition's number for this worker process (a restarted worker gets a new one)."""

    worker: int
    namespace: str
    pool: str
    name: str
    instance: str
    started_ms: int = 0
    """When it began, by its own clock; 0: it does not say."""
    pod_uid: str = ""
    """The pod that its token is bound to; empty: none."""


class Leased(_Fact, frozen=True, tag=9):
    """`worker` got `dispatches`; their fencing tokens are `first_token`, `first_token + 1`, ... in their order."""

    worker: int
    first_token: int
    dispatches: list[int]


class Succeeded(_Fact, frozen=True, tag=10):
    """The attempts with these tokens succeeded, without a result."""

    tokens: list[int]


class SucceededWith(_Fact, frozen=True, tag=11):
    """The attempt succeeded; `result` is JSON."""

    token: int
    result: bytes


class Failed(_Fact, frozen=True, tag=12):
    """The attempt failed. `retry_ms` is the instant of the next delivery; 0 means none: a dead letter."""

    token: int
    reason: FailureReason
    retry_ms: int
    error_type: str = ""
    message: str = ""
    traceback: str = ""


class Returned(_Fact, frozen=True, tag=13):
    """The worker gave these attempts back before it began them (it drains); they are ready again, uncounted."""

    tokens: list[int]


class Cancelled(_Fact, frozen=True, tag=15):
    """The run was cancelled and ends now: it was not open with a worker, or has stopped there (`CancelAsked`), or its
    task is gone; then its open attempts are fenced off."""

    run: int
    message: str = ""


class Requested(_Fact, frozen=True, tag=16):
    """As `Submitted`, and it may start at `ready_ms`: a delayed run, or one that follows another's end."""

    run: int
    task: int
    scheduled_ms: int
    ready_ms: int
    key: str
    """The idempotency key; of one that follows: the id of the run that ended."""
    origin: Origin
    front: bool = False
    """It goes ahead of what waits when its time has come."""
    object_name: str = ""
    parameters: bytes = b""


class BackfillStarted(_Fact, frozen=True, tag=17):
    """`run` stands for the runs of all instants of `task` from `from_ms` until before `to_ms`: `total` of them when it
    was asked for, of which up to `max_parallel` are open at a time."""

    run: int
    task: int
    from_ms: int
    to_ms: int
    max_parallel: int
    total: int
    key: str
    object_name: str = ""
    parameters: bytes = b""


class Backfilled(_Fact, frozen=True, tag=18):
    """The backfill `backfill` has come to `until_ms`: it made the runs `first_run`, `first_run + 1`, ... of these
    instants, and passed over `known` others that an earlier backfill has made."""

    backfill: int
    until_ms: int
    first_run: int
    instants: list[int]
    known: int = 0


class BackfillEnded(_Fact, frozen=True, tag=19):
    """All instants of the backfill have had their runs, and all of these have ended."""

    backfill: int


class CancelAsked(_Fact, frozen=True, tag=20):
    """The run must stop. It ends when the worker that holds it has said that it did, or is lost; what a handler does
    to its very end counts."""

    run: int
    message: str = ""


class Recovered(_Fact, frozen=True, tag=21):
    """What the object's status says of `task`, and this ledger did not know: an earlier one was lost, or restored from
    a backup. Counters and instants are never lower than these from now on."""

    task: int
    settled_ms: int
    """Instants up to this one are settled."""
    last_scheduled_ms: int
    last_ended_ms: int
    succeeded: int
    failed: int
    cancelled: int
    skips: list[tuple[SkipReason, int, int]]
    """By reason: how many instants, and up to which."""
    least_token: int = 0
    """Fencing tokens are this or higher from now on, so that stores which refuse lower ones go on."""


class Undelivered(_Fact, frozen=True, tag=14):
    """No worker took the dispatch within its dispatch timeout. `retry_ms` as in `Failed`."""

    dispatch: int
    retry_ms: int


Fact: TypeAlias = (
    Clock
    | TaskNamed
    | TaskForgotten
    | Armed
    | Fired
    | Submitted
    | Skipped
    | WorkerNamed
    | Leased
    | Succeeded
    | SucceededWith
    | Failed
    | Returned
    | Cancelled
    | Undelivered
    | Requested
    | BackfillStarted
    | Backfilled
    | BackfillEnded
    | CancelAsked
    | Recovered
)
