"""Triggers that fire every period, without drift."""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from .instants import LAST_MS, timestamp
from .spelling import spell_duration

__all__ = ["FixedRateTrigger"]


class FixedRateTrigger(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="fixedRate"):
    """An instant every period: at the anchor, a period after it, and so on without drift."""

    period_ms: int
    """Milliseconds, 1 or more. (Users may ask for 10 ms and more; the resource's schema says so.)"""
    anchor_ms: int
    """The first instant."""

    def __post_init__(self) -> None:
        if self.period_ms < 1:
            raise ValueError(
                f"period_ms is {self.period_ms}; a period is 1 ms or more, for example 500 for half a second"
            )

    def next_after(self, instant_ms: int) -> int | None:
        following = self.anchor_ms + self._begun_until(instant_ms) * self.period_ms
        return following if following <= LAST_MS else None

    def last_at_or_before(self, instant_ms: int, after_ms: int) -> int | None:
        latest = self.anchor_ms + (self._begun_until(instant_ms) - 1) * self.period_ms
        return latest if latest >= self.anchor_ms and latest > after_ms else None

    def count_between(self, after_ms: int, until_ms: int, limit: int) -> int:
        return max(0, min(limit, self._begun_until(until_ms) - self._begun_until(after_ms)))

    def key(self) -> Hashable:
        return self  # no tuple beside it: there may be a million

    def normal(self) -> FixedRateTrigger:
        return self

    def describe(self) -> str:
        return f"every {spell_duration(self.period_ms)} from {timestamp(self.anchor_ms)}"

    def _begun_until(self, instant_ms: int) -> int:
        """Return how many instants there are at or before `instant_ms`."""
        return max(0, (min(instant_ms, LAST_MS) - self.anchor_ms) // self.period_ms + 1)
