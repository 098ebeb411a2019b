"""What goes into the engine (commands) and what comes out beside facts (effects).

A command is handled with the current instant: `engine.handle(command, now_ms) -> Output`. Commands come in batches
where work does (a pull asks for many leases, a report names many attempts), so that the cost per dispatch stays low.
An effect is released by the host only when the facts decided before and with it are durable.

`request` in a command is the host's own handle for the one who waits for the answer; the engine only passes it back.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from typing import TypeAlias

import msgspec

from tickwheel_operator.engine.spec import PoolSpec, TaskSpec
from tickwheel_operator.engine.triggers.instants import NO_INSTANT_MS
from tickwheel_operator.ledger.facts import Fact, SkipReason

__all__ = [
    "CancelRun",
    "CatalogSynced",
    "Command",
    "CommandRefused",
    "Delivery",
    "Effect",
    "FailedAttempt",
    "IntakeHeld",
    "LeadSet",
    "Output",
    "PoolApplied",
    "PoolRemoved",
    "Pull",
    "PullEnded",
    "Pulled",
    "RefusalReason",
    "Report",
    "Reported",
    "RunState",
    "StartBackfill",
    "StatusRecord",
    "Submission",
    "Submit",
    "Submitted",
    "SubmittedRun",
    "TaskAbandoned",
    "TaskApplied",
    "TaskRemoved",
    "Tick",
    "WorkerGone",
    "WorkerKey",
    "WorkerSeen",
]


class RunState(enum.StrEnum):
    """The states of a run, as users see them."""

    PENDING = "Pending"
    """Waits for a worker (or for its next delivery)."""
    RUNNING = "Running"
    """A worker holds an attempt."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    """Out of attempts: a dead letter."""
    CANCELLED = "Cancelled"

    @property
    def is_final(self) -> bool:
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


class _Value(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    pass


class WorkerKey(msgspec.Struct, frozen=True, gc=False):
    """A worker's place: one process at a time holds it."""

    namespace: str
    pool: str
    name: str


# --- commands: the catalog ---


class StatusRecord(_Value, frozen=True, kw_only=True):
    """What an object's status says of its task. It is written after the facts, so it never says more than the ledger,
    unless that was lost or restored from a backup."""

    generation: int
    """The generation of the spec that it speaks of."""
    settled_ms: int
    """Instants up to this one made their run, or are counted as skipped."""
    last_scheduled_ms: int = NO_INSTANT_MS
    last_ended_ms: int = 0
    unfinished: bool = False
    """The run of the last instant had not ended."""
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    skips: tuple[tuple[SkipReason, int, int], ...] = ()


class TaskApplied(_Value, frozen=True, kw_only=True):
    """The task exists with this spec (again, after each change of it)."""

    spec: TaskSpec
    record: StatusRecord | None = None
    """None: its status says nothing of earlier runs."""


class TaskRemoved(_Value, frozen=True, kw_only=True):
    """The object is gone, or its spec became invalid (`forget=False`: keep its watermark and history)."""

    uid: str
    forget: bool = True


class TaskAbandoned(_Value, frozen=True, kw_only=True):
    """The engine failed at the task before: its open runs end, before anything else is done with them. Only before
    `CatalogSynced`."""

    uid: str
    why: str


class PoolApplied(_Value, frozen=True, kw_only=True):
    spec: PoolSpec


class PoolRemoved(_Value, frozen=True, kw_only=True):
    namespace: str
    name: str


class CatalogSynced(_Value, frozen=True, kw_only=True):
    """All objects that the watch has told of were applied once: firing may begin. Tasks of the ledger that are not
    among them keep their runs until `TaskApplied` or `TaskRemoved` comes for them."""


# --- commands: time and work ---


class IntakeHeld(_Value, frozen=True, kw_only=True):
    """The store fills up: no new runs until it is said again without a reason. Open runs go on. Submissions are
    refused, and instants wait: what is overdue then is settled as after downtime."""

    reason: str
    """For the one who submits; empty: the intake is open again."""


class LeadSet(_Value, frozen=True, kw_only=True):
    """Runs that are sure to start are made, and leased, so long before their instant: the time that their append
    takes. 0: at their instant."""

    lead_ms: int


class Tick(_Value, frozen=True, kw_only=True):
    """Time has passed: fire what is due, expire what is over. The host sends it when `engine.pause_ms` is over."""


class WorkerSeen(_Value, frozen=True, kw_only=True):
    """Who pulls or reports, and what it can do."""

    key: WorkerKey
    instance: str
    started_ms: int = 0
    """When the process began, by its own clock; 0: it does not say."""
    pod_uid: str = ""
    """The pod that its token is bound to; empty: none."""
    handlers: tuple[str, ...] = ()
    slots: int = 0
    draining: bool = False
    cpu: float = 0.0
    memory: float = 0.0
    labels: dict[str, str] = {}
    clock_offset_us: int = 0
    """Its wall clock minus the operator's, as it estimates."""
    clock_error_us: int | None = None
    """By how much that may be wrong; None: it does not know, and gets no early leases."""
    schemas: str = ""
    """The hash of its handlers' schemas, which the engine only passes on; empty: it has none."""


class Pull(_Value, frozen=True, kw_only=True):
    """A worker asks for up to `free` leases. Answered by `Pulled` as soon as there is one, or at `until_ms`."""

    request: Hashable
    worker: WorkerSeen
    free: int
    received: int = 0
    sequence: int = 0
    """Grows with each pull of the process; 0: it does not count them."""
    until_ms: int = 0


class PullEnded(_Value, frozen=True, kw_only=True):
    """The waiting pull's connection is gone; nothing can be delivered to it any more."""

    request: Hashable


class FailedAttempt(_Value, frozen=True, kw_only=True):
    token: int
    error_type: str
    message: str = ""
    traceback: str = ""
    timeout: bool = False
    permanent: bool = False
    """Another attempt would fail in the same way."""


class Report(_Value, frozen=True, kw_only=True):
    """What became of attempts. Answered by `Reported`."""

    request: Hashable
    worker: WorkerSeen
    succeeded: list[int] = []
    results: list[tuple[int, bytes]] = []
    """Token and JSON result."""
    failed: list[FailedAttempt] = []
    returned: list[int] = []
    renew: list[int] = []
    progress: list[tuple[int, float, str]] = []
    leaving: bool = False

    @property
    def tokens(self) -> list[int]:
        """All attempts that it speaks of as the worker's own."""
        reported = (*(token for token, _ in self.results), *(failed.token for failed in self.failed))
        return [*self.succeeded, *reported, *self.returned, *self.renew]


class WorkerGone(_Value, frozen=True, kw_only=True):
    """A worker process is gone: whatever it holds is lost. What is said of it tells it from the one that has its place
    by now; empty and 0: that is not known."""

    key: WorkerKey
    instance: str = ""
    pod_uid: str = ""
    """It was in this pod."""
    before_ms: int = 0
    """It began before this instant of its node's clock."""


class Submission(_Value, frozen=True, kw_only=True):
    """One run asked for. `key` is its idempotency key (the host draws one where the user gave none)."""

    key: str
    scheduled_ms: int
    parameters: bytes = b""
    """JSON object merged over the task's; empty for none."""
    object_name: str = ""
    """The TaskRun object that asks, or empty."""
    delay_ms: int = 0
    """It starts so long after it was asked for; then that instant is its scheduled one."""
    front: bool = False
    """When the delay is over: ahead of what waits, instead of at the tail."""


class StartBackfill(_Value, frozen=True, kw_only=True):
    """One run for each instant of the task from `from_ms` until before `to_ms`, up to `max_parallel` open at a time.
    Answered by `Submitted` (the run that stands for all of them) or `CommandRefused`."""

    request: Hashable
    namespace: str
    name: str
    key: str
    from_ms: int
    to_ms: int
    max_parallel: int = 10
    parameters: bytes = b""
    object_name: str = ""


class Submit(_Value, frozen=True, kw_only=True):
    """Runs of one task, all or none. Answered by `Submitted` or `CommandRefused`."""

    request: Hashable
    namespace: str
    name: str
    runs: list[Submission]


class CancelRun(_Value, frozen=True, kw_only=True):
    """Cancel the run with this id. Answered by `Submitted` (its state then) or `CommandRefused`."""

    request: Hashable
    run_id: str
    message: str = ""


Command: TypeAlias = (
    TaskApplied
    | TaskRemoved
    | TaskAbandoned
    | PoolApplied
    | PoolRemoved
    | CatalogSynced
    | IntakeHeld
    | Tick
    | Pull
    | PullEnded
    | Report
    | WorkerGone
    | Submit
    | StartBackfill
    | CancelRun
    | LeadSet
)

# --- effects ---


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One lease on its way to a worker."""

    token: int
    run_id: str
    task: TaskSpec
    scheduled_ms: int
    attempt: int
    parameters: bytes
    not_before_ms: int = 0
    """The handler must not begin before; 0: at once."""


class Pulled(_Value, frozen=True, kw_only=True):
    """Answer of a `Pull`; empty when its time is up."""

    request: Hashable
    deliveries: list[Delivery] = []
    cancel: list[int] = []


class Reported(_Value, frozen=True, kw_only=True):
    """Answer of a `Report`: durable, but for the tokens in `fenced`."""

    request: Hashable
    fenced: list[int]
    cancel: list[int]


class SubmittedRun(_Value, frozen=True, kw_only=True):
    run_id: str
    created: bool
    state: RunState


class Submitted(_Value, frozen=True, kw_only=True):
    """Answer of a `Submit`, in its order."""

    request: Hashable
    runs: list[SubmittedRun]


class RefusalReason(enum.Enum):
    NO_SUCH_TASK = "no-such-task"
    NO_SUCH_RUN = "no-such-run"
    BACKLOG_FULL = "backlog-full"
    OVERLAP = "overlap"
    """The concurrency policy does not allow another run now."""
    NOT_POSSIBLE = "not-possible"
    """What was asked for makes no sense for this task; the detail says why. Asking again does not help."""
    KEY_REUSED = "key-reused"
    """The idempotency key stands for another request; the detail says what differs. Asking again does not help."""
    INVALID_PARAMETERS = "invalid-parameters"
    """The handler does not take them; the detail says which, and what it takes."""
    NOT_READY = "not-ready"
    """The catalog is not complete yet: ask again."""


class CommandRefused(_Value, frozen=True, kw_only=True):
    """The command changed nothing."""

    request: Hashable
    reason: RefusalReason
    detail: str


Effect: TypeAlias = Pulled | Reported | Submitted | CommandRefused


class Output(msgspec.Struct):
    """Facts to append, and the effects that wait for them, both in order."""

    facts: list[Fact]
    effects: list[Effect]
