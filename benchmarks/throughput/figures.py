"""The figures of one side of the benchmark, as they stand in the JSON file: the same shape for every side.

Made by `peers/drive.py` and `tickwheel_side.py`, read by `run.py`. Standard library only, because the driver of
the peers runs in their environment. Every percentile is the nearest-rank one, so it is a value that was
really measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Latency", "LatencyStage", "Side", "ThroughputStage", "percentile"]


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; `share` is between 0 (exclusive) and 1, as 0.99."""
    if not values:
        raise ValueError("a percentile of no values was asked for: the stage has measured nothing")
    if not 0 < share <= 1:
        raise ValueError(f"share {share} is not allowed: more than 0 and at most 1, for example 0.99")
    return sorted(values)[math.ceil(share * len(values)) - 1]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """A distribution of durations in milliseconds."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, durations_ns: Sequence[int]) -> Latency:
        """Summarise durations given in nanoseconds."""

        def milliseconds(share: float) -> float:
            return round(percentile(durations_ns, share) / 1e6, 3)

        return cls(count=len(durations_ns), p50_ms=milliseconds(0.5), p99_ms=milliseconds(0.99), max_ms=milliseconds(1))


@dataclass(frozen=True, kw_only=True)
class ThroughputStage:
    """As many dispatches as were asked for, as fast as the side can."""

    dispatches: int
    seconds: float
    """From the first submission to the last durable result."""
    per_second: float
    submit_seconds: float
    """From the first submission to the last accepted one."""
    cpu_us_per_dispatch: dict[str, float]
    """Microseconds of processor time, by part (`store`, `workers`, `producers`; for Tickwheel also `operator`)."""
    store_bytes_per_dispatch: dict[str, float]
    """Bytes at the store, by counter: what it received and what it wrote."""


@dataclass(frozen=True, kw_only=True)
class LatencyStage:
    """Dispatches submitted at fixed instants (open loop)."""

    rate: float
    seconds: float
    start: Latency
    """From the call of submit to the handler's first statement."""
    durable: Latency
    """From the call of submit to the instant at which an observer knows that the result is durable."""
    producer_late: Latency
    """How far submissions were behind their instant: a check of the load, not of the side."""
    cpu_us_per_dispatch: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of the benchmark: a peer or Tickwheel."""

    name: str
    versions: dict[str, str]
    settings: dict[str, Any]
    """How it was tuned, so that a reader can judge it."""
    throughput: ThroughputStage
    latency: LatencyStage
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The side as plain values."""
        return asdict(self)
