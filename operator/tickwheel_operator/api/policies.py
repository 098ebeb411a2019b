"""The smaller policies of a task: overlap, missed instants, rates, history, alerts.

Invariant: each is a value without behaviour.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tickwheel_operator.api.schema import ListOf, Model, Whole
from tickwheel_operator.api.text import Choice, JsonPointer, ObjectName, PositiveDuration

__all__ = [
    "Alert",
    "AlertEvent",
    "Concurrency",
    "ConcurrencyPolicy",
    "History",
    "Misfire",
    "MisfirePolicy",
    "RateLimit",
]


class ConcurrencyPolicy(Choice):
    """What happens when a run is due while others are open."""

    ALLOW = "Allow"
    FORBID = "Forbid"
    REPLACE = "Replace"
    QUEUE = "Queue"


class Concurrency(Model):
    """What happens when a run is due while earlier ones are still open."""

    policy: ConcurrencyPolicy = ConcurrencyPolicy.ALLOW
    """Allow: it starts too. Forbid: it is skipped. Replace: the oldest open run is cancelled. Queue: it waits."""
    max_concurrent: Annotated[Whole, Field(ge=1, le=100_000)] | None = None
    """How many runs may be open before the policy acts. Default: no limit for Allow, 1 for the others."""
    queue_limit: Annotated[Whole, Field(ge=1, le=100_000)] = 100
    """Queue only: how many may wait; one more is skipped."""
    key: JsonPointer | None = None
    """Count runs with an equal value at this JSON pointer into the parameters, over all tasks of the namespace."""


class MisfirePolicy(Choice):
    """What becomes of instants that are overdue."""

    SKIP = "Skip"
    FIRE_ONCE = "FireOnce"
    FIRE_ALL = "FireAll"


class Misfire(Model):
    """What becomes of instants that passed while nobody could fire them."""

    policy: MisfirePolicy = MisfirePolicy.FIRE_ONCE
    """Skip: they are dropped. FireOnce: one run stands for all of them. FireAll: each gets its run."""
    starting_deadline: PositiveDuration | None = None
    """An instant that is overdue by more than this never fires. Default: no limit."""
    max_catch_up: Annotated[Whole, Field(ge=1, le=10_000)] = 100
    """FireAll only: the most overdue instants that fire, 1 to 10000; the latest win."""


class RateLimit(Model):
    """A token bucket."""

    limit: Annotated[Whole, Field(ge=1, le=1_000_000)]
    """Dispatches per period."""
    period: PositiveDuration = PositiveDuration("1s")
    """The period that `limit` counts in."""
    burst: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = None
    """How many may go at once after a pause. Default: `limit`."""


class History(Model):
    """How much of ended runs is kept."""

    succeeded: Annotated[Whole, Field(ge=0, le=10)] = 3
    """TaskRun objects of succeeded runs that are kept, 0 to 10."""
    failed: Annotated[Whole, Field(ge=0, le=20)] = 5
    """TaskRun objects of failed and cancelled runs that are kept, 0 to 20."""
    retention: PositiveDuration = PositiveDuration("7d")
    """How long an ended run is kept at most."""


class AlertEvent(Choice):
    """What an alert tells of."""

    FAILED = "Failed"
    RECOVERED = "Recovered"
    TIMED_OUT = "TimedOut"
    DEAD_LETTERED = "DeadLettered"
    MISSED = "Missed"


class Alert(Model):
    """Who is told of what."""

    channel: ObjectName
    """An AlertChannel of the same namespace."""
    events: Annotated[tuple[AlertEvent, ...], ListOf(least=1, most=5, unique=True)] = (
        AlertEvent.FAILED,
        AlertEvent.RECOVERED,
    )
    """Failed, Recovered (the first success after a failure), TimedOut, DeadLettered, Missed (an instant never
    fired)."""
