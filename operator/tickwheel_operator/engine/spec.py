"""What the engine knows of tasks and pools: values that the controllers make from the custom resources.

They are complete and valid: whatever is not is refused before (a `Stalled` condition), so the engine needs no
error path for them. All times are milliseconds.
"""

from __future__ import annotations

import enum

import msgspec

from tickwheel_operator.engine.triggers import Trigger

__all__ = [
    "Backoff",
    "EngineConfig",
    "Guarantee",
    "Misfire",
    "MisfirePolicy",
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


class Misfire(msgspec.Struct, frozen=True, kw_only=True):
    policy: MisfirePolicy = MisfirePolicy.FIRE_ONCE
    starting_deadline_ms: int | None = None
    """An instant that is overdue by more than this never fires; None: no limit."""
    max_catch_up: int = 100
    """How many overdue instants `FIRE_ALL` fires at most; the latest win."""


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


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A ScheduledTask, compiled."""

    uid: str
    namespace: str
    name: str
    generation: int
    created_ms: int
    trigger: Trigger | None
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

    @property
    def schedule(self) -> str:
        """The fingerprint of what decides its instants: a change of it re-arms the task."""
        trigger = "manual" if self.trigger is None else self.trigger.describe()
        return f"suspended {trigger}" if self.suspend else trigger


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
    """Dispatches that wait in one pool; above it schedules skip (counted) and submissions are refused with 429."""
    max_leases_per_pull: int = 500
    max_keys: int = 200_000
    """Idempotency keys that are remembered, the oldest forgotten first."""
    max_detail_bytes: int = 16 * 1024 * 1024
    """Results and error texts of ended runs that are kept, over all tasks. Above it those of the runs that ended first
    are dropped, and what became of the runs stays. Every checkpoint holds them, so more means more writes."""
    max_error_chars: int = 8_000
    """A longer traceback keeps its end."""
