"""The operator's wall clock, as a worker knows it from its exchanges with one leader.

Each answered request brings four instants: sent and got on the worker's monotonic clock, received and answered on the
operator's wall clock. No request arrives before it was sent, and no answer before it left; so each exchange bounds the
offset between the two clocks from both sides. The clock keeps the narrowest bounds of all exchanges, and widens them as
they age, since no two clocks run alike. Its estimate is the middle, and half the width is by how much it may be wrong:
never more than half of the quickest round trip and its age's drift.

`_link` owns one per leader, feeds it, asks it for early leases, and makes it forget when the leader or its epoch
changes. The worker's own wall clock is not looked at, so it may jump. When the operator's jumps, the next exchange
contradicts what is known, and only that exchange counts from then on. Pure: no clock is read here.
"""

from __future__ import annotations

from math import inf

__all__ = ["OperatorClock"]

DRIFT = 50e-6
"""How fast the two clocks may drift apart, seconds a second. Quartz stays within 50 ppm; NTP's own assumption is 15."""


class OperatorClock:
    """The offset of one leader's wall clock from this worker's monotonic clock; both in seconds."""

    __slots__ = ("_at", "_high", "_low")

    def __init__(self) -> None:
        self._low, self._high = -inf, inf
        self._at = 0.0
        """The monotonic instant that the bounds hold for."""

    def exchange(self, *, sent: float, received_us: int, answered_us: int, got: float) -> bool:
        """Learn from an exchange: `sent` and `got` are seconds of the monotonic clock, the others microseconds of the
        operator's wall clock (0: it does not say). Returns whether it fits what was known; else the operator's clock
        jumped, and what was known is forgotten."""
        if not received_us or not answered_us:
            return True
        low = answered_us / 1e6 - got
        high = received_us / 1e6 - sent + DRIFT * (got - sent)
        if low > high:  # it jumped between the two
            self.forget()
            return False
        self._age(got)
        fits = low <= self._high and high >= self._low
        if fits:
            low, high = max(low, self._low), min(high, self._high)
        self._low, self._high, self._at = low, high, got
        return fits

    def forget(self) -> None:
        """Know nothing: another leader, or another epoch of it, may be another machine."""
        self._low, self._high = -inf, inf

    def estimate(self, now: float) -> tuple[float, float] | None:
        """The operator's clock minus the monotonic one, and by how much that may be wrong, at the monotonic instant
        `now`; none before the first exchange."""
        if self._low == -inf:
            return None
        error = (self._high - self._low) / 2 + DRIFT * max(0.0, now - self._at)
        return (self._low + self._high) / 2, error

    def _age(self, now: float) -> None:
        widening = DRIFT * max(0.0, now - self._at)
        self._low -= widening
        self._high += widening
