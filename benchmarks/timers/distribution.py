"""How late things were: the same few figures for every side. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

__all__ = ["Spread"]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A distribution in milliseconds; percentiles are nearest-rank, so each was really measured."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, values_ms: Sequence[float]) -> Spread:
        """Summarise; of no values all figures are not a number."""
        if not values_ms:
            return cls(count=0, p50_ms=math.nan, p99_ms=math.nan, max_ms=math.nan)
        ordered = sorted(values_ms)

        def rank(share: float) -> float:
            return round(ordered[math.ceil(share * len(ordered)) - 1], 3)

        return cls(count=len(ordered), p50_ms=rank(0.5), p99_ms=rank(0.99), max_ms=rank(1.0))

    def to_json(self) -> dict[str, float]:
        """As plain values."""
        return asdict(self)
