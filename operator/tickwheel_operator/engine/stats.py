"""Counters and histograms of one engine, plain enough for the hot path; `projection.metrics` exports them.

They describe what this leader did and start at zero with it. They are no facts and nothing is decided by them.
"""

from __future__ import annotations

from bisect import bisect_left

from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.ledger.facts import FailureReason, SkipReason

__all__ = ["LATENCY_BUCKETS_MS", "Histogram", "Stats"]

LATENCY_BUCKETS_MS = (
    1,
    2,
    3,
    5,
    8,
    12,
    20,
    35,
    60,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    15_000,
    60_000,
    600_000,
)
"""Upper bounds; observations are whole milliseconds."""


class Histogram:
    """Counts per bucket, the last one being for all above."""

    __slots__ = ("counts", "total_ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BUCKETS_MS) + 1)
        self.total_ms = 0

    def observe(self, value_ms: int, times: int = 1) -> None:
        self.counts[bisect_left(LATENCY_BUCKETS_MS, value_ms)] += times
        self.total_ms += value_ms * times

    @property
    def count(self) -> int:
        return sum(self.counts)


class Stats:
    """What one engine has done since it began to lead."""

    def __init__(self) -> None:
        self.lateness = Histogram()
        """Fire instant minus scheduled instant, of each run that the schedule made."""
        self.dispatch_latency = Histogram()
        """Of each lease: from the instant at which its dispatch was ready (made, or its backoff over)."""
        self.attempt_duration = Histogram()
        """From lease to the worker's report."""
        self.runs_created = 0
        self.runs_ended: dict[RunState, int] = {}
        self.attempts_failed = dict.fromkeys(FailureReason, 0)
        self.instants_skipped = dict.fromkeys(SkipReason, 0)
        self.leases = 0
        self.early_leases = 0
        """Of these, before their instant."""
        self.fenced = 0
        """Reports of attempts that were not open any more."""

    def fired(self, lateness_ms: int, count: int) -> None:
        self.lateness.observe(max(0, lateness_ms), count)
        self.runs_created += count

    def skipped(self, reason: SkipReason, count: int) -> None:
        self.instants_skipped[reason] += count
