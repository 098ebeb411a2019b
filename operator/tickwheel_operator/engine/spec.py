"""What the engine knows of tasks and pools: values that the controllers make from the custom resources.

They are complete and valid: whatever is not is refused before (a `Stalled` condition), so the engine needs no
error path for them. All times are milliseconds.
"""

from __future__ import annotations

import enum

import msgspec

from tickwheel_operator.engine.sources import ByHand, Source, identity
from tickwheel_operator.engine.triggers import Trigger

__all__ = [
    "Backoff",
    "CalendarUse",
    "EngineConfig",
    "Guarantee",
    "Misfire",
    "MisfirePolicy",
    "Overlap",
    "OverlapPolicy",
    "PoolSpec",
    "RetryPolicy",
    "TaskSpec",
]


class MisfirePolicy(enum.Enum):
    """What becomes of instants that are overdue."""

    SKIP = "Skip"
    FIRE_ONCE = "FireOnce"
    FIRE_ALL = "FireAll"


class Guarantee(enum.Enum):
    """What happens to an attempt whose worker is lost."""

    AT_MOST_ONCE = "AtMostOnce"
    AT_LEAST_ONCE = "AtLeastOnce"


class OverlapPolicy(enum.Enum):
    """What happens when a run is due while others are open."""

    ALLOW = "Allow"
    """It starts too; beyond `max_concurrent` it waits for an end."""
    FORBID = "Forbid"
    """It is skipped."""
    REPLACE = "Replace"
    """The oldest open one is cancelled, and it starts when that has stopped."""
    QUEUE = "Queue"
    """It waits for an end, and `queue_limit` may wait."""


class CalendarUse(msgspec.Struct, frozen=True):
    """A Calendar of the task's namespace that its trigger honours."""

    name: str
    exclude: bool = True
    """False: instants on its dates only."""


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """`spec.concurrency`: how many runs may be open, and what becomes of one more."""

    policy: OverlapPolicy = OverlapPolicy.ALLOW
    max_concurrent: int | None = None
    """None: no limit (`ALLOW` only)."""
    queue_limit: int = 100
    key: str | None = None
    """A JSON pointer into the parameters: runs with an equal value there are counted together, over all tasks of the
    namespace that name the same pointer."""


class Misfire(msgspec.Struct, frozen=True, kw_only=True):
    policy: MisfirePolicy = MisfirePolicy.FIRE_ONCE
    starting_deadline_ms: int | None = None
    """An instant that is overdue by more than this never fires; None: no limit."""
    max_catch_up: int = 100
    """How many overdue instants `FIRE_ALL` fires at most; the latest win."""

    def is_too_late(self, late_ms: int) -> bool:
        """Whether an instant that is overdue by so many milliseconds never fires."""
        return self.starting_deadline_ms is not None and late_ms > self.starting_deadline_ms


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Delay before delivery n + 1 is `min(initial * factor ** (n - 1), max)`, plus up to `jitter` of itself."""

    initial_ms: int = 1_000
    factor: float = 2.0
    """1 for a fixed delay."""
    max_ms: int = 300_000
    jitter: float = 0.0
    """Share of the delay, 0 to 1; deterministic per run and attempt."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    limit: int = 3
    """Deliveries after the first; 0 means that the first failure is final."""
    backoff: Backoff = Backoff()


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A ScheduledTask, compiled."""

    uid: str
    namespace: str
    name: str
    generation: int
    created_ms: int
    source: Source = ByHand()
    """What starts its runs."""
    calendars: tuple[CalendarUse, ...] = ()
    """By name, as the manifest says: `compile_task.bind_calendars` puts their dates into `source`."""
    jitter_ms: int = 0
    """A run of the schedule starts up to so much after its instant, and before the next one; the same run always by the
    same amount."""
    overlap: Overlap = Overlap()
    suspend: bool = False
    pool: str
    handler: str
    parameters: bytes = b"{}"
    """A JSON object."""
    misfire: Misfire = Misfire()
    guarantee: Guarantee = Guarantee.AT_LEAST_ONCE
    dispatch_timeout_ms: int | None = None
    timeout_ms: int | None = None
    grace_ms: int = 10_000
    retry: RetryPolicy = RetryPolicy()
    keep_succeeded: int = 3
    keep_failed: int = 5
    task_metrics: bool = False
    """It has metrics of its own."""

    @property
    def schedule(self) -> str:
        """The identity of its source: a change of it re-arms the task. A suspend does not: what it passed over is
        settled by the misfire policy when the task is resumed."""
        return identity(self.source)

    @property
    def trigger(self) -> Trigger | None:
        """What makes instants of time, its window and calendars included; None: they are not known ahead."""
        return self.source.trigger


class PoolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A WorkerPool, compiled."""

    namespace: str
    name: str
    silence_ms: int = 10_000
    """A worker of which nothing was heard for so long is lost."""


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The limits and intervals of one partition's engine."""

    lease_ms: int = 15_000
    """How long an attempt may run without a renewal. 1,000 to 600,000."""
    misfire_threshold_ms: int = 1_000
    """An instant that is overdue by no more than this is late, not missed: it fires whatever the policy."""
    max_backlog: int = 100_000
    """Runs of one pool that wait: for a worker, for their instant, or for other runs. Above it schedules skip (counted)
    and submissions are refused with 429."""
    max_leases_per_pull: int = 500
    metrics_max_pools: int = 200
    """Pools that metrics tell apart; the others are counted together."""
    metrics_max_tasks: int = 100
    """Tasks with metrics of their own."""
    max_keys: int = 200_000
    """Idempotency keys that are remembered, the oldest forgotten first."""
    max_detail_bytes: int = 16 * 1024 * 1024
    """Results and error texts of ended runs that are kept, over all tasks. Above it those of the runs that ended first
    are dropped, and what became of the runs stays. Every checkpoint holds them, so more means more writes."""
    early_offset_ms: int = 1_000
    """A worker whose clock is further off than this gets no early leases: what else it says of time is as doubtful."""
    early_error_ms: int = 10
    """Nor does one that knows the operator's clock less well than this."""
    max_backfill: int = 1_000_000
    """Instants of one backfill."""
    max_error_chars: int = 8_000
    """A longer traceback keeps its end."""
