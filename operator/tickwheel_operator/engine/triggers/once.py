"""Triggers that fire once."""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from .instants import timestamp

__all__ = ["OnceTrigger"]


class OnceTrigger(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="once"):
    """One instant."""

    at_ms: int

    def next_after(self, instant_ms: int) -> int | None:
        return self.at_ms if self.at_ms > instant_ms else None

    def last_at_or_before(self, instant_ms: int, after_ms: int) -> int | None:
        return self.at_ms if after_ms < self.at_ms <= instant_ms else None

    def count_between(self, after_ms: int, until_ms: int, limit: int) -> int:
        return min(limit, int(after_ms < self.at_ms <= until_ms))

    def key(self) -> Hashable:
        return self

    def normal(self) -> OnceTrigger:
        return self

    def describe(self) -> str:
        return f"once at {timestamp(self.at_ms)}"
