"""From what the clock on the wall shows to instants: gaps, repeated hours, and nothing else.

Whoever names local times (a cron expression, a daily interval) is `LocalTimes`; the triggers ask here for the
instants of those in a zone, and the command line for that of a single time. Daylight saving is settled in this module
and nowhere else:

- Fixed times are resolved once each: one that a gap skips, to the first instant after the gap; one that occurs
  twice, to the first time. Local times and instants then grow together.
- Times that follow the clock (a cron whose minute or hour field has a wildcard, or steps over several values) fire at
  every instant that shows one of them, and at no other.

Invariant: `next_after` is strictly increasing, `latest_until` is its exact inverse, and `count` is their number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import tzinfo
from typing import ClassVar, Protocol

from .zones import FIRST_SECOND, LAST_SECOND, timeline_of

DAY_S = 86_400
OVERLAP_S = 2 * DAY_S
"""More than any two offsets of one zone differ by, so more than any gap or overlap lasts."""
_HORIZON_S = 100 * 366 * DAY_S
"""How far a search goes on past candidates that the zone's gaps swallow. The rarest date there is, a
fifth weekday of 29 February, returns within 40 years even around a century that is not a leap year."""


class LocalTimes(Protocol):
    """A set of local times, in units since 1970-01-01 00:00 local."""

    unit_ms: ClassVar[int]
    """Milliseconds of a unit: 1000, or 1."""

    @property
    def follows_clock(self) -> bool:
        """Whether they follow the clock as it really runs, gaps and repeated hours included."""

    def at_or_after(self, local: int) -> int | None:
        """Return the first local time at or after `local`."""

    def at_or_before(self, local: int) -> int | None:
        """Return the last local time at or before `local`."""

    def count_local(self, low: int, high: int) -> int:
        """Return how many local times are in [low, high)."""


def next_after(times: LocalTimes, instant_ms: int, zone: tzinfo) -> int | None:
    """Return the first instant strictly after `instant_ms`, or `None` if there is none.

    `None` also stands for times that follow the clock and every one of which, in the next hundred years, falls into a
    gap.
    """
    unit = times.unit_ms
    scale = 1000 // unit
    at, last = instant_ms // unit, LAST_SECOND * scale
    if at >= last:
        return None
    at = max(at, FIRST_SECOND * scale)
    timeline = timeline_of(zone, unit)
    follows = times.follows_clock
    start, end, offset, before = timeline.span_at(at)
    bound = at + offset + 1
    if not follows and bound < start + before:
        bound = start + before  # the second pass of a repeated hour: fixed times fired in the first
    local = times.at_or_after(bound)
    if local is None:
        return None
    if local >= end + offset:
        overlap, horizon = OVERLAP_S * scale, min(at + _HORIZON_S * scale, last)
        while local >= end + offset:
            probe = end
            # A jump must not pass over the second pass of an hour that repeats at the span's end.
            if not follows or times.at_or_after(end + offset - overlap) == local:
                probe = max(end, local - offset - overlap)
            if probe > horizon:
                return None
            start, end, offset, before = timeline.span_at(probe)
            if follows:
                local = times.at_or_after(probe + offset)
                if local is None:
                    return None
    # A fixed time below the span's start was skipped by the gap before it: the gap's end stands for it.
    return max(start, local - offset) * unit


def latest_until(times: LocalTimes, instant_ms: int, zone: tzinfo) -> int | None:
    """Return the last instant at or before `instant_ms`, or `None` if there is none."""
    unit = times.unit_ms
    scale = 1000 // unit
    at, first = instant_ms // unit, FIRST_SECOND * scale
    if at < first:
        return None
    at = min(at, LAST_SECOND * scale)
    timeline = timeline_of(zone, unit)
    follows = times.follows_clock
    start, _, offset, before = timeline.span_at(at)
    bound = at + offset
    if not follows and bound < start + before:
        bound = start + before - 1  # the second pass of a repeated hour: the whole first pass is over
    local = times.at_or_before(bound)
    if local is None:
        return None
    overlap, horizon = OVERLAP_S * scale, max(at - _HORIZON_S * scale, first)
    while local < start + (offset if follows else before):
        probe = start - 1
        if not follows or times.at_or_before(start + offset + overlap) == local:
            probe = min(probe, local - offset + overlap)
        if probe < horizon:
            return None
        start, _, offset, before = timeline.span_at(probe)
        if follows:
            local = times.at_or_before(probe + offset)
            if local is None:
                return None
    return max(start, local - offset) * unit


def count(times: LocalTimes, after_ms: int, until_ms: int, zone: tzinfo) -> int:
    """Return how many instants are after `after_ms`, up to and including `until_ms`: years cost no more than days."""
    unit = times.unit_ms
    scale = 1000 // unit
    timeline = timeline_of(zone, unit)
    follows = times.follows_clock
    at = max(after_ms // unit, FIRST_SECOND * scale) + 1
    until = min(until_ms // unit, LAST_SECOND * scale)
    total = 0
    while at <= until:
        start, end, offset, before = timeline.span_at(at)
        low = at + offset
        if not follows:
            if low < start + before:
                low = start + before  # a repeated hour counts in its first pass only
            elif at == start and times.at_or_after(start + before) != times.at_or_after(low):
                total += times.at_or_after(low) != low  # all that the gap skipped is one instant, its end
        high = min(until + 1, end) + offset
        if low < high:
            total += times.count_local(low, high)
        at = end
    return total


def iterate(times: LocalTimes, after_ms: int, until_ms: int, zone: tzinfo) -> Iterator[int]:
    """Yield the instants after `after_ms`, up to and including `until_ms`, in order."""
    instant = next_after(times, after_ms, zone)
    while instant is not None and instant <= until_ms:
        yield instant
        instant = next_after(times, instant, zone)


def instant_of_local(local_ms: int, zone: tzinfo) -> int | None:
    """Return the instant of one local time (milliseconds since 1970-01-01 00:00 local), as of a fixed time.

    `None`: it is at the very ends of the years 1 to 9999.
    """
    return next_after(_OneTime(local_ms), local_ms - OVERLAP_S * 1000, zone)


@dataclass(frozen=True, slots=True)
class _OneTime:
    """A single local time."""

    unit_ms: ClassVar[int] = 1
    follows_clock: ClassVar[bool] = False
    local_ms: int

    def at_or_after(self, local: int) -> int | None:
        return self.local_ms if local <= self.local_ms else None

    def at_or_before(self, local: int) -> int | None:
        return self.local_ms if local >= self.local_ms else None

    def count_local(self, low: int, high: int) -> int:
        return int(low <= self.local_ms < high)
