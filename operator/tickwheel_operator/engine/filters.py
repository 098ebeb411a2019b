"""Which instants a trigger may have: its window and its calendars, as one immutable value.

`triggers.FilteredTrigger` asks it for every instant, and the engine for the ends of runs that trigger a task. An
answer says how long it stands, so that nobody walks over the instants of an excluded year one by one.
"""

from __future__ import annotations

import msgspec

__all__ = ["Filter"]


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """The instants from `not_before_ms` to `not_after_ms`, both included."""

    not_before_ms: int | None = None
    not_after_ms: int | None = None

    def admits(self, instant_ms: int) -> bool:
        """Whether a run may be due at this instant."""
        if self.not_before_ms is not None and instant_ms < self.not_before_ms:
            return False
        return self.not_after_ms is None or instant_ms <= self.not_after_ms

    def next_admitted(self, instant_ms: int) -> int | None:
        """The first instant at or after `instant_ms` that is admitted; None: there is none."""
        if self.not_before_ms is not None and instant_ms < self.not_before_ms:
            instant_ms = self.not_before_ms
        return instant_ms if self.admits(instant_ms) else None
